//! A page that is kept up to date: in place on a terminal, one after the other where stdout is none, and one JSON document
//! a line for programs.

use std::time::Duration;

use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::Screen;
use super::args::Output;
use super::error::CliError;
use super::text::{self, Page, Paint, Span, dim, tell, warn};
use super::when::time_of_day;
use crate::clock::unix_now;

/// Lines and columns where the terminal does not say how many it has.
const SIZE: (usize, usize) = (24, 80);
/// The clock in the last line.
const TICK: Duration = Duration::from_secs(1);

/// The page as it is kept.
pub struct Live {
    screen: Screen,
    page: Page,
    trouble: String,
    /// The terminal shows its other screen, so that what was there before comes back.
    is_away: bool,
}

impl Live {
    /// Nothing is shown before the first page.
    pub fn new(screen: Screen) -> Self {
        Self { screen, page: Page::default(), trouble: String::new(), is_away: false }
    }

    /// Whether a page is redrawn in place, and so may show the time.
    pub fn is_drawn(&self) -> bool {
        self.screen.is_terminal && self.screen.output == Output::Table
    }

    /// What is shown may be old.
    pub fn is_in_trouble(&self) -> bool {
        !self.trouble.is_empty()
    }

    /// A new page, or the answer that it was made from.
    pub fn show<T: Serialize>(&mut self, answer: &T, page: impl FnOnce() -> Page) -> Result<(), CliError> {
        self.trouble.clear();
        if self.screen.output == Output::Json {
            return line(answer);
        }
        let first = self.page.height() == 0;
        self.page = page();
        if self.is_drawn() {
            return self.draw();
        }
        let gap = if first { "" } else { "\n" };
        text::print(&format!("{gap}{}", self.page.render(self.screen.paint)))
    }

    /// What keeps the page from being kept up to date; said once.
    pub fn trouble(&mut self, why: &str) -> Result<(), CliError> {
        if self.trouble.is_empty() && !self.is_drawn() {
            tell(&format!("the view is lost, and looked for at every endpoint: {}", Span::from(why).into_text()));
        }
        why.clone_into(&mut self.trouble);
        self.draw()
    }

    /// Draws it again, with the time: whoever looks at a calm cluster sees that the view lives.
    pub fn draw(&mut self) -> Result<(), CliError> {
        if !self.is_drawn() || self.page.height() == 0 {
            return Ok(());
        }
        let size =
            rustix::termios::tcgetwinsize(std::io::stdout()).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0);
        let size = size.map_or(SIZE, |size| (usize::from(size.ws_row), usize::from(size.ws_col)));
        let frame = frame(&self.page, &self.trouble, size, self.screen.paint);
        // Away from the scrollback and back, the cursor hidden; and one write a frame, so that nothing flickers.
        let enter = if self.is_away { "" } else { "\x1b[?1049h\x1b[?25l" };
        self.is_away = true;
        text::print(&format!("{enter}\x1b[?7l\x1b[H{frame}\x1b[J\x1b[?7h"))
    }
}

/// As much of the page as fits, and a last line that says how it stands.
fn frame(page: &Page, trouble: &str, (rows, columns): (usize, usize), paint: Paint) -> String {
    let (rows, page) = (rows.max(3), page.within(columns));
    let text = page.render(paint);
    let lines: Vec<&str> = text.lines().collect();
    let room = rows.saturating_sub(2);
    let mut out = String::new();
    for line in lines.iter().take(room) {
        out.push_str(line);
        out.push_str("\x1b[K\r\n");
    }
    let now = time_of_day(crate::api::show::ms(unix_now()));
    let now = now.split('.').next().unwrap_or_default().to_owned();
    let hidden = match lines.len().saturating_sub(room) {
        0 => String::new(),
        n => format!("   {n} more lines below: make the window higher"),
    };
    let mut foot = Page::default();
    match trouble {
        "" => foot.line([dim(format!("watching, {now}Z   Ctrl-C ends{hidden}"))]),
        why => foot.line([warn(format!("! {now}Z: this may be old, and is looked for elsewhere: {why}"))]),
    }
    out.push_str("\x1b[K\r\n");
    out.push_str(foot.within(columns).render(paint).trim_end());
    out.push_str("\x1b[K");
    out
}

impl Drop for Live {
    fn drop(&mut self) {
        if self.is_away {
            // What was seen last stays to be read.
            let _ = text::print(&format!("\x1b[?25h\x1b[?1049l{}", self.page.render(self.screen.paint)));
        }
    }
}

/// One JSON document on one line.
pub fn line<T: Serialize>(answer: &T) -> Result<(), CliError> {
    let json = serde_json::to_string(answer);
    let json = json.map_err(|error| CliError::Failed(format!("the answer is no JSON: {error}")))?;
    text::print(&(json + "\n"))
}

/// When to draw again: each second, and as the window's size changes.
pub struct Ticks {
    clock: Interval,
    resized: Option<Signal>,
}

impl Ticks {
    /// From now on.
    pub fn new() -> Self {
        let mut clock = interval(TICK);
        clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Self { clock, resized: signal(SignalKind::window_change()).ok() }
    }

    /// The next.
    pub async fn tick(&mut self) {
        let resized = async {
            match &mut self.resized {
                Some(resized) => resized.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.clock.tick() => {}
            _ = resized => {}
        }
    }
}

impl Default for Ticks {
    fn default() -> Self {
        Self::new()
    }
}

/// Until somebody ends the program: Ctrl-C, or a signal to end. Only then the terminal can be put back.
///
/// # Errors
/// The system does not tell of signals.
pub async fn ended() -> Result<(), CliError> {
    let listen = |kind| signal(kind).map_err(|error| CliError::Failed(format!("signals cannot be heard: {error}")));
    let (mut interrupt, mut end) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let mut hangup = listen(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = end.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_the_terminal_and_says_what_it_hides() {
        let mut page = Page::default();
        for n in 0..30 {
            page.line([format!("line {n}").into()]);
        }
        for (rows, shown, hidden) in [(10, 8, Some("22 more lines")), (40, 30, None), (3, 1, Some("29 more lines"))] {
            let text = frame(&page, "", (rows, 80), Paint(false));
            let lines: Vec<&str> = text.split("\r\n").collect();
            assert!(lines.len() <= rows, "{rows}: {text}");
            assert_eq!(lines.iter().filter(|line| line.starts_with("line ")).count(), shown, "{rows}");
            assert_eq!(text.contains("more lines"), hidden.is_some());
            assert!(hidden.is_none_or(|words| text.contains(words)), "{text}");
        }
        assert!(frame(&page, "hcmc-1: connection refused", (10, 80), Paint(false)).contains("this may be old"));
        let narrow = frame(&page, "hcmc-1: connection refused", (10, 20), Paint(false));
        let widest = narrow.replace("\x1b[K", "").split("\r\n").map(|line| line.chars().count()).max();
        assert_eq!(widest, Some(20), "{narrow}");
    }
}
