//! PostgreSQL: a primary, and a standby that streams from it. Each listens on its site's own address at the same port.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Signal, getuid};
use tokio_postgres::{Client, NoTls};
use watchdog::guard::egress::Kind;
use watchdog::guard::postgres::processes;

use super::folder::Folder;
use super::hub;
use super::lease::Cgroup;
use super::process::{Part, is_running, run, run_async, send};
use super::{address_of, wait};

/// The application's database.
pub const DATABASE: &str = "aicamera";

/// One server.
pub struct Postgres {
    /// Its region.
    pub site: String,
    /// Where it listens.
    pub address: IpAddr,
    /// The same for all.
    pub port: u16,
    /// `PGDATA`.
    pub data: PathBuf,
    /// Where its Unix socket is.
    pub sockets: PathBuf,
    /// Where PostgreSQL's programs are.
    pub bin: PathBuf,
    part: Option<Part>,
    /// After the part: removed once nothing runs in it.
    cgroup: Option<Cgroup>,
}

impl Postgres {
    /// A fresh primary with the application's tables, running.
    ///
    /// `gate`: the lease's. One by BPF needs a cgroup of the server's own.
    pub async fn primary(folder: &Folder, site: &str, port: u16, gate: Option<Kind>) -> Result<Self> {
        let mut server = Self::at(folder, site, port, gate)?;
        let mut initdb = server.command("initdb");
        initdb.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale", "--no-sync", "-D"]);
        initdb.arg(&server.data);
        run_async(initdb).await?;
        let settings = "wal_log_hints = on\nwal_keep_size = 256MB\ndynamic_shared_memory_type = mmap\n\
            log_min_messages = log\nlog_line_prefix = '%m [%p] '\n";
        append(&server.data.join("postgresql.conf"), settings)?;
        let net = if hub::inside() { hub::NET } else { "127.0.0.0/8" };
        append(
            &server.data.join("pg_hba.conf"),
            &format!("host all all {net} trust\nhost replication all {net} trust\n"),
        )?;
        server.start(folder).await?;
        let client = server.connect("postgres", "postgres").await?;
        client
            .batch_execute("create role app login; create role watchdog login; grant pg_monitor to watchdog;")
            .await?;
        client.batch_execute("create role replicator login replication;").await?;
        client.batch_execute(&format!("create database {DATABASE} owner app;")).await?;
        let client = server.connect("postgres", DATABASE).await?;
        client
            .batch_execute(
                "create table rows (id bigint primary key, at timestamptz not null default clock_timestamp());
                 create table health (region text primary key, at timestamptz not null);
                 alter table rows owner to app; alter table health owner to app;
                 grant usage, create on schema public to watchdog;",
            )
            .await?;
        Ok(server)
    }

    /// A standby of `primary`, streaming.
    pub async fn standby(folder: &Folder, site: &str, primary: &Postgres, gate: Option<Kind>) -> Result<Self> {
        let mut server = Self::at(folder, site, primary.port, gate)?;
        // Inside a hub the standby has an address of its own, which can be exempted from the gate.
        let host = if gate.is_some() && !hub::inside() {
            primary.sockets.display().to_string()
        } else {
            primary.address.to_string()
        };
        let source = format!("host={host} port={} user=replicator application_name={site}", primary.port);
        let mut copy = server.command("pg_basebackup");
        copy.args([
            "--write-recovery-conf",
            "--wal-method=stream",
            "--checkpoint=fast",
            "--no-sync",
            "-d",
            &source,
            "-D",
        ]);
        copy.arg(&server.data);
        run_async(hub::at(folder, site, copy)).await?;
        server.start(folder).await?;
        let client = primary.connect("postgres", "postgres").await?;
        wait::until_true("the standby to stream", Duration::from_secs(20), async || {
            let row = client.query_one("select count(*) from pg_stat_replication where state = 'streaming'", &[]).await;
            row.is_ok_and(|row| row.get::<_, i64>(0) > 0)
        })
        .await?;
        Ok(server)
    }

    fn at(folder: &Folder, site: &str, port: u16, gate: Option<Kind>) -> Result<Self> {
        let parent = folder.path.join("pg");
        let data = parent.join(site);
        let sockets = folder.path.join("run").join(site);
        for path in [&parent, &data, &sockets] {
            fs::create_dir_all(path)?;
            if getuid().is_root() {
                run(Command::new("chown").arg("postgres:").arg(path))?;
            }
        }
        run(Command::new("chmod").arg("0700").arg(&data))?;
        let cgroup = gate.filter(|kind| *kind == Kind::Bpf).map(|_| Cgroup::new(folder, site)).transpose()?;
        let (site, address) = (site.to_owned(), address_of(site));
        Ok(Self { site, address, port, data, sockets, bin: programs()?, part: None, cgroup })
    }

