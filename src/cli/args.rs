//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::cluster::ClusterVerb;
use super::contexts::Typed;
use super::drill::DrillVerb;
use super::nodes::NodeVerb;
use super::when::parse_duration_ms;
pub use super::wishes::{MoveWish, ServiceVerb, ServiceWish, TrafficWish};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  it failed, the configuration has faults, the run that was followed did not succeed, or a group is not ready
  2  the command line, or a value in it, cannot be
  3  the cluster refused; nothing was changed (also: a dry run found a gate closed)
  4  no node, no leader or no quorum; nothing was changed, and what was shown may be old
  5  outcome unknown: it may or may not have been done; repeat with the --request-id that is printed

Data goes to stdout, everything else to stderr. A command that changes something keeps one request id \
while it tries the endpoints in turn, so that it is done once at most. Nodes are called by TLS with --ca, \
--certificate and --key; without them in plain text, which is for loopback only. What is typed goes before \
the environment, that before the file of contexts (watchdogctl contexts --help).";

const CONTEXT_FILE: &str = "\
The file, ~/.config/watchdogctl.toml (or under XDG_CONFIG_HOME, or named by --context-file or WATCHDOG_CTL_CONFIG):
  default = \"vn\"                      # used where neither --context nor WATCHDOG_CONTEXT names one

  [context.vn]
  endpoints = [\"10.1.0.11:7101\", \"10.2.0.11:7101\", \"10.3.0.11:7101\"]
  ca = \"~/pki/ca.pem\"                 # ~/ is your home, other paths are from the file's folder; the three go together
  certificate = \"~/pki/user-linh.pem\"
  key = \"~/pki/user-linh.key\"

  [context.demo]                      # without certificate: plain text, on loopback only
  endpoints = [\"127.0.0.1:7101\"]

Each value comes from its option if that was typed; else from the context typed with --context; else from the \
environment; else from the context of WATCHDOG_CONTEXT or the default one. `*` marks the context that would be used.";

const INSTALL_COMPLETIONS: &str = "\
To install:
  bash        watchdogctl completions bash > ~/.local/share/bash-completion/completions/watchdogctl
  zsh         watchdogctl completions zsh > ~/.zfunc/_watchdogctl
              with `fpath=(~/.zfunc $fpath); autoload -U compinit; compinit` in ~/.zshrc
  fish        watchdogctl completions fish > ~/.config/fish/completions/watchdogctl.fish
  elvish      watchdogctl completions elvish >> ~/.config/elvish/rc.elv
  powershell  watchdogctl completions powershell >> $PROFILE
Folders must be there; they are read when a new shell starts. Write them anew after an upgrade.";

const INSTALL_MANUAL: &str = "\
To install:
  for you           watchdogctl man --dir ~/.local/share/man/man1
  for everybody     watchdogctl man --dir /usr/local/share/man/man1
Then: man watchdogctl, man watchdogctl-run-show. Without --dir: watchdogctl man | man -l -";

const VERIFY: &str = "\
Each entry carries a number, and a hash over what it says and the hash of the entry before it. So an entry that was taken \
out, changed, moved or put in shows, with its file and line; what one node was away for is filled from another's files. \
What was cut off at the end shows only beside another node's files, or beside the head that this prints without files.";

/// Where the options of every verb stand in its help, apart from its own.
const ANYWHERE: &str = "Options of every verb";

/// Steers the failover watchdog.
#[derive(Debug, Parser)]
#[command(name = "watchdogctl", version, after_help = EXIT_CODES, max_term_width = 110)]
pub struct Cli {
    /// A node's gRPC address; repeat it, or separate by commas, to fail over between nodes. Where none is named: 127.0.0.1:7101.
    #[arg(
        long,
        short = 'e',
        global = true,
        help_heading = ANYWHERE,
        env = "WATCHDOG_ENDPOINTS",
        hide_env_values = true,
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    pub endpoint: Vec<String>,
    /// Nodes and certificate by a name from the file of contexts; typed, it goes before the environment.
    #[arg(long, global = true, help_heading = ANYWHERE, env = "WATCHDOG_CONTEXT", hide_env_values = true, value_name = "NAME")]
    pub context: Option<String>,
    /// The file of contexts, where it is not ~/.config/watchdogctl.toml.
    #[arg(long, global = true, help_heading = ANYWHERE, env = "WATCHDOG_CTL_CONFIG", hide_env_values = true, value_name = "FILE")]
    pub context_file: Option<PathBuf>,
    /// PEM file of the cluster's certificate authority.
    #[arg(long, global = true, help_heading = ANYWHERE, env = "WATCHDOG_CA", hide_env_values = true, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// PEM file of your certificate: who you are, and what you may do.
    #[arg(long, global = true, help_heading = ANYWHERE, env = "WATCHDOG_CERTIFICATE", hide_env_values = true, value_name = "FILE")]
    pub certificate: Option<PathBuf>,
    /// PEM file of its private key.
    #[arg(long, global = true, help_heading = ANYWHERE, env = "WATCHDOG_KEY", hide_env_values = true, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Tables for people, or JSON for programs.
    #[arg(long, short = 'o', global = true, help_heading = ANYWHERE, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
    pub output: Output,
    /// Colours.
    #[arg(long, global = true, help_heading = ANYWHERE, value_enum, default_value_t = Colour::Auto, value_name = "WHEN")]
    pub color: Colour,
    /// Who asks, where no certificate says so; recorded in the audit.
    #[arg(long, global = true, help_heading = ANYWHERE, env = "USER", hide_env_values = true, value_name = "NAME")]
    pub by: Option<String>,
    /// How long to try in all.
    #[arg(long, global = true, help_heading = ANYWHERE, default_value = "15s", value_parser = parse_duration_ms, value_name = "DURATION")]
    pub timeout: u64,
    /// Repeat an earlier request whose outcome is unknown.
    #[arg(long, global = true, help_heading = ANYWHERE, value_name = "ID")]
    pub request_id: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
    /// Which of these were typed.
    #[arg(skip)]
    pub typed: Typed,
    /// The context that something was taken from.
    #[arg(skip)]
    pub settled: Option<String>,
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Aligned text.
    Table,
    /// One JSON document; `run follow` and `--watch` print one a line.
    Json,
}

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// The whole picture: nodes, quorum, groups, open runs, why nothing happens. Exits 4 without leader or quorum.
    Status {
        /// Only this group.
        group: Option<String>,
        /// What the asked node itself knows, without asking the leader for votes.
        #[arg(long, conflicts_with = "watch")]
        local: bool,
        /// Again whenever something changes, until Ctrl-C; goes on at another node when one dies.
        #[arg(long, short = 'w')]
        watch: bool,
    },
    /// If the serving region vanished now: would the group come up elsewhere, how soon, with what loss? Exits 1 where not.
    ///
    /// Of one group it is judged now, by the leader; where nobody can judge (exit 4), and without a group, it is shown as last
    /// judged.
    Readiness {
        /// The group; else all of them, in a table.
        group: Option<String>,
        /// Where to; else the first other region of the configuration.
        #[arg(long, value_name = "REGION", requires = "group")]
        to: Option<String>,
        /// Again whenever something changes, until Ctrl-C; goes on at another node when one dies.
        #[arg(long, short = 'w', requires = "group")]
        watch: bool,
    },
    /// Judge a configuration file; needs no node.
    Check {
        /// The file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Also look at the files it names, as they lie on this machine.
        #[arg(long)]
        files: bool,
    },
    /// Certificates for a cluster without a PKI of its own; needs no node.
    Cert {
        /// What about them.
        #[command(subcommand)]
        verb: CertVerb,
    },
    /// The contexts in ~/.config/watchdogctl.toml: clusters by name; asks no node.
    #[command(after_help = CONTEXT_FILE)]
    Contexts,
    /// A completion script for your shell, to stdout; needs no node.
    #[command(after_help = INSTALL_COMPLETIONS)]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// The manual: the main page to stdout, or a page for every verb into a folder; needs no node.
    #[command(after_help = INSTALL_MANUAL)]
    Man {
        /// Write every page there, and make the folder where it is missing.
        #[arg(long, value_name = "FOLDER")]
        dir: Option<PathBuf>,
    },
    /// Nothing automatic starts in the group; an open run stops at its next step boundary.
    Pause {
        /// The group.
        group: String,
        /// Why; goes into the audit.
        #[arg(long)]
        reason: String,
        /// End by itself after this long; without it, only `resume` ends it.
        #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration_ms)]
        lasting: Option<u64>,
    },
    /// End a pause.
    Resume {
        /// The group.
        group: String,
        /// Why; goes into the audit.
        #[arg(long)]
        reason: String,
    },
    /// Fail a group over now, by your word. Prints the plan, the gates and what each resource shows first.
    Failover(FailoverWish),
    /// Move a group's traffic to another region's load balancer; the database stays. Prints plan, gates and what is there first.
    Traffic(TrafficWish),
    /// Recover one service: restart, scale or roll it back by the guard of its host, and see that it is well.
    Service {
        /// What to do to it.
        #[command(subcommand)]
        verb: ServiceVerb,
    },
    /// Move a group whose primary is healthy to another region; nothing acknowledged is lost. Prints plan, gates and what
    /// is there first, and turns back by itself where it cannot go on before promoting.
    Switchover {
        /// Where to. Not needed where there is only one other region.
        #[arg(long, value_name = "REGION")]
        to: Option<String>,
        /// The rest.
        #[command(flatten)]
        wish: MoveWish,
    },
    /// Move a group home, as a switchover does; its home must be a streaming standby (see rejoin).
    Failback(MoveWish),
    /// Make a region's old primary a standby of the one that serves.
    Rejoin {
        /// Which region. Not needed where only one does not serve.
        #[arg(long, value_name = "REGION")]
        region: Option<String>,
        /// The rest.
        #[command(flatten)]
        wish: MoveWish,
    },
    /// Runs: look at them, follow them, steer them.
    Run {
        /// What about them.
        #[command(subcommand)]
        verb: RunVerb,
    },
    /// Drills: rehearsals by a schedule or by your word, and what came of them.
    Drill {
        /// What about them.
        #[command(subcommand)]
        verb: DrillVerb,
    },
    /// The cluster as a whole: back its state up, and restore it into one formed anew.
    Cluster {
        /// What about it.
        #[command(subcommand)]
        verb: ClusterVerb,
    },
    /// Nodes: list them, add, remove and replace them, hand leadership over.
    Node {
        /// What about them.
        #[command(subcommand)]
        verb: NodeVerb,
    },
    /// Incidents that were told: who has them, who is told next, and whether pages arrive.
    Page {
        /// What about them.
        #[command(subcommand)]
        verb: PageVerb,
    },
    /// Who is told when, how bad what is, and whom to call by hand.
    Contact {
        /// What about them.
        #[command(subcommand)]
        verb: ContactVerb,
    },
    /// Who did what, when and why.
    #[command(args_conflicts_with_subcommands = true)]
    Audit {
        /// What else about it.
        #[command(subcommand)]
        verb: Option<AuditVerb>,
        /// Only this group.
        group: Option<String>,
        /// At most so many entries.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
        /// Only entries before this position in the log.
        #[arg(long, value_name = "INDEX", conflicts_with = "watch")]
        before: Option<u64>,
        /// Also each entry as it is made, until Ctrl-C; goes on at another node when one dies.
        #[arg(long, short = 'w')]
        watch: bool,
    },
}

/// Verbs about incidents. KEY is a page's key, the same without the cluster's name, or the incident's number.
#[derive(Debug, Subcommand)]
pub enum PageVerb {
    /// Open incidents, worst first: who was told when, who has each, who is told next.
    List {
        /// Only this group.
        group: Option<String>,
        /// Also the newest that are over.
        #[arg(long)]
        past: bool,
    },
    /// One incident with its facts.
    Show {
        /// A key or a number.
        #[arg(value_name = "KEY")]
        page: String,
    },
    /// "I have it": nobody further is told, and whoever was told hears of it.
    Ack {
        /// Keys or numbers, or all-of-GROUP for every open incident of a group.
        #[arg(required = true, value_name = "KEY|all-of-GROUP")]
        pages: Vec<String>,
        /// What you do about it; goes into the audit.
        #[arg(long)]
        reason: String,
    },
    /// End an incident that nothing ends by itself: a run's result, a test.
    Resolve {
        /// A key or a number.
        #[arg(value_name = "KEY")]
        page: String,
        /// Why; goes into the audit.
        #[arg(long)]
        reason: String,
    },
    /// Send a page that says it is a test, and wait until each receiver took it. Exits 1 where one did not.
    Test {
        /// Only to this receiver.
        #[arg(long, value_name = "NAME", conflicts_with = "contact")]
        receiver: Option<String>,
        /// Only to this contact's receivers.
        #[arg(long, value_name = "NAME")]
        contact: Option<String>,
        /// Why; it is said in the page, and goes into the audit.
        #[arg(long, default_value = "do pages arrive?")]
        reason: String,
    },
}

/// Verbs about contacts.
#[derive(Debug, Subcommand)]
pub enum ContactVerb {
    /// Ladders, contacts and levels, as the configuration in force has them.
    List {
        /// Only what is for this group.
        group: Option<String>,
    },
}

/// Verbs about the audit.
#[derive(Debug, Subcommand)]
pub enum AuditVerb {
    /// Is it whole? Judges files of it, with no node; without files, what every endpoint keeps in memory. Exits 1 where not.
    #[command(after_help = VERIFY)]
    Verify {
        /// Files audit-YYYY-MM.jsonl, or folders with them; best of every node.
        #[arg(value_name = "FILE|DIR")]
        files: Vec<PathBuf>,
    },
}

/// Verbs about certificates.
#[derive(Debug, Subcommand)]
pub enum CertVerb {
    /// Make the cluster's certificate authority: ca.pem and ca.key. Keep ca.key off the nodes.
    Init {
        /// The cluster's name, as its configuration has it.
        cluster: String,
        /// Where the files go.
        #[arg(long, default_value = ".", value_name = "DIR")]
        dir: PathBuf,
        /// Valid for so long.
        #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36500))]
        days: u32,
    },
    /// Issue a certificate: KIND-NAME.pem and KIND-NAME.key beside the authority's.
    Issue {
        /// Whom for.
        #[arg(value_enum)]
        kind: CertKind,
        /// The node's, the person's or the host's name.
        name: String,
        /// Where the authority is, and the files go.
        #[arg(long, default_value = ".", value_name = "DIR")]
        dir: PathBuf,
        /// Also a host name or address by which other programs (grpcurl) may call it; repeat it.
        #[arg(long, value_name = "HOST")]
        host: Vec<String>,
        /// Valid for so long.
        #[arg(long, default_value_t = 397, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
        /// Replace the one that is there; its key stays.
        #[arg(long)]
        renew: bool,
    },
    /// What a certificate says: whose, from whom, until when.
    Show {
        /// PEM.
        file: PathBuf,
    },
}

/// Whom a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CertKind {
    /// A node.
    Node,
    /// A person, or a program of theirs: what they may do, [[role]] in the configuration says.
    User,
    /// A host's guard, for fencing mode lease.
    Guard,
}

