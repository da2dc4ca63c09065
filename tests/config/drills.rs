//! Drills: what schedules and checks mean, and every fault by table.

use watchdog::config::{Config, Report, judge, render};
use watchdog::domain::drill::{CheckKind, DrillKind};
use watchdog::domain::ids::GroupName;

use crate::faults::BASE;

/// A live drill with everything, one that goes by the defaults, and two checks.
const DRILLS: &str = r#"
[[group.drill]]
name = "quarterly"
kind = "live"
cron = "0 2 1 */3 *"
time_zone = "Asia/Ho_Chi_Minh"
blackouts = [{ from = "2027-02-04", to = "2027-02-10" }]
announce_before_s = 172800
late_max_s = 600
level = 2
rpo_objective_s = 30
limit_s = 1800
checks = ["orders"]
abort_targets = ["hanoi-db"]
abort_events = ["DR_NOT_READY"]
[[group.drill]]
name = "monthly"
kind = "tabletop"
cron = "0 9 1 * *"
[[group.drill_check]]
name = "front"
region = "hanoi"
kind = "http"
url = "http://10.2.0.40/orders"
expect_status = 204
[[group.drill_check]]
name = "orders"
region = "hanoi"
kind = "sql"
conninfo = "host=10.2.0.21 user=w dbname=shop"
query = "SELECT count(*) > 0 FROM orders"
expect = "t"
"#;

fn with_drills(change: (&str, &str)) -> String {
    let (before, after) = BASE.split_once("\n[tls]").expect("the base ends with [tls]");
    let whole = format!("{before}\n{DRILLS}\n[tls]{after}");
    assert!(whole.contains(change.0), "there is no {:?}", change.0);
    whole.replacen(change.0, change.1, 1)
}

fn sound(text: &str) -> (Config, Report) {
    let (config, report) = judge(text.as_bytes());
    (config.unwrap_or_else(|| panic!("{}", render(&report, "test"))), report)
}

