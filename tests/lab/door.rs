//! Doors: relays that stand where a trip wire is needed, in front of a guard, of the name server, and of the Route 53
//! API. They change nothing on the way.

use std::io::{BufRead, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::folder::Folder;
use super::trip::{Point, hold, hold_async};

/// In front of a guard: one request in, one answer out. The step is the action asked for.
pub fn guard(folder: &Path, guard: &Path, config: &Path) -> Result<ExitCode> {
    let mut request = Vec::new();
    std::io::stdin().lock().read_until(b'\n', &mut request)?;
    let asked: serde_json::Value = serde_json::from_slice(&request).unwrap_or_default();
    let acts = asked["read_back"] != true;
    let step = match asked["action"].as_str() {
        Some("start-services") => "services",
        Some(action) => action,
        None => "none",
    };
    // What is only looked at is held under a name of its own, and not where an effect would be.
    let look = format!("{step}-look");
    hold(folder, if acts { step } else { &look }, Point::Before);
    let mut child = Command::new(guard)
        .arg("--config")
        .arg(config)
        .arg("ssh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the guard")?;
    child.stdin.take().context("the guard has no standard input")?.write_all(&request)?;
    let mut answer = Vec::new();
    child.stdout.take().context("the guard has no standard output")?.read_to_end(&mut answer)?;
    let status = child.wait()?;
    let asked = String::from_utf8_lossy(&request);
    eprintln!("asked: {} answered: {}", asked.trim(), String::from_utf8_lossy(&answer).trim());
    if acts {
        hold(folder, step, Point::After);
    }
    std::io::stdout().write_all(&answer)?;
    Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)))
}

/// A change that was asked of the API, and what the API answered, whether or not that reached anybody.
#[derive(Debug, Clone, Default)]
pub struct Exchange {
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Exchange {
    /// The request holds this text.
    pub fn asks_for(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.request).contains(text)
    }

    /// The API carried it out.
    pub fn was_accepted(&self) -> bool {
        self.answer.starts_with(b"HTTP/1.1 200")
    }
}

/// What passed, in the order of the answers.
type Journal = Arc<Mutex<Vec<Exchange>>>;

/// A relay in the lab's own process.
pub struct Door {
    /// Where the nodes are to connect.
    pub listen: SocketAddr,
    journal: Journal,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Door {
    /// The changes that the API answered.
    pub fn exchanges(&self) -> Vec<Exchange> {
        lock(&self.journal).clone()
    }

    /// In front of a name server: updates (RFC 2136) are held, questions pass.
    pub async fn before_name_server(folder: &mut Folder, server: SocketAddr) -> Result<Self> {
        let listen = SocketAddr::new(server.ip(), folder.port(&[server.ip()])?);
        let udp = Arc::new(UdpSocket::bind(listen).await?);
        let tcp = TcpListener::bind(listen).await?;
        let journal = Journal::default();
        let path = folder.path.clone();
        let datagrams = tokio::spawn(relay_datagrams(udp, server, path.clone()));
        let streams = tokio::spawn(relay_streams(tcp, server, path, is_update_in_stream, journal.clone()));
        Ok(Self { listen, journal, tasks: vec![datagrams, streams] })
    }

    /// In front of the Route 53 API: changes are held, all else passes.
    pub async fn before_api(folder: &mut Folder, server: SocketAddr) -> Result<Self> {
        let listen = SocketAddr::new(server.ip(), folder.port(&[server.ip()])?);
        let tcp = TcpListener::bind(listen).await?;
        let journal = Journal::default();
        let path = folder.path.clone();
        let streams = tokio::spawn(relay_streams(tcp, server, path, is_change_request, journal.clone()));
        Ok(Self { listen, journal, tasks: vec![streams] })
    }
}

/// The opcode UPDATE in a message's third byte.
fn is_update(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| (flags >> 3) & 0b1111 == 5)
}

fn is_update_in_stream(chunk: &[u8]) -> bool {
    chunk.get(2..).is_some_and(is_update)
}

fn is_change_request(chunk: &[u8]) -> bool {
    chunk.starts_with(b"POST ") && chunk.windows(5).take(300).any(|part| part == b"rrset")
}

async fn relay_datagrams(door: Arc<UdpSocket>, server: SocketAddr, folder: PathBuf) {
    let mut buffer = vec![0; 65_535];
    loop {
        let Ok((length, from)) = door.recv_from(&mut buffer).await else { continue };
        let (door, folder, message) = (Arc::clone(&door), folder.clone(), buffer[..length].to_vec());
        tokio::spawn(async move {
            if let Ok(answer) = one_datagram(&message, server, folder).await {
                let _ = door.send_to(&answer, from).await;
            }
        });
    }
}

async fn one_datagram(message: &[u8], server: SocketAddr, folder: PathBuf) -> Result<Vec<u8>> {
    let held = is_update(message);
    if held {
        hold_async(folder.clone(), "dns", Point::Before).await;
    }
    let socket = UdpSocket::bind((server.ip(), 0)).await?;
    socket.connect(server).await?;
    socket.send(message).await?;
    let mut answer = vec![0; 65_535];
    let length = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut answer)).await??;
    answer.truncate(length);
    if held {
        hold_async(folder, "dns", Point::After).await;
    }
    Ok(answer)
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn relay_streams(
    door: TcpListener,
    server: SocketAddr,
    folder: PathBuf,
    is_held: fn(&[u8]) -> bool,
    journal: Journal,
) {
    loop {
        let Ok((stream, _)) = door.accept().await else { continue };
        let (folder, journal) = (folder.clone(), journal.clone());
        tokio::spawn(async move {
            let _ = one_stream(stream, server, folder, is_held, journal).await;
        });
    }
}

/// Requests and answers take turns, so what comes back after a held request is its answer.
async fn one_stream(
    client: TcpStream,
    server: SocketAddr,
    folder: PathBuf,
    is_held: fn(&[u8]) -> bool,
    journal: Journal,
) -> Result<()> {
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asked = Arc::new(Mutex::new(None::<Exchange>));
    let open = Arc::clone(&asked);
    let path = folder.clone();
    let back = tokio::spawn(async move {
        let mut buffer = vec![0; 65_535];
        while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
            let answered = lock(&open).take();
            if let Some(mut exchange) = answered {
                exchange.answer = buffer[..length].to_vec();
                lock(&journal).push(exchange);
                hold_async(path.clone(), "dns", Point::After).await;
            }
            if to_client.write_all(&buffer[..length]).await.is_err() {
                break;
            }
        }
    });
    let mut buffer = vec![0; 65_535];
    while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
        let chunk = &buffer[..length];
        if is_held(chunk) {
            hold_async(folder.clone(), "dns", Point::Before).await;
            *lock(&asked) = Some(Exchange::default());
        }
        if let Some(exchange) = lock(&asked).as_mut() {
            exchange.request.extend_from_slice(chunk);
        }
        to_server.write_all(chunk).await?;
    }
    drop(to_server);
    let _ = back.await;
    Ok(())
}
