//! DNS, against BIND.

use std::sync::{Arc, Mutex};

use watchdog::domain::observation::{FailureKind, Measure};
use watchdog::probe::{Probe, ProbeBuilder, ProbeSpec, ProbeSurroundings};
use watchdog::resolve::Question;

use crate::parts::*;

const ZONE: &str = "$TTL 30\n@ SOA ns admin 1 60 60 60 60\n@ NS ns\nns A 127.0.0.1\n\
    api A 127.0.0.11\nmany A 10.0.0.2\nmany A 10.0.0.1\nwww CNAME api\n";

pub async fn bind() -> (Running, tempfile::TempDir, String) {
    let (folder, port) = (folder(), free_port());
    let path = folder.path().display();
    std::fs::write(folder.path().join("zone"), ZONE).unwrap();
    let conf = format!(
        "options {{ directory \"{path}\"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};\n\
         pid-file none; recursion no; session-keyfile none; dnssec-validation no; }};\ncontrols {{ }};\n\
         zone \"demo.test\" {{ type primary; file \"{path}/zone\"; }};\n"
    );
    let file = folder.path().join("named.conf");
    std::fs::write(&file, conf).unwrap();
    let running =
        Running::start("/usr/sbin/named", None, &["-g", "-n", "1", "-c", file.to_str().unwrap()], folder.path());
    let server = format!("127.0.0.1:{port}");
    let spec = dns(&server, "api.demo.test.", Question::A);
    wait_until("BIND answers", || async { probe_of(&spec).probe().await.ok() }).await;
    (running, folder, server)
}

fn dns(server: &str, name: &str, question: Question) -> ProbeSpec {
    ProbeSpec::Dns { server: server.to_owned(), record_name: name.to_owned(), question }
}

#[tokio::test]
async fn a_name_must_resolve_to_the_serving_region() {
    let (mut running, _folder, server) = bind().await;
    let expected = Arc::new(Mutex::new(None::<Vec<String>>));
    let probe_for = |name: &str, question| -> Arc<dyn Probe> {
        let expected = expected.clone();
        let around = ProbeSurroundings {
            timeout_ms: 2000,
            expected: Some(Arc::new(move || expected.lock().unwrap().clone())),
            ..Default::default()
        };
        ProbeBuilder::default().build(&dns(&server, name, question), around).unwrap()
    };
    let values = |values: &[&str]| Some(values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>());
    let table = [
        ("api.demo.test.", Question::A, None, None),
        ("api.demo.test", Question::A, values(&["127.0.0.11"]), None),
        ("api.demo.test.", Question::A, values(&["127.0.0.12"]), Some(FailureKind::WrongAnswer)),
        ("many.demo.test.", Question::A, values(&["10.0.0.1", "10.0.0.2"]), None),
        ("many.demo.test.", Question::A, values(&["10.0.0.1"]), Some(FailureKind::WrongAnswer)),
        ("www.demo.test.", Question::Cname, values(&["API.demo.test"]), None),
        ("none.demo.test.", Question::A, None, Some(FailureKind::WrongAnswer)),
        ("api.demo.test.", Question::Aaaa, None, Some(FailureKind::WrongAnswer)),
        ("api.elsewhere.test.", Question::A, None, Some(FailureKind::OurFault)),
    ];
    for (name, question, wanted, failed) in table {
        *expected.lock().unwrap() = wanted.clone();
        let outcome = probe_for(name, question).probe().await;
        assert_eq!(kind(&outcome), failed, "{name} {wanted:?}: {outcome:?}");
        if let (None, Some(values)) = (failed, wanted.filter(|_| question == Question::A)) {
            assert_eq!(outcome, Ok(Some(Measure::Dns { values })));
        }
    }
    // One probe, another region serving.
    let probe = probe_for("api.demo.test.", Question::A);
    *expected.lock().unwrap() = values(&["127.0.0.11"]);
    assert!(probe.probe().await.is_ok());
    *expected.lock().unwrap() = values(&["127.0.0.12"]);
    let failure = probe.probe().await.unwrap_err();
    assert!(failure.detail.contains("127.0.0.11, expected 127.0.0.12"), "{}", failure.detail);

    running.signal(rustix::process::Signal::STOP);
    assert_eq!(kind(&probe.probe().await), Some(FailureKind::TimedOut));
    running.kill();
    assert_eq!(kind(&probe.probe().await), Some(FailureKind::Refused));
}
