//! The guard's own configuration: the only place argv comes from. Every fault is named by its key.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::actions::redis::ACTIONS as REDIS_ACTIONS;
use super::lease::config::Lease;
use super::protocol::{DESCRIBE, FENCE, PROMOTE, RAISE, REJOIN, RELEASE, STATUS};
use super::redis::config::Redis;
use crate::domain::ids::{ClusterName, GroupName};

/// No configuration file is longer, bytes.
const CONFIG_BYTES_MAX: u64 = 256 * 1024;

/// A guard knows no more actions of its own: an answer that tells of each must stay below the length that a node reads.
const ACTIONS_MAX: usize = 200;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the guard's configuration {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not TOML of the known shape.
    #[error("{}: {source}", .path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// Which line and key.
        source: Box<toml::de::Error>,
    },
    /// Values that cannot be.
    #[error("{}: {}", .path.display(), .faults.join("; "))]
    Values {
        /// The file.
        path: PathBuf,
        /// One sentence for each, naming the key.
        faults: Vec<String>,
    },
}

/// The configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The one cluster served.
    pub cluster: ClusterName,
    /// Where tokens, latches and ledgers lie: on a disk that honours fsync.
    pub state_dir: PathBuf,
    /// The groups this host belongs to.
    pub groups: Vec<GroupName>,
    /// The database of this host, if any.
    pub postgres: Option<Postgres>,
    /// The Redis server of this host, if any.
    pub redis: Option<Redis>,
    /// What fencing mode `lease` needs; without it the guard keeps no gate and grants no holds.
    pub lease: Option<Lease>,
    /// Actions by name.
    #[serde(default)]
    pub action: BTreeMap<String, Action>,
}

/// The database of this host.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Postgres {
    /// Its group; may be left out where there is only one.
    group: Option<GroupName>,
    /// `PGDATA`.
    pub data_dir: PathBuf,
    /// Where `pg_ctl` and `psql` lie.
    pub bin_dir: PathBuf,
    /// Port.
    pub port: u16,
    /// The server's own address, where others may listen on the same port at theirs. Without it nobody may.
    pub address: Option<IpAddr>,
    /// Directory of the Unix socket.
    pub socket_dir: PathBuf,
    /// The operating system's and the database's superuser.
    #[serde(default = "postgres_user")]
    pub user: String,
    /// How long a fast stop may take before the immediate one, seconds.
    #[serde(default = "ten")]
    pub stop_timeout_s: u64,
    /// How long promote looks for its effect before it says unknown, seconds.
    #[serde(default = "three_hundred")]
    pub promote_timeout_s: u64,
    /// How long rejoin may take (a base backup of the whole database), seconds; the request's deadline counts too.
    #[serde(default = "one_day")]
    pub rejoin_timeout_s: u64,
    /// `rejoin` leaves so much of the disk free, MiB: what diverged is kept only where there is room besides, and no base backup is
    /// begun where there is not.
    #[serde(default = "one_thousand")]
    pub keep_free_mb: u64,
    /// `postgresql.conf`, where it is not in the data directory (Debian): `pg_rewind` needs it after a crash.
    pub config_file: Option<PathBuf>,
    /// Stops the server instead of `pg_ctl stop -m fast`: `["systemctl", "stop", "postgresql@15-main"]`.
    pub stop_argv: Option<Vec<String>>,
    /// Starts the server instead of `pg_ctl start`.
    pub start_argv: Option<Vec<String>>,
    /// Where `pg_ctl start` sends the server's words.
    pub start_log: Option<PathBuf>,
    /// Options of the server for `pg_ctl start -o`.
    pub start_options: Option<String>,
    /// From where rejoin may replicate, by name.
    #[serde(default)]
    pub upstream: BTreeMap<String, Upstream>,
}

/// A server to replicate from.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// `primary_conninfo`; passwords belong in the user's `~/.pgpass`.
    pub conninfo: String,
    /// The replication slot there, if any.
    pub slot: Option<String>,
}

