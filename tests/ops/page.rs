use std::path::Path;

use tokio::{process::Command, task::JoinSet};

use super::*;

/// A real browser at the page; what it leaves on standard output.
async fn chromium(folder: &Path, args: &[&str], url: &str) -> String {
    let profile = folder.join("profile");
    let browser = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu"])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
        ])
        .args([
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg("--virtual-time-budget=4000")
        .args(args)
        .arg(url)
        .current_dir(folder)
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(90), browser).await;
    let output = output
        .expect("the browser ends")
        .expect("chromium is installed");
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// The number of points of a plotted line, and its largest value.
fn plotted(dom: &str, series: &str) -> (f64, f64) {
    let mark = format!("data-series=\"{series}\"");
    let path = dom.split("<path").find(|path| path.contains(&mark));
    let path = path.unwrap_or_else(|| panic!("{series} is not plotted:\n{dom}"));
    let number = |name: &str| {
        let value = path.split(&format!("{name}=\"")).nth(1).unwrap();
        value.split('"').next().unwrap().parse().unwrap()
    };
    (number("data-points"), number("data-max"))
}

#[tokio::test]
async fn the_page_plots_a_load() {
    let app = server(&[]).await;
    let mut client = client(&app).await;
    let chat = create(&mut client).await;
    let mut reader = read(&mut client, "bob", chat).await;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { while let Ok(Some(_)) = reader.message().await {} });
    let mut sender = client.clone();
    tasks.spawn(async move {
        loop {
            let send = by("alice", text(chat, "hi"));
            sender.send_message(send).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("http://{}/", app.http_address().unwrap());
    let dom = chromium(folder.path(), &["--dump-dom"], &url).await;
    for series in [
        "messages",
        "deliveries",
        "commit_p50",
        "commit_p99",
        "call_p50",
        "call_p99",
        "lane_depth",
        "batch",
        "readers",
        "lag_p99",
    ] {
        let (points, most) = plotted(&dom, series);
        assert!(points >= 3.0, "{series}: {points} points");
        assert!(most > 0.0 || series == "lane_depth", "{series} is flat");
    }
    assert!(dom.contains(">ready<"), "{dom}");

    // As a phone sees it; kept where the one who changed the page can look.
    let shot = folder.path().join("phone.png");
    let args = ["--window-size=500,900", "--screenshot=phone.png"];
    chromium(folder.path(), &args, &url).await;
    assert!(std::fs::metadata(&shot).unwrap().len() > 10_000);
    std::fs::copy(shot, concat!(env!("CARGO_TARGET_TMPDIR"), "/page.png")).unwrap();

    tasks.shutdown().await;
    drop(client);
    app.drain(PATIENCE).await;
}
