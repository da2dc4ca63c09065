//! Who may do what: the table of roles over real connections, each role at each method, and what is said to those who may
//! not. The principal in the audit is whoever proved it, also through a follower.

use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use watchdog::api::access::{ACCESS, Need};
use watchdog::clock::unix_now;
use watchdog::domain::identity::{Kind, Role};
use watchdog::proto;
use watchdog::proto::admin_client::AdminClient;
use watchdog::tls::authority::{Ask, init, issue};
use watchdog::tls::material::Use;
use watchdog::tls::{Dialer, Expect, Material};

use crate::standin::{GROUP, Log, RUN, Served, StandInNode, context, serve_by};

/// Certificates for everybody in `watchdog.toml`, and for some who are not.
pub struct Pki {
    pub folder: TempDir,
}

pub const NODES: [&str; 3] = ["hcmc-1", "hanoi-1", "danang-1"];

impl Pki {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        init(folder.path(), "demo", 100, unix_now()).unwrap();
        for (kind, name) in NODES
            .map(|name| (Kind::Node, name))
            .into_iter()
            .chain(["vy", "linh", "an", "stranger"].map(|name| (Kind::User, name)))
            .chain([(Kind::Guard, "db-hcmc"), (Kind::Guard, "db-hanoi")])
        {
            issue(folder.path(), &Ask { kind, name, hosts: &[], days: 30, renew: false }, unix_now()).unwrap();
        }
        Self { folder }
    }

    pub fn files(&self, who: &str) -> watchdog::tls::Files {
        let at = |name: String| self.folder.path().join(name);
        watchdog::tls::Files {
            ca: at("ca.pem".to_owned()),
            certificate: at(format!("{who}.pem")),
            key: at(format!("{who}.key")),
        }
    }

    /// `who`: `node-hcmc-1`, `user-linh` …
    pub fn material(&self, who: &str) -> Arc<Material> {
        let usage = if who.starts_with("user") { Use::Call } else { Use::Both };
        Material::open(self.files(who), usage).unwrap()
    }

    pub async fn dial(&self, who: &str, address: &str) -> Channel {
        let cluster = "demo".into();
        let connector = Dialer::Tls(self.material(who)).to(Expect::node(Some(&cluster), None));
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        endpoint.connect_with_connector(connector).await.unwrap()
    }

    pub async fn client(&self, who: &str, address: &str) -> AdminClient<Channel> {
        AdminClient::new(self.dial(who, address).await)
    }

    /// The leading node, served with its certificate.
    pub async fn leader(&self) -> (Arc<Log>, Arc<StandInNode>, Served) {
        let log = Log::new();
        let node = StandInNode::new(3, &log);
        node.lead();
        let served = serve_by(&node, Some(self.material("node-danang-1"))).await;
        (log, node, served)
    }
}

/// A call of any method with an empty message: what is wrong with that, only those learn who may call.
async fn knock(channel: &Channel, path: &str) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec: ProstCodec<(), ()> = ProstCodec::default();
    let path = path.parse::<PathAndQuery>().unwrap();
    let answer = grpc.server_streaming(Request::new(()), path, codec).await?;
    let mut stream = answer.into_inner();
    // The first message, or the end: a stream may go on for ever.
    stream.message().await.map(drop)
}

fn may(who: &str, need: Need) -> bool {
    let person = match who {
        "user-vy" => Some(Role::Viewer),
        "user-linh" => Some(Role::Operator),
        "user-an" => Some(Role::Admin),
        _ => None,
    };
    match need {
        Need::Certificate => true,
        Need::Person(role) => person >= Some(role),
        Need::Node => who.starts_with("node-"),
        Need::Guard => who.starts_with("guard-") || who.starts_with("node-"),
    }
}

const EVERYBODY: [&str; 6] = ["user-vy", "user-linh", "user-an", "user-stranger", "node-hcmc-1", "guard-db-hcmc"];

#[tokio::test]
async fn each_role_at_each_method() {
    let pki = Pki::new();
    let (_log, _node, served) = pki.leader().await;
    let mut asked = 0;
    for who in EVERYBODY {
        let channel = pki.dial(who, &served.address).await;
        for path in ACCESS.iter().map(|row| row.path).collect::<std::collections::BTreeSet<_>>() {
            // An empty message asks for nothing special; where the table has only special uses, any of them lets through.
            let rows = || ACCESS.iter().filter(|row| row.path == path);
            let has_plain = rows().any(|row| row.with.is_empty());
            let allowed = rows().any(|row| row.with.is_empty() == has_plain && may(who, row.need));
            let refused = knock(&channel, path).await.err().filter(|status| status.code() == Code::PermissionDenied);
            match refused {
                Some(status) => {
                    let told = status.message();
                    assert!(!allowed, "{who} {path}: {told}");
                    assert!(
                        told.contains("needs role") && told.contains(" has ") && told.contains("watchdog://demo/"),
                        "{told}"
                    );
                    assert_eq!(status.metadata().get("watchdog-rejection").unwrap(), "permission_denied");
                    assert_eq!(status.metadata().get("watchdog-node").unwrap(), "danang-1");
                }
                None => assert!(allowed, "{who} got through to {path}"),
            }
            asked += 1;
        }
    }
    assert!(asked >= EVERYBODY.len() * 24, "{asked}");
}