/// An action: commands run in order, without a shell.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// The commands; each stops the row when it fails. A word that is exactly `{name}` stands for that parameter.
    pub argv: Vec<Vec<String>>,
    /// Looks whether the effect is there: exit 0 yes; `read_back_not_done` no; all else unknown.
    pub read_back: Option<Vec<String>>,
    /// Exit codes of `read_back` that say "not there".
    #[serde(default = "one_and_three")]
    pub read_back_not_done: Vec<i32>,
    /// May be done again without harm where it cannot be known whether it was.
    #[serde(default)]
    pub repeatable: bool,
    /// As whom.
    pub user: String,
    /// All commands together may take this long, seconds; the request's deadline counts too.
    pub timeout_s: u64,
    /// Further variables of the otherwise empty environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The parameters it takes; all are required.
    #[serde(default)]
    pub params: BTreeMap<String, Pattern>,
}

/// What a parameter's value must look like. It never begins with `-` and is never empty.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pattern {
    /// One of these words.
    pub one_of: Option<Vec<String>>,
    /// Made of these characters: `a-z0-9.`; a `-` meant as such comes first or last.
    pub chars: Option<String>,
    /// Of at most this many characters.
    pub max_length: Option<usize>,
}

fn postgres_user() -> String {
    "postgres".to_owned()
}
fn ten() -> u64 {
    10
}
fn three_hundred() -> u64 {
    300
}
fn one_thousand() -> u64 {
    1000
}
fn one_day() -> u64 {
    86_400
}
fn one_and_three() -> Vec<i32> {
    vec![1, 3]
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Every fault found, by key.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        use std::io::Read;
        let io = |source| ConfigError::Io { path: path.to_path_buf(), source };
        let mut text = String::new();
        // One byte more than allowed: what is cut off in silence might be what forbids something.
        let read = std::fs::File::open(path).and_then(|file| file.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text));
        if read.map_err(io)? as u64 > CONFIG_BYTES_MAX {
            let faults = vec![format!("the file is longer than {CONFIG_BYTES_MAX} bytes: is it the right one?")];
            return Err(ConfigError::Values { path: path.to_path_buf(), faults });
        }
        let config: Config =
            toml::from_str(&text).map_err(|e| ConfigError::Shape { path: path.to_path_buf(), source: Box::new(e) })?;
        let faults = config.faults();
        if faults.is_empty() { Ok(config) } else { Err(ConfigError::Values { path: path.to_path_buf(), faults }) }
    }

    /// The group of the database.
    pub fn postgres_of(&self, group: &GroupName) -> Option<&Postgres> {
        self.postgres.as_ref().filter(|_| self.postgres_group() == Some(group))
    }

    /// The database's group.
    pub fn postgres_group(&self) -> Option<&GroupName> {
        let postgres = self.postgres.as_ref()?;
        match (&postgres.group, self.groups.as_slice()) {
            (Some(group), _) => Some(group),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }

    /// The Redis server, where it is this group's.
    pub fn redis_of(&self, group: &GroupName) -> Option<&Redis> {
        self.redis.as_ref().filter(|_| self.redis_group() == Some(group))
    }

    /// The Redis server's group.
    pub fn redis_group(&self) -> Option<&GroupName> {
        let redis = self.redis.as_ref()?;
        match (&redis.group, self.groups.as_slice()) {
            (Some(group), _) | (None, [group]) => Some(group),
            (None, _) => None,
        }
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if !is_name(self.cluster.as_str()) {
            faults.push(format!("cluster: {:?} is not a name (letters, digits, . _ -)", self.cluster.as_str()));
        }
        absolute(&mut faults, "state_dir", &self.state_dir);
        if self.groups.is_empty() {
            faults.push("groups: names no group, so nothing could ever be asked of this guard".to_owned());
        }
        for (at, group) in self.groups.iter().enumerate() {
            if !is_name(group.as_str()) {
                faults.push(format!("groups: {:?} is not a name (letters, digits, . _ -)", group.as_str()));
            }
            if self.groups[..at].contains(group) {
                faults.push(format!("groups: {:?} is there twice", group.as_str()));
            }
        }
        if let Some(postgres) = &self.postgres {
            self.postgres_faults(postgres, &mut faults);
        }
        if let Some(redis) = &self.redis {
            faults.extend(redis.faults(self.redis_group(), &self.groups));
        }
        if let Some(lease) = &self.lease {
            lease.faults(self.postgres_group().is_some(), &mut faults);
        }
        for (name, action) in &self.action {
            action.faults(name, &mut faults);
        }
        if self.action.len() > ACTIONS_MAX {
            faults.push(format!(
                "action: {} are more than the {ACTIONS_MAX} that an answer has room for",
                self.action.len()
            ));
        }
        faults
    }

    fn postgres_faults(&self, postgres: &Postgres, faults: &mut Vec<String>) {
        match self.postgres_group() {
            None => faults.push("postgres.group: is needed where there are several groups".to_owned()),
            Some(group) if !self.groups.contains(group) => {
                faults.push(format!("postgres.group: {:?} is not among groups", group.as_str()));
            }
            Some(_) => {}
        }
        absolute(faults, "postgres.data_dir", &postgres.data_dir);
        absolute(faults, "postgres.bin_dir", &postgres.bin_dir);
        absolute(faults, "postgres.socket_dir", &postgres.socket_dir);
        if let Some(file) = &postgres.config_file {
            absolute(faults, "postgres.config_file", file);
        }
        if postgres.port == 0 {
            faults.push("postgres.port: 0 is no port".to_owned());
        }
        for (key, value) in [
            ("stop_timeout_s", postgres.stop_timeout_s),
            ("promote_timeout_s", postgres.promote_timeout_s),
            ("rejoin_timeout_s", postgres.rejoin_timeout_s),
        ] {
            if value == 0 {
                faults.push(format!("postgres.{key}: must be at least 1"));
            }
        }
        for (key, argv) in [("stop_argv", &postgres.stop_argv), ("start_argv", &postgres.start_argv)] {
            if argv.as_ref().is_some_and(Vec::is_empty) {
                faults.push(format!("postgres.{key}: names no program"));
            }
        }
        for (name, upstream) in &postgres.upstream {
            if upstream.conninfo.contains(['\n', '\r', '\0']) || upstream.conninfo.trim().is_empty() {
                faults.push(format!("postgres.upstream.{name}.conninfo: must be one line"));
            }
            if upstream.conninfo.contains("password=") {
                faults.push(format!("postgres.upstream.{name}.conninfo: put the password into the user's ~/.pgpass"));
            }
            if upstream.slot.as_ref().is_some_and(|slot| !is_slot(slot)) {
                faults
                    .push(format!("postgres.upstream.{name}.slot: is no slot's name (lower case letters, digits, _)"));
            }
        }
    }
}

