//! The resource side, on each host that is acted upon. Installed as the SSH key's forced command.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use watchdog::domain::ids::{ClusterName, GroupName};
use watchdog::guard::config::{Config, ConfigError};
use watchdog::guard::enroll::{self, EnrollError, Enrolment, LatchChoice};
use watchdog::guard::lease::{gate, glass, serve};
use watchdog::guard::protocol::{Answer, Refusal, Reply};
use watchdog::guard::{egress, handler, show};

/// A client that has connected and does not ask is not waited for longer, seconds.
const ASK_TIMEOUT_S: u64 = 30;
/// The configuration or the host does not let the guard do its work.
const CANNOT: u8 = 1;
/// The boot gate: latched.
const GATE_LATCHED: u8 = 40;
/// The boot gate: cannot be told.
const GATE_CANNOT_TELL: u8 = 41;
/// The boot gate, mode `lease`: waited for a lease in vain.
const GATE_NO_LEASE: u8 = 42;

/// Guards a host: keeps the highest fencing token, refuses lower ones, and does named actions only.
#[derive(Parser)]
#[command(name = "watchdog-guard", version, max_term_width = 100)]
struct Args {
    /// The guard's configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/watchdog/guard.toml", env = "WATCHDOG_GUARD_CONFIG")]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answers one request from stdin; for the forced command in authorized_keys
    Ssh,
    /// Shows token, latch, hold, what is in flight, the lease, the database, why it waits and what to type
    Status {
        /// For people, or for programs
        #[arg(long, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
        output: Output,
    },
    /// The boot gate, for ExecStartPre: exit 0 where the database may start
    Gate {
        /// In mode lease: wait so long for a lease
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        wait: u64,
        /// Of the Redis server, not of the database
        #[arg(long, conflicts_with = "wait")]
        redis: bool,
    },
    /// Mode lease: stays, grants promotion holds, and keeps the primary's lease; ends on SIGTERM, the gate stays as it is
    Serve {
        /// How the log is written to standard error
        #[arg(long, value_enum, default_value_t = LogFormat::Text)]
        log_format: LogFormat,
    },
    /// Mode lease: lets the gate stand open on your word, once the cluster does not count on it any more
    BreakGlass {
        #[arg(long)]
        group: String,
        /// This host's name, typed again
        #[arg(long, value_name = "HOSTNAME")]
        confirm: String,
        /// Why; goes to the ledger
        #[arg(long)]
        reason: String,
        /// Open at once, although the cluster may promote another on this host's silence: you answer for it
        #[arg(long)]
        i_own_the_fence: bool,
        /// Take the word back
        #[arg(long, conflicts_with = "i_own_the_fence")]
        mend: bool,
    },
    /// Says what is wrong with the configuration, and whether this host can do what it asks for
    Check {
        /// Exit 1 also where an action's program is missing or may not be run; else that is only said, as the resident
        /// guard must not stay away for it
        #[arg(long)]
        strict: bool,
    },
    /// Says which kinds of egress lease this host can do; needs no configuration
    EgressProbe,
    /// Begins (or begins again) to remember a group's token
    Enroll {
        /// The group's name, as in the configuration
        #[arg(long)]
        group: String,
        /// The cluster's name, as in the configuration
        #[arg(long)]
        cluster: String,
        /// The cluster's epoch
        #[arg(long)]
        epoch: u64,
        /// This host's name, typed again
        #[arg(long, value_name = "HOSTNAME")]
        confirm: String,
        /// Remember at least token EPOCH.N
        #[arg(long, value_name = "N", default_value_t = 0)]
        floor: u64,
        /// What to write where the latch cannot be read
        #[arg(long, value_enum)]
        latch: Option<LatchArg>,
    },
    /// Clears the latch on your word: the database may start
    Unlatch {
        /// The Redis server's latch, not the database's
        #[arg(long)]
        redis: bool,
        /// The group's name, as in the configuration
        #[arg(long)]
        group: String,
        /// This host's name, typed again
        #[arg(long, value_name = "HOSTNAME")]
        confirm: String,
        /// Why; goes to the ledger
        #[arg(long)]
        reason: String,
    },
    /// Keeps a damaged ledger under another name and begins a new one
    SetLedgerAside {
        /// The group's name, as in the configuration
        #[arg(long)]
        group: String,
        /// This host's name, typed again
        #[arg(long, value_name = "HOSTNAME")]
        confirm: String,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Clone, Copy, ValueEnum)]
