//! What tools learn of the contract from the server itself.

use prost::Message as _;
use prost_types::FileDescriptorProto;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::{
    hostile::cheap::reflect,
    server::{Server, soon},
};

/// Without the types of an error's details a tool shows them in base64.
#[tokio::test]
async fn reflection_knows_the_calls_and_what_errors_carry() {
    let server = Server::start(&[]).await;
    for (symbol, file) in [
        ("chat_v1.ChatV1", "chat_v1/chat.proto"),
        ("grpc.health.v1.Health", "health.proto"),
        ("google.rpc.ErrorInfo", "error_details.proto"),
        ("google.rpc.RetryInfo", "error_details.proto"),
        ("google.rpc.Status", "status.proto"),
    ] {
        let asked = reflect(server.connect().await, symbol);
        let reflected = soon("reflection", asked).await.unwrap();
        let Some(MessageResponse::FileDescriptorResponse(found)) = reflected.first else {
            panic!("{symbol}: {reflected:?}");
        };
        let files = found.file_descriptor_proto.iter();
        let names = files.map(|file| FileDescriptorProto::decode(&file[..]).unwrap().name);
        let names: Vec<_> = names.flatten().collect();
        assert!(names.iter().any(|name| name == file), "{symbol}: {names:?}");
    }
}