/// A failover by an operator's word.
#[derive(Debug, Args)]
pub struct FailoverWish {
    /// The group.
    pub group: String,
    /// Where to. Not needed where only one other region can serve.
    #[arg(long, value_name = "REGION")]
    pub to: Option<String>,
    /// Why; goes into the audit.
    #[arg(long, required_unless_present = "dry_run", default_value_if("dry_run", "true", "dry run"))]
    pub reason: Option<String>,
    /// Change nothing: print the plan, the gates and what each resource shows. Exits 3 where a gate is closed.
    #[arg(long)]
    pub dry_run: bool,
    /// Accept, by name, what the standby has not received.
    #[arg(long)]
    pub accept_loss: bool,
    /// Say, by name: "I have looked, the database in REGION is silent and stays so."
    #[arg(long, value_name = "REGION")]
    pub assert_fence: Option<String>,
    /// The group's name typed again instead of being asked for it.
    #[arg(long, value_name = "GROUP")]
    pub yes: Option<String>,
    /// Open the run and do not follow it; with `--output json` it never is: `run follow RUN` waits, and tells its outcome.
    #[arg(long)]
    pub detach: bool,
}

/// Verbs about runs. RUN is an id, its beginning (8 characters at least), or a group's name: its open or newest run.
#[derive(Debug, Subcommand)]
pub enum RunVerb {
    /// Open and closed runs, newest first.
    List {
        /// Only this group.
        group: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=200))]
        limit: u32,
        /// Again whenever something changes, until Ctrl-C; goes on at another node when one dies.
        #[arg(long, short = 'w')]
        watch: bool,
    },
    /// One run: its steps, claims and timeline.
    Show {
        /// Id, its beginning, or a group's name.
        run: String,
    },
    /// Watch a run until it is closed. Exits 0 only where it succeeded.
    Follow {
        /// Id, its beginning, or a group's name.
        run: String,
    },
    /// Try a step again with fresh attempts.
    Retry {
        /// Id, its beginning, or a group's name.
        run: String,
        /// The step's name.
        step: String,
        /// Reason and confirmation.
        #[command(flatten)]
        say: Say,
    },
    /// Go on without a step.
    Skip {
        /// Id, its beginning, or a group's name.
        run: String,
        /// The step's name.
        step: String,
        /// Reason and confirmation.
        #[command(flatten)]
        say: Say,
    },
    /// End a run at its next boundary; nothing is undone.
    Abort {
        /// Id, its beginning, or a group's name.
        run: String,
        /// Reason and confirmation.
        #[command(flatten)]
        say: Say,
    },
    /// Say, by name: "I have looked, the database in REGION is silent and stays so."
    AssertFence {
        /// Id, its beginning, or a group's name.
        run: String,
        /// The old primary's region.
        #[arg(long)]
        region: String,
        /// Reason and confirmation.
        #[command(flatten)]
        say: Say,
    },
    /// Accept, by name, what the standby has not received.
    AcceptLoss {
        /// Id, its beginning, or a group's name.
        run: String,
        /// Reason and confirmation.
        #[command(flatten)]
        say: Say,
    },
}

/// What goes with an order.
#[derive(Debug, Args)]
pub struct Say {
    /// Why; goes into the audit.
    #[arg(long)]
    pub reason: String,
    /// The group's name typed again instead of being asked for it.
    #[arg(long, value_name = "GROUP")]
    pub yes: Option<String>,
}
