//! The Dockerfile's steps, taken by hand in clean folders: no container engine
//! is needed, nor used. With `IMAGE_BUILD` the release binary is really built
//! (`make image`); without it the tested one takes its place.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader},
    os::unix::{fs::PermissionsExt as _, fs::symlink, process::CommandExt as _},
    process::Stdio,
};

use parse_dockerfile::{Command as Line, HealthcheckArguments, Instruction, Source, Stage, parse};

use super::*;
use crate::pg::{kill, run};

/// A stage on its way: its folder takes the place of `/`.
#[derive(Default)]
struct Built {
    folder: PathBuf,
    workdir: String,
    env: Vec<(String, String)>,
    user: Option<u32>,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    health: Vec<String>,
    exposed: Vec<String>,
}

impl Built {
    /// A path of the image: as it is, or from the working folder.
    fn at(&self, path: &str) -> PathBuf {
        let from = if path.starts_with('/') {
            ""
        } else {
            &self.workdir
        };
        let inside = Path::new(from).join(path);
        self.folder
            .join(inside.strip_prefix("/").unwrap_or(&inside))
    }

    /// A program of the image, with its environment and as its user.
    fn command(&self, line: &[String]) -> Command {
        let mut command = Command::new(self.at("/usr/local/bin").join(&line[0]));
        command
            .args(&line[1..])
            .env_clear()
            .current_dir(self.at("."));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(user) = self.user.filter(|_| is_root()) {
            command.uid(user).gid(user);
        }
        command
    }
}

fn is_root() -> bool {
    // SAFETY: a system call without arguments that cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn words(line: &Line<'_>) -> Vec<String> {
    match line {
        Line::Exec(words) => words
            .value
            .iter()
            .map(|word| word.value.to_string())
            .collect(),
        other => panic!("there is no shell in the image: {other:?}"),
    }
}

/// What `COPY . .` copies: all that `.dockerignore` does not name.
fn copy_context(to: &Path) {
    let ignored = read(".dockerignore");
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(root()).unwrap() {
        let entry = entry.unwrap();
        if !ignored.lines().any(|line| entry.file_name() == line) {
            run(Command::new("cp").arg("-a").arg(entry.path()).arg(to));
        }
    }
}

/// The step that takes minutes.
fn cargo_build(line: &str, folder: &Path) {
    // What cargo reads is all in the context.
    let mut metadata = Command::new(env!("CARGO"));
    metadata.args([
        "metadata",
        "--no-deps",
        "--offline",
        "--locked",
        "--format-version=1",
    ]);
    run(metadata.current_dir(folder));
    assert!(!folder.join("target").exists() && !folder.join(".git").exists());
    if std::env::var_os("IMAGE_BUILD").is_some() {
        // Not all of it again.
        symlink(root().join("target"), folder.join("target")).unwrap();
        run(Command::new("sh").args(["-euc", line]).current_dir(folder));
    } else {
        assert!(
            line.contains("--release") && line.contains("--bin chatd"),
            "{line}"
        );
        fs::create_dir_all(folder.join("target/release")).unwrap();
        fs::copy(BINARY, folder.join("target/release/chatd")).unwrap();
    }
}

fn copy(
    stages: &HashMap<String, Built>,
    built: &Built,
    copy: &parse_dockerfile::CopyInstruction<'_>,
) {
    let flag = |name: &str| {
        let flag = copy.options.iter().find(|flag| flag.name.value == name)?;
        flag.value.as_ref().map(|value| value.value.to_string())
    };
    let to = built.at(&copy.dest.value);
    let [Source::Path(source)] = &copy.src[..] else {
        panic!("one source at a time: {copy:?}");
    };
    let Some(from) = flag("from") else {
        assert_eq!(source.value, ".");
        return copy_context(&to);
    };
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    run(Command::new("cp")
        .arg("-a")
        .arg(stages[&from].at(&source.value))
        .arg(&to));
    if let Some(owner) = flag("chown").filter(|_| is_root()) {
        run(Command::new("chown").arg("-R").arg(owner).arg(&to));
    }
}

