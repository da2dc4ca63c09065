//! Watch: the whole picture first, then each change with its news, across nodes that lead, follow, lose their leader and die.

use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Streaming};
use tonic_types::StatusExt;
use watchdog::clock::unix_now;
use watchdog::domain::attempt::Outcome;
use watchdog::domain::command::Change;
use watchdog::domain::observation::Verdict;
use watchdog::proto::{self, Mode, WatchRequest, WatchResponse};

use crate::standin::{GROUP, Log, RUN, Served, StandInNode, client, failing_sight, leader, serve};

async fn watch(served: &Served, resume_after: &str) -> Streaming<WatchResponse> {
    let ask = WatchRequest { group: String::new(), resume_after: resume_after.to_owned() };
    client(&served.address).await.watch(ask).await.unwrap().into_inner()
}

async fn next(stream: &mut Streaming<WatchResponse>) -> WatchResponse {
    tokio::time::timeout(Duration::from_secs(20), stream.message())
        .await
        .expect("a message")
        .unwrap()
        .expect("not the end")
}

/// Messages until one is so.
async fn until(stream: &mut Streaming<WatchResponse>, is_so: impl Fn(&WatchResponse) -> bool) -> WatchResponse {
    loop {
        let message = next(stream).await;
        if is_so(&message) {
            return message;
        }
    }
}

fn status(message: &WatchResponse) -> &proto::GetStatusResponse {
    message.status.as_ref().expect("each message has the whole status")
}

fn whats(message: &WatchResponse) -> Vec<&str> {
    message.news.iter().map(|entry| entry.what.as_str()).collect()
}

fn note(what: &str) -> Change {
    Change::Note { group: None, what: what.to_owned(), outcome: "done".to_owned() }
}

#[tokio::test]
async fn first_the_whole_then_each_change_with_its_news() {
    let (log, node, served) = leader().await;
    *node.sight.lock().unwrap() = failing_sight();
    let mut stream = watch(&served, "").await;
    let first = next(&mut stream).await;
    assert_eq!((status(&first).groups.len(), status(&first).nodes.len(), first.news.len()), (1, 3, 0));
    assert_eq!(first.position, "1.1");

    let at = unix_now();
    let token = log.fencing_at(at);
    log.finish(at, RUN, "fence", token, Outcome::Done { evidence: "stopped".to_owned() });
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let message = next(&mut stream).await;
        seen.extend(message.news.into_iter().map(|entry| entry.index));
    }
    assert_eq!(seen, [2, 3, 4, 5], "opened, claimed, started and finished, each once");

    // A vote rings no bell, and its age is no change.
    node.sight.lock().unwrap().groups.as_mut().unwrap().get_mut(&GROUP.into()).unwrap().votes[1].verdict =
        Verdict::Down;
    let down = until(&mut stream, |message| status(message).groups[0].votes[1].verdict() == proto::Verdict::Down).await;
    assert!(down.news.is_empty());
    for vote in &mut node.sight.lock().unwrap().groups.as_mut().unwrap().get_mut(&GROUP.into()).unwrap().votes {
        (vote.age_ms, vote.held_ms) = (vote.age_ms + 50, vote.held_ms + 50);
    }
    log.done(note("the next change"));
    let after = next(&mut stream).await;
    assert_eq!(whats(&after), ["the next change"], "ages alone are no message");

    node.lose_quorum();
    let lost = until(&mut stream, |message| !status(message).standing.as_ref().unwrap().has_quorum).await;
    assert!(status(&lost).standing.as_ref().unwrap().note.contains("1 of 3 voters"));
}

#[tokio::test]
async fn a_stream_goes_on_at_another_node_without_gap_or_overlap() {
    let log = Log::new();
    let (one, two) = (StandInNode::new(3, &log), StandInNode::new(2, &log));
    one.lead();
    let (first, second) = (serve(&one).await, serve(&two).await);
    let mut stream = watch(&first, "").await;
    next(&mut stream).await;
    log.done(note("before the cut"));
    let told = until(&mut stream, |message| !message.news.is_empty()).await;
    first.kill();
    assert!(stream.message().await.is_err());
    log.done(note("during the cut"));
    two.lead();
    let mut stream = watch(&second, &told.position).await;
    let resumed = next(&mut stream).await;
    assert_eq!((whats(&resumed), resumed.news_missing), (vec!["during the cut"], false));
    let mut other = watch(&second, "7.1").await;
    assert!(next(&mut other).await.news_missing, "another epoch's position");
}

