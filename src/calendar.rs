//! When something is due: cron expressions in a time zone, and days as people write them. Pure: the moment comes in as data,
//! and the time zones' rules are the program's own, so that every node answers the same.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _, Zoned};

use crate::domain::ids::UnixMs;

/// Where the users are.
pub const DEFAULT_ZONE: &str = "Asia/Ho_Chi_Minh";

/// What cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CalendarError {
    /// Not a cron expression.
    #[error("{expression:?} is not a cron expression: {detail}")]
    Expression {
        /// As written.
        expression: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Not a time zone.
    #[error("{0:?} is not a time zone of the IANA database")]
    Zone(String),
    /// Not a day.
    #[error("{0:?} is not a day of the form 2026-12-31")]
    Day(String),
}

/// A cron expression with its time zone.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

impl Schedule {
    /// Five fields: minute, hour, day of the month, month, day of the week.
    ///
    /// # Errors
    /// [`CalendarError`] names what cannot be read.
    pub fn parse(expression: &str, zone: &str) -> Result<Self, CalendarError> {
        let wrong = |detail: String| CalendarError::Expression { expression: expression.to_owned(), detail };
        if expression.trim_start().starts_with('@') {
            return Err(wrong(
                "write its five fields: minute, hour, day of the month, month, day of the week".to_owned(),
            ));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(expression).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { cron, zone: zone_of(zone)? })
    }

    /// The first moment after `after` at which it is due; `None`: never, as on 30 February.
    pub fn next_after(&self, after: UnixMs) -> Option<UnixMs> {
        let found = self.cron.find_next_occurrence(&zoned(after, &self.zone)?, false).ok()?;
        u64::try_from(found.timestamp().as_millisecond()).ok().map(UnixMs)
    }
}

fn zone_of(zone: &str) -> Result<TimeZone, CalendarError> {
    TimeZone::get(zone).map_err(|_| CalendarError::Zone(zone.to_owned()))
}

fn zoned(at: UnixMs, zone: &TimeZone) -> Option<Zoned> {
    let ms = i64::try_from(at.0).ok()?;
    Some(Timestamp::from_millisecond(ms).ok()?.to_zoned(zone.clone()))
}

/// From the beginning of the first day to the end of the last, in the time zone.
///
/// # Errors
/// [`CalendarError`] names what cannot be read.
pub fn days(first: &str, last: &str, zone: &str) -> Result<(UnixMs, UnixMs), CalendarError> {
    let zone = zone_of(zone)?;
    let day = |text: &str| text.parse::<Date>().ok().filter(|_| text.len() == 10);
    let wrong = |text: &str| CalendarError::Day(text.to_owned());
    let begin = |date: Date| {
        let zoned = date.to_zoned(zone.clone()).ok()?;
        u64::try_from(zoned.timestamp().as_millisecond()).ok().map(UnixMs)
    };
    let from = day(first).and_then(begin).ok_or_else(|| wrong(first))?;
    let until = day(last).and_then(|date| date.checked_add(1.day()).ok()).and_then(begin).ok_or_else(|| wrong(last))?;
    Ok((from, until))
}

/// `2026-11-21 19:30:05 +07`, in the time zone; in UTC where there is no such zone.
pub fn stamp(at: UnixMs, zone: &str) -> String {
    let zone = TimeZone::get(zone).unwrap_or(TimeZone::UTC);
    zoned(at, &zone).map_or_else(|| at.0.to_string(), |at| at.strftime("%Y-%m-%d %H:%M:%S %Z").to_string())
}

/// `2026-11`, in the time zone.
pub fn month(at: UnixMs, zone: &str) -> String {
    let zone = TimeZone::get(zone).unwrap_or(TimeZone::UTC);
    zoned(at, &zone).map_or_else(String::new, |at| at.strftime("%Y-%m").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> UnixMs {
        UnixMs(u64::try_from(text.parse::<Timestamp>().unwrap().as_millisecond()).unwrap())
    }

    #[test]
    fn the_next_moment_is_found_in_its_time_zone() {
        for (expression, zone, after, wanted) in [
            ("0 2 1 * *", DEFAULT_ZONE, "2026-11-21T12:00:00Z", "2026-11-30T19:00:00Z"),
            ("0 2 1 * *", DEFAULT_ZONE, "2026-11-30T19:00:00Z", "2026-12-31T19:00:00Z"),
            ("0 2 1 * *", DEFAULT_ZONE, "2026-11-30T18:59:59.999Z", "2026-11-30T19:00:00Z"),
            ("0 2 1 */3 *", "UTC", "2026-11-21T12:00:00Z", "2027-01-01T02:00:00Z"),
            ("30 1 * * SAT#1", DEFAULT_ZONE, "2026-11-21T12:00:00Z", "2026-12-04T18:30:00Z"),
            ("0 2 L * *", "UTC", "2028-02-01T00:00:00Z", "2028-02-29T02:00:00Z"),
            // An hour that a change to summer time leaves out is made up for after it; one that comes twice counts once.
            ("30 2 29 3 *", "Europe/Berlin", "2026-01-01T00:00:00Z", "2026-03-29T01:00:00Z"),
            ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"),
        ] {
            let found = Schedule::parse(expression, zone).unwrap().next_after(at(after));
            assert_eq!(
                found,
                Some(at(wanted)),
                "{expression} {zone} after {after}: {:?}",
                found.map(|at| stamp(at, "UTC"))
            );
        }
        assert_eq!(Schedule::parse("0 2 30 2 *", "UTC").unwrap().next_after(at("2026-01-01T00:00:00Z")), None);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let long = "* ".repeat(500);
        for bad in [
            "",
            "monthly",
            "@monthly",
            "0 2 1 *",
            "0 2 1 * * *",
            "60 2 1 * *",
            "0 24 1 * *",
            "0 2 0 * *",
            "0 2 1 13 *",
            &long,
        ] {
            let error = Schedule::parse(bad, "UTC").unwrap_err();
            assert!(matches!(error, CalendarError::Expression { .. }), "{bad}: {error}");
        }
        for bad in ["", "Saigon", "UTC+7", "../etc/passwd"] {
            assert_eq!(Schedule::parse("0 2 1 * *", bad).unwrap_err(), CalendarError::Zone(bad.to_owned()));
        }
        for bad in ["", "2026-02-30", "2026-1-1", "20261231", "tomorrow", "2026-12-31T10:00"] {
            assert_eq!(days(bad, "2026-12-31", "UTC").unwrap_err(), CalendarError::Day(bad.to_owned()));
        }
    }

    #[test]
    fn days_run_from_midnight_to_midnight() {
        let (from, until) = days("2027-02-04", "2027-02-10", DEFAULT_ZONE).unwrap();
        assert_eq!((from, until), (at("2027-02-03T17:00:00Z"), at("2027-02-10T17:00:00Z")));
        assert_eq!(stamp(from, DEFAULT_ZONE), "2027-02-04 00:00:00 +07");
        assert_eq!(month(from, DEFAULT_ZONE), "2027-02");
        assert_eq!(stamp(UnixMs(u64::MAX), "UTC"), u64::MAX.to_string());
    }
}
