//! `[[group.drill]]` and `[[group.drill_check]]`: what is rehearsed when, and what must work on the other side.

use std::collections::{BTreeMap, BTreeSet};

use crate::calendar::{self, CalendarError, DEFAULT_ZONE, Schedule};
use crate::config::check::{Item, Place};
use crate::config::raw::{RawDrill, RawDrillCheck, RawGroupTables};
use crate::domain::drill::{Blackout, CheckKind, DrillCheck, DrillKind, DrillPlan, DrillRules, DrillSettings};
use crate::domain::ids::{DrillName, GroupName, RegionName, TargetName, UnixMs};

use super::Judge;
use super::fields::cut;

const DAY_S: u64 = 86_400;
const BLACKOUTS_MAX: usize = 100;
const CHECKS_MAX: usize = 30;
const PLANS_MAX: usize = 20;
/// The moment from which schedules are tried: any will do that has leap years ahead.
const TRIED_FROM: UnixMs = UnixMs(1_700_000_000_000);

const KINDS: [(&str, DrillKind); 3] =
    [("tabletop", DrillKind::Tabletop), ("simulated", DrillKind::Simulated), ("live", DrillKind::Live)];

impl Judge<'_> {
    pub(super) fn drills(
        &mut self,
        group: &GroupName,
        tables: &RawGroupTables,
        regions: &[RegionName],
        targets: &[String],
    ) -> DrillRules {
        let checks = self.drill_checks(&tables.drill_checks, regions);
        let is_resource = tables.group.value.drill_resources.unwrap_or(false);
        let (place, drills) = (&tables.group.place, &tables.drills);
        if drills.len() > PLANS_MAX {
            let what = format!("{} [[group.drill]]: nobody follows more than {PLANS_MAX}", drills.len());
            self.report.error(place, "", what, "take some out");
        }
        let written: Vec<String> = tables.drill_checks.iter().filter_map(|check| check.value.name.clone()).collect();
        let mut plans = Vec::new();
        let mut seen = BTreeMap::new();
        for item in drills {
            let name = self.name(&item.place, "name", &item.value.name);
            if let Some(name) = &name {
                self.unique(&mut seen, &item.place, "name", name, "a drill of this group");
            }
            let plan = self.drill(group, item, &checks, (targets, &written));
            if plan.as_ref().is_some_and(|plan| plan.kind == DrillKind::Simulated) && !is_resource {
                let what = "a simulated drill reports the group's trigger as failed, and then really moves the group";
                let todo =
                    "set drill_resources = true in a [[group]] that is there for drills only, or use kind = \"live\"";
                self.report.error(&item.place, "kind", what, todo);
            }
            plans.extend(plan.zip(name).map(|(plan, name)| DrillPlan { name: DrillName(name), ..plan }));
        }
        DrillRules { is_resource, plans, checks }
    }

    fn drill(
        &mut self,
        group: &GroupName,
        item: &Item<RawDrill>,
        checks: &[DrillCheck],
        names: (&[String], &[String]),
    ) -> Option<DrillPlan> {
        let Item { place, value } = item;
        let kind = self.choice(place, "kind", &value.kind, None, &KINDS);
        let zone = value.time_zone.clone().unwrap_or_else(|| DEFAULT_ZONE.to_owned());
        let cron = self.cron(place, &value.cron, &zone);
        let blackouts = self.blackouts(item, &zone);
        let (rto_s, rpo_s) = self.objectives(group, item);
        let announce_s = self.number(place, "announce_before_s", value.announce_before_s, DAY_S, 0..=30 * DAY_S);
        let late_s = self.number(place, "late_max_s", value.late_max_s, 900, 60..=DAY_S);
        let limit_s = self.number(place, "limit_s", value.limit_s, 3600, 60..=7 * DAY_S);
        let checks = self.checks_of(item, checks, names.1);
        let mut abort_targets = Vec::new();
        for name in value.abort_targets.iter().flatten() {
            if names.0.contains(name) {
                abort_targets.push(TargetName(name.clone()));
            } else {
                let what = format!("the group has no target {:?}", cut(name));
                self.report.error(place, "abort_targets", what, format!("there are: {}", names.0.join(", ")));
            }
        }
        let abort_events = value.abort_events.clone().unwrap_or_default();
        for event in abort_events.iter().filter(|event| !is_event(event)) {
            let what = format!("{:?} is no event's name", cut(event));
            self.report.error(
                place,
                "abort_events",
                what,
                "write names such as NOT_READY; docs/OPERATIONS.md lists them",
            );
        }
        Some(DrillPlan {
            name: DrillName(String::new()),
            kind: kind?,
            cron: cron?,
            blackouts,
            announce_before_ms: announce_s * 1000,
            late_max_ms: late_s * 1000,
            settings: DrillSettings {
                zone,
                rto_ms: rto_s * 1000,
                rpo_ms: rpo_s * 1000,
                limit_ms: limit_s * 1000,
                checks,
                abort_targets,
                abort_events,
            },
        })
    }

    fn cron(&mut self, place: &Place, cron: &Option<String>, zone: &str) -> Option<String> {
        let cron = self.required(place, "cron", cron)?;
        if cron.len() > 200 || cron.chars().any(char::is_control) {
            self.report.error(
                place,
                "cron",
                format!("{:?} is not one line", cut(&cron)),
                "write five fields: \"0 2 1 * *\"",
            );
            return None;
        }
        let schedule = match Schedule::parse(&cron, zone) {
            Ok(schedule) => schedule,
            Err(CalendarError::Zone(_)) => {
                let what = format!("no time zone is called {:?}", cut(zone));
                self.report.error(
                    place,
                    "time_zone",
                    what,
                    "write a name of the IANA database, as \"Asia/Ho_Chi_Minh\"",
                );
                return None;
            }
            Err(error) => {
                let todo = "write minute, hour, day of the month, month, day of the week: \"0 2 1 * *\" is the first of each month at 02:00";
                self.report.error(place, "cron", error.to_string(), todo);
                return None;
            }
        };
        let Some(first) = schedule.next_after(TRIED_FROM) else {
            self.report.error(place, "cron", format!("{:?} is never due", cut(&cron)), "name a day that there is");
            return None;
        };
        if schedule.next_after(first).is_some_and(|second| second.since(first) < DAY_S * 1000) {
            let what = format!("{:?} is due more often than once a day", cut(&cron));
            self.report.warn(place, "cron", what, "a drill that nobody reads rehearses nobody: monthly is usual");
        }
        Some(cron)
    }

    fn blackouts(&mut self, item: &Item<RawDrill>, zone: &str) -> Vec<Blackout> {
        let Item { place, value } = item;
        let raw = value.blackouts.as_deref().unwrap_or_default();
        if raw.len() > BLACKOUTS_MAX {
            let what = format!("{} blackouts", raw.len());
            self.report.error(
                place,
                "blackouts",
                what,
                format!("at most {BLACKOUTS_MAX}; take out those that are over"),
            );
        }
        let mut blackouts = Vec::new();
        for (n, blackout) in (1..).zip(raw.iter().take(BLACKOUTS_MAX)) {
            let todo = "write blackouts = [{ from = \"2027-02-04\", to = \"2027-02-10\" }], both days inside";
            let (Some(from), Some(to)) = (&blackout.from, &blackout.to) else {
                self.report.error(place, "blackouts", format!("blackout {n} lacks from or to"), todo);
                continue;
            };
            match calendar::days(from, to, zone) {
                Ok((from, until)) if from < until => blackouts.push(Blackout { from, until }),
                Ok(_) => {
                    self.report.error(place, "blackouts", format!("blackout {n} ends before it begins"), todo);
                }
                // Told with the schedule.
                Err(CalendarError::Zone(_)) => {}
                Err(error) => {
                    self.report.error(place, "blackouts", format!("blackout {n}: {}", cut(&error.to_string())), todo)
                }
            }
        }
        blackouts
    }

    /// As typed, else of the level named, else of level 1; seconds.
    fn objectives(&mut self, group: &GroupName, item: &Item<RawDrill>) -> (u64, u64) {
        let Item { place, value } = item;
        let levels = self.on_call.levels_of(Some(group));
        let number = value.level.unwrap_or(1);
        let level = levels.get(&number).or_else(|| levels.values().next());
        if !levels.contains_key(&number) {
            let known: Vec<String> = levels.keys().map(u8::to_string).collect();
            let what = format!("there is no incident level {number}");
            self.report.error(place, "level", what, format!("there are: {}", known.join(", ")));
        }
        let (rto_s, rpo_s) = level.map_or((3600, 900), |level| (level.rto_ms / 1000, level.rpo_ms / 1000));
        let rto_s = self.number(place, "rto_objective_s", value.rto_objective_s, rto_s, 1..=7 * DAY_S);
        let rpo_s = self.number(place, "rpo_objective_s", value.rpo_objective_s, rpo_s, 0..=7 * DAY_S);
        (rto_s, rpo_s)
    }

    /// Those named; all where none are.
    fn checks_of(&mut self, item: &Item<RawDrill>, checks: &[DrillCheck], written: &[String]) -> Vec<DrillCheck> {
        let Item { place, value } = item;
        let Some(names) = &value.checks else { return checks.to_vec() };
        let mut found = Vec::new();
        for name in names {
            match checks.iter().find(|check| &check.name == name) {
                Some(check) => found.push(check.clone()),
                // What is written and is not sound is a fault of its own.
                None if written.contains(name) => {}
                None => {
                    let todo = if written.is_empty() {
                        "add a [[group.drill_check]]".to_owned()
                    } else {
                        format!("there are: {}", written.join(", "))
                    };
                    self.report.error(place, "checks", format!("no drill_check is called {:?}", cut(name)), todo);
                }
            }
        }
        found
    }

    fn drill_checks(&mut self, items: &[Item<RawDrillCheck>], regions: &[RegionName]) -> Vec<DrillCheck> {
        if let Some(item) = items.get(CHECKS_MAX) {
            let what = format!("{} [[group.drill_check]]", items.len());
            self.report.error(&item.place, "", what, format!("at most {CHECKS_MAX}"));
        }
        let known: BTreeSet<String> = regions.iter().map(|region| region.0.clone()).collect();
        let mut checks: Vec<DrillCheck> = Vec::new();
        let mut seen = BTreeMap::new();
        for item in items.iter().take(CHECKS_MAX) {
            let name = self.name(&item.place, "name", &item.value.name);
            if let Some(name) = &name {
                self.unique(&mut seen, &item.place, "name", name, "a drill_check of this group");
            }
            let region = self.refers(&item.place, "region", &item.value.region, &known, "group.region");
            let what = self.drill_check(item);
            if let (Some(name), Some(region), Some(what)) = (name, region, what) {
                checks.push(DrillCheck { name, region: RegionName(region), what });
            }
        }
        checks
    }

    fn drill_check(&mut self, item: &Item<RawDrillCheck>) -> Option<CheckKind> {
        let Item { place, value } = item;
        let common = ["name", "region", "kind"];
        if self.choice(place, "kind", &value.kind, None, &[("http", true), ("sql", false)])? {
            self.only(place, "http", &common, &["url", "expect_status", "connect_to", "resolve_at"]);
            let expect_status = self.number(place, "expect_status", value.expect_status, 200, 100..=599);
            if value.connect_to.is_some() && value.resolve_at.is_some() {
                let todo = "keep connect_to (a known address) or resolve_at (the public name)";
                self.report.error(place, "connect_to", "connect_to and resolve_at both stand", todo);
            }
            let connect_to =
                value.connect_to.as_ref().and_then(|_| self.host_port(place, "connect_to", &value.connect_to));
            let resolve_at =
                value.resolve_at.as_ref().and_then(|_| self.socket(place, "resolve_at", &value.resolve_at));
            let url = self.url(place, "url", &value.url)?;
            return Some(CheckKind::Http {
                url,
                expect_status,
                connect_to,
                resolve_at: resolve_at.map(|at| at.to_string()),
            });
        }
        self.only(place, "sql", &common, &["conninfo", "password_file", "tls_ca_file", "query", "expect"]);
        let database = self.database(place, "conninfo", &value.conninfo, &value.password_file, &value.tls_ca_file);
        let query = self.required(place, "query", &value.query)?;
        if query.trim().is_empty() || query.len() > 4000 {
            self.report.error(place, "query", "is empty, or longer than 4000 bytes", "write one statement that reads");
            return None;
        }
        Some(CheckKind::Sql { database: database?, query, expect: value.expect.clone() })
    }
}

fn is_event(event: &str) -> bool {
    let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    (3..=64).contains(&event.len()) && event.chars().all(plain)
}