impl Action {
    fn faults(&self, name: &str, faults: &mut Vec<String>) {
        let mut fault = |key: &str, why: &str| faults.push(format!("action.{name}{key}: {why}"));
        let redis = REDIS_ACTIONS.iter().any(|(built_in, _)| *built_in == name);
        if redis || [STATUS, DESCRIBE, RAISE, FENCE, PROMOTE, RELEASE, REJOIN].contains(&name) {
            fault("", "is built in and cannot be given commands");
        }
        if !is_name(name) {
            fault("", "is not a name (letters, digits, . _ -)");
        }
        if self.argv.is_empty() {
            fault(".argv", "names no command; it is a list of commands, each a list of words");
        }
        if self.timeout_s == 0 {
            fault(".timeout_s", "must be at least 1");
        }
        for argv in self.argv.iter().chain(&self.read_back) {
            match argv.first() {
                None => fault(".argv", "an empty command"),
                Some(program) if program.starts_with('{') => fault(".argv", "the program cannot be a parameter"),
                Some(_) => {}
            }
            for word in argv {
                let whole = word.strip_prefix('{').and_then(|w| w.strip_suffix('}'));
                if whole.is_some_and(|param| !self.params.contains_key(param)) {
                    fault(".argv", &format!("{word} is not declared under action.{name}.params"));
                }
                if whole.is_none() && self.params.keys().any(|param| word.contains(&format!("{{{param}}}"))) {
                    fault(".argv", &format!("{word:?}: a parameter must be a whole word"));
                }
            }
        }
        for (param, pattern) in &self.params {
            if let Some(why) = pattern.fault() {
                fault(&format!(".params.{param}"), why);
            }
        }
    }
}

