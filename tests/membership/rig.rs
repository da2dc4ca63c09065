//! A cluster of real processes in one folder.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The group of every cluster here.
pub const GROUP: &str = "shop";

/// Where a node stands.
#[derive(Debug, Clone)]
pub struct Site {
    pub id: u64,
    pub name: String,
    pub region: String,
    pub port: u16,
}

/// What `watchdogctl` said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    /// The data, of a command that was to succeed.
    pub fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}\n{}", self.out, self.err);
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }

    /// Exit code and words as they should be.
    pub fn refused(&self, code: i32, words: &str) {
        assert!(self.code == code && self.err.contains(words), "not {code} with {words:?}: {self:#?}");
    }
}

/// The folder and the processes in it, which end with the value.
pub struct Rig {
    pub folder: TempDir,
    sites: BTreeMap<u64, Site>,
    running: BTreeMap<u64, Child>,
    reference: TcpListener,
    /// Where everybody is asked; those who run.
    files: u32,
}

impl Drop for Rig {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            for id in self.sites.keys() {
                let log = fs::read_to_string(self.log(*id)).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(12).collect();
                eprintln!("--- node {id}, newest first\n{}", tail.join("\n"));
            }
        }
    }
}

impl Rig {
    /// Knows these nodes, `(id, name, region)`; none of them runs.
    pub fn new(nodes: &[(u64, &str, &str)]) -> Self {
        // Held together, so that no port is given twice.
        let listeners: Vec<TcpListener> = nodes.iter().map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let site = |((id, name, region), listener): (&(u64, &str, &str), &TcpListener)| {
            let port = listener.local_addr().unwrap().port();
            (*id, Site { id: *id, name: (*name).to_owned(), region: (*region).to_owned(), port })
        };
        let sites = nodes.iter().zip(&listeners).map(site).collect();
        let reference = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { folder: tempfile::tempdir().unwrap(), sites, running: BTreeMap::new(), reference, files: 0 }
    }

    /// 1+1+1 formed, besides other nodes that do not run yet.
    pub fn formed(others: &[(u64, &str, &str)]) -> Self {
        let first = [(1, "hcmc-1", "hcmc"), (2, "hanoi-1", "hanoi"), (3, "witness-1", "witness")];
        let all: Vec<_> = first.iter().chain(others).copied().collect();
        let mut rig = Self::new(&all);
        let file = rig.file(&[1, 2, 3], 1);
        for id in 1..=3 {
            rig.start(id, &file);
        }
        rig.until_adopted();
        rig
    }

    pub fn site(&self, id: u64) -> &Site {
        &self.sites[&id]
    }

    /// `HOST:PORT` of a node.
    pub fn address(&self, id: u64) -> String {
        format!("127.0.0.1:{}", self.sites[&id].port)
    }

    fn log(&self, id: u64) -> PathBuf {
        self.folder.path().join(format!("node-{id}.log"))
    }

    pub fn data_dir(&self, id: u64) -> PathBuf {
        self.folder.path().join(format!("data-{id}"))
    }

    /// A configuration of these nodes.
    pub fn file(&mut self, ids: &[u64], epoch: u64) -> PathBuf {
        self.file_of("demo", ids, epoch)
    }

    /// The same of a cluster of that name.
    pub fn file_of(&mut self, cluster: &str, ids: &[u64], epoch: u64) -> PathBuf {
        let outside = self.reference.local_addr().unwrap();
        let mut text = format!(
            "[cluster]\nname = \"{cluster}\"\nepoch = {epoch}\n\n[tls]\nplaintext = \"loopback\"\n\n\
             [timing]\nheartbeat_ms = 100\nelection_min_ms = 400\nelection_max_ms = 600\nreport_interval_ms = 300\n\n\
             [[region]]\nname = \"hcmc\"\n[[region]]\nname = \"hanoi\"\n[[region]]\nname = \"witness\"\nwitness = true\n\n\
             [[reference]]\nname = \"outside\"\nkind = \"tcp\"\naddress = \"{outside}\"\n\n\
             [[receiver]]\nname = \"chat\"\nkind = \"webhook\"\nurl = \"http://127.0.0.1:9/pages\"\n\n"
        );
        for id in ids {
            let Site { name, region, port, .. } = self.site(*id);
            text += &format!(
                "[[node]]\nid = {id}\nname = \"{name}\"\nregion = \"{region}\"\nlisten = \"127.0.0.1:{port}\"\n\
                 data_dir = \"{}\"\n\n",
                self.data_dir(*id).display()
            );
        }
        text += &format!(
            "[[group]]\nname = \"{GROUP}\"\nhome = \"hcmc\"\nfencing = \"none\"\nfencing_none_asserted_by = \"the test\"\n\n"
        );
        for region in ["hcmc", "hanoi"] {
            text += &format!(
                "[[group.region]]\nname = \"{region}\"\ntrigger = {{ targets = [\"{region}-api\"] }}\n\
                 [[group.target]]\nname = \"{region}-api\"\nregion = \"{region}\"\nkind = \"tcp\"\naddress = \"127.0.0.1:9\"\n\n"
            );
        }
        self.files += 1;
        let path = self.folder.path().join(format!("watchdog-{}.toml", self.files));
        fs::write(&path, text).unwrap();
        path
    }

