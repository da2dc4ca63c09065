//! A real Redis server in a folder of its own, killed by its process id whatever happens.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// One server. User `default` needs the password `secret` where the server was begun so.
pub struct Redis {
    pub port: u16,
    pub folder: PathBuf,
    with_password: bool,
    running: Option<Child>,
}

/// A port that is free now.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr()).expect("a free port").port()
}

impl Redis {
    /// Its folder and its configuration; not running. `more` is added to the configuration.
    pub fn at(folder: &Path, port: u16, with_password: bool, more: &str) -> Self {
        fs::create_dir_all(folder).expect("a folder");
        let password = if with_password { "requirepass secret\nmasterauth secret\n" } else { "" };
        let conf = format!(
            "bind 127.0.0.1\nport {port}\ndir {}\npidfile {}/redis.pid\nsave \"\"\nappendonly no\n\
             repl-diskless-sync-delay 0\nrepl-ping-replica-period 1\n{password}{more}\n",
            folder.display(),
            folder.display()
        );
        fs::write(folder.join("redis.conf"), conf).expect("its configuration");
        Self { port, folder: folder.to_owned(), with_password, running: None }
    }

    /// A primary, running.
    pub fn primary(folder: &Path, with_password: bool) -> Self {
        let mut server = Self::at(folder, free_port(), with_password, "");
        server.start();
        server
    }

    /// A replica of `primary`, in step.
    pub fn replica_of(primary: &Redis, folder: &Path) -> Self {
        let follows = format!("replicaof 127.0.0.1 {}", primary.port);
        let mut server = Self::at(folder, free_port(), primary.with_password, &follows);
        server.start();
        server.until_linked();
        server
    }

    pub fn config(&self) -> PathBuf {
        self.folder.join("redis.conf")
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A file with the right password.
    pub fn password_file(&self) -> PathBuf {
        let file = self.folder.join("password");
        fs::write(&file, "secret\n").expect("written");
        file
    }

    /// Starts it and waits until it answers.
    pub fn start(&mut self) {
        self.begin();
        wait_until("Redis answers", || self.try_ask(&["PING"]).is_ok_and(|said| said == "PONG"));
    }

    /// Starts it. It dies with the thread that does.
    pub fn begin(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.folder.join("log")).expect("a log");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "redis-server"]).arg(self.config()).stdin(Stdio::null());
        self.running = Some(command.stdout(log.try_clone().expect("a log")).stderr(log).spawn().expect("redis-server"));
    }

    pub fn until_linked(&self) {
        wait_until("the replica to be in step", || {
            self.info("master_link_status").as_deref() == Some("up")
                && self.info("master_sync_in_progress").as_deref() == Some("0")
        });
    }

    /// One field of `INFO`.
    pub fn info(&self, key: &str) -> Option<String> {
        let text = self.try_ask(&["INFO"]).ok()?;
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':').map(|value| value.trim().to_owned()))
    }

    pub fn ask(&self, words: &[&str]) -> String {
        self.try_ask(words).unwrap_or_else(|e| panic!("{words:?}: {e}"))
    }

    /// A status, a number or a text; an error in the server's words.
    pub fn try_ask(&self, words: &[&str]) -> Result<String, String> {
        let mut client = self.client().map_err(|e| e.to_string())?;
        client.ask(words)
    }

    /// A connection that is kept.
    pub fn client(&self) -> std::io::Result<Client> {
        Self::client_of(self.port, self.with_password)
    }

    /// The same of whatever server is there.
    pub fn client_of(port: u16, with_password: bool) -> std::io::Result<Client> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut client = Client(BufReader::new(stream));
        if with_password {
            client.ask(&["AUTH", "secret"]).map_err(std::io::Error::other)?;
        }
        Ok(client)
    }

    pub fn pid(&self) -> u32 {
        self.info("process_id").and_then(|pid| pid.parse().ok()).expect("it runs")
    }

    /// As when the machine loses it.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            // An error means that it is gone already.
            let _gone = running.kill();
            let _reaped = running.wait();
        }
        // One that a guard has started is no child of ours.
        let pid =
            fs::read_to_string(self.folder.join("redis.pid")).ok().and_then(|text| text.trim().parse::<i32>().ok());
        let works_here = |pid: &i32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|at| at == self.folder);
        if let Some(pid) = pid.filter(works_here).and_then(rustix::process::Pid::from_raw) {
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A connection.
pub struct Client(BufReader<TcpStream>);

impl Client {
    pub fn ask(&mut self, words: &[&str]) -> Result<String, String> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        let broken = |e: std::io::Error| format!("lost: {e}");
        self.0.get_mut().write_all(request.as_bytes()).map_err(broken)?;
        let mut line = String::new();
        if self.0.read_line(&mut line).map_err(broken)? == 0 {
            return Err("lost: closed".to_owned());
        }
        let (kind, rest) = line.trim_end().split_at(1);
        match kind {
            "-" => Err(rest.to_owned()),
            "$" => {
                let Ok(length) = rest.parse::<usize>() else { return Ok(String::new()) };
                let mut bytes = vec![0; length + 2];
                self.0.read_exact(&mut bytes).map_err(broken)?;
                Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
            }
            _ => Ok(rest.to_owned()),
        }
    }
}

pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for: {what}");
        nap();
    }
}

#[expect(clippy::disallowed_methods, reason = "the pause between two looks at a state, with a deadline around it")]
fn nap() {
    std::thread::sleep(Duration::from_millis(10));
}
