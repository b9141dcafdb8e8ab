use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use prost::Message as _;
use prost_types::{
    FileDescriptorSet,
    compiler::{CodeGeneratorRequest, CodeGeneratorResponse},
};

use super::sources;
use crate::Result;

pub fn is_there() -> bool {
    let mut go = Command::new("go");
    let version = go.arg("version").stdout(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// Generates the code of the contract and builds the server, beside this
/// program.
pub fn build() -> Result<PathBuf> {
    let folder = sources().join("baseline/go");
    for plugin in ["protoc-gen-go", "protoc-gen-go-grpc"] {
        generate(&folder, plugin)?;
    }
    let server = std::env::current_exe()?.with_file_name("baseline-go");
    let mut go = Command::new("go");
    go.args(["build", "-o"]).arg(&server).arg(".");
    if !go.current_dir(&folder).status()?.success() {
        return Err("the usual server in Go can't be built".into());
    }
    Ok(server)
}

/// What protoc would have asked its plugin for; ours has compiled the contract
/// without it.
fn generate(folder: &Path, plugin: &str) -> Result<()> {
    let descriptors = FileDescriptorSet::decode(chat_service::proto::DESCRIPTORS)?;
    let request = CodeGeneratorRequest {
        file_to_generate: vec!["chat_v1/chat.proto".into()],
        // The package's path begins with the module's, which is the folder.
        parameter: Some("module=github.com/chat-service".into()),
        proto_file: descriptors.file,
        compiler_version: None,
    };
    let mut child = Command::new("go")
        .args(["tool", plugin])
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().ok_or("no input")?;
    input.write_all(&request.encode_to_vec())?;
    drop(input);
    let output = child.wait_with_output()?;
    let response = CodeGeneratorResponse::decode(&*output.stdout)?;
    if !output.status.success() || response.error.is_some() {
        return Err(format!("{plugin}: {} {}", output.status, response.error()).into());
    }
    for file in response.file {
        let path = folder.join(file.name());
        fs::create_dir_all(path.parent().ok_or("no folder")?)?;
        fs::write(path, file.content())?;
    }
    Ok(())
}