    /// Starts a node on what lies in its folder.
    pub fn start(&mut self, id: u64, file: &PathBuf) {
        let log = File::options().create(true).append(true).open(self.log(id)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_watchdogd"))
            .arg("--config")
            .arg(file)
            .args(["--node", &self.site(id).name])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.running.insert(id, child);
    }

    /// SIGKILL.
    pub fn kill(&mut self, id: u64) {
        let mut child = self.running.remove(&id).expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// `watchdogctl` with these words, asking whoever runs.
    pub fn ctl(&self, words: &[&str]) -> Said {
        let running: Vec<String> = self.running.keys().map(|id| self.address(*id)).collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_watchdogctl"));
        command.args(["--endpoint", &running.join(","), "--by", "linh"]).args(words);
        for name in ["WATCHDOG_ENDPOINTS", "WATCHDOG_CONTEXT", "WATCHDOG_CTL_CONFIG", "WATCHDOG_CA"] {
            command.env_remove(name);
        }
        command.env("HOME", self.folder.path()).env("XDG_CONFIG_HOME", self.folder.path());
        let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { code: status.code().unwrap_or(-1), out: text(stdout), err: text(stderr) }
    }

    /// The same with `--output json`, which must succeed.
    pub fn json(&self, words: &[&str]) -> Value {
        self.ctl(&[words, &["--output", "json"]].concat()).json()
    }

    /// Polls until `look` gives something.
    #[expect(clippy::disallowed_methods, reason = "the pause between two looks at a state, with a deadline around it")]
    pub fn until<T>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(Instant::now() < end, "waited in vain until {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Until there is a leader that has taken a configuration into force. Gives its name.
    pub fn until_adopted(&self) -> String {
        self.until("a leader adopted a configuration", |rig| {
            let said = rig.ctl(&["status", "--output", "json"]);
            let status: Value = serde_json::from_str(&said.out).ok()?;
            let adopted = status["groups"].as_array().is_some_and(|groups| !groups.is_empty());
            let leader = status["standing"]["leader"].as_str()?.to_owned();
            (said.code == 0 && adopted && !leader.is_empty()).then_some(leader)
        })
    }

    /// Restarts these with the file, one by one.
    pub fn restart(&mut self, ids: &[u64], file: &PathBuf) {
        for id in ids {
            self.kill(*id);
            self.start(*id, file);
            self.until_adopted();
        }
    }

    /// The same, and waits until it is in force everywhere.
    pub fn roll(&mut self, ids: &[u64], file: &PathBuf) {
        self.restart(ids, file);
        self.until("all run under the configuration in force", |rig| {
            let list = rig.ctl(&["node", "list", "--output", "json"]);
            let list: Value = serde_json::from_str(&list.out).ok()?;
            let members = list["nodes"].as_array()?.iter().filter(|node| node["role"] == "voter");
            let running = members.filter(|node| rig.running.contains_key(&node["id"].as_u64().unwrap_or_default()));
            running.map(|node| node["configuration"].as_str()).all(|config| config == Some("same")).then_some(())
        });
    }

    /// Names of the voters.
    pub fn voters(&self) -> Vec<String> {
        let list = self.json(&["node", "list"]);
        let all = list["nodes"].as_array().unwrap().iter().filter(|node| node["role"] == "voter");
        all.map(|node| node["name"].as_str().unwrap().to_owned()).collect()
    }

    /// The number of the node of that name.
    pub fn id_of(&self, name: &str) -> u64 {
        self.sites.values().find(|site| site.name == name).unwrap().id
    }
}