#[tokio::test]
async fn a_follower_passes_the_leaders_votes_on_and_says_when_it_cannot() {
    let log = Log::new();
    let leading = StandInNode::new(3, &log);
    leading.lead();
    *leading.sight.lock().unwrap() = failing_sight();
    let leader = serve(&leading).await;
    let following = StandInNode::new(2, &log);
    following.follow(3, &leader.address);
    let follower = serve(&following).await;

    let mut stream = watch(&follower, "").await;
    let first = next(&mut stream).await;
    assert_eq!(status(&first).standing.as_ref().unwrap().node, "danang-1");
    assert!(status(&first).has_sight && first.note.is_empty());

    // The leader dies, and the follower has not noticed yet.
    leader.kill();
    let alone = until(&mut stream, |message| !status(message).has_sight).await;
    assert_eq!(status(&alone).standing.as_ref().unwrap().node, "hanoi-1");
    assert!(alone.note.starts_with("the leader danang-1 does not tell ("), "{}", alone.note);
    log.done(note("seen by the follower itself"));
    assert_eq!(whats(&until(&mut stream, |message| !message.news.is_empty()).await), ["seen by the follower itself"]);

    // Somebody else leads: back to votes, and nothing is told twice.
    let next_leader = StandInNode::new(1, &log);
    next_leader.lead();
    *next_leader.sight.lock().unwrap() = failing_sight();
    let successor = serve(&next_leader).await;
    following.follow(1, &successor.address);
    log.done(note("under the next leader"));
    let mut news = Vec::new();
    loop {
        let message = next(&mut stream).await;
        news.extend(message.news.iter().map(|entry| entry.what.clone()));
        if status(&message).has_sight && !news.is_empty() {
            assert_eq!(status(&message).standing.as_ref().unwrap().node, "hcmc-1");
            break;
        }
    }
    assert_eq!(news, ["under the next leader"]);

    // The follower leads itself.
    following.lead();
    let own = until(&mut stream, |message| status(message).standing.as_ref().unwrap().node == "hanoi-1").await;
    assert_eq!(status(&own).standing.as_ref().unwrap().leader, "hanoi-1");
}

#[tokio::test]
async fn only_one_group_and_what_concerns_all() {
    let (log, _node, served) = leader().await;
    let ask = WatchRequest { group: GROUP.into(), resume_after: "1.0".into() };
    let mut stream = client(&served.address).await.watch(ask).await.unwrap().into_inner();
    assert_eq!(next(&mut stream).await.news.len(), 1, "the configuration was adopted");
    log.done(Change::Pause { group: GROUP.into(), reason: "power work".to_owned(), until: None });
    let paused = until(&mut stream, |message| !message.news.is_empty()).await;
    assert_eq!(status(&paused).groups[0].mode(), Mode::Paused);
    assert_eq!((paused.news[0].group.as_str(), paused.news[0].reason.as_str()), (GROUP, "power work"));
}

#[tokio::test]
async fn what_cannot_be_watched_is_refused() {
    let (_log, _node, served) = leader().await;
    let mut client = client(&served.address).await;
    for (group, resume_after, code, wanted) in [
        ("nobody", "", Code::NotFound, "no group nobody; known: aicamera"),
        ("two words", "", Code::InvalidArgument, "group: must be a name"),
        ("", "yesterday", Code::InvalidArgument, "resume_after: \"yesterday\" is no position"),
    ] {
        let ask = WatchRequest { group: group.into(), resume_after: resume_after.into() };
        let refused = client.watch(ask).await.unwrap_err();
        assert_eq!(refused.code(), code, "{group} {resume_after}");
        assert!(refused.message().starts_with(wanted), "{}", refused.message());
    }
    let mut all = Vec::new();
    let refused = loop {
        match client.watch(WatchRequest::default()).await {
            Ok(stream) => all.push(stream),
            Err(refused) => break refused,
        }
    };
    assert_eq!((all.len(), refused.code()), (32, Code::ResourceExhausted), "{}", refused.message());
    assert!(refused.get_details_retry_info().is_some());
    // Whoever leaves makes room.
    drop(all);
    crate::standin::wait_until("room", || async {
        let mut client = client.clone();
        client.watch(WatchRequest::default()).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_node_that_stops_ends_the_stream_and_says_where_to_go_on() {
    let (_log, _node, served) = leader().await;
    let mut stream = watch(&served, "").await;
    next(&mut stream).await;
    served.shutdown.cancel();
    let ended = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended without a word"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Unavailable, "{}", ended.message());
    assert!(ended.message().contains("watch another"), "{}", ended.message());
    let info = ended.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.metadata["node"].as_str()), ("unavailable", "danang-1"));
}

/// Many changes at once are few messages, and every one of them is in the news.
#[tokio::test]
async fn changes_close_together_are_one_message() {
    let (log, _node, served) = leader().await;
    let mut stream = watch(&served, "").await;
    next(&mut stream).await;
    let writer = Arc::clone(&log);
    for n in 0..400 {
        writer.done(note(&format!("note {n}")));
    }
    let (mut messages, mut seen) = (0, Vec::new());
    while seen.len() < 400 {
        let message = next(&mut stream).await;
        messages += 1;
        seen.extend(message.news.into_iter().map(|entry| entry.index));
    }
    assert_eq!(seen, (2..402).collect::<Vec<u64>>());
    assert!(messages <= 6, "{messages} messages");
}
