//! A physical replication client as far as the commit gate needs one: connects (Unix socket or TCP), authenticates,
//! begins the stream, and passes frames on. Without TLS: it speaks with its own host's server only.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::backend::{DataRowBody, ErrorFields, Header, Message};
use postgres_protocol::message::frontend;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::spawn_blocking;

use super::flow::Lsn;
use crate::guard::host;
use crate::guard::ledger::cut;

/// No message of the server's is longer, bytes: log comes in pieces of 16 blocks, and no block is above 32 KiB.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// The server's words are cut to this, bytes.
const WORDS_BYTES_MAX: usize = 300;
/// A password file is no longer, bytes.
const PASSWORD_BYTES_MAX: usize = 4096;
/// Begins a stream in both directions. The library does not know it.
const COPY_BOTH_TAG: u8 = b'W';

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Nobody answers there.
    #[error("cannot connect to {to}: {source}")]
    Connect {
        /// Where.
        to: String,
        /// What the system said.
        source: io::Error,
    },
    /// The connection ended.
    #[error("the connection to {to} was lost: {source}")]
    Lost {
        /// Where.
        to: String,
        /// What the system said.
        source: io::Error,
    },
    /// The server refuses.
    #[error("the server refuses to {what}: {said}{next}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// Its words and code.
        said: String,
        /// What to do about it.
        next: String,
    },
    /// The guard cannot do what is needed before it can ask.
    #[error("{0}")]
    Own(String),
    /// The server says something that makes no sense.
    #[error("the server at {to} does not speak as PostgreSQL does: {what}")]
    Format {
        /// Where.
        to: String,
        /// What.
        what: String,
    },
    /// It wants a password.
    #[error("the server asks for a password of {user}: name a file that holds it in lease.replication.password_file")]
    NoPassword {
        /// The role.
        user: String,
    },
    /// It wants one in a way that is not done.
    #[error("the server asks for {0}: let pg_hba.conf say scram-sha-256, or peer on the Unix socket")]
    Authentication(&'static str),
}

/// Where the server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The socket's path, and the user of the operating system to connect as (`peer`).
    Unix {
        /// The socket.
        path: PathBuf,
        /// The user.
        user: String,
    },
    /// An address of this host.
    Tcp(SocketAddr),
}

impl Place {
    /// A folder of Unix sockets, or an address.
    pub fn of(host: &str, port: u16, user: &str) -> Option<Self> {
        if Path::new(host).is_absolute() {
            let path = Path::new(host).join(format!(".s.PGSQL.{port}"));
            return Some(Self::Unix { path, user: user.to_owned() });
        }
        host.parse::<IpAddr>().ok().map(|address| Self::Tcp((address, port).into()))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix { path, .. } => write!(f, "{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

/// Who connects where.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where.
    pub place: Place,
    /// The database's role.
    pub role: String,
    /// The name that `synchronous_standby_names` bears.
    pub name: String,
    /// Holds the role's password, if it needs one.
    pub password_file: Option<PathBuf>,
}

enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// What comes from the server.
pub enum Frame {
    /// The stream has begun.
    CopyBoth,
    /// Everything else.
    Message(Message),
}

/// A connection.
pub struct Session {
    socket: Socket,
    to: String,
    read: BytesMut,
    /// The server's process.
    pub pid: i32,
}

impl Session {
    /// Connects and authenticates, for replication of the whole server.
    ///
    /// # Errors
    /// Why not.
    pub async fn open(target: &Target) -> Result<Self, WireError> {
        let to = target.place.to_string();
        let socket = match &target.place {
            Place::Tcp(address) => TcpStream::connect(address).await.and_then(|socket| {
                // A commit waits for each reply: none may wait for the next.
                socket.set_nodelay(true)?;
                Ok(Socket::Tcp(socket))
            }),
            Place::Unix { path, user } => {
                let (path, user) = (path.clone(), host::user(user).map_err(WireError::Own)?);
                let connected = spawn_blocking(move || host::connect_as(&path, &user)).await.map_err(io::Error::other);
                connected.and_then(|connected| connected).and_then(UnixStream::from_std).map(Socket::Unix)
            }
        };
        let socket = socket.map_err(|source| WireError::Connect { to: to.clone(), source })?;
        let mut session = Self { socket, to, read: BytesMut::new(), pid: 0 };
        session.authenticate(target).await?;
        Ok(session)
    }

    fn lost(&self, source: io::Error) -> WireError {
        WireError::Lost { to: self.to.clone(), source }
    }

    fn format(&self, what: impl ToString) -> WireError {
        // The library's words quote what came, which may be anything.
        let what: String = what.to_string().chars().flat_map(char::escape_debug).collect();
        WireError::Format { to: self.to.clone(), what: cut(&what, WORDS_BYTES_MAX).to_owned() }
    }

    /// Waits until there may be something to read.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn readable(&self) -> Result<(), WireError> {
        let ready = match &self.socket {
            Socket::Unix(socket) => socket.readable().await,
            Socket::Tcp(socket) => socket.readable().await,
        };
        ready.map_err(|e| self.lost(e))
    }

    /// Waits until there may be room to write.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn writable(&self) -> Result<(), WireError> {
        let ready = match &self.socket {
            Socket::Unix(socket) => socket.writable().await,
            Socket::Tcp(socket) => socket.writable().await,
        };
        ready.map_err(|e| self.lost(e))
    }

