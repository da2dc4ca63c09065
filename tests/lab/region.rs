//! A region's host: its SSH server with the guard behind it, and its service.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::folder::{Folder, binaries};
use super::hub;
use super::postgres::{DATABASE, Postgres};
use super::process::{self, MARK, run_async};
use super::redis::Redis;
use super::service::running;
use super::ssh::login;
use super::trip::shell_hold;
use super::{CLUSTER, DR, GROUP, address_of, wait};

/// A service and how it is started: by a script, as an operator's unit would, so that the guard has something to run.
pub struct Service {
    /// Its region.
    pub site: String,
    /// Where it answers.
    pub listen: SocketAddr,
    /// Starts it unless it runs, and returns when it listens.
    pub start_script: PathBuf,
    /// Exits 0 if it runs.
    pub status_script: PathBuf,
    /// What its guard runs to restart it, with its name.
    pub restart_script: PathBuf,
    /// Where it writes its process id.
    pub pid_file: PathBuf,
}

impl Service {
    /// Writes the scripts; nothing runs yet.
    ///
    /// `trips`: the start can be held.
    pub fn prepare(folder: &mut Folder, database: &Postgres, trips: bool) -> Result<Self> {
        let site = database.site.clone();
        // Only what a run starts is held, not the lab's own start at home.
        let (hold, inside, through) = match trips && site == DR {
            true => (shell_hold(&folder.path), "hold services inside\n", "hold services through && "),
            false => (String::new(), "", ""),
        };
        let address = address_of(&site);
        let listen = SocketAddr::new(address, folder.port(&[address])?);
        let pid_file = folder.path.join("run").join(format!("service-{site}.pid"));
        let (pid, log, mark) = (pid_file.display(), folder.log(&format!("service-{site}")), folder.path.display());
        // A process that was killed and not yet reaped has no program any more.
        let running = format!("[ -s {pid} ] && readlink -q /proc/$(cat {pid})/exe >/dev/null");
        let start_script = folder.write_script(
            &format!("{site}/bin/start-services"),
            &format!(
                "#!/bin/sh\n# Starts the service in {site} unless it runs; returns when it listens.\n\
                 {hold}{inside}\
                 if {running}; then echo 'already running'; exit 0; fi\nrm -f {pid}\n\
                 {MARK}={mark} setsid {at} {lab} service --region {site} --listen {listen} --pid-file {pid} \\\n\
                 \x20 --conninfo '{conninfo}' </dev/null >>{log} 2>&1 &\n\
                 for _ in $(seq 500); do [ -s {pid} ] && {through}echo started && exit 0; sleep 0.01; done\n\
                 echo 'it did not start within 5 s' >&2; exit 1\n",
                at = hub::words(folder, &site).join(" "),
                lab = binaries()?.lab.display(),
                conninfo = database.conninfo("app", DATABASE),
                log = log.display(),
            ),
        )?;
        let status_script = folder.write_script(
            &format!("{site}/bin/services-status"),
            &format!("#!/bin/sh\nif {running}; then echo running; exit 0; fi\necho stopped; exit 1\n"),
        )?;
        // As a rollout would: the old one ends, the new one answers before this returns.
        let restart_script = folder.write_script(
            &format!("{site}/bin/restart-service"),
            &format!(
                "#!/bin/sh\n[ \"$1\" = api ] || exit 1\nif {running}; then kill -9 $(cat {pid}); fi\n\
                 for _ in $(seq 500); do {running} || exec {start}; sleep 0.01; done\n\
                 echo 'it did not end within 5 s' >&2; exit 1\n",
                start = start_script.display(),
            ),
        )?;
        Ok(Self { site, listen, start_script, status_script, restart_script, pid_file })
    }

    /// Starts it as the guard would.
    pub async fn start(&self) -> Result<()> {
        run_async(Command::new(&self.start_script)).await?;
        wait::until_true(&format!("the service in {} to be well", self.site), Duration::from_secs(10), async || {
            self.health().await.is_ok_and(|(status, _)| status == 200)
        })
        .await
    }

    /// SIGKILL.
    pub fn kill(&self) -> Result<()> {
        let pid = self.pid()?;
        process::send(pid, rustix::process::Signal::KILL);
        wait::until_blocking("the service to end", Duration::from_secs(5), || (!process::is_running(pid)).then_some(()))
    }

    /// SIGSTOP; returns when it has stopped.
    pub fn freeze(&self) -> Result<()> {
        process::freeze_all(&[self.pid()?]);
        Ok(())
    }

    /// SIGCONT.
    pub fn thaw(&self) -> Result<()> {
        process::send(self.pid()?, rustix::process::Signal::CONT);
        Ok(())
    }

    fn pid(&self) -> Result<u32> {
        running(&self.pid_file).with_context(|| format!("no service runs in {}", self.site))
    }

    /// Whether its process lives.
    pub fn is_running(&self) -> bool {
        running(&self.pid_file).is_some()
    }

