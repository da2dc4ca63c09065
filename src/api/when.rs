//! Times and amounts for people: UTC, because the nodes and the reader are seldom in one time zone.

/// `2026-11-21 03:17:30.123Z`.
pub fn stamp(at_ms: i64) -> String {
    let (date, time) = date_and_time(at_ms);
    format!("{date} {time}Z")
}

/// `03:17:30.123`.
pub fn time_of_day(at_ms: i64) -> String {
    date_and_time(at_ms).1
}

/// Civil date from days, after Howard Hinnant's `civil_from_days`.
fn date_and_time(at_ms: i64) -> (String, String) {
    let (days, ms) = (at_ms.div_euclid(86_400_000), at_ms.rem_euclid(86_400_000));
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (h, m, s, f) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60, ms % 1_000);
    (format!("{year:04}-{month:02}-{day:02}"), format!("{h:02}:{m:02}:{s:02}.{f:03}"))
}

/// `0.412 s`, `4.2 s`, `48 s`, `4 min 12 s`, `2 h 5 min`, `3 d 4 h`.
pub fn span(ms: u64) -> String {
    let s = ms / 1_000;
    let two = |big: u64, big_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{big} {big_unit}"),
        _ => format!("{big} {big_unit} {small} {small_unit}"),
    };
    match s {
        0 => format!("0.{ms:03} s"),
        1..10 => format!("{s}.{} s", ms % 1_000 / 100),
        10..60 => format!("{s} s"),
        60..3_600 => two(s / 60, "min", s % 60, "s"),
        3_600..86_400 => two(s / 3_600, "h", s / 60 % 60, "min"),
        _ => two(s / 86_400, "d", s / 3_600 % 24, "h"),
    }
}

/// The time between two moments, 0 where the second lies earlier (two nodes' clocks).
pub fn between(from_ms: i64, to_ms: i64) -> u64 {
    u64::try_from(to_ms.saturating_sub(from_ms)).unwrap_or(0)
}

/// `4 min 12 s ago`, or `in 2 h`. What is to come is rounded up, so that a pause of 2 h ends in 2 h.
pub fn ago(at_ms: i64, now_ms: i64) -> String {
    match between(now_ms, at_ms) {
        0 => format!("{} ago", span(between(at_ms, now_ms))),
        ahead => format!("in {}", span(ahead.div_ceil(1_000) * 1_000)),
    }
}

/// `512 B`, `16.0 MiB`.
pub fn bytes(n: u64) -> String {
    let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(size, _)| n >= *size) {
        Some((size, unit)) => format!("{}.{} {unit}", n / size, n % size * 10 / size),
        None => format!("{n} B"),
    }
}

/// A duration as typed: `90s`, `15m`, `2h`, `1h30m`, `3d`. Milliseconds.
pub fn parse_duration_ms(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no duration; write it like 90s, 15m, 2h, 1h30m or 3d");
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest.get(..digits).and_then(|digits| digits.parse().ok()).ok_or_else(wrong)?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit: u64 = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        rest = &rest[letters..];
        total = number.checked_mul(unit).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
    }
    if total == 0 { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let table = [
            (0, "1970-01-01 00:00:00.000Z"),
            (951_782_400_000, "2000-02-29 00:00:00.000Z"),
            (1_795_231_050_123, "2026-11-21 03:17:30.123Z"),
            (4_107_542_399_999, "2100-02-28 23:59:59.999Z"),
            (-1, "1969-12-31 23:59:59.999Z"),
        ];
        for (ms, text) in table {
            assert_eq!(stamp(ms), text);
        }
    }

    #[test]
    fn spans_are_short() {
        let table = [
            (0, "0.000 s"),
            (412, "0.412 s"),
            (4_250, "4.2 s"),
            (48_900, "48 s"),
            (60_000, "1 min"),
            (252_000, "4 min 12 s"),
            (7_500_000, "2 h 5 min"),
            (273_600_000, "3 d 4 h"),
        ];
        for (ms, text) in table {
            assert_eq!(span(ms), text);
        }
    }

    #[test]
    fn what_is_to_come_is_rounded_up() {
        let table =
            [(7_200_000, 40, "in 2 h"), (1, 0, "in 1.0 s"), (0, 0, "0.000 s ago"), (0, 252_000, "4 min 12 s ago")];
        for (at, now, text) in table {
            assert_eq!(ago(at, now), text);
        }
    }

    #[test]
    fn durations_are_read_strictly() {
        let good = [("90s", 90_000), ("15m", 900_000), ("1h30m", 5_400_000), ("3d", 259_200_000), ("250ms", 250)];
        for (text, ms) in good {
            assert_eq!(parse_duration_ms(text), Ok(ms), "{text}");
        }
        for text in
            ["", "2", "h", "-2h", "2 h", "2y", "0s", "1.5h", "99999999999999999999d", "9999999999999999d", "２h"]
        {
            let error = parse_duration_ms(text).expect_err(text);
            assert!(error.contains("90s, 15m, 2h"), "{error}");
        }
    }

    #[test]
    fn bytes_have_units() {
        for (n, text) in [(0, "0 B"), (1_023, "1023 B"), (1_536, "1.5 KiB"), (16 << 20, "16.0 MiB")] {
            assert_eq!(bytes(n), text);
        }
    }
}
