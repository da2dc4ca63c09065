//! All parts together, started in order and wired to each other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use watchdog::guard::egress::Kind;

use super::client::{Client, Route};
use super::config;
use super::dns::Bind;
use super::door::Door;
use super::folder::{Folder, binaries};
use super::hub::{self, Hub};
use super::lease;
use super::links::Links;
use super::nodes::{Node, Site, name_at};
use super::pki;
use super::postgres::Postgres;
use super::process::{MARK, Part, run_async};
use super::receiver::Receivers;
use super::redis::Redis;
use super::region::{Service, guard_config};
use super::route53::Route53;
use super::ssh::{Key, Sshd};
use super::{CLUSTER, DR, GROUP, HOME, WITNESS, address_of, dns};

/// What answers for the zone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Zone {
    /// BIND, by signed RFC 2136 updates.
    #[default]
    Bind,
    /// A Route 53 API server on loopback.
    Route53,
}

/// Which settings the nodes run with: the two that are shipped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub enum Pace {
    /// Three seconds of hold-down.
    #[default]
    Default,
    /// For those who would rather move at once.
    Fast,
}

/// What a lab shall be like.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What answers for the zone.
    pub zone: Zone,
    /// Where; a fresh temporary folder by default.
    pub folder: Option<PathBuf>,
    /// The nodes' settings.
    pub pace: Pace,
    /// Put doors before the guards and the zone, so that trip wires can be armed.
    pub trips: bool,
    /// Put relays between the nodes, so that links can be cut.
    pub links: bool,
    /// Fence by lease: each database behind its kernel gate, each guard resident.
    pub lease: bool,
    /// The gate is a table of nftables instead of BPF at a cgroup. Inside a hub only: there each host has packets of its own.
    pub nftables: bool,
    /// A Redis server in each region, that at home the primary.
    pub redis: bool,
    /// What a drill tries on the other side besides its rows: that the service answers, and that the database holds what it should.
    pub drill_checks: bool,
    /// Say on standard output what is being started.
    pub speak: bool,
    /// Lines to replace in the nodes' configuration: `(old, new)`.
    pub changes: Vec<(String, String)>,
    /// What the nodes find in their environment, besides.
    pub environment: BTreeMap<String, String>,
}

impl Options {
    /// What the databases' gates are made of, where there are any.
    pub fn gate(&self) -> Option<Kind> {
        self.lease.then_some(if self.nftables { Kind::Nftables } else { Kind::Bpf })
    }
}

/// The running zone.
pub enum Dns {
    /// BIND.
    Bind(Bind),
    /// Route 53.
    Route53(Route53),
}

impl Dns {
    /// Who is asked.
    pub fn server(&self) -> SocketAddr {
        match self {
            Dns::Bind(bind) => bind.server,
            Dns::Route53(route53) => route53.server,
        }
    }

    /// In words.
    pub fn describe(&self) -> String {
        match self {
            Dns::Bind(bind) => format!("BIND at {}", bind.server),
            Dns::Route53(route53) => format!("Route 53's API at {}", route53.endpoint_url),
        }
    }
}

/// Everything. The parts go before the folder, whose end ends whatever is left.
pub struct Lab {
    /// Inserts rows, once started.
    pub client: Option<Client>,
    /// The nodes, once started.
    pub nodes: Vec<Node>,
    /// The database at home.
    pub primary: Postgres,
    /// The database at the other side.
    pub standby: Postgres,
    /// The hosts' SSH servers by region.
    pub hosts: BTreeMap<String, Sshd>,
    /// The services by region.
    pub services: BTreeMap<String, Service>,
    /// The Redis servers by region, where they were asked for.
    pub redis: BTreeMap<String, Redis>,
    /// The zone.
    pub dns: Dns,
    /// The resident guards by region, where leases were asked for.
    pub guards: BTreeMap<String, Part>,
    /// Before the zone, where trips were asked for.
    pub dns_door: Option<Door>,
    /// Where the lab runs inside one.
    pub hub: Option<Hub>,
    /// Between the nodes, where links were asked for.
    pub links: Links,
    /// Who is paged.
    pub receivers: Receivers,
    /// The nodes' key.
    pub key: Key,
    /// What was asked for.
    pub options: Options,
    /// Its folder.
    pub folder: Folder,
}

