//! Reflection: whatever a node serves, a program that knows none of it can find out whole.

use std::collections::BTreeSet;

use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};
use tonic::transport::Channel;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use watchdog::api::access::ACCESS;
use watchdog::proto::DESCRIPTORS;

use crate::standin::leader;

async fn ask(client: &mut ServerReflectionClient<Channel>, request: MessageRequest) -> MessageResponse {
    let ask = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let mut answers = client.server_reflection_info(tokio_stream::iter([ask])).await.unwrap().into_inner();
    answers.message().await.unwrap().unwrap().message_response.unwrap()
}

fn files(answer: MessageResponse) -> Vec<FileDescriptorProto> {
    let MessageResponse::FileDescriptorResponse(found) = answer else { panic!("{answer:?}") };
    found.file_descriptor_proto.iter().map(|bytes| FileDescriptorProto::decode(&bytes[..]).unwrap()).collect()
}

/// Every message, the ones within it too.
fn messages(within: &str, all: &[DescriptorProto], into: &mut Vec<String>) {
    for message in all {
        let name = format!("{within}.{}", message.name());
        messages(&name, &message.nested_type, into);
        into.push(name);
    }
}

#[tokio::test]
async fn what_is_served_is_described_whole() {
    let (_log, _node, served) = leader().await;
    let channel = Channel::from_shared(format!("http://{}", served.address)).unwrap();
    let mut client = ServerReflectionClient::new(channel.connect().await.unwrap());

    let MessageResponse::ListServicesResponse(listed) =
        ask(&mut client, MessageRequest::ListServices(String::new())).await
    else {
        panic!("no list")
    };
    let listed: BTreeSet<String> = listed.service.into_iter().map(|service| service.name).collect();
    let methods: BTreeSet<(&str, &str)> =
        ACCESS.iter().map(|row| row.path.trim_start_matches('/').split_once('/').unwrap()).collect();
    // The crate that serves health describes it as of before it had this method.
    let undescribed = ("grpc.health.v1.Health", "List");
    for (service, method) in methods.into_iter().filter(|method| *method != undescribed) {
        assert!(listed.contains(service), "{service} is served and not listed: {listed:?}");
        let found = files(ask(&mut client, MessageRequest::FileContainingSymbol(format!("{service}.{method}"))).await);
        let name = service.rsplit('.').next().unwrap();
        let described = found.iter().flat_map(|file| &file.service).find(|described| described.name() == name);
        assert!(described.unwrap().method.iter().any(|described| described.name() == method), "{service}/{method}");
    }

    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    for file in &set.file {
        for needed in &file.dependency {
            let found = files(ask(&mut client, MessageRequest::FileByFilename(needed.clone())).await);
            assert_eq!(found[0].name(), needed, "{} imports it", file.name());
        }
        let mut symbols = Vec::new();
        messages(file.package(), &file.message_type, &mut symbols);
        symbols.extend(file.enum_type.iter().map(|kind| format!("{}.{}", file.package(), kind.name())));
        for symbol in symbols {
            let found = files(ask(&mut client, MessageRequest::FileContainingSymbol(symbol.clone())).await);
            assert_eq!(found[0].name(), file.name(), "{symbol}");
        }
    }
}