    /// One of PostgreSQL's programs, as the user that may run it.
    pub fn command(&self, program: &str) -> Command {
        let path = self.bin.join(program);
        let mut command = match database_user() {
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--init-groups", "--"]).arg(path);
                command
            }
            None => Command::new(path),
        };
        command.current_dir(&self.data);
        command
    }

    /// Starts it and waits until it answers.
    pub async fn start(&mut self, folder: &Folder) -> Result<()> {
        self.wait_until_gone()?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(&self.data).args(self.options());
        if let Some(cgroup) = &self.cgroup {
            command = cgroup.around(&command);
        }
        let command = hub::at(folder, &self.site, command);
        let part = Part::start(folder, &format!("postgres-{}", self.site), command)?;
        wait::until(&format!("PostgreSQL in {} to answer", self.site), Duration::from_secs(30), async || {
            part.check_running()?;
            self.connect("postgres", "postgres").await.map(|_| ())
        })
        .await?;
        self.part = Some(part);
        Ok(())
    }

    /// What differs between the servers is on the command line, since a standby copies the primary's files.
    pub fn options(&self) -> [String; 6] {
        let words =
            ["-h", &self.address.to_string(), "-p", &self.port.to_string(), "-k", &self.sockets.display().to_string()];
        words.map(str::to_owned)
    }

    /// SIGKILL to every process of it; returns when all are gone.
    pub fn kill(&mut self) -> Result<()> {
        self.part.take().context("it does not run")?.kill()?;
        self.wait_until_gone()
    }

    /// The first process is reaped before the others have let go of the shared memory, and PostgreSQL does not start while one
    /// still holds it. A process has let go before it leaves its working directory.
    fn wait_until_gone(&self) -> Result<()> {
        let gone = || processes(&self.data).unwrap_or_default().is_empty().then_some(());
        wait::until_blocking(
            &format!("every process in {} to be gone", self.data.display()),
            Duration::from_secs(20),
            gone,
        )
    }

    /// An orderly stop.
    pub fn stop(&mut self) -> Result<()> {
        let part = self.part.take().context("it does not run")?;
        part.signal(Signal::INT);
        part.wait_ended(Duration::from_secs(20))
    }

    /// SIGSTOP to every process of it.
    pub fn freeze(&self) -> Result<()> {
        self.part.as_ref().context("it does not run").map(Part::freeze)
    }

    /// SIGCONT.
    pub fn thaw(&self) -> Result<()> {
        self.part.as_ref().context("it does not run").map(Part::thaw)
    }

    /// Where it is gated.
    pub fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }

    /// Whether its first process lives.
    pub fn is_running(&self) -> bool {
        self.part.as_ref().is_some_and(|part| part.ended().is_none())
    }

    /// `pg_ctl promote`, by hand.
    pub async fn promote(&self) -> Result<String> {
        let mut command = self.command("pg_ctl");
        command.args(["promote", "-D"]).arg(&self.data);
        run_async(command).await
    }

    /// libpq's key/value string.
    pub fn conninfo(&self, user: &str, database: &str) -> String {
        format!("host={} port={} user={user} dbname={database}", self.address, self.port)
    }

    /// A session.
    pub async fn connect(&self, user: &str, database: &str) -> Result<Client> {
        connect(&self.conninfo(user, database)).await
    }

    /// Whether it is in recovery.
    pub async fn in_recovery(&self) -> Result<bool> {
        let client = self.connect("postgres", "postgres").await?;
        Ok(client.query_one("select pg_is_in_recovery()", &[]).await?.get(0))
    }

    /// The timeline of what it writes or replays.
    pub async fn timeline(&self) -> Result<i32> {
        let client = self.connect("postgres", "postgres").await?;
        let row = client
            .query_one(
                "select case when pg_is_in_recovery() then (select timeline_id from pg_control_checkpoint())
                 else ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int end",
                &[],
            )
            .await?;
        Ok(row.get(0))
    }

    /// The ids of the client's rows that are there.
    pub async fn row_ids(&self) -> Result<Vec<i64>> {
        let client = self.connect("postgres", DATABASE).await?;
        let rows = client.query("select id from rows order by id", &[]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}

/// Connects within two seconds and keeps the connection's task going.
pub async fn connect(conninfo: &str) -> Result<Client> {
    let connecting = tokio_postgres::connect(conninfo, NoTls);
    let (client, connection) = tokio::time::timeout(Duration::from_secs(2), connecting).await??;
    tokio::spawn(connection);
    Ok(client)
}

/// The user the servers run as: PostgreSQL refuses to be root.
pub fn database_user() -> Option<&'static str> {
    getuid().is_root().then_some("postgres")
}

/// Where Debian keeps the newest version's programs.
pub fn programs() -> Result<PathBuf> {
    let versions =
        fs::read_dir("/usr/lib/postgresql").context("PostgreSQL is not installed (apt install postgresql)")?;
    let mut found: Vec<PathBuf> = versions.flatten().map(|entry| entry.path().join("bin")).collect();
    found.retain(|bin| bin.join("pg_ctl").exists());
    found.sort();
    found.pop().context("no pg_ctl below /usr/lib/postgresql (apt install postgresql)")
}

fn append(file: &Path, text: &str) -> Result<()> {
    let old = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(!old.is_empty(), "{} is empty", file.display());
    fs::write(file, old + text).with_context(|| format!("cannot write {}", file.display()))
}

/// `postmaster.pid` of every server below the mark, as lines.
fn pid_files(mark: &Path) -> Vec<Vec<String>> {
    let servers = fs::read_dir(mark.join("pg")).into_iter().flatten().flatten();
    let texts = servers.filter_map(|server| fs::read_to_string(server.path().join("postmaster.pid")).ok());
    texts.map(|text| text.lines().map(str::to_owned).collect()).collect()
}

/// An immediate shutdown of every server of a lab, frozen or not: it frees what a killed one leaves in the kernel.
pub fn stop_at_once(mark: &Path) -> Vec<u32> {
    let pids = pid_files(mark).into_iter().filter_map(|lines| lines.first()?.trim().parse().ok());
    let running: Vec<u32> = pids.filter(|pid| is_running(*pid)).collect();
    for pid in &running {
        for process in super::process::tree(*pid) {
            send(process, Signal::CONT);
        }
        send(*pid, Signal::QUIT);
    }
    running
}

/// Removes the System V segments that killed servers left (the seventh line of their `postmaster.pid`).
pub fn remove_shared_memory(mark: &Path) {
    for lines in pid_files(mark) {
        let id = lines.get(6).and_then(|line| line.split_whitespace().nth(1));
        if let Some(id) = id {
            let _ = run(Command::new("ipcrm").args(["-m", id]));
        }
    }
}