/// Whatever is served has its row: what a new method may do is said before it can be called.
#[test]
fn every_method_that_is_served_is_in_the_table() {
    use prost::Message as _;
    let set = prost_types::FileDescriptorSet::decode(watchdog::proto::DESCRIPTORS).unwrap();
    let mut seen = 0;
    for file in &set.file {
        for service in &file.service {
            if file.package() == "watchdog.v1" && service.name() == "Hold" {
                continue;
            }
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                assert!(ACCESS.iter().any(|row| row.path == path), "{path}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 18, "{seen}");
}

#[tokio::test]
async fn without_a_certificate_nothing_is_answered() {
    let pki = Pki::new();
    let (_log, _node, served) = pki.leader().await;
    let anonymous = nobody(&pki.folder.path().join("ca.pem"), &served.address).await;
    for path in ACCESS.iter().map(|row| row.path) {
        let status = knock(&anonymous, path).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{path}: {status}");
        assert!(status.message().contains("--certificate") && status.message().contains("cert issue user"), "{status}");
    }
}

/// A connection by TLS that shows no certificate.
async fn nobody(ca: &Path, address: &str) -> Channel {
    use rustls::pki_types::pem::PemObject as _;
    #[derive(Debug)]
    struct Anybody(rustls::crypto::WebPkiSupportedAlgorithms);
    impl rustls::client::danger::ServerCertVerifier for Anybody {
        fn verify_server_cert(
            &self,
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &[rustls::pki_types::CertificateDer<'_>],
            _: &rustls::pki_types::ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &rustls::pki_types::CertificateDer<'_>,
            signed: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0)
        }
        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &rustls::pki_types::CertificateDer<'_>,
            signed: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0)
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            self.0.supported_schemes()
        }
    }
    assert!(rustls::pki_types::CertificateDer::from_pem_file(ca).is_ok());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(algorithms)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config));
    let connector = tower::service_fn(move |uri: tonic::transport::Uri| {
        let tls = tls.clone();
        async move {
            let tcp = tokio::net::TcpStream::connect(uri.authority().unwrap().as_str()).await?;
            let name = rustls::pki_types::ServerName::try_from("node.invalid").unwrap();
            tls.connect(name, tcp).await.map(hyper_util::rt::TokioIo::new)
        }
    });
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect_with_connector(connector).await.unwrap()
}

fn failover(accept_loss: bool, assert_fence: &str, dry_run: bool) -> proto::FailoverRequest {
    proto::FailoverRequest {
        context: context(RUN),
        group: GROUP.into(),
        to_region: "hanoi".into(),
        confirm_group: GROUP.into(),
        accept_loss,
        assert_fence_region: assert_fence.into(),
        dry_run,
        ..Default::default()
    }
}

#[tokio::test]
async fn what_may_cost_data_needs_more_than_the_method() {
    let pki = Pki::new();
    let (log, _node, served) = pki.leader().await;
    let denied = |answer: Result<tonic::Response<proto::FailoverResponse>, Status>, phrase: &str| {
        let status = answer.expect_err(phrase);
        assert!(status.code() == Code::PermissionDenied && status.message().contains(phrase), "{status}");
    };
    let mut viewer = pki.client("user-vy", &served.address).await;
    viewer.failover(failover(true, "", true)).await.expect("looking is free");
    denied(
        viewer.failover(failover(false, "", false)).await,
        "Failover needs role operator; watchdog://demo/user/vy has viewer",
    );
    let mut operator = pki.client("user-linh", &served.address).await;
    denied(operator.failover(failover(true, "", false)).await, "with accept_loss needs role admin");
    denied(operator.failover(failover(false, "hcmc", false)).await, "with assert_fence_region needs role admin");
    assert!(log.state().groups[&GROUP.into()].open_run.is_none());
    operator.failover(failover(false, "", false)).await.expect("an operator may");
    for (order, name) in [
        (proto::Order::Skip, "skip"),
        (proto::Order::AssertFence, "assert_fence"),
        (proto::Order::AcceptLoss, "accept_loss"),
    ] {
        let ask = proto::OrderRunRequest {
            context: context("order-0001"),
            run_id: RUN.into(),
            order: order.into(),
            step: "fence".into(),
            region: "hcmc".into(),
            confirm_group: GROUP.into(),
            ..Default::default()
        };
        let status = operator.order_run(ask.clone()).await.unwrap_err();
        assert!(status.message().contains(&format!("OrderRun with {name} needs role admin")), "{status}");
        let mut admin = pki.client("user-an", &served.address).await;
        let code = admin.order_run(ask).await.err().map(|status| status.code());
        assert_ne!(code, Some(Code::PermissionDenied), "{name}");
    }
}