    /// Asks `/health`: the status and the body.
    pub async fn health(&self) -> Result<(u16, String)> {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(3)).no_proxy().build()?;
        let answer = client.get(format!("http://{}/health", self.listen)).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }
}

/// What the guard on a region's host is told: its database, and the one action of its own.
///
/// `trips`: `pg_ctl` can be held, and gets more time to be.
pub fn guard_config(
    folder: &Folder,
    database: &Postgres,
    service: &Service,
    redis: &BTreeMap<String, Redis>,
    trips: bool,
) -> Result<PathBuf> {
    let site = &database.site;
    let other = if site == super::HOME { super::DR } else { super::HOME };
    let (bin, stop_timeout_s) = match trips {
        true => (holdable_programs(folder, database)?, 30),
        false => (database.bin.clone(), 3),
    };
    // As the first standby does (`lease`): on loopback only the Unix socket passes the other's gate.
    let upstream = match database.cgroup().is_some() && !hub::inside() {
        true => folder.path.join("run").join(other).display().to_string(),
        false => address_of(other).to_string(),
    };
    let text = format!(
        r#"# The guard on db-{site}: what it may do there. Nothing else can be asked of it.
cluster = "{CLUSTER}"
state_dir = "{state}"
groups = ["{GROUP}"]

[postgres]
data_dir = "{data}"
bin_dir = "{bin}"
socket_dir = "{sockets}"
port = {port}
address = "{address}"
user = "{user}"
stop_timeout_s = {stop_timeout_s}
start_options = "{options}"
start_log = "{log}"

[postgres.upstream.{other}]
conninfo = "host={upstream} port={port} user=postgres application_name={site}"

[action.restart]
argv = [["{restart}", "{{name}}"]]
read_back = ["{status}"]
user = "{login}"
timeout_s = 20
env = {{ PATH = "/usr/sbin:/usr/bin:/sbin:/bin" }}
[action.restart.params.name]
one_of = ["api"]

[action.start-services]
argv = [["{start}"]]
read_back = ["{status}"]
user = "{login}"
timeout_s = 20
env = {{ PATH = "/usr/sbin:/usr/bin:/sbin:/bin" }}
"#,
        state = folder.path.join(site).join("guard").display(),
        data = database.data.display(),
        bin = bin.display(),
        sockets = database.sockets.display(),
        port = database.port,
        address = database.address,
        user = super::postgres::database_user().map_or_else(login, str::to_owned),
        options = database.options().join(" "),
        other = other,
        // The lab's own log of the server is root's; what the guard starts writes as the database's user.
        log = start_log(database).display(),
        start = service.start_script.display(),
        restart = service.restart_script.display(),
        status = service.status_script.display(),
        login = login(),
    );
    folder.write(&format!("{site}/guard.toml"), &(text + &redis_config(redis, site, other)))
}

fn start_log(database: &Postgres) -> PathBuf {
    database.sockets.join("started-by-guard.log")
}

/// Redis' table, where there is Redis.
fn redis_config(redis: &BTreeMap<String, Redis>, site: &str, other: &str) -> String {
    let (Some(own), Some(other_one)) = (redis.get(site), redis.get(other)) else { return String::new() };
    format!(
        "\n[redis]\naddress = \"{}\"\npassword_file = \"{}\"\nconfig_file = \"{}\"\nrun_as = \"{}\"\n\
         upstream.{other} = \"{}\"\n",
        own.address(),
        own.password_file().display(),
        own.config().display(),
        login(),
        other_one.address()
    )
}

/// PostgreSQL's programs, with a `pg_ctl` before the real one that can be held, and that keeps a ledger of its own.
fn holdable_programs(folder: &Folder, database: &Postgres) -> Result<PathBuf> {
    let programs = folder.path.join(&database.site).join("bin/postgresql");
    std::fs::create_dir_all(&programs)?;
    for entry in std::fs::read_dir(&database.bin)? {
        let entry = entry?;
        if entry.file_name() != "pg_ctl" {
            std::os::unix::fs::symlink(entry.path(), programs.join(entry.file_name()))?;
        }
    }
    let text = format!(
        "#!/bin/sh\n{hold}case \"$1\" in stop) step=fence ;; promote) step=promote ;; *) step=none ;; esac\n\
         hold $step inside\n{real} \"$@\"; code=$?\necho \"$code $*\" >>{ledger}\nhold $step through\nexit $code\n",
        hold = shell_hold(&folder.path),
        real = database.bin.join("pg_ctl").display(),
        ledger = pg_ctl_ledger(folder, &database.site).display(),
    );
    folder.write_script(&format!("{}/bin/postgresql/pg_ctl", database.site), &text)?;
    Ok(programs)
}

/// Each run of `pg_ctl` on a host whose programs can be held: its exit code and its words, a line each.
pub fn pg_ctl_ledger(folder: &Folder, site: &str) -> PathBuf {
    folder.path.join("run").join(format!("pg_ctl-{site}.log"))
}
