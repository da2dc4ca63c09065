//! Contacts, ladders and levels: what they mean, and every fault by table.

use watchdog::config::{Config, Report, judge, render};
use watchdog::domain::ids::GroupName;
use watchdog::domain::page::Severity;

use crate::faults::BASE;

/// Two people and a provider, a ladder for the group and one for the rest, the second platform's levels.
const ON_CALL: &str = r#"
[[contact]]
name = "linh"
role = "dr-coordinator"
phone = "+84 28 0000 0001"
receivers = ["oncall"]
[[contact]]
name = "bao"
role = "database-administrator"
mail = "bao@example.vn"
receivers = ["chat"]
[[contact]]
name = "cloud"
role = "cloud-provider"
url = "https://support.example.com"

[[escalation]]
name = "urgent"
groups = ["g"]
severities = ["critical", "error"]
steps = [{ after_min = 0, contacts = ["linh"] }, { after_min = 10, contacts = ["bao", "cloud"] }]
repeat_every_min = 30
repeat_max = 2
ack_lasts_min = 60
[[escalation]]
name = "rest"
steps = [{ after_s = 0, contacts = ["bao"] }]

[[incident_level]]
level = 1
name = "region"
group = "g"
rto_s = 3600
rpo_s = 900
[[incident_level]]
level = 4
name = "data"
group = "g"
severity = "critical"
rto_s = 1800
rpo_s = 900
events = ["DATA_*"]
"#;

fn with(changes: &[(&str, &str)]) -> String {
    let mut text = format!("{BASE}{ON_CALL}");
    for (old, new) in changes {
        assert!(text.contains(old), "no {old:?} to change");
        text = text.replacen(old, new, 1);
    }
    text
}

fn sound(text: &str) -> (Config, Report) {
    let (config, report) = judge(text.as_bytes());
    (config.unwrap_or_else(|| panic!("{}", render(&report, "test"))), report)
}

#[test]
fn what_is_written_is_what_is_meant() {
    let (config, report) = sound(&with(&[]));
    assert!(report.warnings.is_empty(), "{}", render(&report, "test"));
    let on_call = config.policy().on_call;
    let group = GroupName::from("g");
    let ladder = on_call.ladder_for(Some(&group), Severity::Critical).expect("urgent");
    assert_eq!((ladder.steps[1].after_ms, ladder.repeat_every_ms, ladder.repeat_max), (600_000, 1_800_000, 2));
    assert_eq!(ladder.ack_lasts(Severity::Critical), Some(3_600_000));
    let rest = on_call.ladder_for(Some(&group), Severity::Warning).expect("rest");
    assert_eq!((rest.name.as_str(), rest.repeat_max, rest.ack_lasts_ms), ("rest", 0, None));
    let level = on_call.level_of(Some(&group), "DATA_CORRUPTED", Severity::Warning).expect("4");
    assert_eq!((level.title().as_str(), level.severity, level.rto_ms), ("4 data", Severity::Critical, 1_800_000));
    assert_eq!(on_call.levels_of(Some(&group))[&1].name, "region");
    assert_eq!(on_call.levels_of(None)[&1].name, "critical");
}

#[test]
fn a_file_without_them_is_the_configuration_it_was() {
    let (config, _) = sound(BASE);
    assert!(config.on_call.is_empty());
    assert!(!serde_json::to_string(&config).unwrap().contains("on_call"), "its digest would be another");
    let (other, _) = sound(&with(&[]));
    assert_ne!(config.digest, other.digest, "who is told is part of what nodes must agree on");
}

#[test]
fn what_is_allowed_and_weak_is_warned_of() {
    let (_, report) = sound(&with(&[("receivers = [\"chat\"]", "receivers = [\"oncall\"]")]));
    let found = report
        .warnings
        .iter()
        .any(|fault| fault.path == "receiver[chat]" && fault.what.contains("nobody on a ladder is reached by chat"));
    assert!(found, "{}", render(&report, "test"));
    let ladders = ON_CALL.find("[[escalation]]").unwrap()..ON_CALL.find("[[incident_level]]").unwrap();
    let (_, report) = sound(&with(&[(&ON_CALL[ladders], "")]));
    assert!(render(&report, "test").contains("no [[escalation]]: every receiver gets every page"));
}

