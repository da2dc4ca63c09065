//! Text from outside, before it is kept or shown.

/// On one line and not longer than `chars_max` characters: what controls a terminal becomes a space, and what is too long ends
/// with `…`.
pub fn one_line(text: &str, chars_max: usize) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut line: String = text.trim().chars().take(chars_max.saturating_add(1)).map(clean).collect();
    if let Some((end, _)) = line.char_indices().nth(chars_max) {
        let kept = line.char_indices().nth(chars_max.saturating_sub(1)).map_or(0, |(at, _)| at);
        line.truncate(kept.min(end));
        line.push('…');
    }
    line
}

/// What was measured becomes `…`, so that the same words mean the same thing: numbers before a unit. Names keep theirs.
pub fn without_measures(text: &str) -> String {
    const UNITS: [&str; 5] = ["s", "ms", "bytes", "days", "min"];
    let is_number =
        |word: &str| word.chars().all(|c| c.is_ascii_digit() || c == '.') && word.contains(char::is_numeric);
    let words: Vec<&str> = text.split(' ').collect();
    let mut out = Vec::with_capacity(words.len());
    for (at, word) in words.iter().enumerate() {
        let unit = words.get(at + 1).map(|next| next.trim_end_matches([',', ';', ':', ')']));
        let is_measure = is_number(word.trim_start_matches('(')) && unit.is_some_and(|unit| UNITS.contains(&unit));
        out.push(if is_measure { "…" } else { *word });
    }
    out.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_and_cleaned() {
        for (text, max, wanted) in [
            ("plain", 10, "plain"),
            ("  two\nlines\u{1b}[1m ", 40, "two lines [1m"),
            ("abcdef", 6, "abcdef"),
            ("abcdefg", 6, "abcde…"),
            ("đường", 4, "đườ…"),
            ("", 4, ""),
        ] {
            assert_eq!(one_line(text, max), wanted);
        }
    }

    #[test]
    fn what_is_measured_is_left_out_and_names_are_kept() {
        for (text, wanted) in [
            ("cooldown: too recent; 3412 s to go", "cooldown: too recent; … s to go"),
            ("lags 12.3 s, above its limit", "lags … s, above its limit"),
            ("run 0195 is stuck at step 3", "run 0195 is stuck at step 3"),
            ("for 3 s more; again in 5 min", "for … s more; again in … min"),
            ("a failover already completed in serving epoch 4", "a failover already completed in serving epoch 4"),
        ] {
            assert_eq!(without_measures(text), wanted);
        }
    }
}
