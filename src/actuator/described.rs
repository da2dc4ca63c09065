//! What a host's guard says of itself in one exchange, for readiness: its status, and what it could do there.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::guarded::GuardedActuator;
use crate::domain::attempt::{Prospect, ReadBack};
use crate::domain::ids::{ClusterName, GroupName, Token};
use crate::domain::plan::{Action, GuardEndpoint};
use crate::domain::readiness::{ActionSeen, GuardSeen};
use crate::guard::protocol::{ActionShown, GroupStatus, RedisShown, Refusal, Reply, Request, Status};

/// Its answer; what it can do is `None` where its guard is of a version that does not tell.
#[derive(Debug)]
struct Answered {
    status: Status,
    actions: Option<BTreeMap<String, ActionShown>>,
    redis: Option<RedisShown>,
}

/// The answer, or why there is none.
#[derive(Debug)]
pub struct Described(Result<Answered, String>);

impl GuardedActuator {
    /// Asks a guard what it shows and what it could do. Changes nothing.
    pub async fn describe(
        &self,
        cluster: &ClusterName,
        epoch: u64,
        endpoint: &GuardEndpoint,
        deadline: Instant,
    ) -> Described {
        let asked = self.ask(endpoint, &Request::describe(cluster.clone(), epoch), deadline).await;
        let host = &endpoint.host;
        Described(match asked {
            Ok(Reply::Described { status, actions, redis }) => Ok(Answered { status, actions: Some(actions), redis }),
            // One of before `describe` takes it for an action that lacks a group.
            Ok(Reply::Refused { refusal: Refusal::BadRequest, .. }) => {
                let status = self.status(cluster, epoch, endpoint, deadline).await;
                status.map(|status| Answered { status, actions: None, redis: None })
            }
            Ok(Reply::Refused { refusal, reason, .. }) => {
                Err(format!("guard of host {host} refused describe ({refusal}): {reason}"))
            }
            Ok(other) => Err(format!("guard of host {host} answered describe with {other:?}")),
            Err(error) => Err(error.to_string()),
        })
    }
}

impl Described {
    /// What is there now of an action's effect.
    pub fn present(&self, action: &Action) -> ReadBack {
        match &self.0 {
            Ok(answered) => GuardedActuator::present(action, &answered.status),
            Err(reason) => ReadBack::Unknown { reason: reason.clone() },
        }
    }

    /// Whether the group's database there could be promoted.
    pub fn prospect(&self, group: &GroupName, guard: &GuardEndpoint) -> Prospect {
        match &self.0 {
            Ok(answered) => GuardedActuator::prospect(group, guard, &answered.status),
            Err(reason) => Prospect::Unknown { reason: reason.clone() },
        }
    }

    /// What it could do for the group, whose last token is `issued`.
    pub fn seen(&self, group: &GroupName, issued: Token) -> GuardSeen {
        let answered = match &self.0 {
            Ok(answered) => answered,
            Err(reason) => return GuardSeen::Silent { reason: reason.clone() },
        };
        let fault = match answered.status.groups.iter().find(|shown| &shown.group == group) {
            None => Some(format!("it does not know group {group}: name it in its configuration")),
            Some(GroupStatus { token: Some(held), fault: None, .. }) if *held > issued => {
                Some(format!("it holds token {held}, but {issued} is the last that was issued: find out who raised it"))
            }
            Some(shown) => shown.fault.clone(),
        };
        let seen = |(name, shown): (&String, &ActionShown)| {
            (name.clone(), ActionSeen { params: shown.params.clone(), fault: shown.fault.clone() })
        };
        let actions = answered.actions.as_ref().map(|actions| actions.iter().map(seen).collect());
        let redis = answered.redis.as_ref().filter(|shown| &shown.group == group);
        GuardSeen::Answers { fault, actions, redis_latch: redis.map(latch_in_words) }
    }
}

fn latch_in_words(redis: &RedisShown) -> String {
    match (&redis.latch, &redis.fault) {
        (Some(mark), _) => format!("fenced under token {} by run {}", mark.token, mark.run),
        (None, why) => format!("its latch cannot be read: {}", why.as_deref().unwrap_or("no reason was given")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;

    use super::*;
    use crate::actuator::ssh::{Ask, AskError};
    use crate::guard::protocol::Answer;

    /// A guard of before `describe`: it takes that for an action that lacks a group.
    #[derive(Debug)]
    struct Older;

    #[async_trait]
    impl Ask for Older {
        async fn ask(&self, _: &GuardEndpoint, line: String, _: Instant) -> Result<Vec<u8>, AskError> {
            let reply = if line.contains("\"status\"") {
                let group = |name: &str, n: u64| GroupStatus {
                    group: name.into(),
                    token: Some(Token { epoch: 1, n }),
                    epoch: Some(1),
                    latch: None,
                    in_flight: None,
                    hold: None,
                    last: Vec::new(),
                    fault: None,
                };
                let groups = vec![group("shop", 0), group("ahead", 7)];
                Reply::Status(Status { host: "db".to_owned(), cluster: "demo".into(), groups, postgres: None })
            } else {
                let reason = "group is missing: action \"describe\" needs it".to_owned();
                Reply::Refused { refusal: Refusal::BadRequest, reason, held: None }
            };
            let answer = Answer { guard_version: "0".to_owned(), boot_nonce: "b".to_owned(), boottime_ms: 1, reply };
            Ok(serde_json::to_vec(&answer).expect("plain data"))
        }
    }

    #[tokio::test]
    async fn a_guard_that_cannot_describe_still_shows_its_status() {
        let endpoint = GuardEndpoint {
            host: "db".into(),
            address: "127.0.0.1:22".to_owned(),
            user: "watchdog".to_owned(),
            host_key: String::new(),
            identity_file: String::new(),
        };
        let deadline = Instant::now() + Duration::from_secs(5);
        let actuator = GuardedActuator::over(Box::new(Older));
        let described = actuator.describe(&"demo".into(), 1, &endpoint, deadline).await;
        let seen = described.seen(&"shop".into(), Token { epoch: 1, n: 0 });
        assert_eq!(seen, GuardSeen::Answers { fault: None, actions: None, redis_latch: None });
        let held = described.seen(&"other".into(), Token { epoch: 1, n: 0 });
        assert!(
            matches!(&held, GuardSeen::Answers { fault: Some(why), .. } if why.contains("does not know")),
            "{held:?}"
        );
        let higher = Token { epoch: 1, n: 7 };
        assert_eq!(
            described.seen(&"ahead".into(), higher),
            GuardSeen::Answers { fault: None, actions: None, redis_latch: None }
        );
        let behind = described.seen(&"ahead".into(), Token { epoch: 1, n: 6 });
        assert!(
            matches!(&behind, GuardSeen::Answers { fault: Some(why), .. } if why.contains("token 1.7")),
            "{behind:?}"
        );
    }
}
