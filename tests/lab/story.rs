//! The story as it happens: votes, the decision, steps, pages and the client, each with its time since the fault.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::time::{Duration, SystemTime};

use watchdog::proto::{FailureKind, GetStatusResponse, Run, Verdict, Word};

use super::parts::Lab;
use super::{HOME, watch};

/// What was told already.
pub struct Story {
    fault: SystemTime,
    aloud: bool,
    colour: bool,
    votes: BTreeMap<(String, String), Verdict>,
    counted: bool,
    opened: BTreeSet<String>,
    events: BTreeSet<(String, u64, String)>,
    leader: String,
    pages: usize,
    client_on: Option<String>,
    /// Not yet printed: one look finds things in another order than they happened.
    pending: Vec<(SystemTime, String)>,
}

/// One look at everything, and a little more.
const SETTLE: Duration = Duration::from_millis(120);
/// Longer texts are cut.
const WIDTH: usize = 150;

/// Milliseconds since 1970 as a time.
pub fn time(ms: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or_default())
}

/// Seconds from `fault` to `at`, negative where it lies before.
pub fn since(fault: SystemTime, at: SystemTime) -> f64 {
    match at.duration_since(fault) {
        Ok(later) => later.as_secs_f64(),
        Err(earlier) => -earlier.duration().as_secs_f64(),
    }
}

impl Story {
    /// Begins with the fault.
    pub fn new(fault: SystemTime, aloud: bool) -> Self {
        Self {
            fault,
            aloud,
            colour: std::io::stdout().is_terminal(),
            votes: BTreeMap::new(),
            counted: false,
            opened: BTreeSet::new(),
            events: BTreeSet::new(),
            leader: String::new(),
            pages: 0,
            client_on: None,
            pending: vec![],
        }
    }

    /// One line.
    pub fn line(&mut self, what: &str, text: &str, at: SystemTime) {
        let code = match what {
            "fault" => "31",
            "decision" => "1;33",
            "step" => "36",
            "client" => "32",
            "page" => "35",
            _ => "0",
        };
        let word = if self.colour { format!("\x1b[{code}m{what:<8}\x1b[0m") } else { format!("{what:<8}") };
        self.pending.push((at, format!("{:>+8.3} s  {word}  {}", since(self.fault, at), cut(text))));
    }

    /// A line that belongs to the one before.
    fn more(&mut self, text: &str) {
        if let Some((_, line)) = self.pending.last_mut() {
            line.push_str(&format!("\n{:22}· {}", "", cut(text)));
        }
    }

    /// Prints what was gathered, in the order of time; what is quite new waits for others that may belong before it.
    fn print(&mut self, but_the_last: Duration) {
        self.pending.sort_by_key(|(at, _)| *at);
        let until = SystemTime::now() - but_the_last;
        let ready = self.pending.iter().take_while(|(at, _)| *at <= until).count();
        for (_, line) in self.pending.drain(..ready) {
            if self.aloud {
                println!("{line}");
            }
        }
    }

    /// Prints the rest.
    pub fn end(&mut self) {
        self.print(Duration::ZERO);
    }

    /// Looks everywhere once and tells what is new; the newest run, if there is one.
    pub async fn look(&mut self, lab: &Lab) -> Option<Run> {
        let mut run = None;
        if let Ok(status) = lab.status().await {
            self.tell_votes(&status);
            run = watch::group(&status).ok().and_then(|group| group.open_run.clone());
        }
        if run.is_none()
            && let Some(newest) = lab.runs().await.ok().and_then(|runs| runs.into_iter().next())
        {
            run = lab.run(&newest.id).await.ok();
        }
        if let Some(run) = &run {
            self.tell_run(run);
        }
        self.tell_client(lab);
        self.tell_pages(lab);
        self.print(SETTLE);
        run
    }

    fn tell_votes(&mut self, status: &GetStatusResponse) {
        let leader = status.standing.as_ref().map(|standing| standing.leader.clone()).unwrap_or_default();
        if !self.leader.is_empty() && self.leader != leader {
            self.line("leader", &format!("{leader} leads now"), SystemTime::now());
        }
        self.leader = leader;
        let Ok(group) = watch::group(status) else { return };
        // Once a run is open the votes have spoken.
        if !self.opened.is_empty() {
            return;
        }
        let mut down: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for vote in group.votes.iter().filter(|vote| vote.region == HOME) {
            let verdict = watch::verdict(vote);
            let key = (vote.node.clone(), vote.target.clone());
            let before = self.votes.insert(key, verdict).unwrap_or(Verdict::Up);
            if verdict == Verdict::Down {
                down.entry(&vote.node).or_default().insert(&vote.target);
                if before != Verdict::Down {
                    let kind = FailureKind::word(vote.failure).replace('_', " ");
                    let text = format!("{} sees {} down: {kind}", vote.node, vote.target);
                    self.line("vote", &text, SystemTime::now());
                }
            }
        }
        let agree = down.values().filter(|targets| targets.contains("hcmc-db") && targets.contains("hcmc-api")).count();
        let voters = status.nodes.iter().filter(|node| node.is_voter).count();
        if !self.counted && agree * 2 > voters {
            self.counted = true;
            self.line(
                "votes",
                &format!("{agree} of {voters}: a majority of all voters sees {HOME} down"),
                SystemTime::now(),
            );
            for line in &group.explanation {
                self.more(line);
            }
        }
    }

    fn tell_run(&mut self, run: &Run) {
        let Some(summary) = &run.summary else { return };
        if self.opened.insert(summary.id.clone()) {
            let text =
                format!("{} to {}, by {}: {}", summary.from_region, summary.to_region, summary.by, summary.reason);
            self.line("decision", &text, time(summary.opened_at_ms));
            run.evidence.iter().for_each(|line| self.more(line));
        }
        for event in &run.events {
            if !self.events.insert((summary.id.clone(), event.index, event.what.clone())) {
                continue;
            }
            let (first, rest) = event.what.split_once('\n').unwrap_or((&event.what, ""));
            // The decision was told already.
            if event.step.is_empty() && first.starts_with("opened by") {
                continue;
            }
            let step = if event.step.is_empty() { "run" } else { &event.step };
            let by = if first.starts_with("claimed") { format!(" by {}", event.node) } else { String::new() };
            let text = format!("{step:<9} token {}  {first}{by}", event.token);
            self.line("step", &text, time(event.at_ms));
            rest.lines().for_each(|line| self.more(line));
        }
    }

    fn tell_client(&mut self, lab: &Lab) {
        let Some(client) = &lab.client else { return };
        let Some(row) = client.newest() else { return };
        if self.client_on.as_ref() == Some(&row.by) {
            return;
        }
        if self.client_on.is_some() || row.at > self.fault {
            let first = client.acknowledged().into_iter().find(|other| other.by == row.by && other.at > self.fault);
            if let Some(first) = first.filter(|first| first.by != lab.primary.address.to_string()) {
                self.line("client", &format!("the first row is acknowledged by {}", first.by), first.at);
            }
        }
        self.client_on = Some(row.by);
    }

    fn tell_pages(&mut self, lab: &Lab) {
        let received = lab.receivers.received();
        for page in received.iter().skip(self.pages) {
            self.line("page", &format!("{:<9} {}", page.by, page.headline()), page.at);
        }
        self.pages = received.len();
    }
}

/// No longer than a line of the story.
pub fn cut(text: &str) -> String {
    if text.chars().count() <= WIDTH {
        return text.to_owned();
    }
    text.chars().take(WIDTH - 1).chain(['…']).collect()
}
