//! Compiles `proto/` with protox, a protobuf compiler in Rust: no `protoc` is
//! needed on the machine that builds.

use std::{env, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let chat = "chat_v1/chat.proto";
    let peers = ["access_v1/access.proto", "auth_v1/auth.proto"];

    // Server reflection serves this descriptor set as it is: what the chat port
    // answers, and not what it asks others.
    let served = protox::compile([chat], ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(
        out.join("descriptors.bin"),
        protox::prost::Message::encode_to_vec(&served),
    )?;

    let nodes = "cluster_v1/cluster.proto";
    let files = protox::compile([chat, peers[0], peers[1], nodes], ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".cluster_v1")
        .compile_fds(files)?;
    Ok(())
}
