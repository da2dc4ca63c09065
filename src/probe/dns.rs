//! Whether a name server says what it should: the value of the region that serves.

use std::time::Duration;

use async_trait::async_trait;

use super::{ExpectedValues, Probe, failure};
use crate::domain::observation::{Failure, FailureKind, Measure};
use crate::resolve::{self, Question, ResolveError};

/// Asks one name server for one record set.
pub struct DnsProbe {
    server: String,
    name: String,
    question: Question,
    expected: Option<ExpectedValues>,
    limit: Duration,
}

impl DnsProbe {
    /// Asks `server` (`address:port`) for `name`. `expected` is asked at each look, since it changes with serving;
    /// where it gives `None` (nobody serves just now) any value will do, but there must be one.
    pub fn new(
        server: String,
        name: String,
        question: Question,
        expected: Option<ExpectedValues>,
        limit: Duration,
    ) -> Self {
        Self { server, name, question, expected, limit }
    }

    fn place(&self) -> String {
        format!("dns {} {:?} at {}", self.name, self.question, self.server)
    }
}

#[async_trait]
impl Probe for DnsProbe {
    async fn probe(&self) -> Result<Option<Measure>, Failure> {
        let answer = resolve::query(&self.server, &self.name, self.question, self.limit)
            .await
            .map_err(|e| failure::failure(kind_of(&e), format!("{}: {e}", self.place())))?;
        let wrong = |what: String| failure::failure(FailureKind::WrongAnswer, format!("{}: {what}", self.place()));
        if answer.no_such_name {
            return Err(wrong("the name does not exist (NXDOMAIN)".to_owned()));
        }
        let values = answer.values();
        if values.is_empty() {
            return Err(wrong("the name has no record of this type".to_owned()));
        }
        if let Some(expected) = self.expected.as_ref().and_then(|expected| expected()) {
            let expected = comparable(&expected, self.question);
            if comparable(&values, self.question) != expected {
                return Err(wrong(format!("it resolves to {}, expected {}", values.join(", "), expected.join(", "))));
            }
        }
        Ok(Some(Measure::Dns { values }))
    }
}

/// One spelling, sorted, each once.
fn comparable(values: &[String], question: Question) -> Vec<String> {
    let mut values: Vec<String> = values
        .iter()
        .map(|value| match question {
            Question::Cname => resolve::canonical_name(value),
            Question::A | Question::Aaaa => {
                value.parse::<std::net::IpAddr>().map_or_else(|_| value.clone(), |ip| ip.to_string())
            }
            Question::Txt => value.clone(),
        })
        .collect();
    values.sort();
    values.dedup();
    values
}

fn kind_of(error: &ResolveError) -> FailureKind {
    match error {
        ResolveError::BadName { .. } | ResolveError::BadServer { .. } => FailureKind::OurFault,
        ResolveError::TimedOut { .. } => FailureKind::TimedOut,
        ResolveError::ConnectionRefused { .. } => FailureKind::Refused,
        ResolveError::Network { .. } => FailureKind::Unreachable,
        // A server that refuses to answer us, or for this zone, was asked wrongly.
        ResolveError::ServerSays { code, .. } if code.eq_ignore_ascii_case("refused") => FailureKind::OurFault,
        ResolveError::ServerSays { .. } | ResolveError::Malformed { .. } => FailureKind::WrongAnswer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_compared_in_one_spelling() {
        let table = [
            (Question::A, vec!["10.0.0.2", "10.0.0.1"], vec!["10.0.0.1", "10.0.0.2"], true),
            (Question::A, vec!["10.0.0.1"], vec!["10.0.0.1", "10.0.0.2"], false),
            (Question::Aaaa, vec!["2001:db8::1"], vec!["2001:0db8:0::1"], true),
            (Question::Cname, vec!["LB.Example.test."], vec!["lb.example.test"], true),
            (Question::Txt, vec!["Ab"], vec!["ab"], false),
        ];
        for (question, seen, expected, same) in table {
            let owned = |values: &[&str]| values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>();
            let equal = comparable(&owned(&seen), question) == comparable(&owned(&expected), question);
            assert_eq!(equal, same, "{seen:?} {expected:?}");
        }
    }
}
