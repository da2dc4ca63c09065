//! The status page: one picture in, HTML out. Nothing is asked and nothing is decided here.
//!
//! A page is a frame around parts; a part is what is sent again when it changes. `src/server/page.rs` serves it.

mod drills;
mod html;
mod parts;
mod plot;
mod run;
mod words;

use std::collections::BTreeMap;

use super::when;
use crate::proto;
use html::Html;
pub use words::Lang;

/// The page's style.
pub const STYLE: &str = include_str!("style.css");
/// The page's script.
pub const SCRIPT: &str = include_str!("live.js");
/// A part larger than this is replaced by a word, bytes: what is sent stays bounded.
const PART_MAX: usize = 256 * 1024;

/// A browser without scripts loads the page anew so often, seconds: long enough to read on.
const RELOAD_S: u32 = 30;

/// Everything that the page shows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Picture {
    /// As the leader, else this node, has it.
    pub status: proto::GetStatusResponse,
    /// Closed runs, newest first, bounded by whoever fills it.
    pub runs: Vec<proto::RunSummary>,
    /// Drills, open ones too, newest first, likewise.
    pub drills: Vec<proto::DrillSummary>,
    /// Newest first, likewise.
    pub audit: Vec<proto::AuditEntry>,
    /// Each group's recovery-time objective, milliseconds.
    pub objectives: BTreeMap<String, u64>,
}

/// A part's id in the page, and its HTML.
pub type Part = (&'static str, String);

/// What changes of the page, in its order.
pub fn parts(picture: &Picture, lang: Lang) -> Vec<Part> {
    let words = lang.words();
    let all: [(&'static str, Html); 8] = [
        ("head", parts::head(picture, words)),
        ("groups", parts::groups(picture, words)),
        ("incidents", parts::incidents(picture, words)),
        ("past", plot::past(picture, words)),
        ("drills", drills::past(picture, words)),
        ("nodes", parts::nodes(picture, words)),
        ("audit", parts::audit(picture, words)),
        ("pages", parts::pages(picture, words)),
    ];
    let bounded = |(id, html): (&'static str, Html)| {
        let html = html.into_string();
        let is_small = html.len() <= PART_MAX;
        (id, if is_small { html } else { "<p>too much to show: <code>watchdogctl status</code></p>".to_owned() })
    };
    all.into_iter().map(bounded).collect()
}

/// The whole page.
pub fn page(picture: &Picture, lang: Lang) -> String {
    let words = lang.words();
    let (other, other_name) = lang.other();
    let mut html = Html::default();
    html.raw("<!DOCTYPE html>\n<html").attr("lang", lang.tag()).raw(">\n<head>\n<meta charset=\"utf-8\">\n");
    html.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    html.raw("<meta name=\"color-scheme\" content=\"light dark\">\n<title>");
    html.text(format!("{} · {}", picture.status.cluster, words.title)).raw("</title>\n");
    html.raw("<link rel=\"icon\" href=\"data:,\">\n<link rel=\"stylesheet\" href=\"status.css\">\n");
    // Without scripts the browser asks again by itself.
    html.raw("<noscript><meta http-equiv=\"refresh\"").attr("content", RELOAD_S).raw("></noscript>\n");
    html.raw("<script src=\"status.js\" defer></script>\n</head>\n<body>\n<a class=\"skip\" href=\"#main\">");
    html.text(words.skip).raw("</a>\n<header>\n");
    html.el("h1", "", format!("{} · {}", words.title, picture.status.cluster)).raw("\n<nav>");
    html.raw("<a").attr("href", format!("?lang={}", other.tag())).attr("hreflang", other.tag());
    html.attr("lang", other.tag()).raw(">").text(other_name).raw("</a> <a");
    html.attr("href", format!("?lang={}", lang.tag()))
        .raw(">")
        .text(words.reload)
        .raw("</a> <span id=\"live\" class=\"dim\" role=\"status\"");
    html.attr("data-live", words.live).attr("data-lost", words.lost).raw(">").text(words.still);
    html.raw("</span></nav>\n</header>\n<main id=\"main\">\n");
    for (id, part) in parts(picture, lang) {
        html.raw("<section").attr("id", id).raw(">");
        html.put(&Html::made(part)).raw("</section>\n");
    }
    html.raw("</main>\n<footer>").text(words.footer).raw("</footer>\n</body>\n</html>\n");
    html.into_string()
}

/// A moment in UTC, as `<time>`.
fn moment(html: &mut Html, at_ms: i64) {
    let stamp = when::stamp(at_ms);
    html.raw("<time").attr("datetime", &stamp).raw(">").text(&stamp).raw("</time>");
}

/// What may be wider than a phone moves by itself, also by the keyboard. Its end is `</div>`.
fn scrolled(html: &mut Html, label: &str) {
    html.raw("<div class=\"scroll\" tabindex=\"0\" role=\"region\"").attr("aria-label", label).raw(">");
}

/// A table's head.
fn table<'w>(html: &mut Html, caption: &str, columns: impl IntoIterator<Item = &'w str>) {
    scrolled(html, caption);
    html.raw("<table><caption>").text(caption).raw("</caption><thead><tr>");
    for column in columns {
        html.raw("<th scope=\"col\">").text(column).raw("</th>");
    }
    html.raw("</tr></thead><tbody>");
}

fn end_table(html: &mut Html) {
    html.raw("</tbody></table></div>");
}
