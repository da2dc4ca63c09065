//! The zone: BIND with a TSIG key, and the question everybody asks it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::net::UdpSocket;

use super::folder::Folder;
use super::process::{Part, run};
use super::{DR, HOME, PUBLIC_NAME, ZONE, address_of, wait};

/// The key's name.
pub const KEY: &str = "watchdog.";

/// BIND.
pub struct Bind {
    /// Where it answers.
    pub server: SocketAddr,
    /// The TSIG key's secret, base64.
    pub secret: String,
    program: PathBuf,
    config: PathBuf,
    part: Option<Part>,
}

impl Bind {
    /// The zone with the public name pointing home, served and open to signed updates.
    pub async fn start_new(folder: &mut Folder) -> Result<Self> {
        let address = address_of("bind");
        let server = SocketAddr::new(address, folder.port(&[address])?);
        let key = run(Command::new("tsig-keygen").args(["-a", "hmac-sha256", KEY]))?;
        let secret = key.split('"').nth(3).context("tsig-keygen printed no secret")?.to_owned();
        let home = folder.path.join("bind");
        std::fs::create_dir_all(&home)?;
        // A copy: Debian's AppArmor profile keeps /usr/sbin/named out of other folders.
        let program = home.join("named");
        std::fs::copy("/usr/sbin/named", &program).context("BIND is not installed (apt install bind9)")?;
        folder.write(
            "bind/demo.test.zone",
            &format!(
                "$TTL 60\n@ SOA ns.{ZONE} hostmaster.{ZONE} 1 60 60 600 5\n@ NS ns.{ZONE}\nns A {address}\n\
                 {PUBLIC_NAME} 300 A {home}\nlb-{HOME} A {home}\nlb-{DR} A {dr}\n",
                home = address_of(HOME),
                dr = address_of(DR)
            ),
        )?;
        let home = home.display();
        let config = folder.write(
            "bind/named.conf",
            &format!(
                "options {{ directory \"{home}\"; listen-on port {port} {{ {address}; }}; listen-on-v6 {{ none; }};\n\
                 pid-file none; session-keyfile \"{home}/session.key\"; recursion no; dnssec-validation no;\n\
                 allow-transfer {{ none; }}; notify no; querylog no; }};\ncontrols {{ }};\n{key}\n\
                 zone \"{zone}\" {{ type primary; file \"demo.test.zone\"; update-policy {{ grant {KEY} zonesub ANY; }}; }};\n",
                port = server.port(),
                zone = ZONE.trim_end_matches('.'),
            ),
        )?;
        let mut bind = Self { server, secret, program, config, part: None };
        bind.start(folder).await?;
        Ok(bind)
    }

    /// Starts it again, with the zone as it was left.
    pub async fn start(&mut self, folder: &Folder) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.args(["-g", "-n", "1", "-c"]).arg(&self.config);
        let part = Part::start(folder, "bind", command)?;
        wait::until("BIND to answer", Duration::from_secs(20), async || {
            part.check_running()?;
            lookup(self.server, PUBLIC_NAME, RecordType::A).await
        })
        .await?;
        self.part = Some(part);
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.part.take().context("BIND does not run")?.kill()
    }

    /// SIGSTOP: an outage that answers nothing.
    pub fn freeze(&self) {
        self.part.iter().for_each(Part::freeze);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.part.iter().for_each(Part::thaw);
    }
}

/// Asks `server` once, with one second's patience: the values found, as text.
pub async fn lookup(server: SocketAddr, name: &str, kind: RecordType) -> Result<Vec<String>> {
    let mut question = Message::query();
    question.add_query(Query::query(Name::from_str(name)?, kind));
    let socket = UdpSocket::bind((IpAddr::from([0, 0, 0, 0]), 0)).await?;
    socket.connect(server).await?;
    socket.send(&question.to_vec()?).await?;
    let mut buffer = [0; 4096];
    let length = tokio::time::timeout(Duration::from_secs(1), socket.recv(&mut buffer))
        .await
        .with_context(|| format!("{server} did not answer for {name} within 1 s"))??;
    let answer = Message::from_vec(&buffer[..length])?;
    let code = answer.metadata.response_code;
    ensure!(code == ResponseCode::NoError, "{server} answered {code} for {name}");
    let found = answer.answers.iter().filter(|record| record.record_type() == kind);
    Ok(found.map(|record| record.data.to_string()).collect())
}

/// What `dig +short` prints, on one line.
pub fn dig(server: SocketAddr, name: &str, kind: &str) -> Result<String> {
    let (ip, port) = (format!("@{}", server.ip()), server.port().to_string());
    let said =
        run(Command::new("dig").args(["+noall", "+answer", "+tries=1", "+time=2", &ip, "-p", &port, name, kind]))?;
    let line = said.lines().find(|line| !line.is_empty()).unwrap_or("(no such record)");
    Ok(line.split_whitespace().collect::<Vec<_>>().join(" "))
}
