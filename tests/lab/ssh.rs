//! An SSH server per region's host. The nodes' key can do one thing there: the forced command.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::getuid;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::folder::Folder;
use super::hub;
use super::process::{Part, run, run_async};
use super::{address_of, wait};

/// The nodes' key pair.
pub struct Key {
    /// The private key's file.
    pub file: PathBuf,
    /// `ssh-ed25519 AAAA…`.
    pub public: String,
}

impl Key {
    /// Makes one at `relative` below the folder.
    pub fn make(folder: &Folder, relative: &str) -> Result<Self> {
        let file = folder.path.join(relative);
        fs::create_dir_all(file.parent().context("a key needs a folder")?)?;
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f"]).arg(&file))
            .context("is openssh installed? (apt install openssh-server)")?;
        let text = fs::read_to_string(file.with_extension("pub"))?;
        let public = text.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        Ok(Self { file, public })
    }
}

/// One host's server.
pub struct Sshd {
    /// Its region.
    pub site: String,
    /// Where it listens.
    pub listen: SocketAddr,
    /// What it proves itself with.
    pub host_key: String,
    config: PathBuf,
    part: Option<Part>,
}

impl Sshd {
    /// A server on the site's address, whose only key `client` runs `forced`, whatever it asks for.
    pub async fn start_new(folder: &mut Folder, site: &str, client: &Key, forced: &Path) -> Result<Self> {
        let address = address_of(site);
        let listen = SocketAddr::new(address, folder.port(&[address])?);
        let host_key = Key::make(folder, &format!("{site}/ssh/host_key"))?;
        let line = format!("restrict,command=\"{}\" {}\n", forced.display(), client.public);
        let authorized = folder.write_secret(&format!("{site}/ssh/authorized_keys"), &line)?;
        let text = format!(
            "ListenAddress {address}\nPort {}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
             PubkeyAuthentication yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin forced-commands-only\nLogLevel VERBOSE\nMaxStartups 100\nUseDNS no\nSetEnv SHLVL=1\n",
            listen.port(),
            host_key.file.display(),
            authorized.display()
        );
        let config = folder.write(&format!("{site}/ssh/sshd_config"), &text)?;
        if getuid().is_root() {
            fs::create_dir_all("/run/sshd")?;
        }
        let mut server = Self { site: site.to_owned(), listen, host_key: host_key.public, config, part: None };
        server.start(folder).await?;
        Ok(server)
    }

    /// Starts it and waits for its greeting.
    pub async fn start(&mut self, folder: &Folder) -> Result<()> {
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f"]).arg(&self.config);
        let command = hub::at(folder, &self.site, command);
        let part = Part::start(folder, &format!("sshd-{}", self.site), command)?;
        wait::until(&format!("the SSH server in {} to answer", self.site), Duration::from_secs(20), async || {
            part.check_running()?;
            let mut stream = TcpStream::connect(self.listen).await?;
            let mut greeting = [0; 4];
            tokio::time::timeout(Duration::from_secs(1), stream.read_exact(&mut greeting)).await??;
            Ok(())
        })
        .await?;
        self.part = Some(part);
        Ok(())
    }

    /// Whether it was started and not killed.
    pub fn is_running(&self) -> bool {
        self.part.is_some()
    }

    /// SIGKILL to it and its sessions: the host cannot be reached.
    pub fn kill(&mut self) -> Result<()> {
        self.part.take().context("it does not run")?.kill()
    }

    /// The process that listens.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.part.as_ref().context("it does not run")?.pid)
    }

    /// SIGSTOP: the host accepts connections (its kernel does) and says nothing.
    pub fn freeze(&self) {
        self.part.iter().for_each(Part::freeze);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.part.iter().for_each(Part::thaw);
    }

    /// Asks something over SSH with the nodes' key: what the forced command printed.
    pub async fn ask(&self, client: &Key, words: &str) -> Result<String> {
        let mut command = Command::new("ssh");
        command.args(["-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
        command.args(["-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-o", "ConnectTimeout=3", "-i"]).arg(&client.file);
        command.args(["-p", &self.listen.port().to_string(), &format!("{}@{}", login(), self.listen.ip()), words]);
        run_async(command).await
    }
}

/// The user the nodes log in as: whoever runs the lab, since only root's server can log in others.
pub fn login() -> String {
    let name = run(Command::new("id").arg("-un")).unwrap_or_default();
    name.trim().to_owned()
}
