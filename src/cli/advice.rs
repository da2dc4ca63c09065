//! What to do next after a refusal: by its stable code, by the verb that was refused, or by the field that was wrong.
//!
//! In a piece of advice `VERB`, `GROUP` and `RUN` stand for what was typed.

use clap::ArgMatches;

use crate::api::refuse::{FORBIDDEN, NO_LEADER, NO_QUORUM, UNPROVEN};

/// What was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// `run retry`.
    pub verb: String,
    /// The group, where one was named.
    pub group: Option<String>,
    /// The run, where one was named.
    pub run: Option<String>,
}

impl Asked {
    /// From what was typed.
    pub fn of(matches: &ArgMatches) -> Self {
        let mut asked = Self::default();
        let mut at = matches;
        while let Some((name, inner)) = at.subcommand() {
            let space = if asked.verb.is_empty() { "" } else { " " };
            asked.verb.push_str(&format!("{space}{name}"));
            at = inner;
        }
        let named = |id: &str| at.try_get_one::<String>(id).ok().flatten().cloned();
        (asked.group, asked.run) = (named("group"), named("run"));
        asked
    }

    fn fill(&self, advice: &str) -> String {
        let word_for = |word: &str| match word {
            "VERB" if !self.verb.is_empty() => Some(self.verb.as_str()),
            "GROUP" => self.group.as_deref(),
            "RUN" => self.run.as_deref().or(self.group.as_deref()),
            _ => None,
        };
        let is_of_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let mut out = String::new();
        for piece in advice.split_inclusive(|c: char| !is_of_word(c)) {
            let word = piece.trim_end_matches(|c: char| !is_of_word(c));
            out.push_str(word_for(word).unwrap_or(word));
            out.push_str(&piece[word.len()..]);
        }
        out
    }
}

/// Words of a refusal that no node of this version says.
const OF_NO_CODE: &str = "watchdogctl status shows the present state";

/// What the command line wants.
const OF_THE_COMMAND_LINE: &str = "watchdogctl VERB --help says what is expected";

/// Where a code means something else in some verbs: the verb or how it begins, the code, the advice.
const BY_VERB: &[(&str, &str, &str)] = &[
    ("failback", "illegal", "nothing is to be done; watchdogctl status GROUP shows where it is served from"),
    ("failover", "illegal", "watchdogctl failover GROUP --dry-run shows the gates; open what is said above"),
    ("switchover", "illegal", "watchdogctl switchover GROUP --dry-run shows the gates; open what is said above"),
    ("rejoin", "illegal", "watchdogctl rejoin GROUP --dry-run shows the gates; open what is said above"),
    ("traffic", "illegal", "watchdogctl traffic GROUP --dry-run shows the gates; open what is said above"),
    ("traffic", "other_config", TRAFFIC_ALONE),
    ("service", "illegal", "add --dry-run: it shows the gates and what is there"),
    (
        "drill start",
        "illegal",
        "mend what is said above, then ask again; watchdogctl readiness GROUP shows what is not ready, watchdogctl drill list \
         GROUP an open drill, watchdogctl status GROUP the rest; a tabletop drill changes nothing and asks for less",
    ),
    (
        "drill",
        "run_open",
        "watchdogctl run follow RUN waits for the open run's end, watchdogctl drill list shows whether it is a drill's; then ask again",
    ),
    ("drill", "illegal", "watchdogctl drill list shows each drill and how it stands"),
    ("drill", "not_found", "watchdogctl drill list shows those that are remembered, watchdogctl status the groups"),
    ("drill", "stale", "the drill went on since you looked: watchdogctl drill list, then decide again"),
    ("node transfer", "stale", "watchdogctl node list shows how far each node is behind"),
    ("node", "illegal", "watchdogctl node list shows who is what"),
    ("node", "not_found", "watchdogctl node list shows the nodes with their numbers"),
    ("node", "stale", "the membership changed since you looked: watchdogctl node list, then decide again"),
    ("page", "illegal", "watchdogctl page list shows the open incidents and what each waits for"),
    ("page", "not_found", "watchdogctl page list --past shows the incidents, watchdogctl contact list whom to tell"),
    ("page", "stale", "watchdogctl page list shows the incidents as they are by now"),
    ("page", "other_config", "name [[receiver]]s in the configuration, and give it to every node"),
    (
        "cluster",
        "illegal",
        "a cluster that was used cannot be restored into: docs/OPERATIONS.md tells how one is formed anew",
    ),
    ("cluster", "not_found", "watchdogctl status shows the groups that the configuration in force has"),
    ("cluster", "stale", "nothing was restored; the same command again hands the file over anew"),
    (
        "run",
        "not_found",
        "watchdogctl run list shows the runs, watchdogctl status the groups; run show names a run's steps",
    ),
    ("page test", "not_found", "watchdogctl contact list shows the receivers and the contacts"),
    ("run", "paused", "watchdogctl status shows which group is paused, and by whom; resume it first"),
    ("run", "stale", "the run went on since you looked: watchdogctl run show RUN, then decide again"),
];

