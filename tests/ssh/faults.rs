//! What goes wrong on the way: each a precise error that tells whether the request may have been sent.

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;
use watchdog::actuator::ssh::{AskError, GuardChannels, HostKey, Settings};
use watchdog::domain::plan::GuardEndpoint;

use crate::rig::{Sshd, run};
use crate::{ample, soon, wait_until};

const ECHO: &str = "read -r line; echo \"$line\" >>requests; echo \"heard $line\"";
const SMALL: Settings =
    Settings { keepalive: Duration::from_secs(5), idle_close: Duration::from_secs(60), answer_bytes_max: 10_000 };

async fn not_sent(channels: &GuardChannels, endpoint: &GuardEndpoint, deadline: Instant) -> (bool, String) {
    match channels.ask(endpoint, "x".to_owned(), deadline).await {
        Err(AskError::NotSent { retryable, reason }) => (retryable, reason),
        other => panic!("{other:?}"),
    }
}

fn all_in(reason: &str, words: &[&str]) {
    for word in words {
        assert!(reason.contains(word), "{word:?} is not in {reason:?}");
    }
}

#[tokio::test]
async fn a_wrong_host_key_is_told_with_both_fingerprints_and_nothing_is_sent() {
    let sshd = Sshd::with_stand_in(ECHO).await;
    let channels = GuardChannels::default();
    let stranger = fs::read_to_string(sshd.path("stranger.pub")).unwrap();
    let endpoint = GuardEndpoint { host_key: stranger.clone(), ..sshd.endpoint() };
    let (retryable, reason) = not_sent(&channels, &endpoint, ample()).await;
    let theirs = HostKey::parse(&sshd.endpoint().host_key).unwrap().fingerprint();
    let ours = HostKey::parse(&stranger).unwrap().fingerprint();
    all_in(&reason, &["db-hanoi", &endpoint.address, &theirs, &ours]);
    assert!(!retryable, "somebody has to look");
    assert_eq!(sshd.accepted(), 0, "the user's key is not even offered");
    assert!(!sshd.log().contains("userauth"), "{}", sshd.log());

    // Right in the file now: the same channels must not remember the wrong one.
    channels.ask(&sshd.endpoint(), "x".to_owned(), ample()).await.unwrap();
}

#[tokio::test]
async fn what_is_wrong_before_anything_is_sent_is_named() {
    let sshd = Sshd::with_stand_in(ECHO).await;
    let good = sshd.endpoint();
    let locked = sshd.path("locked");
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "secret", "-f"]).arg(&locked));
    fs::write(sshd.path("junk"), "junk").unwrap();
    let rsa = sshd.path("rsa");
    run(Command::new("ssh-keygen").args(["-q", "-t", "rsa", "-b", "2048", "-N", "", "-f"]).arg(&rsa));
    let other_type = fs::read_to_string(sshd.path("rsa.pub")).unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let file = |name: &str| GuardEndpoint { identity_file: sshd.path(name).display().to_string(), ..good.clone() };
    for (endpoint, retryable, words) in [
        (file("stranger"), true, ["is not let in", "authorized_keys", "stranger"]),
        (file("locked"), true, ["is not let in", "unencrypted", "locked"]),
        (file("junk"), true, ["is not let in", "unencrypted", "junk"]),
        (file("nowhere"), false, ["identity_file", "No such file", "nowhere"]),
        (GuardEndpoint { user: "nobody-here".into(), ..good.clone() }, true, ["nobody-here", "is not let in", "id;"]),
        (GuardEndpoint { host_key: other_type, ..good.clone() }, true, ["agree on keys", "rsa-sha2", "of that type"]),
        (GuardEndpoint { host_key: "ssh-ed25519 A".into(), ..good.clone() }, false, ["host_key", "base64", "keyscan"]),
        (GuardEndpoint { address: closed, ..good.clone() }, true, ["cannot connect", "refused", "127.0.0.1:"]),
        (GuardEndpoint { address: "no-port".into(), ..good.clone() }, true, ["cannot connect", "no-port", ""]),
    ] {
        // Each anew: nothing of an earlier one may help.
        let (said, reason) = not_sent(&GuardChannels::default(), &endpoint, ample()).await;
        assert_eq!(said, retryable, "{reason}");
        all_in(&reason, &words);
        all_in(&reason, &["db-hanoi"]);
    }
    assert!(sshd.lines("requests").is_empty());
}