fn build(stage: &Stage<'_, '_>, folder: PathBuf, stages: &HashMap<String, Built>) -> Built {
    fs::create_dir_all(&folder).unwrap();
    let mut built = Built {
        folder,
        workdir: "/".into(),
        ..Built::default()
    };
    for instruction in stage.instructions {
        match instruction {
            Instruction::Workdir(workdir) => {
                built.workdir = workdir.arguments.value.to_string();
                fs::create_dir_all(built.at(".")).unwrap();
            }
            Instruction::Copy(files) => copy(stages, &built, files),
            Instruction::Run(line) => match &line.arguments {
                Line::Shell(line) if line.value.starts_with("cargo build") => {
                    cargo_build(line.value, &built.at("."));
                }
                Line::Shell(line) => {
                    run(Command::new("sh")
                        .args(["-euc", line.value])
                        .current_dir(built.at(".")));
                }
                other => panic!("{other:?}"),
            },
            Instruction::Env(env) => {
                let pairs = env.arguments.value.split_whitespace();
                let pairs = pairs.map(|pair| pair.split_once('=').unwrap());
                built.env.extend(pairs.map(|(n, v)| (n.into(), v.into())));
            }
            Instruction::User(user) => {
                let id = user.arguments.value.split(':').next().unwrap();
                built.user = Some(id.parse().unwrap());
            }
            Instruction::Expose(ports) => {
                let ports = ports.arguments.iter().map(|port| port.value.to_string());
                built.exposed.extend(ports);
            }
            Instruction::Healthcheck(check) => match &check.arguments {
                HealthcheckArguments::Cmd { arguments, .. } => built.health = words(arguments),
                other => panic!("{other:?}"),
            },
            Instruction::Entrypoint(line) => built.entrypoint = words(&line.arguments),
            Instruction::Cmd(line) => built.cmd = words(&line.arguments),
            Instruction::Volume(_) => {}
            other => panic!("a step that this test does not take: {other:?}"),
        }
    }
    built
}

#[test]
fn the_images_steps_make_a_server_that_answers_its_health_check() {
    let (_folder, path) = temp();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let text = read("Dockerfile");
    let dockerfile = parse(&text).unwrap();
    let mut stages: HashMap<String, Built> = HashMap::new();
    for stage in dockerfile.stages() {
        let name = stage.from.as_.as_ref();
        let name = name.map_or("image", |(_, name)| &*name.value).to_owned();
        let built = build(&stage, path.join(&name), &stages);
        stages.insert(name, built);
    }
    let mut image = stages.remove("image").unwrap();
    let program = image.at("/usr/local/bin/chatd");
    println!(
        "chatd in the image: {} bytes",
        fs::metadata(&program).unwrap().len()
    );
    assert!(image.user.is_some_and(|user| user > 0), "runs as root");
    let serve = Help::of("serve");
    assert_eq!(
        image.exposed,
        [serve.default("grpc-port"), serve.default("http-port")]
    );
    let known = serve.variables();
    assert!(
        image
            .env
            .iter()
            .all(|(name, _)| known.contains(name.as_str()))
    );
    Help::check_line(
        &image.health[1..]
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>(),
    );

    // As it is, it lets nobody in whom nobody has checked.
    let line = [&image.entrypoint[..], &image.cmd].concat();
    let refused = image.command(&line).output().unwrap();
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(
        (refused.status.code(), why.contains("--auth")),
        (Some(2), true),
        "{why}"
    );

    image
        .env
        .push(("ACCESS_CLIENT_HOST".into(), "127.0.0.1".into()));
    image.env.push(("GRPC_PORT".into(), "0".into()));
    let mut child = image.command(&line).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(
        lines
            .next()
            .unwrap()
            .unwrap()
            .starts_with("listening on 0.0.0.0:")
    );
    let http = lines.next().unwrap().unwrap();
    let port = http.rsplit(':').next().unwrap();
    image.env.push(("HTTP_PORT".into(), port.into()));
    let healthy = image.command(&image.health).output().unwrap();
    let ready = [&image.health[..], &["--ready".into()]].concat();
    let ready = image.command(&ready).output().unwrap();
    kill("-TERM", child.id());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(
        healthy.status.success() && ready.status.success(),
        "{healthy:?} {ready:?}"
    );
    let gone = image.command(&image.health).output().unwrap();
    assert_eq!(gone.status.code(), Some(1), "{gone:?}");
    // In the volume, as the image's user.
    assert!(text.contains("VOLUME /data") && image.at("/data/chat.db").is_file());
}
