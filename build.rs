//! Compiles `proto/` with protox, a protobuf compiler in Rust: no `protoc` is
//! needed on the machine that builds.

use std::{env, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["proto/chat_v1/chat.proto"], ["proto"])?;

    // Server reflection serves this descriptor set as it is.
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(
        out.join("descriptors.bin"),
        protox::prost::Message::encode_to_vec(&files),
    )?;

    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