impl Lab {
    /// Starts every part but the nodes and the client.
    pub async fn start(options: Options) -> Result<Self> {
        let say = |what: &str| {
            if options.speak {
                println!("  {what}");
            }
        };
        let begun = Instant::now();
        let mut folder = Folder::create(options.folder.as_deref())?;
        let hub = hub::inside().then(|| Hub::start(&folder)).transpose()?;
        let port = folder.port(&[address_of(HOME), address_of(DR)])?;
        let gate = options.gate();
        let primary = Postgres::primary(&folder, HOME, port, gate).await?;
        say(&format!("PostgreSQL in {HOME:<8} {}:{port}  primary", primary.address));
        let standby = Postgres::standby(&folder, DR, &primary, gate).await?;
        say(&format!("PostgreSQL in {DR:<8} {}:{port}  standby, streaming", standby.address));
        let redis = if options.redis { start_redis(&folder) } else { BTreeMap::new() };
        let key = Key::make(&folder, "etc/id_ed25519")?;
        let mut hosts = BTreeMap::new();
        let mut services = BTreeMap::new();
        for database in [&primary, &standby] {
            let site = database.site.clone();
            let service = Service::prepare(&mut folder, database, options.trips)?;
            let forced = install_guard(&folder, database, &service, &redis, options.trips).await?;
            let sshd = Sshd::start_new(&mut folder, &site, &key, &forced).await?;
            say(&format!("sshd in {site:<14} {}  the nodes' key can only speak to the guard", sshd.listen));
            hosts.insert(site.clone(), sshd);
            services.insert(site, service);
        }
        services[HOME].start().await?;
        say(&format!("service in {HOME:<11} http://{}/health", services[HOME].listen));
        let dns = match options.zone {
            Zone::Bind => Dns::Bind(Bind::start_new(&mut folder).await?),
            Zone::Route53 => Dns::Route53(Route53::start_new(&mut folder).await?),
        };
        say(&format!("zone                   {}", dns.describe()));
        if matches!(dns, Dns::Route53(_)) {
            say(&format!(
                "                       asked at {}: a stand-in name server that reads the API",
                dns.server()
            ));
        }
        let dns_door = match &dns {
            _ if !options.trips => None,
            Dns::Bind(bind) => Some(Door::before_name_server(&mut folder, bind.server).await?),
            Dns::Route53(route53) => Some(Door::before_api(&mut folder, route53.api).await?),
        };
        let receivers = Receivers::start(&mut folder).await?;
        say(&format!("receivers of pages     http://{}", receivers.listen));
        say(&format!("ready in {:.1} s", begun.elapsed().as_secs_f64()));
        Ok(Self {
            client: None,
            nodes: vec![],
            primary,
            standby,
            hosts,
            services,
            redis,
            dns,
            guards: BTreeMap::new(),
            dns_door,
            hub,
            links: Links::default(),
            receivers,
            key,
            options,
            folder,
        })
    }

    /// Writes the configuration, starts the three nodes, and waits until they have a leader and see the region up.
    pub async fn start_nodes(&mut self) -> Result<()> {
        let mut sites = Vec::new();
        for site in [HOME, DR, WITNESS] {
            let at = address_of(&name_at(site));
            let mut port = || Ok::<_, anyhow::Error>(SocketAddr::new(at, self.folder.port(&[at])?));
            let (listen, http, relay, page) = (port()?, port()?, port()?, port()?);
            let dialled = if self.options.links { relay } else { listen };
            if self.options.links {
                self.links.relay(&name_at(site), relay, listen).await?;
            }
            sites.push(Site { name: site, listen, dialled, http, page });
        }
        pki::make(&self.folder, &sites.iter().map(|site| site.listen).collect::<Vec<_>>())?;
        let text = config::nodes(self, &sites)?;
        if self.options.lease {
            self.guards = lease::start_guards(&mut self.folder, &sites, &self.options)?;
        }
        let file = self.folder.write("etc/watchdog.toml", &text)?;
        for site in sites {
            let node = Node::start(&self.folder, &site, &file, self.options.environment.clone())?;
            self.links.name(node.part()?.pid, &node.name);
            self.nodes.push(node);
        }
        self.until_ready().await?;
        self.until_witness_leads().await;
        if self.options.speak {
            for node in &self.nodes {
                println!("  node {:<17} {}", node.name, node.listen);
            }
        }
        Ok(())
    }

