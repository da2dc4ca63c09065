//! Is the commit gate in force? Pure: what the server says of itself, and what is amiss with it.

use serde::Deserialize;

/// What the server says of itself: one JSON object, the answer to [`question`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSays {
    /// `synchronous_standby_names`.
    pub names: String,
    /// `synchronous_commit`, for who sets nothing else.
    pub commit: String,
    /// Where else it is set so that commits do not wait.
    pub weaker: Vec<Weaker>,
    /// Clients of replication that count, or bear the gate's name.
    pub clients: Vec<Client>,
}

/// A database or role whose commits do not wait.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weaker {
    /// The database, where it is one's.
    pub database: Option<String>,
    /// The role, where it is one's.
    pub role: Option<String>,
    /// What is set.
    pub set: String,
}

/// A client of replication.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// The server's process that serves it.
    pub pid: i32,
    /// Its name.
    pub name: Option<String>,
    /// `streaming` where what it confirms counts.
    pub state: Option<String>,
    /// `sync` where commits wait for it.
    pub sync: Option<String>,
}

/// Rows of a kind that are asked for: there are none to be.
const ROWS_MAX: usize = 5;

/// Asks for [`ServerSays`]. `name` is made of letters, digits, `.`, `_` and `-`: the configuration sees to that.
pub fn question(name: &str, pid: i32) -> String {
    format!(
        "SELECT json_build_object('names', left(current_setting('synchronous_standby_names'), 500), \
         'commit', (SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit'), \
         'weaker', (SELECT coalesce(json_agg(w), '[]') FROM (SELECT d.datname AS database, r.rolname AS role, \
            left(c, 60) AS set FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase \
            LEFT JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) c \
            WHERE c ~* '^synchronous_commit=(off|local|no|false|0)' LIMIT {ROWS_MAX}) w), \
         'clients', (SELECT coalesce(json_agg(c), '[]') FROM (SELECT pid, left(application_name, 63) AS name, state, \
            sync_state AS sync FROM pg_stat_replication WHERE pid = {pid} OR sync_state <> 'async' \
            OR lower(application_name) = lower('{name}') ORDER BY pid = {pid} DESC LIMIT {ROWS_MAX}) c))"
    )
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// The server counts what this stream confirms.
    pub streams: bool,
    /// What is amiss, each with what to do; empty where the gate is in force.
    pub faults: Vec<String>,
}

/// Judges what the server said, for the stream under this name that its process `pid` serves. Until a stream has confirmed
/// something the server calls it `async`, although commits wait for it.
pub fn judge(says: &ServerSays, name: &str, pid: i32, has_confirmed: bool) -> Judged {
    let mut faults = Vec::new();
    match standby_names(&says.names) {
        Some(names) if names.is_empty() => faults
            .push(format!("synchronous_standby_names is empty, so no commit waits: set it to '\"{name}\"' and reload")),
        Some(names) if matches!(&names[..], [only] if only.eq_ignore_ascii_case(name)) => {}
        _ => faults.push(format!(
            "synchronous_standby_names is {:?}: it must name {name:?} alone, or others let commits go; set it to \
             '\"{name}\"' and reload",
            says.names
        )),
    }
    if ["off", "local"].contains(&says.commit.as_str()) {
        faults.push(format!("synchronous_commit is {}: commits wait for nobody; set it to on", says.commit));
    }
    for weaker in &says.weaker {
        let whose = match (&weaker.database, &weaker.role) {
            (Some(database), Some(role)) => format!("role {role} in database {database}"),
            (Some(database), None) => format!("database {database}"),
            (None, Some(role)) => format!("role {role}"),
            (None, None) => "all roles".to_owned(),
        };
        faults.push(format!("{} is set for {whose}: its commits wait for nobody; reset it", weaker.set));
    }
    let is_ours = |client: &&Client| client.pid == pid;
    let bears_our_name = |client: &&Client| client.name.as_ref().is_some_and(|is| is.eq_ignore_ascii_case(name));
    for other in says.clients.iter().filter(|client| !is_ours(client) && bears_our_name(client)) {
        faults.push(format!(
            "server process {} serves another client named {name:?}, which lets commits go without a lease: end it",
            other.pid
        ));
    }
    let own = says.clients.iter().find(is_ours);
    let streams = own.is_some_and(|client| client.state.as_deref() == Some("streaming"));
    match own {
        None => faults.push(format!("the server does not list its process {pid} among those that replicate")),
        Some(client) if !streams => {
            let state = client.state.as_deref().unwrap_or("unknown");
            faults.push(format!("the stream's state is {state}: commits wait until it is streaming"));
        }
        Some(client) if faults.is_empty() && has_confirmed && client.sync.as_deref() != Some("sync") => {
            let sync = client.sync.as_deref().unwrap_or("unknown");
            faults.push(format!("the server does not count on this stream (sync_state is {sync})"));
        }
        Some(_) => {}
    }
    Judged { streams, faults }
}