#[tokio::test]
async fn a_listener_that_says_nothing_or_nonsense_holds_nobody_up() {
    let sshd = Sshd::with_stand_in(ECHO).await;
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = GuardEndpoint { address: silent.local_addr().unwrap().to_string(), ..sshd.endpoint() };
    let (retryable, reason) = not_sent(&GuardChannels::default(), &endpoint, soon()).await;
    assert!(retryable);
    all_in(&reason, &["the deadline passed while agreeing on keys"]);

    let talking = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = GuardEndpoint { address: talking.local_addr().unwrap().to_string(), ..sshd.endpoint() };
    std::thread::spawn(move || {
        let mut socket = talking.accept()?.0;
        std::io::Write::write_all(&mut socket, &b"HTTP/1.1 400 Bad Request\r\n\r\n".repeat(2000))
    });
    let (_, reason) = not_sent(&GuardChannels::default(), &endpoint, ample()).await;
    all_in(&reason, &["cannot agree on keys", "is it an SSH server"]);
}

#[tokio::test]
async fn whatever_comes_instead_of_one_line_is_lost_and_shown() {
    let read = "read -r line; ";
    let hang = "echo $$ >>hanging; exec sleep 600";
    for (script, words) in [
        (format!("{read} echo broken >&2; exit 3"), ["ended without an answer", "it complained: \"broken\""]),
        (format!("{read} printf 'half \\033[2J'"), ["breaks off after 9 bytes", r#""half \x1b[2J""#]),
        (format!("{read} printf 'one\\ntwo\\n'"), ["more than one line", r#""one\ntwo\n""#]),
        (format!("{read} head -c 200000 /dev/zero"), ["longer than 10000 bytes", r"begins "]),
        (format!("{read} exec yes"), ["more than one line", r"y\ny\n"]),
        (format!("{read} echo log >&2; {hang}"), ["deadline passed", "waiting for the guard's answer"]),
        (format!("{read} printf half; {hang}"), ["deadline passed", "waiting for the guard's answer"]),
        // Reads nothing: the request is in the pipe, and could still be read.
        (hang.to_owned(), ["deadline passed", "waiting for the guard's answer"]),
        ("exit 0".to_owned(), ["db-hanoi", ""]),
    ] {
        let sshd = Sshd::with_stand_in(&script).await;
        let channels = GuardChannels::new(SMALL);
        let deadline = if script.contains("hanging") { soon() } else { ample() };
        match channels.ask(&sshd.endpoint(), "x".to_owned(), deadline).await {
            Err(AskError::Lost { reason }) => all_in(&reason, &words),
            other => panic!("{script}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn an_answer_ends_at_its_newline_though_a_child_keeps_the_output_open() {
    // As a database does that the guard started.
    let sshd = Sshd::with_stand_in("read -r line; (echo $$ >>hanging; exec sleep 600) & echo done").await;
    let channels = GuardChannels::default();
    for _ in 0..2 {
        let answer = channels.ask(&sshd.endpoint(), "x".to_owned(), ample()).await;
        assert_eq!(answer, Ok(b"done".to_vec()));
    }
}

#[tokio::test]
async fn a_frozen_server_is_given_up_at_the_deadline_with_nothing_sent() {
    let sshd = Sshd::with_stand_in(ECHO).await;
    let (warm, cold) = (GuardChannels::default(), GuardChannels::default());
    warm.warm(&sshd.endpoint(), ample()).await.unwrap();
    sshd.signal_all(Signal::STOP);
    let (retryable, reason) = not_sent(&warm, &sshd.endpoint(), soon()).await;
    all_in(&reason, &["the deadline passed while starting the guard"]);
    assert!(retryable);
    let (_, reason) = not_sent(&cold, &sshd.endpoint(), soon()).await;
    all_in(&reason, &["the deadline passed while agreeing on keys"]);
    // Neither thread is left behind in a call, and a dropped session waits for nobody.
    drop(cold);
    sshd.signal_all(Signal::CONT);
    warm.ask(&sshd.endpoint(), "thawed".to_owned(), ample()).await.unwrap();
    assert_eq!(sshd.lines("requests"), ["thawed"]);
}

#[tokio::test]
async fn a_server_killed_in_the_middle_leaves_the_outcome_unknown() {
    let sshd = Sshd::with_stand_in("read -r line; echo \"$line\" >>requests; echo $$ >>hanging; exec sleep 600").await;
    let channels = GuardChannels::default();
    let endpoint = sshd.endpoint();
    let (asked, ()) = tokio::join!(channels.ask(&endpoint, "x".to_owned(), ample()), async {
        wait_until("the request arrived", || !sshd.lines("hanging").is_empty()).await;
        sshd.signal_all(Signal::KILL);
    });
    let Err(AskError::Lost { reason }) = asked else { panic!("{asked:?}") };
    all_in(&reason, &["db-hanoi", "the guard"]);
    assert_eq!(sshd.lines("requests"), ["x"]);
}