    /// Starts the client, and waits until its first row is acknowledged.
    pub async fn start_client(&mut self) -> Result<()> {
        self.greet(Client::start(Route::Name(self.dns.server()), self.primary.port, Duration::from_millis(10))).await
    }

    /// The same after a failover: whoever serves now acknowledges it.
    pub async fn start_client_anywhere(&mut self) -> Result<()> {
        let client = Client::start(Route::Name(self.dns.server()), self.primary.port, Duration::from_millis(10));
        super::wait::until("a row to be acknowledged", Duration::from_secs(20), async || {
            client.newest().with_context(|| format!("the client's last error: {}", client.last_error()))
        })
        .await?;
        self.client = Some(client);
        Ok(())
    }

    /// The same with one that gives a silent server up soon.
    pub async fn start_impatient_client(&mut self) -> Result<()> {
        let route = Route::Name(self.dns.server());
        self.greet(Client::start_impatient(route, self.primary.port, Duration::from_millis(10))).await
    }

    async fn greet(&mut self, client: Client) -> Result<()> {
        client.first_from(&self.primary.address.to_string(), Duration::from_secs(10)).await?;
        self.client = Some(client);
        Ok(())
    }

    /// The client.
    pub fn client(&self) -> Result<&Client> {
        self.client.as_ref().context("the client was not started")
    }

    /// What joins hosts and nodes.
    pub fn hub(&self) -> Result<&Hub> {
        self.hub.as_ref().context("the lab does not run inside a hub")
    }

    /// The region's end: SIGKILL of its database and its service.
    pub fn kill_home(&mut self) -> Result<()> {
        // The database first: the service would only report it.
        self.primary.kill()?;
        self.services[HOME].kill()
    }

    /// The token record in the zone, as text.
    pub async fn zone_token(&self) -> Result<String> {
        let name = format!("_watchdog-{GROUP}.{}", super::ZONE);
        let found = dns::lookup(self.dns.server(), &name, hickory_proto::rr::RecordType::TXT).await?;
        Ok(found.join(" "))
    }

    /// What the public name answers now, as `dig` prints it.
    pub fn dig(&self) -> Result<String> {
        dns::dig(self.dns.server(), super::PUBLIC_NAME, "A")
    }
}

/// The primary at home, its replica at the other side.
fn start_redis(folder: &Folder) -> BTreeMap<String, Redis> {
    let at = |site: &str| folder.path.join(site).join("redis");
    let primary = Redis::primary(&at(HOME), true);
    let replica = Redis::replica_of(&primary, &at(DR));
    BTreeMap::from([(HOME.to_owned(), primary), (DR.to_owned(), replica)])
}

/// Writes the guard's configuration, enrols it, and gives the script that is the key's forced command.
async fn install_guard(
    folder: &Folder,
    database: &Postgres,
    service: &Service,
    redis: &BTreeMap<String, Redis>,
    door: bool,
) -> Result<PathBuf> {
    let site = &database.site;
    let guard = binaries()?.guard;
    let config = guard_config(folder, database, service, redis, door)?;
    let mut enrol = Command::new(&guard);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    enrol.arg("--config").arg(&config).args(["enroll", "--cluster", CLUSTER, "--epoch", "1", "--group", GROUP]);
    enrol.args(["--confirm", host.trim()]);
    run_async(enrol).await.context("the guard could not be enrolled")?;
    let (mark, guard, config) = (folder.path.display(), guard.display(), config.display());
    let log = folder.log(&format!("guard-{site}"));
    let speak = if door {
        format!("{} door --folder {mark} --guard {guard} --config {config}", binaries()?.lab.display())
    } else {
        format!("{guard} --config {config} ssh")
    };
    let text = format!("#!/bin/sh\nexport {MARK}={mark}\nexec {speak} 2>>{}\n", log.display());
    folder.write_script(&format!("{site}/bin/forced-command"), &text)
}