const TRAFFIC_ALONE: &str = "give every node a configuration with such a record; watchdogctl switchover GROUP moves traffic together \
                             with the database";

/// By the code alone.
const BY_CODE: &[(&str, &str)] = &[
    (
        UNPROVEN,
        "give --ca, --certificate and --key (WATCHDOG_CA, WATCHDOG_CERTIFICATE, WATCHDOG_KEY); \
         watchdogctl cert issue user NAME makes a certificate",
    ),
    (
        FORBIDDEN,
        "ask somebody who has that role, or have it given to this identity with [[role]] in the nodes' configuration; \
         watchdogctl cert show FILE tells who a certificate says you are",
    ),
    (NO_QUORUM, UNDECIDED),
    (NO_LEADER, UNDECIDED),
    (
        "not_found",
        "watchdogctl status lists the groups, run list the runs, page list the incidents, node list the nodes",
    ),
    ("stale", "something changed since you looked: watchdogctl status GROUP, then decide again"),
    (
        "run_open",
        "watchdogctl run follow RUN waits for its end; where it is stuck, watchdogctl run show RUN says what to type",
    ),
    ("paused", "watchdogctl resume GROUP --reason …"),
    (
        "no_fence_proof",
        "look at the old primary with your own eyes; when it is silent and stays so: watchdogctl run assert-fence \
         RUN --region REGION --reason …",
    ),
    (
        "loss_too_great",
        "bring the standby up to date, or accept the loss by name: --accept-loss (or watchdogctl run accept-loss RUN)",
    ),
    ("gate_closed", "nothing was changed. Open what is closed, then ask again; --dry-run shows how it stands"),
    (
        "no_standby",
        "nothing was changed. Mend the standby as said above, then ask again; `--dry-run` shows whether it would do",
    ),
    (
        "other_config",
        "give every node one configuration file that has what is said above; watchdogctl node list marks nodes whose file \
         differs",
    ),
    (
        "already_failed_over",
        "one automatic failover a serving epoch; an operator may still: watchdogctl failover GROUP",
    ),
    (
        "unsettled",
        "watchdogctl status GROUP names the resource; make its host or zone reachable, it is then settled by itself",
    ),
    ("taken", "nothing was changed. watchdogctl node list shows the numbers, names and addresses in use"),
    ("change_under_way", "nothing was changed. watchdogctl node list shows who joins or leaves; finish that first"),
    ("is_leader", "watchdogctl node transfer --reason …, then ask again"),
    ("layout_broken", "nothing was changed. --dry-run shows the layout before and after"),
    ("quorum_lost", "nothing was changed. watchdogctl node list shows who does not answer"),
    ("not_reachable", "nothing was changed. See that watchdogd runs there and that its port is open to every node"),
    ("not_paused", "nothing is to be done; watchdogctl status GROUP shows how the group stands"),
    ("run_closed", "watchdogctl run show RUN tells how it went, watchdogctl status whether another is open"),
    ("illegal", "watchdogctl run show RUN says where the run stands"),
    ("invalid", OF_THE_COMMAND_LINE),
];

/// After a node that answered that nobody can decide now.
pub(super) const UNDECIDED: &str = "see that a majority of the nodes run and reach each other (watchdogctl status says who is reached), \
     then ask again; where a link is cut, name nodes on the side with the majority with --endpoint";

/// By the field of the request that was wrong.
const BY_FIELD: &[(&str, &str)] = &[
    (
        "context.request_id",
        "leave --request-id out for a new request; repeat one only with the words that it was printed for",
    ),
    ("context.reason", "--reason TEXT says in one line why; it goes into the audit"),
    ("context.by", "--by NAME, of letters, digits and . _ @ -, where no certificate says who asks"),
    ("group", "watchdogctl status lists the groups"),
    ("confirm_group", "--yes takes the name of the very group: --yes GROUP"),
    ("to_region", "give --to one of the other regions; watchdogctl readiness shows where the groups could go"),
    (
        "region",
        "give --region one of the regions of the group that are named above, or leave it out where there is only one",
    ),
    ("assert_fence_region", "--assert-fence takes the region of the old primary, the one that is served from"),
    ("service", "give one of the names above; they are the [[group.service]]s of the nodes' configuration"),
    ("replicas", "give --replicas a number within the service's replicas_max"),
    ("action", "the [[group.service]] of the nodes' configuration names the actions that its guard knows"),
    ("run_id", "watchdogctl run list shows the runs with their whole ids"),
    ("step", "watchdogctl run show RUN names the steps"),
    ("drill_id", "watchdogctl drill list shows the drills with their whole ids"),
    ("schedule", "watchdogctl drill list GROUP shows the schedules"),
    ("text", "one line of 1 to 500 characters"),
    (
        "until_ms",
        "--for takes a time like 90s, 30m or 2h, of 90 days at most; without it the pause lasts until resumed",
    ),
    ("limit", "ask for fewer, and for more with --before"),
    ("before_index", "watchdogctl audit shows the positions of entries"),
    ("key", "watchdogctl page list shows keys and numbers"),
    ("keys", "watchdogctl page list shows keys and numbers; all-of-GROUP takes every open one of a group"),
    ("id", "give a number that was never used; watchdogctl node list shows the others"),
    ("address", "give the new node's HOST:PORT, as its [[node]] has it"),
    ("data", "watchdogctl cluster show FILE tells whether the file is whole; take the backup anew where it is not"),
    (
        "header.bytes",
        "watchdogctl cluster show FILE tells whether the file is whole; take the backup anew where it is not",
    ),
    ("grpc-timeout", "give --timeout a time like 15s"),
];

