//! A run as it goes: the timeline line by line and, on a terminal, the steps beneath it with what is at work.

use std::time::Duration;

use super::args::Output;
use super::call::Cluster;
use super::error::{CliError, Exit};
use super::text::{self, Page, bad, bold, dim, good, tell, warn};
use super::when::span;
use super::{Screen, run_page};
use crate::proto::{FollowRunResponse, Run, RunPhase, RunSummary, Word};

const SPINNER: [&str; 8] = ["⠋", "⠙", "⠸", "⠴", "⠦", "⠧", "⠇", "⠏"];
/// Width of the progress bar.
const BAR: usize = 24;
const TICK: Duration = Duration::from_millis(120);
/// How often the stream is opened anew when the node it came from is lost.
const REOPENED_MAX: u32 = 60;

/// Follows until the run is closed.
pub async fn follow(cluster: &Cluster, run_id: &str, screen: Screen) -> Result<Exit, CliError> {
    let mut view = View::new(screen);
    let mut reopened = 0;
    loop {
        match follow_one(cluster, run_id, &mut view).await {
            Ok(exit) => return Ok(exit),
            Err(CliError::Unreachable(why) | CliError::NoQuorum(why) | CliError::Full(why))
                if reopened < REOPENED_MAX =>
            {
                view.clear()?;
                if reopened == 0 {
                    tell(&format!("the view is lost, the run goes on without it ({why}); looking for another node"));
                }
                reopened += 1;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn follow_one(cluster: &Cluster, run_id: &str, view: &mut View) -> Result<Exit, CliError> {
    let mut stream = cluster.follow(run_id).await?;
    let mut tick = tokio::time::interval(TICK);
    loop {
        let message = tokio::select! {
            message = stream.message() => message,
            _ = tick.tick(), if view.screen.is_terminal => {
                view.tick()?;
                continue;
            }
        };
        match message {
            Ok(Some(message)) => {
                if let Some(exit) = view.show(message)? {
                    return Ok(exit);
                }
            }
            Ok(None) => return Err(CliError::Unreachable("the node ended the stream".to_owned())),
            Err(status) if status.code() == tonic::Code::NotFound => return Err(CliError::from_status(&status)),
            Err(status) => return Err(CliError::Unreachable(status.message().to_owned())),
        }
    }
}

struct View {
    screen: Screen,
    last: Option<FollowRunResponse>,
    printed_index: u64,
    said: String,
    drawn: usize,
    turn: usize,
}

impl View {
    fn new(screen: Screen) -> Self {
        Self { screen, last: None, printed_index: 0, said: String::new(), drawn: 0, turn: 0 }
    }

    /// Prints what is new; the exit code where the run is closed.
    fn show(&mut self, message: FollowRunResponse) -> Result<Option<Exit>, CliError> {
        let run = message.run.clone().unwrap_or_default();
        let summary = run.summary.clone().unwrap_or_default();
        if self.screen.output == Output::Json {
            let line = serde_json::to_string(&message)
                .map_err(|error| CliError::Failed(format!("the answer is no JSON: {error}")))?;
            text::print(&(line + "\n"))?;
            return Ok(exit_of(&summary));
        }
        self.clear()?;
        let mut page = Page::default();
        if self.last.is_none() {
            page.line([bold(&summary.group), dim(format!("   {}   run {}", run_page::moved(&summary), summary.id))]);
            page.line([dim("because "), summary.reason.as_str().into()]);
        }
        self.news(&mut page, &message, &run, &summary);
        text::print(&page.render(self.screen.paint))?;
        self.last = Some(message);
        let exit = exit_of(&summary);
        if exit.is_none() {
            self.draw()?;
        }
        Ok(exit)
    }

    fn news(&mut self, page: &mut Page, message: &FollowRunResponse, run: &Run, summary: &RunSummary) {
        let zero = run.fault_at_ms.unwrap_or(summary.opened_at_ms);
        let new: Vec<_> = run.events.iter().filter(|event| event.index > self.printed_index).collect();
        if let Some(last) = new.last() {
            self.printed_index = last.index;
        }
        page.table(0, new.into_iter().map(|event| run_page::event_row(event, zero)).collect());
        let said = standing_words(message, run);
        if said != self.said {
            if !said.is_empty() {
                page.line([warn("! "), warn(&said)]);
            }
            self.said = said;
        }
        if exit_of(summary).is_some() {
            let took = summary.recovery_time_ms.map(|ms| format!(", recovery time {}", span(ms))).unwrap_or_default();
            let text = format!("{}{took}", RunPhase::word(summary.phase));
            page.line([if summary.phase() == RunPhase::Succeeded { good(text) } else { bad(text) }]);
        }
    }

    fn tick(&mut self) -> Result<(), CliError> {
        self.turn = (self.turn + 1) % SPINNER.len();
        self.draw()
    }

    /// Takes the drawn steps off the terminal.
    fn clear(&mut self) -> Result<(), CliError> {
        if self.drawn > 0 {
            let up = std::mem::take(&mut self.drawn);
            text::print(&format!("\x1b[{up}A\x1b[J"))?;
        }
        Ok(())
    }

    /// Draws the steps over what is drawn; only on a terminal, and without wrapping, so that the number of lines is known.
    fn draw(&mut self) -> Result<(), CliError> {
        let run = self.last.as_ref().and_then(|message| message.run.as_ref());
        let (true, Some(run)) = (self.screen.is_terminal && self.screen.output == Output::Table, run) else {
            return Ok(());
        };
        let summary = run.summary.clone().unwrap_or_default();
        let mut page = Page::default();
        let (settled, total) = (summary.steps_settled as usize, summary.steps_total as usize);
        let full = (settled * BAR).checked_div(total).unwrap_or(0).min(BAR);
        let counted = dim(format!("  {settled} of {total} steps"));
        page.line([good("━".repeat(full)), dim("─".repeat(BAR - full)), counted]);
        let spinner = SPINNER[self.turn];
        page.table(0, run.steps.iter().map(|step| run_page::step_row(step, spinner)).collect());
        let up = if self.drawn > 0 { format!("\x1b[{}A", self.drawn) } else { String::new() };
        self.drawn = page.height();
        let lines = page.render(self.screen.paint).replace('\n', "\x1b[K\n");
        // One write a frame, so that nothing flickers.
        text::print(&format!("\x1b[?7l{up}{lines}\x1b[J\x1b[?7h"))
    }
}

fn exit_of(summary: &RunSummary) -> Option<Exit> {
    match summary.phase() {
        RunPhase::Succeeded => Some(Exit::Ok),
        RunPhase::Withdrawn | RunPhase::Aborted | RunPhase::Reverted => Some(Exit::Failure),
        _ => None,
    }
}

/// What the reader must know beside the timeline.
fn standing_words(message: &FollowRunResponse, run: &Run) -> String {
    let standing = message.standing.clone().unwrap_or_default();
    if !standing.has_quorum || standing.leader.is_empty() {
        return format!("{} has no leader or no quorum: the run waits for one", standing.node);
    }
    match &run.stuck {
        // Why it goes back is in the timeline as well; here it stays in sight.
        None if run.turned_back.is_some() => {
            let reason = run.turned_back.as_ref().map(|back| back.reason.as_str()).unwrap_or_default();
            format!("turning back, writing goes back to the old primary: {reason}")
        }
        Some(stuck) => format!("stuck at {}: {} (watchdogctl run show says how to go on)", stuck.step, stuck.reason),
        None => String::new(),
    }
}
