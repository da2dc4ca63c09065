//! A node's word counts only from the holder of that node's certificate.

use std::collections::BTreeMap;

use tonic::{Code, Request};
use watchdog::clock::unix_now;
use watchdog::consensus::{Consensus, Node, Options, Reached, Retention};
use watchdog::domain::identity::{Caller, Grant, Identity, Kind, Role, Roles};
use watchdog::domain::ids::{NodeId, NodeName};
use watchdog::proto::peer_server::Peer as _;
use watchdog::proto::{Header, PeerRequest};
use watchdog::tls::Material;
use watchdog::tls::authority::{Ask, init, issue};
use watchdog::tls::material::Use;

use crate::support::{identity, timing};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_is_the_node_of_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    init(folder.path(), "demo", 30, unix_now()).unwrap();
    let ask = Ask { kind: Kind::Node, name: "node-1", hosts: &[], days: 10, renew: false };
    let own = issue(folder.path(), &ask, unix_now()).unwrap().files;
    let member = |id: u64| {
        let node = Node {
            name: format!("node-{id}").as_str().into(),
            region: "hcmc".into(),
            address: format!("127.0.0.1:{id}"),
        };
        (NodeId(id), node)
    };
    let members: BTreeMap<NodeId, Node> = (1..=3).map(member).collect();
    let (reports, _received) = tokio::sync::mpsc::channel(4);
    let options = |id: u64| Options {
        identity: identity(id),
        members: members.clone(),
        data_dir: folder.path().join(format!("data-{id}")),
        timing: timing(),
        retention: Retention::default(),
        reports: reports.clone(),
        client_tls: Some(Material::open(own.clone(), Use::Both).unwrap()),
    };
    let consensus = Consensus::start(options(1)).await.unwrap();
    // Node 2 calls nobody: what a call of its would say of its store is taken from here.
    let other = Consensus::start(options(2)).await.unwrap();
    let names: Vec<NodeName> = members.values().map(|node| node.name.clone()).collect();
    let person = (Identity::parse("watchdog://demo/user/an").unwrap(), Grant::Person(Role::Admin));
    let roles = Roles::new(&"demo".into(), &names, &[], [&person]);
    let service = consensus.service();
    for (who, from, wanted) in [
        (Some("watchdog://demo/node/node-2"), 2, None),
        (
            Some("watchdog://demo/node/node-3"),
            2,
            Some((Code::PermissionDenied, "node 2 is node-2, but the caller's certificate is")),
        ),
        (Some("watchdog://demo/user/an"), 2, Some((Code::PermissionDenied, "watchdog://demo/user/an (admin)"))),
        (Some("CN=node-2"), 2, None),
        (None, 2, Some((Code::Unauthenticated, "needs a node's certificate"))),
    ] {
        let header = Header {
            cluster: "demo".to_owned(),
            epoch: 1,
            from,
            to: 1,
            store: other.store_id().to_owned(),
            reached: other.reached().iter().map(Reached::to_wire).collect(),
            ..Header::default()
        };
        let mut request = Request::new(PeerRequest { header: Some(header), payload: Vec::new(), quorum_age_ms: None });
        let caller = who.map(|who| {
            let identity = Identity::parse(who).unwrap();
            Caller::Proven { held: roles.of(&identity), identity }
        });
        request.extensions_mut().insert(caller.unwrap_or(Caller::Unproven));
        let refused = service.ping(request).await.err();
        match (refused, wanted) {
            (None, None) => {}
            (Some(status), Some((code, phrase))) => {
                assert!(status.code() == code && status.message().contains(phrase), "{who:?}: {status}");
            }
            (refused, _) => panic!("{who:?}: {refused:?}"),
        }
    }
    other.shutdown().await.unwrap();
    consensus.shutdown().await.unwrap();
}