impl Pattern {
    fn fault(&self) -> Option<&'static str> {
        match (&self.one_of, &self.chars, self.max_length) {
            (Some(words), None, None) if words.is_empty() => Some("one_of allows nothing"),
            (Some(_), None, None) => None,
            (None, Some(chars), Some(length)) if !chars.is_empty() && length > 0 => None,
            _ => Some("needs either one_of, or chars and max_length (not empty, not 0)"),
        }
    }

    /// Does a value fit?
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn check(&self, value: &str) -> Result<(), String> {
        if value.is_empty() || value.starts_with('-') {
            return Err("is empty or begins with '-', which is never allowed".to_owned());
        }
        if let Some(words) = &self.one_of {
            return if words.iter().any(|word| word == value) {
                Ok(())
            } else {
                Err(format!("is not one of {}", words.join(", ")))
            };
        }
        let (chars, length) = (self.chars.as_deref().unwrap_or(""), self.max_length.unwrap_or(0));
        if value.chars().count() > length {
            return Err(format!("is longer than {length} characters"));
        }
        match value.chars().find(|c| !in_set(chars, *c)) {
            Some(c) => Err(format!("has {c:?}, which is not in [{chars}]")),
            None => Ok(()),
        }
    }
}

/// Is a character in a set written like `a-z0-9.`?
fn in_set(set: &str, wanted: char) -> bool {
    let set: Vec<char> = set.chars().collect();
    let mut at = 0;
    while at < set.len() {
        if at + 2 < set.len() && set[at + 1] == '-' {
            if (set[at]..=set[at + 2]).contains(&wanted) {
                return true;
            }
            at += 3;
        } else {
            if set[at] == wanted {
                return true;
            }
            at += 1;
        }
    }
    false
}

