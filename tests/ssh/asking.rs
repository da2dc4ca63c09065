//! Sessions: kept warm, found again, closed when idle, several at once; and the key that can do nothing else.

use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use ssh2::{Channel, Session};
use watchdog::actuator::ssh::{GuardChannels, Settings};

use crate::rig::Sshd;
use crate::{ample, soon, wait_until};

const ECHO: &str = "read -r line; echo \"$line\" >>requests; echo \"heard $line\"";
/// Hangs when told to, until told to go on.
const OBEDIENT: &str = r#"read -r line; echo "$line" >>requests
case "$line" in hang*) echo $$ >>hanging; until [ -e go-on ]; do sleep 0.02; done; echo "$line" >>finished;; esac
echo "heard $line""#;

async fn ask(channels: &GuardChannels, sshd: &Sshd, line: &str) -> String {
    let answer = channels.ask(&sshd.endpoint(), line.to_owned(), ample()).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn one_session_serves_many_requests() {
    let sshd = Sshd::with_stand_in(ECHO).await;
    let channels = GuardChannels::default();
    channels.warm(&sshd.endpoint(), ample()).await.unwrap();
    let begun = Instant::now();
    for n in 0..20 {
        assert_eq!(ask(&channels, &sshd, &format!("r{n}")).await, format!("heard r{n}"));
    }
    println!("warm session: {:?} for a request and its answer, mean of 20", begun.elapsed() / 20);
    channels.warm(&sshd.endpoint(), ample()).await.unwrap();
    assert_eq!(sshd.lines("requests").len(), 20);
    assert_eq!(sshd.accepted(), 1);
}

#[tokio::test]
async fn a_long_action_does_not_keep_another_request_from_being_made() {
    let sshd = Sshd::with_stand_in(OBEDIENT).await;
    let channels = GuardChannels::default();
    let (hanging, quick) = tokio::join!(ask(&channels, &sshd, "hang"), async {
        wait_until("the first is under way", || sshd.lines("requests").len() == 1).await;
        let quick = ask(&channels, &sshd, "quick").await;
        assert_eq!(ask(&channels, &sshd, "again").await, "heard again");
        std::fs::write(sshd.path("go-on"), "").unwrap();
        quick
    });
    assert_eq!((hanging.as_str(), quick.as_str()), ("heard hang", "heard quick"));
    assert_eq!(sshd.accepted(), 2);
}

#[tokio::test]
async fn sessions_and_queues_are_bounded_and_every_request_ends() {
    let sshd = Sshd::with_stand_in(OBEDIENT).await;
    let channels = GuardChannels::default();
    let endpoint = sshd.endpoint();
    let asking = (0..60).map(|n| channels.ask(&endpoint, format!("hang {n}"), soon()));
    let ended = futures::future::join_all(asking).await;
    assert!(ended.iter().all(Result::is_err));
    let full = ended.iter().filter(|e| format!("{e:?}").contains("too many requests")).count();
    assert!(full > 0, "{ended:?}");
    std::fs::write(sshd.path("go-on"), "").unwrap();
    // What waited in a queue and was given up is never sent.
    assert_eq!(ask(&channels, &sshd, "after").await, "heard after");
    assert!(sshd.lines("requests").len() <= 5, "{:?}", sshd.lines("requests"));
}

#[tokio::test]
async fn an_abandoned_request_frees_its_session_at_once_and_goes_on_over_there() {
    let sshd = Sshd::with_stand_in(OBEDIENT).await;
    let channels = GuardChannels::default();
    let endpoint = sshd.endpoint();
    // More than there may be sessions: each must be free again.
    for n in 1..=6 {
        let asking = channels.ask(&endpoint, "hang".to_owned(), ample());
        tokio::select! {
            ended = asking => panic!("{ended:?}"),
            () = wait_until("the request arrived", || sshd.lines("hanging").len() == n) => {}
        }
    }
    assert_eq!(ask(&channels, &sshd, "next").await, "heard next");
    std::fs::write(sshd.path("go-on"), "").unwrap();
    wait_until("abandoned is not cancelled", || sshd.lines("finished") == ["hang"; 6]).await;
}

#[tokio::test]
async fn an_idle_session_is_closed_and_opened_again_when_needed() {
    let sshd = Sshd::with_stand_in(ECHO).await;
    let (keepalive, idle_close) = (Duration::from_millis(20), Duration::from_millis(200));
    let channels = GuardChannels::new(Settings { keepalive, idle_close, ..Settings::default() });
    ask(&channels, &sshd, "one").await;
    wait_until("the session is closed", || sshd.log().contains("idle")).await;
    ask(&channels, &sshd, "two").await;
    assert_eq!(sshd.accepted(), 2);
}

#[tokio::test]
async fn an_answer_may_take_longer_than_a_keepalive_is_due() {
    let sshd = Sshd::with_stand_in(OBEDIENT).await;
    let channels = GuardChannels::new(Settings { keepalive: Duration::from_secs(1), ..Settings::default() });
    // On a fresh session and on a warm one.
    for n in 1..=2 {
        let go_on = async {
            wait_until("the request arrived", || sshd.lines("hanging").len() == n).await;
            tokio::time::sleep(Duration::from_millis(2500)).await;
            std::fs::write(sshd.path("go-on"), "").unwrap();
        };
        let (answer, ()) = tokio::join!(ask(&channels, &sshd, "hang"), go_on);
        assert_eq!(answer, "heard hang");
        std::fs::remove_file(sshd.path("go-on")).unwrap();
    }
    assert_eq!(sshd.accepted(), 1);
}

#[tokio::test]
async fn a_server_that_was_restarted_is_found_again_within_the_request() {
    let mut sshd = Sshd::with_stand_in(ECHO).await;
    let channels = GuardChannels::default();
    for n in 0..3 {
        assert_eq!(ask(&channels, &sshd, "x").await, "heard x");
        sshd.restart().await;
        assert_eq!(sshd.accepted(), n + 1);
    }
    // Ahead of time too.
    channels.warm(&sshd.endpoint(), ample()).await.unwrap();
    assert_eq!(sshd.accepted(), 4);
}

#[tokio::test]
async fn the_key_can_do_nothing_but_ask_the_guard() {
    let sshd = Sshd::with_stand_in(ECHO).await;
    let endpoint = sshd.endpoint();
    let mut session = Session::new().unwrap();
    session.set_tcp_stream(TcpStream::connect(&endpoint.address).unwrap());
    session.set_timeout(10_000);
    session.handshake().unwrap();
    session.userauth_pubkey_file(&endpoint.user, None, Path::new(&endpoint.identity_file), None).unwrap();

    let (host, port) = endpoint.address.split_once(':').unwrap();
    assert!(session.channel_direct_tcpip(host, port.parse().unwrap(), None).is_err(), "local forwarding");
    assert!(session.channel_forward_listen(0, None, None).is_err(), "remote forwarding");
    let mut terminal = session.channel_session().unwrap();
    assert!(terminal.request_pty("vt100", None, None).is_err(), "terminal");
    assert!(terminal.request_auth_agent_forwarding().is_err(), "agent forwarding");

    // Whatever is asked to run, the forced command runs.
    type Begin = fn(&mut Channel) -> Result<(), ssh2::Error>;
    let begins: [Begin; 3] = [|c| c.exec("touch broken-out"), Channel::shell, |c| c.subsystem("sftp")];
    for begin in begins {
        let mut channel = session.channel_session().unwrap();
        if begin(&mut channel).is_ok() {
            let mut said = String::new();
            std::io::Write::write_all(&mut channel, b"me\n").unwrap();
            channel.send_eof().unwrap();
            std::io::Read::read_to_string(&mut channel, &mut said).unwrap();
            assert_eq!(said, "heard me\n");
        }
    }
    assert!(!sshd.path("broken-out").exists());
}
