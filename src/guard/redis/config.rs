//! `[redis]` of the guard's configuration: the Redis server of this host.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::domain::ids::GroupName;

/// The Redis server of this host.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// Its group; may be left out where there is only one.
    pub group: Option<GroupName>,
    /// Where it listens, as this host reaches it.
    pub address: SocketAddr,
    /// The user of its access list; without one the default user.
    pub user: Option<String>,
    /// File whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// Its configuration: says whom it follows, and is written to.
    pub config_file: PathBuf,
    /// Its program.
    #[serde(default = "server")]
    pub server: PathBuf,
    /// The operating system's user that it runs as.
    #[serde(default = "run_as")]
    pub run_as: String,
    /// How long a polite stop may take before it is killed, seconds.
    #[serde(default = "ten")]
    pub stop_timeout_s: u64,
    /// Stops it instead of the command `SHUTDOWN`.
    pub stop_argv: Option<Vec<String>>,
    /// Starts it instead of its program with its configuration.
    pub start_argv: Option<Vec<String>>,
    /// The other servers by name, `address:port`: whom it may follow, and hand over to.
    #[serde(default)]
    pub upstream: BTreeMap<String, String>,
}

fn server() -> PathBuf {
    PathBuf::from("/usr/bin/redis-server")
}
fn run_as() -> String {
    "redis".to_owned()
}
fn ten() -> u64 {
    10
}

impl Redis {
    /// As whom these words are run: its own program as its user, all else (`systemctl`) as root where the guard is root.
    pub fn runs_as(&self, argv: &[String]) -> &str {
        let is_own = argv.first().is_some_and(|program| Path::new(program) == self.server);
        if rustix::process::geteuid().is_root() && !is_own { "root" } else { &self.run_as }
    }

    /// What is wrong with it, a sentence each, naming the key.
    pub(in crate::guard) fn faults(&self, group: Option<&GroupName>, groups: &[GroupName]) -> Vec<String> {
        let mut faults = Vec::new();
        match group {
            None => faults.push("redis.group: is needed where there are several groups".to_owned()),
            Some(group) if !groups.contains(group) => {
                faults.push(format!("redis.group: {:?} is not among groups", group.as_str()));
            }
            Some(_) => {}
        }
        if self.address.port() == 0 || self.address.ip().is_unspecified() {
            faults.push(format!("redis.address: {} is nowhere that could be asked", self.address));
        }
        let files = [("config_file", Some(&self.config_file)), ("server", Some(&self.server))];
        for (key, file) in files.into_iter().chain([("password_file", self.password_file.as_ref())]) {
            if let Some(file) = file.filter(|file| !file.is_absolute()) {
                faults.push(format!("redis.{key}: {:?} is not an absolute path", file.display().to_string()));
            }
        }
        if self.user.is_some() && self.password_file.is_none() {
            faults.push("redis.user: is nobody without password_file".to_owned());
        }
        if self.stop_timeout_s == 0 {
            faults.push("redis.stop_timeout_s: must be at least 1".to_owned());
        }
        for (key, argv) in [("stop_argv", &self.stop_argv), ("start_argv", &self.start_argv)] {
            if argv.as_ref().is_some_and(Vec::is_empty) {
                faults.push(format!("redis.{key}: names no program"));
            }
        }
        for (name, address) in &self.upstream {
            let parts = address.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>()));
            let is_place = |host: &str| !host.is_empty() && !host.contains(char::is_whitespace);
            if !matches!(parts, Some((host, Ok(1..))) if is_place(host)) {
                faults.push(format!("redis.upstream.{name}: {address:?} is not address:port"));
            } else if *address == self.address.to_string() {
                faults.push(format!("redis.upstream.{name}: {address} is this very server"));
            }
        }
        faults
    }
}
