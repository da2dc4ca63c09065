//! Text for people: spans with a style, aligned columns, and nothing that a remote text could smuggle into a terminal.

use std::io::Write;

use super::error::CliError;

/// Colours are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint(pub bool);

/// How a span looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    /// As it is.
    #[default]
    Plain,
    /// Less important.
    Dim,
    /// A name to find with the eye.
    Bold,
    /// As it should be.
    Good,
    /// Look here.
    Warn,
    /// Broken.
    Bad,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Style::Plain => "",
            Style::Dim => "\x1b[2m",
            Style::Bold => "\x1b[1m",
            Style::Good => "\x1b[32m",
            Style::Warn => "\x1b[33m",
            Style::Bad => "\x1b[1;31m",
        }
    }
}

/// A piece of text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Span {
    text: String,
    style: Style,
}

impl Span {
    /// Control characters are shown as `·`, so that no remote text can steer a terminal.
    pub fn new(text: impl AsRef<str>, style: Style) -> Self {
        let text = text.as_ref().chars().map(|c| if c.is_control() { '·' } else { c }).collect();
        Self { text, style }
    }

    /// The text alone.
    pub fn into_text(self) -> String {
        self.text
    }

    /// Characters.
    pub fn width(&self) -> usize {
        self.text.chars().count()
    }

    fn render(&self, paint: Paint, out: &mut String) {
        if paint.0 && self.style != Style::Plain && !self.text.is_empty() {
            out.push_str(self.style.code());
            out.push_str(&self.text);
            out.push_str("\x1b[0m");
        } else {
            out.push_str(&self.text);
        }
    }
}

impl From<&str> for Span {
    fn from(text: &str) -> Self {
        Span::new(text, Style::Plain)
    }
}

impl From<String> for Span {
    fn from(text: String) -> Self {
        Span::new(text, Style::Plain)
    }
}

/// A dim span.
pub fn dim(text: impl AsRef<str>) -> Span {
    Span::new(text, Style::Dim)
}

/// A bold span.
pub fn bold(text: impl AsRef<str>) -> Span {
    Span::new(text, Style::Bold)
}

/// A green span.
pub fn good(text: impl AsRef<str>) -> Span {
    Span::new(text, Style::Good)
}

/// A yellow span.
pub fn warn(text: impl AsRef<str>) -> Span {
    Span::new(text, Style::Warn)
}

/// A red span.
pub fn bad(text: impl AsRef<str>) -> Span {
    Span::new(text, Style::Bad)
}

/// Lines, one below the other.
#[derive(Debug, Clone, Default)]
pub struct Page {
    lines: Vec<Vec<Span>>,
}

impl Page {
    /// A line of spans as they are.
    pub fn line(&mut self, spans: impl IntoIterator<Item = Span>) {
        self.lines.push(spans.into_iter().collect());
    }

    /// An empty line, unless one is there already.
    pub fn gap(&mut self) {
        if self.lines.last().is_some_and(|line| !line.is_empty()) {
            self.lines.push(Vec::new());
        }
    }

    /// Rows in columns two spaces apart, each as wide as its widest cell; the last column is not padded.
    pub fn table(&mut self, indent: usize, rows: Vec<Vec<Span>>) {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(Span::width).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in rows {
            let mut line = vec![Span::from(" ".repeat(indent))];
            let last = row.iter().rposition(|cell| cell.width() > 0).unwrap_or(0);
            for (column, cell) in row.into_iter().enumerate().take(last + 1) {
                let used = cell.width();
                line.push(cell);
                if column < last && widths[column] > 0 {
                    line.push(Span::from(" ".repeat(widths[column] - used + 2)));
                }
            }
            self.lines.push(line);
        }
    }

    /// The same with no line wider than a terminal: what is cut ends with `…`.
    pub fn within(&self, columns: usize) -> Self {
        Self { lines: self.lines.iter().map(|line| cut(line, columns.max(1))).collect() }
    }

    /// How many lines.
    pub fn height(&self) -> usize {
        self.lines.len()
    }

    /// As text with a line feed after each line.
    pub fn render(&self, paint: Paint) -> String {
        let mut out = String::new();
        for line in &self.lines {
            let start = out.len();
            for span in line {
                span.render(paint, &mut out);
            }
            let end = start + out[start..].trim_end_matches(' ').len();
            out.truncate(end);
            out.push('\n');
        }
        out
    }
}

fn cut(line: &[Span], columns: usize) -> Vec<Span> {
    if line.iter().map(Span::width).sum::<usize>() <= columns {
        return line.to_vec();
    }
    let (mut left, mut kept) = (columns - 1, Vec::new());
    for span in line {
        let text: String = span.text.chars().take(left).collect();
        left -= text.chars().count();
        kept.push(Span { text, style: span.style });
    }
    kept.push(Span::from("…"));
    kept
}

/// Writes to stdout. A reader that went away (`| head`) is no error.
pub fn print(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(CliError::Failed(format!("writing to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a line to stderr; where that fails there is nobody left to tell.
pub fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let mut page = Page::default();
        page.line([bold("aicamera"), dim("   serving "), good("hcmc")]);
        page.line([Span::from("✓✓✓")]);
        for (columns, wanted) in [
            (23, "aicamera   serving hcmc\n✓✓✓\n"),
            (22, "aicamera   serving hc…\n✓✓✓\n"),
            (9, "aicamera…\n✓✓✓\n"),
            (2, "a…\n✓…\n"),
            (0, "…\n…\n"),
        ] {
            assert_eq!(page.within(columns).render(Paint(false)), wanted, "{columns}");
        }
    }
}