/// A name that is safe as a file's: letters, digits, `.`, `_`, `-`, not beginning with a dot or dash, at most 64 long.
pub fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// As PostgreSQL allows.
fn is_slot(text: &str) -> bool {
    (1..=63).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn absolute(faults: &mut Vec<String>, key: &str, path: &Path) {
    if !path.is_absolute() {
        faults.push(format!("{key}: {:?} is not an absolute path", path.display().to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().expect("temp folder");
        let path = dir.path().join("guard.toml");
        std::fs::write(&path, text).expect("written");
        Config::load(&path)
    }

    const HEAD: &str = "cluster = \"demo\"\nstate_dir = \"/s\"\ngroups = [\"a\"]\n";

    #[test]
    fn each_fault_names_its_key() {
        let action = |body: &str| format!("{HEAD}[action.go]\nuser = \"root\"\ntimeout_s = 5\n{body}");
        let postgres = |body: &str| {
            format!("{HEAD}[postgres]\ndata_dir = \"/d\"\nbin_dir = \"/b\"\nsocket_dir = \"/r\"\nport = 5432\n{body}")
        };
        let redis = |body: &str| format!("{HEAD}[redis]\naddress = \"10.1.0.7:6379\"\nconfig_file = \"/c\"\n{body}");
        let leased = |from: &str, to: &str| {
            let lease = "[lease]\nhost = \"db-a\"\nregion = \"a\"\nttl_ms = 2000\nlisten = \"0.0.0.0:7110\"\n\
                         tls = { ca = \"/c\", certificate = \"/d\", key = \"/k\" }\n\
                         nodes = [\"10.0.0.1:7101\", \"n2:7101\"]\nexempt = [\"10.2.0.0/16\"]\n\
                         [lease.holders]\ndb-b = \"10.0.0.2:7110\"\n";
            assert!(lease.contains(from), "{from}");
            postgres(&lease.replace(from, to))
        };
        assert_eq!(
            load(&leased("db-a", "db-a")).map(|config| config.lease.map(|l| l.renew_every_ms())).ok(),
            Some(Some(400))
        );
        for (text, wanted) in [
            ("cluster = \"demo\"\n".to_owned(), "state_dir"),
            (format!("{HEAD}colour = 1\n"), "colour"),
            ("cluster = \"demo\"\nstate_dir = \"s\"\ngroups = []\n".to_owned(), "state_dir: \"s\" is not an absolute"),
            ("cluster = \"demo\"\nstate_dir = \"/s\"\ngroups = [\"../x\"]\n".to_owned(), "groups: \"../x\""),
            ("cluster = \"demo\"\nstate_dir = \"/s\"\ngroups = [\"a\", \"a\"]\n".to_owned(), "is there twice"),
            (action("argv = []\n"), "action.go.argv: names no command"),
            (action("argv = [[]]\n"), "action.go.argv: an empty command"),
            (action("argv = [[\"x\", \"{n}\"]]\n"), "{n} is not declared"),
            (action("argv = [[\"x\", \"-n={n}\"]]\n[action.go.params.n]\nchars=\"0-9\"\nmax_length=2\n"), "whole word"),
            (action("argv = [[\"x\"]]\n[action.go.params.n]\nchars=\"0-9\"\n"), "action.go.params.n: needs either"),
            (action("argv = [[\"x\"]]\nshell = true\n"), "shell"),
            (format!("{HEAD}[action.fence]\nargv=[[\"x\"]]\nuser=\"r\"\ntimeout_s=1\n"), "action.fence: is built in"),
            (format!("{HEAD}[action.redis-fence]\nargv=[[\"x\"]]\nuser=\"r\"\ntimeout_s=1\n"), "is built in"),
            (redis("group = \"b\"\n"), "redis.group: \"b\" is not among"),
            (redis("stop_timeout_s = 0\n"), "redis.stop_timeout_s"),
            (redis("user = \"w\"\n"), "redis.user"),
            (redis("password_file = \"w\"\n"), "redis.password_file"),
            (redis("start_argv = []\n"), "redis.start_argv"),
            (redis("colour = 1\n"), "colour"),
            (redis("upstream.b = \"10.2.0.7\"\n"), "redis.upstream.b: \"10.2.0.7\" is not address:port"),
            (redis("upstream.b = \"10.2.0.7:0\"\n"), "redis.upstream.b"),
            (redis("upstream.b = \"10.1.0.7:6379\"\n"), "is this very server"),
            (redis("").replace("10.1.0.7", "0.0.0.0"), "redis.address"),
            (postgres("group = \"b\"\n"), "postgres.group: \"b\" is not among"),
            (postgres("stop_timeout_s = 0\n"), "postgres.stop_timeout_s"),
            (postgres("[postgres.upstream.x]\nconninfo = \"password=x\"\n"), ".pgpass"),
            (postgres("[postgres.upstream.x]\nconninfo = \"host=x\"\nslot = \"db-a\"\n"), "postgres.upstream.x.slot"),
            (postgres("config_file = \"postgresql.conf\"\n"), "postgres.config_file"),
            (postgres("stop_argv = []\n"), "postgres.stop_argv"),
            (leased("2000", "2000\ncolour = 1"), "colour"),
            (leased("2000", "100"), "lease.ttl_ms: 100 is not within"),
            (leased("2000", "2000\nrenew_every_ms = 900"), "lease.renew_every_ms: 900 is not within"),
            (leased("0.0.0.0:7110", "here"), "lease.listen: \"here\""),
            (leased("10.0.0.1:7101", "10.0.0.1"), "lease.nodes: \"10.0.0.1\" has no port"),
            (leased("n2:7101", "n2:0"), "lease.nodes: \"n2:0\" is not address:port"),
            (leased("n2:7101", "http://n2:7"), "lease.nodes: \"http://n2:7\" is not address:port"),
            (leased("n2:7101", "10.0.0.1:7101"), "lease.nodes: \"10.0.0.1:7101\" is there twice"),
            (leased("db-b", "db-a"), "lease.holders: \"db-a\" is this host"),
            (leased("10.0.0.2:7110", "10.0.0.2"), "lease.holders.db-b: \"10.0.0.2\" has no port"),
            (leased("10.2.0.0/16", "10.2.0.0/33"), "lease.exempt: \"10.2.0.0/33\""),
            (leased("10.2.0.0/16", "db-b"), "lease.exempt: \"db-b\""),
            (leased("[lease]", "[lease]\ngate = \"none\""), "gate"),
            (leased("[lease]", "[lease]\ncommit_gate = 1"), "commit_gate"),
            (leased("tls = { ca = \"/c\", certificate = \"/d\", key = \"/k\" }\n", ""), "lease.tls: is missing"),
            (leased(", key = \"/k\"", ""), "lease.tls.key: is missing"),
            (leased("\"/d\"", "\"d\""), "lease.tls.certificate: is not an absolute path"),
            (leased("key =", "plaintext = \"loopback\", key ="), "plain text and certificates at once"),
            (
                leased("ca = \"/c\", certificate = \"/d\", key = \"/k\"", "plaintext = \"yes\""),
                "lease.tls.plaintext: \"yes\"",
            ),
            (
                leased("ca = \"/c\", certificate = \"/d\", key = \"/k\"", "plaintext = \"loopback\""),
                "lease.tls.plaintext: is for loopback only, and \"0.0.0.0:7110\" is not",
            ),
            (
                leased("[lease]", "[lease]\nreplication.application_name = \"a b\""),
                "lease.replication.application_name",
            ),
            (leased("[lease]", "[lease]\nreplication.host = \"db-b\""), "lease.replication.host: \"db-b\""),
            (leased("[lease]", "[lease]\nreplication.user = \"\""), "lease.replication.user"),
            (leased("[lease]", "[lease]\nreplication.password_file = \"x\""), "lease.replication.password_file"),
            (leased("[lease]\nhost = \"db-a\"", "[lease]\nhost = \"db/a\""), "lease.host"),
            (
                format!("{HEAD}{}", leased("db-a", "db-a").split_once("5432\n").map_or("", |parts| parts.1)),
                "there is no [postgres]",
            ),
        ] {
            let error = load(&text).expect_err(&text).to_string();
            assert!(error.contains(wanted), "{text}\n-> {error}\nwanted {wanted}");
        }
    }

    #[test]
    fn a_file_too_long_is_refused_and_not_cut() {
        let filler = "#".repeat(usize::try_from(CONFIG_BYTES_MAX).expect("small"));
        let error = load(&format!("{HEAD}{filler}\nsurprise = 1\n")).expect_err("too long").to_string();
        assert!(error.contains("longer than 262144 bytes"), "{error}");
    }

    #[test]
    fn values_are_held_to_their_pattern() {
        let chars = |set: &str| Pattern { one_of: None, chars: Some(set.to_owned()), max_length: Some(4) };
        let words = Pattern { one_of: Some(vec!["hanoi".into()]), chars: None, max_length: None };
        for (pattern, value, fits) in [
            (chars("0-9"), "12", true),
            (chars("0-9"), "12345", false),
            (chars("0-9"), "1;2", false),
            (chars("0-9"), "", false),
            (chars("a-z-"), "a-b", true),
            (chars("a-z-"), "-a", false),
            (chars("-a-z"), "a-b", true),
            (chars("a-z"), "a\n", false),
            (words.clone(), "hanoi", true),
            (words, "hano", false),
        ] {
            assert_eq!(pattern.check(value).is_ok(), fits, "{pattern:?} {value:?}");
        }
    }
}
