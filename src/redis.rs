//! One conversation with one Redis server, and what the server says of itself: for those who see, those who act, and the
//! guard. A dozen commands are ever sent and none is answered by more than a text, so RESP's plain replies are all that is
//! read, and never more of one than [`REPLY_BYTES_MAX`].
//!
//! Nothing here limits its own time: whoever asks does.

use std::io;
use std::path::Path;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;

use crate::domain::plan::RedisEndpoint;
use crate::domain::text::one_line;

/// `INFO` says some 6 KiB; what is longer is no Redis server's answer to anything that is asked here, bytes.
pub const REPLY_BYTES_MAX: usize = 256 * 1024;
/// Of a server's words this much is kept, characters.
const SAID_MAX: usize = 200;

/// Why there is no answer, or no good one.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// Not connected, or not any more.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The password's file is of no use.
    #[error("password_file {0}")]
    Password(String),
    /// It answered, but not as Redis does.
    #[error("{0}")]
    Garbage(String),
    /// It answered with an error: `NOAUTH Authentication required.`
    #[error("it answered: {0}")]
    Said(String),
}

impl Trouble {
    /// Wrong password, user or rights, or a server that takes nobody from outside: our configuration's fault.
    pub fn is_ours(&self) -> bool {
        let ours = |said: &String| {
            ["NOAUTH", "WRONGPASS", "NOPERM", "DENIED"].iter().any(|code| said.starts_with(code))
                || said.starts_with("ERR AUTH")
                || said.starts_with("ERR invalid password")
        };
        matches!(self, Trouble::Password(_)) || matches!(self, Trouble::Said(said) if ours(said))
    }
}

/// A connection, authenticated.
#[derive(Debug)]
pub struct Connection {
    stream: BufStream<TcpStream>,
}

impl Connection {
    /// Connects. The password is read anew each time, so that a new one needs no restart.
    ///
    /// # Errors
    /// No connection, an unreadable password file, or refused.
    pub async fn open(server: &RedisEndpoint) -> Result<Self, Trouble> {
        let password = server.password_file.as_deref().map(password).transpose()?;
        let stream = TcpStream::connect(&server.address).await?;
        stream.set_nodelay(true)?;
        let mut connection = Self { stream: BufStream::new(stream) };
        if let Some(password) = &password {
            let words = server.user.as_deref().into_iter().chain([password.as_str()]);
            let words: Vec<&str> = ["AUTH"].into_iter().chain(words).collect();
            connection.ask(&words).await?;
        }
        Ok(connection)
    }

    /// Sends a command and reads its answer. After an error other than [`Trouble::Said`] the connection is of no use any more.
    ///
    /// # Errors
    /// The server's own, or none came.
    pub async fn ask(&mut self, words: &[&str]) -> Result<String, Trouble> {
        self.stream.write_all(&request(words)).await?;
        self.stream.flush().await?;
        self.reply().await
    }

    /// What the server says of itself.
    ///
    /// # Errors
    /// As [`ask`](Self::ask), or no answer to `INFO`.
    pub async fn look(&mut self) -> Result<Shown, Trouble> {
        let info = self.ask(&["INFO"]).await?;
        read_info(&info).map_err(Trouble::Garbage)
    }

    async fn line(&mut self) -> Result<String, Trouble> {
        let mut line = Vec::new();
        let limit = REPLY_BYTES_MAX as u64;
        (&mut self.stream).take(limit).read_until(b'\n', &mut line).await?;
        match line.strip_suffix(b"\r\n") {
            Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
            None if line.is_empty() => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            None => Err(Trouble::Garbage(format!("no line of Redis: {}", cut(&String::from_utf8_lossy(&line))))),
        }
    }

    async fn reply(&mut self) -> Result<String, Trouble> {
        let line = self.line().await?;
        let rest = line.get(1..).unwrap_or_default();
        match line.as_bytes().first() {
            Some(b'+' | b':') => Ok(rest.to_owned()),
            Some(b'-') => Err(Trouble::Said(cut(rest))),
            Some(b'$') => {
                let length = rest.parse().ok().filter(|length| *length <= REPLY_BYTES_MAX);
                let length: usize =
                    length.ok_or_else(|| Trouble::Garbage(format!("an answer of {} bytes", cut(rest))))?;
                let mut bytes = vec![0; length + 2];
                self.stream.read_exact(&mut bytes).await?;
                match bytes.strip_suffix(b"\r\n") {
                    Some(text) => Ok(String::from_utf8_lossy(text).into_owned()),
                    None => {
                        Err(Trouble::Garbage(format!("an answer of more than the {length} bytes that it announced")))
                    }
                }
            }
            _ => Err(Trouble::Garbage(format!("no answer of Redis: {}", cut(&line)))),
        }
    }
}