#[test]
fn faults_are_told_each_at_its_line() {
    let steps =
        "steps = [{ after_min = 0, contacts = [\"linh\"] }, { after_min = 10, contacts = [\"bao\", \"cloud\"] }]";
    // What is changed, where the only fault must be, in which line, and a phrase of it.
    let table: &[(&str, &str, &str, &str, &str)] = &[
        (
            "receivers = [\"oncall\"]",
            "receivers = [\"phone\"]",
            "contact[linh].receivers",
            "\"phone\"",
            "no receiver is called \"phone\"",
        ),
        (
            "receivers = [\"oncall\"]",
            "receivers = [\"oncall\", \"oncall\"]",
            "contact[linh].receivers",
            "\"oncall\", ",
            "stands twice",
        ),
        (
            "role = \"dr-coordinator\"",
            "role = \"the one who knows\"",
            "contact[linh].role",
            "the one who",
            "cannot be a name",
        ),
        ("role = \"dr-coordinator\"", "roles = \"x\"", "contact[linh].roles", "roles =", "did you mean role?"),
        (
            "[[escalation]]",
            "[[contact]]\nname = \"linh\"\nrole = \"other\"\nphone = \"1\"\n[[escalation]]",
            "contact[linh].name",
            "name = \"linh\"\nrole = \"other\"",
            "twice as contact",
        ),
        (
            "url = \"https://support.example.com\"",
            "",
            "contact[cloud]",
            "[[contact]]\nname = \"cloud\"",
            "nobody can reach",
        ),
        ("+84 28 0000 0001", "+84\\u0007", "contact[linh].phone", "+84\\u", "not one line"),
        ("groups = [\"g\"]", "groups = [\"h\"]", "escalation[urgent].groups", "\"h\"", "no group is called \"h\""),
        ("groups = [\"g\"]", "groups = []", "escalation[urgent].groups", "groups = []", "names no group"),
        ("\"critical\", \"error\"", "\"high\"", "escalation[urgent].severities", "\"high\"", "not a choice here"),
        (steps, "", "escalation[urgent].steps", "[[escalation]]", "steps is missing"),
        (steps, "steps = []", "escalation[urgent].steps", "steps = []", "has 0 steps"),
        (
            "after_min = 0, contacts",
            "after_min = 1, contacts",
            "escalation[urgent].steps",
            "after_min = 1,",
            "does not begin at 0",
        ),
        (
            "after_min = 10",
            "after_min = 0",
            "escalation[urgent].steps",
            "after_min = 0, contacts = [\"bao\"",
            "let the times rise",
        ),
        ("after_min = 10, ", "", "escalation[urgent].steps", "{ contacts", "step 2 has no after_min"),
        (
            "after_min = 10",
            "after_min = 10, after_s = 600",
            "escalation[urgent].after_s",
            "[[escalation]]",
            "beside after_min",
        ),
        ("after_min = 10", "after_min = 10081", "escalation[urgent].after_min", "[[escalation]]", "more than a week"),
        (
            "contacts = [\"linh\"]",
            "contacts = [\"lan\"]",
            "escalation[urgent].steps",
            "\"lan\"",
            "no contact is called \"lan\"",
        ),
        ("contacts = [\"linh\"]", "contacts = []", "escalation[urgent].steps", "contacts = []", "step 1 tells nobody"),
        (
            "contacts = [\"linh\"]",
            "contacts = [\"cloud\"]",
            "escalation[urgent].steps",
            "[\"cloud\"]",
            "step 1 reaches nobody",
        ),
        ("repeat_every_min = 30\n", "", "escalation[urgent].repeat_max", "repeat_max", "how often is not said"),
        (
            "repeat_every_min = 30",
            "repeat_every_min = 0",
            "escalation[urgent].repeat_every_min",
            "every_min = 0",
            "without end",
        ),
        ("repeat_max = 2", "repeat_max = 1000", "escalation[urgent].repeat_max", "1000", "outside 0..20"),
        (
            "ack_lasts_min = 60",
            "ack_lasts_min = 60\nack_lasts_s = 1",
            "escalation[urgent].ack_lasts_s",
            "ack_lasts_s",
            "beside ack_lasts_min",
        ),
        (
            "steps = [{ after_s = 0",
            "groups = [\"g\"]\nseverities = [\"error\"]\nsteps = [{ after_s = 0",
            "escalation[rest]",
            "[[escalation]]\nname = \"rest\"",
            "is never climbed: urgent takes",
        ),
        ("level = 1", "level = 0", "incident_level[region].level", "level = 0", "0 is outside 1..9"),
        (
            "level = 4",
            "level = 1",
            "incident_level[data].level",
            "level = 1\nname = \"data\"",
            "twice as an incident level",
        ),
        ("rto_s = 1800\n", "", "incident_level[data].rto_s", "[[incident_level]]\nlevel = 4", "rto_s is missing"),
        ("\"DATA_*\"", "\"data corrupted\"", "incident_level[data].events", "data corrupted", "not an event's name"),
        ("\"DATA_*\"", "\"DATA_*\", \"DATA_*\"", "incident_level[data].events", "\"DATA_*\", ", "twice as an event"),
        ("[[escalation]]", "[[escalations]]", "escalations", "[[escalations]]", "did you mean escalation?"),
    ];
    let mut wrong = String::new();
    for (old, new, path, at, phrase) in table {
        let text = with(&[(old, new)]);
        let (_, report) = judge(text.as_bytes());
        let line = text.find(at).map(|at| text[..at].matches('\n').count() + 1);
        let [fault] = report.errors.as_slice() else {
            wrong += &format!("\n{new:?}: {}", render(&report, "test"));
            continue;
        };
        if fault.path != *path || fault.line != line || !fault.to_string().contains(phrase) || fault.todo.is_empty() {
            wrong += &format!("\n{new:?}: wanted line {line:?} {path} {phrase:?}: {fault}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
