//! A headless Chromium, driven over its DevTools pipe.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::Mutex,
};

use crate::server::{PATIENCE, soon};

/// The browser reads its commands from descriptor 3 and answers on 4.
const START: &str = "exec chromium \"$@\" 3<&0 4>&1 0</dev/null 1>&2 2>/dev/null";

const ALT: i32 = 1;

pub struct Browser {
    pipe: Mutex<Pipe>,
    _child: Child,
    _profile: TempDir,
}

struct Pipe {
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    last: u64,
}

/// One user's window: what it stores is its own.
pub struct Page<'a> {
    browser: &'a Browser,
    session: String,
}

impl Browser {
    pub fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut child = Command::new("bash")
            .args(["-c", START, "chromium", "--headless", "--no-sandbox"])
            .args(["--remote-debugging-pipe", "--disable-gpu", "--no-first-run"])
            .args(["--disable-dev-shm-usage", "--disable-sync"])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
            ])
            .args([
                "--disable-background-timer-throttling",
                "--disable-renderer-backgrounding",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let pipe = Pipe {
            commands: child.stdin.take().unwrap(),
            answers: BufReader::new(child.stdout.take().unwrap()),
            last: 0,
        };
        Self {
            pipe: Mutex::new(pipe),
            _child: child,
            _profile: profile,
        }
    }

    pub async fn open(&self, url: &str) -> Page<'_> {
        let context = self.ask("", "Target.createBrowserContext", json!({})).await;
        let target = json!({
            "url": url, "browserContextId": context["browserContextId"], "newWindow": true,
            "width": 1100, "height": 1000
        });
        let target = self.ask("", "Target.createTarget", target).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = self.ask("", "Target.attachToTarget", attach).await;
        let session = session["sessionId"].as_str().unwrap().to_owned();
        let page = Page {
            browser: self,
            session,
        };
        page.look(1100, 900, false).await;
        page
    }

    async fn ask(&self, session: &str, method: &str, params: Value) -> Value {
        let mut pipe = self.pipe.lock().await;
        pipe.last += 1;
        let id = pipe.last;
        let mut command = json!({ "id": id, "method": method, "params": params });
        if !session.is_empty() {
            command["sessionId"] = session.into();
        }
        let mut bytes = command.to_string().into_bytes();
        bytes.push(0);
        pipe.commands.write_all(&bytes).await.unwrap();
        loop {
            let mut bytes = Vec::new();
            soon(
                "the browser's answer",
                pipe.answers.read_until(0, &mut bytes),
            )
            .await
            .unwrap();
            assert_eq!(bytes.pop(), Some(0), "the browser has ended");
            let mut answer: Value = serde_json::from_slice(&bytes).unwrap();
            if answer["id"] == id {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].take();
            }
        }
    }
}

impl Page<'_> {
    async fn ask(&self, method: &str, params: Value) -> Value {
        self.browser.ask(&self.session, method, params).await
    }

    /// The value of an expression; a promise is awaited.
    pub async fn eval(&self, expression: &str) -> Value {
        let params = json!({
            "expression": expression, "returnByValue": true, "awaitPromise": true
        });
        let mut answer = self.ask("Runtime.evaluate", params).await;
        assert!(
            answer["exceptionDetails"].is_null(),
            "{expression}: {answer}"
        );
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true.
    pub async fn until(&self, expression: &str) {
        let start = Instant::now();
        while self.eval(&format!("Boolean({expression})")).await != true {
            if start.elapsed() > PATIENCE {
                let text = self.eval("document.body.innerText").await;
                panic!("{expression}\n{}", text.as_str().unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Types a text where the focus is.
    pub async fn insert(&self, text: &str) {
        self.ask("Input.insertText", json!({ "text": text })).await;
    }

    pub async fn enter(&self) {
        self.press("Enter", 13, 0, "\r").await;
    }

    pub async fn alt(&self, key: &str, code: i32) {
        self.press(key, code, ALT, "").await;
    }

    async fn press(&self, code: &str, number: i32, modifiers: i32, text: &str) {
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let key = code.trim_start_matches("Key").to_owned();
            let params = json!({
                "type": kind, "key": key, "code": code, "text": text,
                "windowsVirtualKeyCode": number, "modifiers": modifiers
            });
            self.ask("Input.dispatchKeyEvent", params).await;
        }
    }

    /// Waits for an element, and presses it.
    pub async fn click(&self, selector: &str) {
        let element = format!("document.querySelector({})", json!(selector));
        self.until(&element).await;
        self.eval(&format!("{element}.click()")).await;
    }

    /// The size of the window, and its colours.
    pub async fn look(&self, width: u32, height: u32, dark: bool) {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600
        });
        self.ask("Emulation.setDeviceMetricsOverride", size).await;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.ask(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        )
        .await;
    }

    /// Leaves out what is behind the page.
    pub async fn transparent(&self) {
        let colour = json!({ "color": { "r": 0, "g": 0, "b": 0, "a": 0 } });
        self.ask("Emulation.setDefaultBackgroundColorOverride", colour)
            .await;
    }

    pub async fn shot(&self, path: &Path) {
        let shot = self.ask("Page.captureScreenshot", json!({})).await;
        let bytes = STANDARD.decode(shot["data"].as_str().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}
