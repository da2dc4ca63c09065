//! What a leader tells its log.

use std::io;
use std::ops::RangeFrom;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::MakeWriter;
use watchdog::domain::observation::Verdict;
use watchdog::domain::run::RunOutcome;

use crate::world::{Node, PATIENCE};
use crate::{Stage, outcome};

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn with(&self, words: &str) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned();
        text.lines().filter(|line| line.contains(words)).map(str::to_owned).collect()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Reports keep coming, so that the leader keeps looking, until `is_over`.
async fn looks_until(stage: &Stage, leader: &Node, seqs: &mut RangeFrom<u64>, is_over: impl Fn() -> bool) {
    let give_up_at = tokio::time::Instant::now() + PATIENCE;
    for seq in seqs {
        if is_over() {
            return;
        }
        assert!(tokio::time::Instant::now() < give_up_at, "{:#?}", stage.log.group());
        leader.report(seq, Verdict::Down, 60_000, &stage.policy);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn p8_a_leader_that_no_majority_answers_says_so_once_and_when_it_is_over() {
    let lines = Lines::default();
    let _guard = tracing::subscriber::set_default(
        tracing_subscriber::fmt().with_ansi(false).with_writer(lines.clone()).finish(),
    );
    let stage = Stage::new();
    let leader = stage.lead(3, Verdict::Up);
    stage.log.until("every target was seen up", |group| group.seen_up.len() == 3).await;
    stage.log.is_cut_off.store(true, Ordering::Relaxed);
    let mut seqs = 10..;
    let proposals = || stage.log.unanswered.load(Ordering::Relaxed);
    looks_until(&stage, &leader, &mut seqs, || proposals() >= 20).await;
    let told = lines.with("not proposed");
    let mut kinds = told.clone();
    kinds.iter_mut().for_each(|line| *line = line.split("what=").nth(1).unwrap_or_default().to_owned());
    kinds.sort();
    kinds.dedup();
    assert!(!told.is_empty() && told.len() == kinds.len(), "{} proposals: {told:#?}", proposals());

    stage.log.is_cut_off.store(false, Ordering::Relaxed);
    let is_over = || !stage.log.group().history.is_empty();
    looks_until(&stage, &leader, &mut seqs, is_over).await;
    assert_eq!(outcome(&stage.log.group()), RunOutcome::Succeeded);
    assert!(!lines.with("proposed again").is_empty(), "{:#?}", lines.with("proposed"));
    assert_eq!(lines.with("not proposed").len(), told.len());
    stage.end();
}