enum LatchArg {
    Clear,
    Set,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if matches!(args.command, Command::EgressProbe) {
        return egress_probe();
    }
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(e) if matches!(args.command, Command::Ssh) => return ssh(Err(e)),
        Err(e) => return fail(&e),
    };
    match args.command {
        Command::Ssh => ssh(Ok(config)),
        Command::Status { output } => status(&config, output),
        Command::Gate { redis: true, .. } => gate("Redis", show::redis_gate(&config)),
        Command::Gate { wait, redis: false } => gate("the database", show::gate(&config, wait)),
        Command::Serve { log_format } => serve(config, log_format),
        Command::BreakGlass { group, confirm, reason, i_own_the_fence, mend } => {
            let (group, own_the_fence) = (GroupName(group), i_own_the_fence);
            by_hand(glass::break_glass(&config, &glass::Typed { group, confirm, reason, own_the_fence, mend }))
        }
        Command::Check { strict } => check(&config, strict),
        Command::EgressProbe => egress_probe(),
        Command::Enroll { group, cluster, epoch, confirm, floor, latch } => {
            let latch = latch.map(|choice| match choice {
                LatchArg::Clear => LatchChoice::Clear,
                LatchArg::Set => LatchChoice::Set,
            });
            let (group, cluster) = (GroupName(group), ClusterName(cluster));
            by_hand(enroll::enroll(&config, &Enrolment { group, cluster, epoch, confirm, floor, latch }))
        }
        Command::Unlatch { redis, group, confirm, reason } => {
            by_hand(enroll::unlatch(&config, &GroupName(group), redis, &confirm, &reason))
        }
        Command::SetLedgerAside { group, confirm } => {
            by_hand(enroll::set_ledger_aside(&config, &GroupName(group), &confirm))
        }
    }
}

/// Answers one request. What it begins goes on although the connection is lost.
fn ssh(config: Result<Config, ConfigError>) -> ExitCode {
    outlive_the_connection();
    let (send, receive) = mpsc::channel();
    // A thread of its own, so that a client that never asks does not keep a process for ever.
    std::thread::spawn(move || {
        let request = handler::read_request(std::io::stdin().lock());
        // Nobody listens any more: too late.
        let _late = send.send(request);
    });
    let asked = receive.recv_timeout(Duration::from_secs(ASK_TIMEOUT_S));
    let (reply, code) = match (config, asked) {
        (Ok(config), Ok(request)) => {
            let reply = handler::serve(&config, request);
            let code = reply.exit_code();
            (reply, code)
        }
        // The client reads stdout: it, too, is told in its own language.
        (Err(e), _) => (Reply::Failed { retryable: false, reason: format!("the guard is misconfigured: {e}") }, CANNOT),
        (Ok(_), Err(_)) => {
            let refusal = Refusal::BadRequest;
            let reason = format!("no request came within {ASK_TIMEOUT_S} s");
            (Reply::Refused { refusal, reason, held: None }, refusal.exit_code())
        }
    };
    tell(&handler::answer(reply));
    code.into()
}

/// A session of its own, and deaf to the hang-up of a lost connection. (Broken pipes are errors, not signals, in Rust.)
fn outlive_the_connection() {
    // Refused to a session's leader: then it has its own already.
    let _own = rustix::process::setsid();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let deaf = runtime.and_then(|runtime| {
        let _inside = runtime.enter();
        // The handler stays for the life of the process, although nobody reads what it notes.
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).map(drop)
    });
    if let Err(e) = deaf {
        complain(&format!("hang-ups end this guard: {e}"));
    }
}

fn tell(answer: &Answer) {
    let mut line = serde_json::to_string(answer).expect("plain data with text keys always has a JSON form");
    line.push('\n');
    // The client is gone: what was done is in the ledger.
    let mut out = std::io::stdout().lock();
    let _gone = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

fn status(config: &Config, output: Output) -> ExitCode {
    let status = show::status(config);
    match output {
        Output::Table => say(show::in_words(config, &status).trim_end()),
        Output::Json => {
            say(&serde_json::to_string_pretty(&show::on_host(config, &status))
                .expect("plain data always has a JSON form"))
        }
    }
}

fn check(config: &Config, strict: bool) -> ExitCode {
    let missing = show::missing(config);
    missing.iter().for_each(|line| complain(line));
    match show::check(config) {
        Ok(_) if strict && !missing.is_empty() => ExitCode::from(CANNOT),
        Ok(words) => say(&words),
        Err(why) => {
            complain(&why);
            ExitCode::from(CANNOT)
        }
    }
}

fn egress_probe() -> ExitCode {
    say(&egress::probe::probe().in_words())
}

fn serve(config: Config, log_format: LogFormat) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log_format {
        LogFormat::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => return fail(&e),
    };
    let ended = runtime.block_on(async {
        let stop = CancellationToken::new();
        let asked = stop.clone();
        let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::spawn(async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            asked.cancel();
        });
        serve::serve(config.clone(), gate::of(&config)?, stop).await?;
        anyhow::Ok(())
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(&*e),
    }
}

fn gate(of: &str, stands: show::Gate) -> ExitCode {
    let (code, why) = match stands {
        show::Gate::Open => return ExitCode::SUCCESS,
        show::Gate::Latched(why) => (GATE_LATCHED, why),
        show::Gate::NoLease(why) => (GATE_NO_LEASE, why),
        show::Gate::CannotTell(why) => (GATE_CANNOT_TELL, why),
    };
    complain(&format!("{of} may not start: {why}"));
    ExitCode::from(code)
}

fn by_hand(done: Result<String, EnrollError>) -> ExitCode {
    match done {
        Ok(words) => say(&words),
        Err(e) => fail(&e),
    }
}

fn say(words: &str) -> ExitCode {
    match writeln!(std::io::stdout().lock(), "{words}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(CANNOT),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    complain(&error.to_string());
    ExitCode::from(CANNOT)
}

fn complain(words: &str) {
    // Nobody can be told that nobody can be told.
    let _lost = writeln!(std::io::stderr().lock(), "watchdog-guard: {words}");
}
