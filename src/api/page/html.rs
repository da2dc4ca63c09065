//! HTML that cannot be broken out of: every text goes through [`Html::text`], every attribute through [`Html::attr`].

use std::fmt::{Display, Write as _};

/// A text longer than this is cut, characters: a page stays a page, whatever a target answered.
const TEXT_MAX: usize = 400;

/// HTML as it grows.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Html(String);

impl Html {
    /// Markup of ours, as it is. A literal only: what comes from elsewhere is no markup.
    pub fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// HTML that was made here.
    pub fn put(&mut self, html: &Html) -> &mut Self {
        self.0.push_str(&html.0);
        self
    }

    /// Text, escaped.
    pub fn text(&mut self, text: impl Display) -> &mut Self {
        escape(&text.to_string(), &mut self.0);
        self
    }

    /// ` name="value"`, escaped.
    pub fn attr(&mut self, name: &'static str, value: impl Display) -> &mut Self {
        let _ = write!(self.0, " {name}=\"");
        escape(&value.to_string(), &mut self.0);
        self.0.push('"');
        self
    }

    /// An element with a class (empty: none) around text.
    pub fn el(&mut self, tag: &'static str, class: &'static str, text: impl Display) -> &mut Self {
        self.open(tag, class).text(text).close(tag)
    }

    /// An element's beginning.
    pub fn open(&mut self, tag: &'static str, class: &'static str) -> &mut Self {
        let _ = write!(self.0, "<{tag}");
        if !class.is_empty() {
            let _ = write!(self.0, " class=\"{class}\"");
        }
        self.0.push('>');
        self
    }

    /// An element's end.
    pub fn close(&mut self, tag: &'static str) -> &mut Self {
        let _ = write!(self.0, "</{tag}>");
        self
    }

    /// What [`Html`] made before and was kept as text.
    pub(super) fn made(html: String) -> Self {
        Self(html)
    }

    /// All of it.
    pub fn into_string(self) -> String {
        self.0
    }
}

fn escape(text: &str, out: &mut String) {
    for (n, c) in text.chars().enumerate() {
        if n == TEXT_MAX {
            out.push('…');
            return;
        }
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(' '),
            // Also what turns the direction of writing: it makes words say something else.
            c if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                out.push('\u{fffd}');
            }
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_breaks_out() {
        let mut html = Html::default();
        html.raw("<p")
            .attr("title", "\"><script>alert('x')</script>")
            .raw(">")
            .text("a<b>&c\u{0}\u{202e}\nd")
            .close("p");
        assert_eq!(
            html.into_string(),
            "<p title=\"&quot;&gt;&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;\">a&lt;b&gt;&amp;c\u{fffd}\u{fffd} d</p>"
        );
        let mut long = Html::default();
        long.text("x".repeat(9999));
        assert_eq!(long.into_string().chars().count(), TEXT_MAX + 1);
    }
}