/// After the cluster's no.
pub fn after_refusal(code: &str, asked: &Asked) -> String {
    let is_meant =
        |verb: &str| asked.verb == verb || asked.verb.strip_prefix(verb).is_some_and(|rest| rest.starts_with(' '));
    let by_verb = BY_VERB.iter().find(|(verb, of, _)| *of == code && is_meant(verb)).map(|(_, _, advice)| *advice);
    let by_code = || BY_CODE.iter().find(|(of, _)| *of == code).map(|(_, advice)| *advice);
    asked.fill(by_verb.or_else(by_code).unwrap_or(OF_NO_CODE))
}

/// After a value that cannot be; without a field the verb's own help.
pub fn after_wrong(field: &str, asked: &Asked) -> String {
    let known = BY_FIELD.iter().find(|(of, _)| *of == field).map(|(_, advice)| *advice);
    asked.fill(known.unwrap_or(OF_THE_COMMAND_LINE))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::api::details;
    use crate::api::refuse::REJECTION_CODES;
    use crate::cli::fields;

    fn asked(verb: &str) -> Asked {
        Asked { verb: verb.to_owned(), group: Some("aicamera".to_owned()), run: None }
    }

    #[test]
    fn every_code_has_advice_of_its_own() {
        let of_callers = [UNPROVEN, FORBIDDEN, NO_QUORUM, NO_LEADER, "gate_closed"];
        let words = REJECTION_CODES.iter().map(|(code, _)| code.word()).chain(of_callers);
        for word in words.filter(|word| *word != "invalid") {
            let advice = after_refusal(word, &asked("pause"));
            assert!(advice != OF_NO_CODE && advice.len() > 20, "{word}: {advice}");
            assert!(!advice.contains("--help"), "{word} only names the help: {advice}");
        }
        let once: BTreeSet<&str> = BY_CODE.iter().map(|(code, _)| *code).collect();
        assert_eq!(once.len(), BY_CODE.len(), "a code stands there twice");
        let known = |code: &str| once.contains(code);
        assert!(BY_VERB.iter().all(|(_, code, _)| known(code)), "advice for a code that nobody says");
    }

    #[test]
    fn every_field_that_can_be_wrong_has_advice_of_its_own() {
        for field in
            details::fields().chain(fields::TYPED.iter().map(|(wire, _)| *wire)).filter(|f| *f != "accept_loss")
        {
            let advice = after_wrong(field, &asked("pause"));
            assert!(!advice.ends_with("says what is expected"), "{field}: {advice}");
        }
        assert_eq!(after_wrong("", &asked("run retry")), "watchdogctl run retry --help says what is expected");
        assert_eq!(after_wrong("", &Asked::default()), "watchdogctl VERB --help says what is expected");
    }

    #[test]
    fn a_verb_is_told_its_own_next_step() {
        for (verb, code, wanted) in [
            ("failback", "illegal", "watchdogctl status aicamera shows"),
            ("traffic", "other_config", "watchdogctl switchover aicamera moves"),
            ("drill start", "illegal", "watchdogctl readiness aicamera"),
            ("drill start", "illegal", "watchdogctl drill list aicamera"),
            (
                "drill start",
                "run_open",
                "watchdogctl run follow aicamera waits for the open run's end, watchdogctl drill list",
            ),
            ("drill abort", "illegal", "watchdogctl drill list"),
            ("run retry", "illegal", "watchdogctl run show aicamera says"),
            ("switchover", "run_open", "watchdogctl run follow aicamera waits"),
            ("failover", "paused", "watchdogctl resume aicamera --reason"),
        ] {
            let advice = after_refusal(code, &asked(verb));
            assert!(advice.contains(wanted), "{verb} {code}: {advice}");
        }
        let run = Asked { verb: "run abort".to_owned(), group: None, run: Some("0195".to_owned()) };
        assert!(after_refusal("stale", &run).contains("watchdogctl run show 0195, then"));
        assert!(after_refusal("paused", &asked("run retry")).contains("resume it first"));
        assert_eq!(after_refusal("from-tomorrow", &asked("pause")), OF_NO_CODE);
    }
}
