//! Words typed at a command line: durations, tokens, whole lines of them.

use clap::Parser as _;
use watchdog::cli::args::Cli;
use watchdog::cli::when;
use watchdog::domain::ids::Token;

use crate::runner::{Target, Trial, holds};

fn lines(text: &str) -> Vec<Vec<u8>> {
    text.lines().map(|line| line.as_bytes().to_vec()).collect()
}

pub fn any_duration_is_read_as_its_sum_or_refused_with_an_example() -> Trial {
    let corpus = lines("90s\n15m\n2h\n1h30m\n3d\n250ms\n5min\n1d2h3m4s5ms");
    Target::new("durations", corpus).cases(2000).judged_by(move |bytes| {
        let text = String::from_utf8_lossy(bytes);
        match when::parse_duration_ms(&text) {
            Ok(ms) => {
                holds(ms > 0 && text.is_ascii(), || format!("{text:?} is {ms}"))?;
                holds(when::parse_duration_ms(&format!("{ms}ms")) == Ok(ms), || format!("{ms}ms is another"))?;
                holds(
                    !when::span(ms).is_empty() && !when::ago(0, i64::try_from(ms).unwrap_or(i64::MAX)).is_empty(),
                    String::new,
                )
            }
            Err(why) => holds(why.contains("90s, 15m"), || why),
        }
    })
}

pub fn any_token_is_read_as_it_is_printed_or_refused() -> Trial {
    Target::new("tokens", lines("1.7\n0.0\n18446744073709551615.1\n2.10")).cases(2000).judged_by(move |bytes| {
        let text = String::from_utf8_lossy(bytes);
        match text.parse::<Token>() {
            Ok(token) => holds(token.to_string() == text, || format!("{text:?} is {token}")),
            Err(why) => holds(why.to_string().contains("EPOCH.N"), || why.to_string()),
        }
    })
}

pub fn any_moment_is_shown() -> Trial {
    Target::new("moments", lines("0\n1795231050123\n-1\n9223372036854775807\n-9223372036854775808")).judged_by(
        move |bytes| {
            let Ok(at) = String::from_utf8_lossy(bytes).trim().parse::<i64>() else { return Ok(()) };
            let (stamp, day) = (when::stamp(at), when::time_of_day(at));
            holds(stamp.ends_with(&format!("{day}Z")), || format!("{at}: {stamp}"))?;
            let shown =
                [when::ago(at, 0), when::ago(0, at), when::span(at.unsigned_abs()), when::bytes(at.unsigned_abs())];
            holds(shown.iter().all(|text| !text.is_empty()), || format!("{at}: {shown:?}"))
        },
    )
}

pub fn any_command_line_is_read_or_refused() -> Trial {
    let corpus = lines(
        "watchdogctl status aicamera\n\
         watchdogctl --endpoint http://127.0.0.1:1 pause aicamera --reason \"planned work\" --for 2h\n\
         watchdogctl failover aicamera --to hanoi --reason \"flood\" --confirm aicamera --dry-run\n\
         watchdogctl run retry 01955555 fence --reason \"again\" --confirm aicamera\n\
         watchdogctl audit aicamera --limit 20 --before 7 --output json",
    );
    Target { memory_max: 32 << 20, ..Target::new("command-lines", corpus).cases(300) }.judged_by(move |bytes| {
        use std::os::unix::ffi::OsStrExt as _;
        // A word may be any bytes but NUL.
        let words = bytes.split(|byte| *byte == b' ' || *byte == 0).map(std::ffi::OsStr::from_bytes);
        match Cli::try_parse_from(words) {
            Ok(cli) => holds(!cli.timeout.to_string().is_empty(), String::new),
            Err(why) => holds(!why.to_string().is_empty(), || "no words".to_owned()),
        }
    })
}