fn request(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n{word}\r\n", word.len()).into_bytes());
    }
    bytes
}

fn password(file: &str) -> Result<String, Trouble> {
    let text = std::fs::read_to_string(Path::new(file)).map_err(|e| Trouble::Password(format!("{file}: {e}")))?;
    let first = text.lines().next().unwrap_or_default().trim();
    if first.is_empty() {
        return Err(Trouble::Password(format!("{file}: its first line is empty")));
    }
    Ok(first.to_owned())
}

fn cut(text: &str) -> String {
    one_line(text, SAID_MAX)
}

/// What a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Takes writes.
    Primary,
    /// Follows another.
    Replica {
        /// `host:port` of that one.
        of: String,
        /// It is connected and in step, not only on the way there.
        linked: bool,
        /// It refuses its clients' writes.
        read_only: bool,
        /// When it last heard of it, seconds ago.
        last_io_s: Option<u64>,
    },
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// What it is.
    pub role: Role,
    /// How far its history goes, bytes: written by a primary, applied by a replica.
    pub offset: u64,
    /// Whose history: equal on a primary and its replicas in step.
    pub history: String,
    /// It reads its data from the disk and does not work yet.
    pub loading: bool,
    /// The process.
    pub pid: u32,
    /// The file it was started from, and keeps what is rewritten in; empty where there is none.
    pub config_file: String,
}