fn pause(id: &str) -> proto::PauseRequest {
    proto::PauseRequest { context: context(id), group: GROUP.into(), until_ms: None }
}

#[tokio::test]
async fn the_audit_names_who_proved_it_and_not_who_it_was_said_to_be() {
    let pki = Pki::new();
    let (log, leader, leading) = pki.leader().await;
    let follower = StandInNode::new(2, &log);
    follower.follow(3, &leading.address);
    let following = serve_by(&follower, Some(pki.material("node-hanoi-1"))).await;
    drop(leader);
    // The message says "linh" each time.
    for (address, who, id) in
        [(&leading.address, "user-an", "pause-0001"), (&following.address, "user-linh", "resume-001")]
    {
        let mut client = pki.client(who, address).await;
        if id.starts_with("pause") {
            client.pause(pause(id)).await.unwrap();
        } else {
            let ask = proto::ResumeRequest { context: context(id), group: GROUP.into() };
            client.resume(ask).await.unwrap();
        }
    }
    let by: Vec<String> = log.state().audit.iter().skip(1).map(|entry| entry.by.0.clone()).collect();
    assert_eq!(by, ["user:an", "user:linh"]);
    // From where each called, not from where the follower did.
    for entry in log.state().audit.iter().skip(1) {
        assert!(entry.from.starts_with("127.0.0.1:"), "{entry:?}");
    }
    let mut viewer = pki.client("user-vy", &following.address).await;
    let refused = viewer.pause(pause("pause-0002")).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.metadata().get("watchdog-node").unwrap().to_str().unwrap()),
        (Code::PermissionDenied, "hanoi-1")
    );
}

#[tokio::test]
async fn only_a_node_speaks_for_another_and_only_as_far_as_that_other_may() {
    let pki = Pki::new();
    let (log, _node, served) = pki.leader().await;
    for (who, on_behalf_of, wanted) in [
        ("user-vy", Some("watchdog://demo/user/an"), "only a node may forward"),
        ("guard-db-hcmc", Some("watchdog://demo/user/an"), "only a node may forward"),
        ("user-an", None, "only a node may forward"),
        ("node-hcmc-1", None, "needs role operator; watchdog://demo/node/hcmc-1 has node hcmc-1"),
        ("node-hcmc-1", Some("watchdog://demo/user/vy"), "needs role operator; watchdog://demo/user/vy has viewer"),
        ("node-hcmc-1", Some("watchdog://demo/node/hanoi-1"), "a node calls for itself"),
        ("node-hcmc-1", Some("an"), "neither a URI"),
        ("node-hcmc-1", Some("watchdog://demo/user/an"), ""),
    ] {
        let mut request = Request::new(pause("pause-0001"));
        request.metadata_mut().insert("watchdog-forwarded-by", "hcmc-1".parse().unwrap());
        if let Some(identity) = on_behalf_of {
            let value = tonic::metadata::MetadataValue::from_bytes(identity.as_bytes());
            request.metadata_mut().insert_bin("watchdog-on-behalf-of-bin", value);
        }
        let answer = pki.client(who, &served.address).await.pause(request).await;
        match answer {
            Ok(_) => assert_eq!(wanted, "", "{who} for {on_behalf_of:?}"),
            Err(status) => {
                assert!(!wanted.is_empty() && status.message().contains(wanted), "{who} {on_behalf_of:?}: {status}")
            }
        }
    }
    let entered = |what: &str| {
        let state = log.state();
        let found = state.audit.iter().filter(|entry| entry.what.starts_with(what));
        found.map(|entry| (entry.by.0.clone(), entry.outcome.clone())).collect::<Vec<_>>()
    };
    assert_eq!(entered("pause").last().unwrap().0, "user:an");
    // Refused for another: that other's doing, and not the node's that carried it. Refused for what only the node can have
    // made up: the node's.
    crate::standin::wait_until("the refusals in the audit", || async { entered("refused Pause").len() >= 5 }).await;
    let refused = entered("refused Pause");
    let of = |by: &str, why: &str| refused.iter().filter(|(who, told)| who == by && told.contains(why)).count();
    assert_eq!(of("user:vy", "user/vy has viewer"), 1, "{refused:#?}");
    assert_eq!(of("node:hcmc-1", "user/vy has viewer"), 0, "{refused:#?}");
    assert!(of("node:hcmc-1", "") >= 1, "{refused:#?}");
}