#[test]
fn schedules_are_read_with_the_objectives_of_their_level() {
    let (config, _) = sound(&with_drills(("level = 2", "level = 2")));
    let drills = &config.groups[&GroupName::from("g")].policy.drills;
    assert!(!drills.is_resource);
    let [quarterly, monthly] = drills.plans.as_slice() else { panic!("{drills:?}") };
    assert_eq!((quarterly.kind, quarterly.settings.zone.as_str()), (DrillKind::Live, "Asia/Ho_Chi_Minh"));
    assert_eq!(
        (quarterly.settings.rto_ms, quarterly.settings.rpo_ms),
        (4 * 3_600_000, 30_000),
        "level 2, but for the RPO"
    );
    assert_eq!((quarterly.announce_before_ms, quarterly.late_max_ms), (172_800_000, 600_000));
    assert_eq!(quarterly.blackouts[0].until.0 - quarterly.blackouts[0].from.0, 7 * 86_400_000, "both days inside");
    let names = |drill: &watchdog::domain::drill::DrillPlan| {
        drill.settings.checks.iter().map(|check| check.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        (names(quarterly), names(monthly)),
        (vec!["orders".to_owned()], vec!["front".to_owned(), "orders".to_owned()])
    );
    assert_eq!((monthly.settings.rto_ms, monthly.settings.rpo_ms), (3_600_000, 900_000), "level 1");
    assert_eq!(monthly.settings.zone, "Asia/Ho_Chi_Minh");
    assert!(matches!(&drills.checks[1].what, CheckKind::Sql { expect: Some(expect), .. } if expect == "t"));
    let resources = ("name = \"g\"\n", "name = \"g\"\ndrill_resources = true\n");
    let simulated = with_drills(resources).replace("kind = \"live\"", "kind = \"simulated\"");
    assert!(sound(&simulated).0.groups[&GroupName::from("g")].policy.drills.is_resource);
}

/// What is not configured changes no digest: no node has to be told of drills that it does not have.
#[test]
fn the_digest_tells_drills_apart() {
    let digest = |text: &str| sound(text).0.digest;
    let plain = digest(&with_drills(("level = 2", "level = 2")));
    assert_ne!(plain, digest(BASE));
    assert_ne!(plain, digest(&with_drills(("0 2 1 */3 *", "0 3 1 */3 *"))));
    assert_ne!(plain, digest(&with_drills(("2027-02-10", "2027-02-11"))));
}

#[test]
fn often_is_warned_of() {
    let (_, report) = sound(&with_drills(("0 9 1 * *", "0 * * * *")));
    assert!(report.warnings.iter().any(|fault| fault.what.contains("more often than once a day")), "{report:?}");
}

#[test]
fn faults() {
    let quarterly = "group[g].drill[quarterly]";
    let orders = "group[g].drill_check[orders]";
    let cases: &[(&str, &str, &str, &str)] = &[
        ("kind = \"live\"", "kind = \"real\"", "kind", "\"tabletop\" or \"simulated\" or \"live\""),
        ("kind = \"live\"", "kind = \"simulated\"", "kind", "drill_resources = true"),
        ("kind = \"live\"\n", "", "kind", "is missing"),
        ("cron = \"0 2 1 */3 *\"\n", "", "cron", "is missing"),
        ("0 2 1 */3 *", "monthly", "cron", "first of each month"),
        ("0 2 1 */3 *", "0 2 1 13 *", "cron", "not a cron expression"),
        ("0 2 1 */3 *", "0 0 2 1 */3 *", "cron", "5 fields"),
        ("0 2 1 */3 *", "0 2 31 2 *", "cron", "never due"),
        ("Asia/Ho_Chi_Minh", "Asia/Saigon_City", "time_zone", "IANA"),
        ("2027-02-04", "04.02.2027", "blackouts", "2026-12-31"),
        ("2027-02-10", "2027-02-30", "blackouts", "2026-12-31"),
        ("2027-02-10", "2027-02-01", "blackouts", "ends before it begins"),
        ("from = \"2027-02-04\", ", "", "blackouts", "lacks from or to"),
        ("announce_before_s = 172800", "announce_before_s = 99999999", "announce_before_s", "outside"),
        ("late_max_s = 600", "late_max_s = 1", "late_max_s", "outside"),
        ("limit_s = 1800", "limit_s = 5", "limit_s", "outside"),
        ("level = 2", "level = 7", "level", "there are: 1, 2, 3"),
        ("rpo_objective_s = 30", "rpo_objective_s = 9999999", "rpo_objective_s", "outside"),
        ("checks = [\"orders\"]", "checks = [\"order\"]", "checks", "front, orders"),
        ("abort_targets = [\"hanoi-db\"]", "abort_targets = [\"nobody\"]", "abort_targets", "hanoi-db"),
        ("\"DR_NOT_READY\"", "\"not ready\"", "abort_events", "no event's name"),
        ("level = 2", "levle = 2", "levle", "did you mean level"),
        ("name = \"monthly\"", "name = \"quarterly\"", "name", "stands twice"),
    ];
    let checks: &[(&str, &str, &str, &str)] = &[
        ("kind = \"sql\"", "kind = \"tcp\"", "kind", "\"http\" or \"sql\""),
        ("query = \"SELECT count(*) > 0 FROM orders\"\n", "", "query", "is missing"),
        ("SELECT count(*) > 0 FROM orders", " ", "query", "is empty"),
        ("host=10.2.0.21 user=w dbname=shop", "host=10.2.0.21 password=hunter2", "conninfo", ""),
        ("expect = \"t\"", "expect_status = 200", "expect_status", "means nothing"),
    ];
    let cases = cases.iter().map(|case| (quarterly, case)).chain(checks.iter().map(|case| (orders, case)));
    for (table, (old, new, key, phrase)) in cases {
        let (config, report) = judge(with_drills((old, new)).as_bytes());
        let path = format!("{table}.{key}");
        let found = report.errors.iter().any(|fault| {
            fault.path == path && fault.line.is_some() && fault.to_string().contains(phrase) && !fault.todo.is_empty()
        });
        let whole = render(&report, "test");
        assert!(config.is_none() && found && report.errors.len() == 1, "{new:?}: wanted {path}: …{phrase}…\n{whole}");
        assert!(!whole.contains("hunter2"));
    }
}