/// The names in `synchronous_standby_names`; `None` where it cannot be read as such. `*` is a name like any other here:
/// not ours.
fn standby_names(setting: &str) -> Option<Vec<String>> {
    let text = setting.trim();
    if text.is_empty() {
        return Some(Vec::new());
    }
    let list = match text.strip_suffix(')').map(|text| text.split_once('(')) {
        None => text,
        Some(None) => return None,
        Some(Some((how, list))) => {
            let words: Vec<&str> = how.split_ascii_whitespace().collect();
            let number = match words[..] {
                [number] => number,
                [word, number] if ["first", "any"].contains(&word.to_ascii_lowercase().as_str()) => number,
                _ => return None,
            };
            number.parse::<u32>().ok().filter(|number| *number > 0)?;
            list
        }
    };
    list.split(',').map(|name| one_name(name.trim())).collect()
}

/// A quoted name keeps what is between its quotes. One with a comma, a parenthesis or a quote in it is no name of ours.
fn one_name(text: &str) -> Option<String> {
    let name = match text.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"')?,
        None => text,
    };
    (!name.is_empty() && !name.contains(['"', '(', ')'])).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> ServerSays {
        let client = |pid, name: &str, sync: &str| Client {
            pid,
            name: Some(name.to_owned()),
            state: Some("streaming".to_owned()),
            sync: Some(sync.to_owned()),
        };
        ServerSays {
            names: "\"watchdog-gate\"".to_owned(),
            commit: "on".to_owned(),
            weaker: Vec::new(),
            clients: vec![client(7, "watchdog-gate", "sync"), client(8, "hanoi", "async")],
        }
    }

    #[test]
    fn each_way_around_the_gate_is_named() {
        let in_force = Judged { streams: true, faults: Vec::new() };
        assert_eq!(judge(&sound(), "watchdog-gate", 7, true), in_force);
        let mut fresh = sound();
        fresh.clients[0].sync = Some("async".to_owned());
        assert_eq!(judge(&fresh, "watchdog-gate", 7, false), in_force);
        type Change = fn(&mut ServerSays);
        let cases: [(Change, &str); 11] = [
            (|says| says.names.clear(), "synchronous_standby_names is empty"),
            (|says| says.names = "hanoi".to_owned(), "synchronous_standby_names is \"hanoi\""),
            (|says| says.names = "\"watchdog-gate\", hanoi".to_owned(), "must name \"watchdog-gate\" alone"),
            (|says| says.names = "*".to_owned(), "must name \"watchdog-gate\" alone"),
            (|says| says.commit = "off".to_owned(), "synchronous_commit is off"),
            (|says| says.commit = "local".to_owned(), "synchronous_commit is local"),
            (
                |says| {
                    let set = "synchronous_commit=off".to_owned();
                    says.weaker.push(Weaker { database: None, role: Some("app".to_owned()), set });
                },
                "synchronous_commit=off is set for role app",
            ),
            (|says| says.clients[1].name = Some("WATCHDOG-gate".to_owned()), "process 8 serves another client"),
            (|says| says.clients[0].state = Some("catchup".to_owned()), "state is catchup"),
            (|says| says.clients[0].sync = Some("potential".to_owned()), "sync_state is potential"),
            (|says| says.clients.clear(), "does not list its process 7"),
        ];
        for (change, wanted) in cases {
            let mut says = sound();
            change(&mut says);
            let faults = judge(&says, "watchdog-gate", 7, true).faults;
            assert!(matches!(&faults[..], [only] if only.contains(wanted)), "{wanted}: {faults:?}");
        }
    }

    #[test]
    fn names_are_read_as_the_server_reads_them() {
        for (setting, names) in [
            ("", Some(vec![])),
            ("gate", Some(vec!["gate"])),
            (" \"gate-1\" ", Some(vec!["gate-1"])),
            ("FIRST 1 (gate)", Some(vec!["gate"])),
            ("any 1 (\"gate\")", Some(vec!["gate"])),
            ("1(gate)", Some(vec!["gate"])),
            ("FIRST 1 (gate, b)", Some(vec!["gate", "b"])),
            ("a, b", Some(vec!["a", "b"])),
            ("*", Some(vec!["*"])),
            ("SOME 1 (gate)", None),
            ("0 (gate)", None),
            ("gate)", None),
            ("\"ga\"\"te\"", None),
            ("gate,", None),
        ] {
            let names: Option<Vec<String>> = names.map(|names| names.into_iter().map(str::to_owned).collect());
            assert_eq!(standby_names(setting), names, "{setting}");
        }
    }
}