    /// Reads what is there, without waiting.
    ///
    /// # Errors
    /// The connection ended.
    pub fn fill(&mut self) -> Result<(), WireError> {
        self.read.reserve(64 * 1024);
        let read = match &self.socket {
            Socket::Unix(socket) => socket.try_read_buf(&mut self.read),
            Socket::Tcp(socket) => socket.try_read_buf(&mut self.read),
        };
        match read {
            Ok(0) => Err(self.lost(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed it"))),
            Ok(_) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(e) => Err(self.lost(e)),
        }
    }

    /// Sends the whole of it at once, or nothing: what is left behind would go out later, whatever has become of the
    /// lease by then.
    ///
    /// # Errors
    /// The connection is lost, or took a part only: it must not be used any more.
    pub fn send_at_once(&self, bytes: &[u8]) -> Result<bool, WireError> {
        let sent = match &self.socket {
            Socket::Unix(socket) => socket.try_write(bytes),
            Socket::Tcp(socket) => socket.try_write(bytes),
        };
        match sent {
            Ok(count) if count == bytes.len() => Ok(true),
            Ok(count) => {
                Err(self.lost(io::Error::other(format!("it took {count} of a reply's {} bytes", bytes.len()))))
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(self.lost(e)),
        }
    }

    /// The next whole frame of what was read.
    ///
    /// # Errors
    /// It is none, or too long.
    pub fn frame(&mut self) -> Result<Option<Frame>, WireError> {
        let Some(header) = Header::parse(&self.read).map_err(|e| self.format(e))? else { return Ok(None) };
        let length = usize::try_from(header.len()).unwrap_or(usize::MAX);
        if length > MESSAGE_BYTES_MAX {
            return Err(self.format(format!("a message of {length} bytes")));
        }
        if header.tag() == COPY_BOTH_TAG {
            let is_whole = self.read.len() > length;
            return Ok(is_whole.then(|| {
                let _said = self.read.split_to(length + 1);
                Frame::CopyBoth
            }));
        }
        let message = Message::parse(&mut self.read).map_err(|e| self.format(e))?;
        Ok(message.map(Frame::Message))
    }

    async fn next(&mut self, what: &'static str) -> Result<Frame, WireError> {
        loop {
            match self.frame()? {
                Some(Frame::Message(Message::ErrorResponse(error))) => return Err(refused(what, error.fields())),
                Some(Frame::Message(Message::NoticeResponse(_) | Message::ParameterStatus(_))) => {}
                Some(frame) => return Ok(frame),
                None => {
                    self.readable().await?;
                    self.fill()?;
                }
            }
        }
    }

    async fn send(&mut self, write: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> Result<(), WireError> {
        let mut bytes = BytesMut::new();
        write(&mut bytes).map_err(|e| WireError::Own(format!("cannot be sent: {e}")))?;
        loop {
            if self.send_at_once(&bytes)? {
                return Ok(());
            }
            self.writable().await?;
        }
    }

    async fn authenticate(&mut self, target: &Target) -> Result<(), WireError> {
        const WHAT: &str = "let the commit gate in";
        let words = [
            ("user", target.role.as_str()),
            ("replication", "true"),
            ("application_name", target.name.as_str()),
            ("client_encoding", "UTF8"),
        ];
        self.send(|bytes| frontend::startup_message(words, bytes)).await?;
        loop {
            match self.next(WHAT).await? {
                Frame::Message(Message::AuthenticationOk) => {}
                Frame::Message(Message::AuthenticationMd5Password(body)) => {
                    let hash = md5_hash(target.role.as_bytes(), &password(target)?, body.salt());
                    self.send(|bytes| frontend::password_message(hash.as_bytes(), bytes)).await?;
                }
                Frame::Message(Message::AuthenticationSasl(body)) => {
                    let known: Vec<String> =
                        body.mechanisms().map(|m| Ok(m.to_owned())).collect().map_err(|e| self.format(e))?;
                    if !known.iter().any(|mechanism| mechanism == sasl::SCRAM_SHA_256) {
                        return Err(WireError::Authentication("a SASL mechanism other than SCRAM-SHA-256"));
                    }
                    self.scram(&password(target)?, WHAT).await?;
                }
                Frame::Message(Message::AuthenticationCleartextPassword) => {
                    return Err(WireError::Authentication("the password in clear"));
                }
                Frame::Message(Message::BackendKeyData(body)) => self.pid = body.process_id(),
                Frame::Message(Message::ReadyForQuery(_)) => return Ok(()),
                Frame::Message(_) | Frame::CopyBoth => {
                    return Err(WireError::Authentication("a kind of authentication that is not known here"));
                }
            }
        }
    }

    async fn scram(&mut self, password: &[u8], what: &'static str) -> Result<(), WireError> {
        let mut scram = sasl::ScramSha256::new(password, sasl::ChannelBinding::unsupported());
        let first = scram.message().to_vec();
        self.send(|bytes| frontend::sasl_initial_response(sasl::SCRAM_SHA_256, &first, bytes)).await?;
        let Frame::Message(Message::AuthenticationSaslContinue(body)) = self.next(what).await? else {
            return Err(self.format("SCRAM does not go on"));
        };
        scram.update(body.data()).map_err(|e| self.format(e))?;
        let second = scram.message().to_vec();
        self.send(|bytes| frontend::sasl_response(&second, bytes)).await?;
        let Frame::Message(Message::AuthenticationSaslFinal(body)) = self.next(what).await? else {
            return Err(self.format("SCRAM does not end"));
        };
        // The server, too, must know the password.
        scram.finish(body.data()).map_err(|e| self.format(e))
    }

    /// Begins the stream at the end of what is synced, without a slot: nothing is kept for a gate that is away. Answers
    /// where it begins.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn start(&mut self) -> Result<Lsn, WireError> {
        const WHAT: &str = "replicate";
        self.send(|bytes| frontend::query("IDENTIFY_SYSTEM", bytes)).await?;
        let mut at = None;
        loop {
            match self.next(WHAT).await? {
                Frame::Message(Message::DataRow(row)) => at = begin_in(&row),
                Frame::Message(Message::ReadyForQuery(_)) => break,
                Frame::Message(_) | Frame::CopyBoth => {}
            }
        }
        let (timeline, at) = at.ok_or_else(|| self.format("IDENTIFY_SYSTEM tells no timeline and position"))?;
        let start = format!("START_REPLICATION PHYSICAL {at} TIMELINE {timeline}");
        self.send(|bytes| frontend::query(&start, bytes)).await?;
        match self.next(WHAT).await? {
            Frame::CopyBoth => Ok(at),
            Frame::Message(_) => Err(self.format("START_REPLICATION begins no stream")),
        }
    }
}

/// The timeline and the end of what is synced.
fn begin_in(row: &DataRowBody) -> Option<(u32, Lsn)> {
    let ranges: Vec<_> = row.ranges().collect().ok()?;
    let text = |at: usize| std::str::from_utf8(row.buffer().get(ranges.get(at)?.clone()?)?).ok();
    Some((text(1)?.parse().ok()?, Lsn::parse(text(2)?)?))
}

/// The password: the file's first line.
fn password(target: &Target) -> Result<Vec<u8>, WireError> {
    let Some(path) = &target.password_file else {
        return Err(WireError::NoPassword { user: target.role.clone() });
    };
    let own = |why: String| WireError::Own(format!("lease.replication.password_file {}: {why}", path.display()));
    let text = std::fs::read(path).map_err(|e| own(e.to_string()))?;
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    match line.strip_suffix(b"\r").unwrap_or(line) {
        [] => Err(own("its first line is empty".to_owned())),
        line if line.len() > PASSWORD_BYTES_MAX => Err(own("is no password file".to_owned())),
        line => Ok(line.to_vec()),
    }
}

/// The server's error in words, cut and printable, and what to do.
fn refused(what: &'static str, mut fields: ErrorFields<'_>) -> WireError {
    let (mut code, mut words) = (String::new(), String::new());
    while let Ok(Some(field)) = fields.next() {
        match field.type_() {
            b'C' => code = String::from_utf8_lossy(field.value_bytes()).into_owned(),
            b'M' => words = String::from_utf8_lossy(field.value_bytes()).into_owned(),
            _ => {}
        }
    }
    let printable = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
    let (code, words) = (printable(&code), printable(&words));
    let (code, words) = (cut(&code, 10), cut(&words, WORDS_BYTES_MAX));
    let next = match code {
        "42501" => "; give the role the attribute REPLICATION",
        "28000" if words.contains("pg_hba.conf") => "; add a line for database \"replication\" to pg_hba.conf",
        "28P01" => "; see lease.replication.password_file",
        "53300" => "; raise max_wal_senders",
        _ => "",
    };
    WireError::Refused { what, said: format!("{words} ({code})"), next: next.to_owned() }
}

/// The words of an error that ends a running stream.
pub fn ended_by(error: &postgres_protocol::message::backend::ErrorResponseBody) -> WireError {
    refused("go on", error.fields())
}