/// Reads the answer to `INFO`.
///
/// # Errors
/// What is missing or makes no sense.
pub fn read_info(text: &str) -> Result<Shown, String> {
    let find = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.map(str::trim)
    };
    let need = |key: &str| find(key).ok_or_else(|| format!("INFO names no {key}: is it a Redis server?"));
    let number = |key: &str| {
        let text = need(key)?;
        text.parse::<u64>().map_err(|_| format!("INFO: {key} is {}, not a number", cut(text)))
    };
    let role = match need("role")? {
        "master" => Role::Primary,
        _ => Role::Replica {
            of: format!("{}:{}", cut(need("master_host")?), number("master_port")?),
            linked: need("master_link_status")? == "up" && find("master_sync_in_progress") != Some("1"),
            // The rest of the key is a word of Redis'.
            read_only: text.lines().any(|line| line.trim_end().ends_with("_read_only:1")),
            // −1 where it never heard of it.
            last_io_s: find("master_last_io_seconds_ago").and_then(|text| text.parse().ok()),
        },
    };
    Ok(Shown {
        role,
        offset: number("master_repl_offset")?,
        history: cut(need("master_replid")?),
        loading: find("loading") == Some("1"),
        pid: u32::try_from(number("process_id")?).map_err(|e| format!("INFO: process_id: {e}"))?,
        config_file: cut(find("config_file").unwrap_or_default()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIMARY: &str = "# Server\r\nredis_version:7.0.15\r\nprocess_id:4711\r\nconfig_file:/etc/redis/redis.conf\r\n\
        # Persistence\r\nloading:0\r\n# Replication\r\nrole:master\r\nconnected_replicas:1\r\n\
        master_replid:8d3b\r\nmaster_repl_offset:1423\r\n";
    const LINK: &str = "role:replica\r\nmaster_host:10.1.0.7\r\nmaster_port:6379\r\nmaster_link_status:up\r\n\
        master_last_io_seconds_ago:1\r\nmaster_sync_in_progress:0\r\nreplica_read_only:1";

    #[test]
    fn both_roles_are_read() {
        let shown = read_info(PRIMARY).unwrap();
        assert_eq!((shown.role, shown.offset, shown.pid), (Role::Primary, 1423, 4711));
        let replica = |from: &str, to: &str| {
            let text = PRIMARY.replace("role:master", LINK);
            assert!(text.contains(from), "{from}");
            read_info(&text.replace(from, to)).map(|shown| shown.role)
        };
        let of = || "10.1.0.7:6379".to_owned();
        assert_eq!(replica("", ""), Ok(Role::Replica { of: of(), linked: true, read_only: true, last_io_s: Some(1) }));
        assert_eq!(
            replica("ago:1", "ago:-1"),
            Ok(Role::Replica { of: of(), linked: true, read_only: true, last_io_s: None })
        );
        let writable = Role::Replica { of: of(), linked: true, read_only: false, last_io_s: Some(1) };
        assert_eq!(replica("read_only:1", "read_only:0"), Ok(writable));
        for (from, to) in [("status:up", "status:down"), ("progress:0", "progress:1")] {
            assert_eq!(
                replica(from, to),
                Ok(Role::Replica { of: of(), linked: false, read_only: true, last_io_s: Some(1) }),
                "{to}"
            );
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        for key in ["role", "master_repl_offset", "master_replid", "process_id"] {
            let why = read_info(&PRIMARY.replace(&format!("\n{key}:"), "\nx:")).unwrap_err();
            assert!(why.contains(key), "{key}: {why}");
        }
        assert!(read_info(&PRIMARY.replace("1423", "-3")).unwrap_err().contains("-3, not a number"));
        assert!(read_info("").is_err());
    }

    #[test]
    fn whom_it_follows_is_told_in_one_line() {
        let text = PRIMARY.replace("role:master", LINK).replace("10.1.0.7", "10.1.0.7\r\u{1b}[2J");
        let Role::Replica { of, .. } = read_info(&text).unwrap().role else { panic!("{text}") };
        assert_eq!(of, "10.1.0.7  [2J:6379");
    }

    #[tokio::test]
    async fn an_answer_is_read_as_announced_or_refused() {
        for (bytes, wanted) in [
            ("+PONG\r\n", Ok("PONG")),
            (":7\r\n", Ok("7")),
            ("$4\r\na\r\nb\r\n", Ok("a\r\nb")),
            ("$0\r\n\r\n", Ok("")),
            ("-ERR no\r\n", Err("it answered: ERR no")),
            ("$2\r\nabcd\r\n", Err("more than the 2 bytes")),
            ("$4\r\nab", Err("early eof")),
            ("$-1\r\n", Err("an answer of -1 bytes")),
            ("$262145\r\n", Err("an answer of 262145 bytes")),
            ("*1\r\n$1\r\na\r\n", Err("no answer of Redis: *1")),
            ("+PON", Err("no line of Redis: +PON")),
            ("", Err("end of file")),
        ] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let answering = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.read_exact(&mut [0; "*1\r\n$4\r\nPING\r\n".len()]).await.unwrap();
                stream.write_all(bytes.as_bytes()).await.unwrap();
            };
            let asking = async {
                let server = RedisEndpoint { address, user: None, password_file: None };
                Connection::open(&server).await.unwrap().ask(&["PING"]).await
            };
            match (tokio::join!(answering, asking).1.map_err(|e| e.to_string()), wanted) {
                (Ok(said), Ok(wanted)) => assert_eq!(said, wanted),
                (Err(why), Err(words)) => assert!(why.contains(words), "{bytes:?}: {why}"),
                (found, wanted) => panic!("{bytes:?}: {found:?}, not {wanted:?}"),
            }
        }
    }

    #[test]
    fn a_fault_of_ours_is_told_from_the_servers() {
        for (said, ours) in [
            ("NOAUTH Authentication required.", true),
            ("WRONGPASS invalid username-password pair or user is disabled.", true),
            ("NOPERM this user has no permissions to run the 'info' command", true),
            ("DENIED Redis is running in protected mode", true),
            ("ERR AUTH <password> called without any password configured", true),
            ("LOADING Redis is loading the dataset in memory", false),
            ("READONLY You can't write against a read only replica.", false),
        ] {
            assert_eq!(Trouble::Said(said.to_owned()).is_ours(), ours, "{said}");
        }
    }

    #[test]
    fn words_are_sent_with_their_lengths() {
        assert_eq!(request(&["SET", "a b", "1\r\n2"]), b"*3\r\n$3\r\nSET\r\n$3\r\na b\r\n$4\r\n1\r\n2\r\n");
    }
}
