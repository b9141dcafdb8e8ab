//! The contract only grows: whoever has a client made from the last release's goes on
//! with it. `tests/release/descriptors.binpb` is that contract, as protoc gives it
//! (`--descriptor_set_out`); a release puts its own there.
//!
//! What may not change is what buf calls a break of the wire, of JSON or of the sources
//! (<https://buf.build/docs/breaking/rules>), as far as a proto3 file without extensions
//! can break them.

use std::collections::BTreeMap;

use chat_service::proto;
use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, ServiceDescriptorProto,
};

const RELEASED: &[u8] = include_bytes!("release/descriptors.binpb");

/// What is said of each element, by its full name.
type Contract = BTreeMap<String, String>;

fn contract(encoded: &[u8]) -> Contract {
    let set = FileDescriptorSet::decode(encoded).unwrap();
    let mut said = Contract::new();
    let is_ours = |file: &&FileDescriptorProto| file.package() == "chat_v1";
    for file in set.file.iter().filter(is_ours) {
        let options = file.options.as_ref();
        let go = options.map_or("", |options| options.go_package());
        said.insert(file.name().into(), format!("{} {go}", file.syntax()));
        for message in &file.message_type {
            tell_message("chat_v1", message, &mut said);
        }
        for one in &file.enum_type {
            tell_enum("chat_v1", one, &mut said);
        }
        for service in &file.service {
            tell_service(service, &mut said);
        }
    }
    said
}

fn tell_message(within: &str, message: &DescriptorProto, said: &mut Contract) {
    let name = format!("{within}.{}", message.name());
    said.insert(name.clone(), "message".into());
    for field in &message.field {
        said.insert(
            format!("{name} = {}", field.number()),
            tell_field(message, field),
        );
    }
    for nested in &message.nested_type {
        tell_message(&name, nested, said);
    }
    for one in &message.enum_type {
        tell_enum(&name, one, said);
    }
}

fn tell_field(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let oneof = field
        .oneof_index
        .and_then(|at| message.oneof_decl.get(at as usize));
    format!(
        "{} {} {:?} {:?} {} in {:?}, optional: {}",
        field.name(),
        field.json_name(),
        field.r#type(),
        field.label(),
        field.type_name(),
        oneof.map(|oneof| oneof.name()),
        field.proto3_optional(),
    )
}

fn tell_enum(within: &str, one: &EnumDescriptorProto, said: &mut Contract) {
    let name = format!("{within}.{}", one.name());
    said.insert(name.clone(), "enum".into());
    for value in &one.value {
        said.insert(format!("{name} = {}", value.number()), value.name().into());
    }
}

fn tell_service(service: &ServiceDescriptorProto, said: &mut Contract) {
    for method in &service.method {
        let streams = (method.client_streaming(), method.server_streaming());
        said.insert(
            format!("{}/{}", service.name(), method.name()),
            format!(
                "{} -> {} {streams:?}",
                method.input_type(),
                method.output_type()
            ),
        );
    }
}

/// What the one says that the other does not say, or says otherwise.
fn broken(released: &Contract, now: &Contract) -> Vec<String> {
    let is_broken = |(name, said): &(&String, &String)| now.get(*name) != Some(*said);
    let broken = released.iter().filter(is_broken);
    broken
        .map(|(name, said)| format!("{name}: {said}"))
        .collect()
}

#[test]
fn the_contract_only_grows() {
    let (released, now) = (contract(RELEASED), contract(proto::DESCRIPTORS));
    assert!(released.len() > 60, "{released:?}");
    assert_eq!(broken(&released, &now), [""; 0]);
    // And this would be seen.
    for name in released.keys() {
        let mut other = now.clone();
        other.insert(name.clone(), "otherwise".into());
        assert_eq!(broken(&released, &other).len(), 1, "{name}");
        other.remove(name);
        assert_eq!(broken(&released, &other).len(), 1, "{name}");
    }
}
