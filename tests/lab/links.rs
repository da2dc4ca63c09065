//! The links between nodes: each node is dialled through a relay that knows who dials, so that any one direction can be
//! cut. A cut link is silent, as a dead cable is: what was sent does not arrive, and nobody is told.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Who is who, and what is cut.
#[derive(Debug, Clone, Default)]
struct Picture {
    /// Process id and name.
    nodes: Vec<(u32, String)>,
    /// Dialler and dialled.
    cut: BTreeSet<(String, String)>,
    /// Speaker and listener.
    mute: BTreeSet<(String, String)>,
    /// Grows when links are healed: what hung on them is closed, as a time-out would.
    healed: u64,
}

/// All links of a lab.
pub struct Links {
    picture: watch::Sender<Picture>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Default for Links {
    fn default() -> Self {
        Self { picture: watch::Sender::new(Picture::default()), tasks: vec![] }
    }
}

impl Picture {
    fn is_open(&self, link: &Link, speaks: Side) -> bool {
        let Link { dialler, dialled } = link;
        let way = match speaks {
            Side::Dialler => (dialler.clone(), dialled.clone()),
            Side::Dialled => (dialled.clone(), dialler.clone()),
        };
        !self.cut.contains(&(dialler.clone(), dialled.clone())) && !self.mute.contains(&way)
    }
}

/// Who made a connection to whom.
#[derive(Debug, Clone)]
struct Link {
    dialler: String,
    dialled: String,
}

/// One end of it.
#[derive(Debug, Clone, Copy)]
enum Side {
    Dialler,
    Dialled,
}

impl Links {
    /// A relay to the node `to`.
    pub async fn relay(&mut self, to: &str, at: SocketAddr, target: SocketAddr) -> Result<()> {
        let door = TcpListener::bind(at).await?;
        let (picture, to) = (self.picture.subscribe(), to.to_owned());
        self.tasks.push(tokio::spawn(async move {
            loop {
                let Ok((stream, from)) = door.accept().await else { continue };
                tokio::spawn(carry(stream, from, at, target, to.clone(), picture.clone()));
            }
        }));
        Ok(())
    }

    /// Says which process a node is now.
    pub fn name(&self, pid: u32, node: &str) {
        self.picture.send_modify(|picture| {
            picture.nodes.retain(|(_, name)| name != node);
            picture.nodes.push((pid, node.to_owned()));
        });
    }

    /// Connections that `from` makes to `to` are dead, as behind a firewall; those that `to` makes to `from` work.
    pub fn cut_one_way(&self, from: &str, to: &str) {
        self.picture.send_modify(|picture| {
            picture.cut.insert((from.to_owned(), to.to_owned()));
        });
    }

    /// Nothing that `from` says reaches `to` any more, whoever dialled; what `to` says still reaches `from` on the
    /// connections there are. New ones do not come about, since each side must hear the other for that.
    pub fn mute(&self, from: &str, to: &str) {
        self.picture.send_modify(|picture| {
            picture.mute.insert((from.to_owned(), to.to_owned()));
        });
    }

    /// Cuts both ways.
    pub fn cut(&self, one: &str, other: &str) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// All links work again.
    pub fn heal(&self) {
        self.picture.send_modify(|picture| {
            picture.cut.clear();
            picture.mute.clear();
            picture.healed += 1;
        });
    }
}

async fn carry(
    stream: TcpStream,
    from: SocketAddr,
    door: SocketAddr,
    target: SocketAddr,
    to: String,
    mut picture: watch::Receiver<Picture>,
) {
    let nodes = picture.borrow().nodes.clone();
    let dialler = tokio::task::spawn_blocking(move || who(from, door, &nodes)).await.ok().flatten();
    let Some(dialler) = dialler else {
        // An operator's program, not a node: never cut.
        let _ = pass(stream, target).await;
        return;
    };
    let link = Link { dialler, dialled: to };
    let healed = picture.borrow().healed;
    let may_begin = [Side::Dialler, Side::Dialled].iter().all(|side| picture.borrow().is_open(&link, *side));
    if !may_begin {
        // Accepted by the relay, silent for ever: until healed, then closed.
        let _ = picture.wait_for(|now| now.healed > healed).await;
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else { return };
    let _ = stream.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let (from_client, to_client) = stream.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = pump(from_client, to_server, &link, Side::Dialler, picture.clone()) => {}
        () = pump(from_server, to_client, &link, Side::Dialled, picture.clone()) => {}
        _ = picture.wait_for(|now| now.healed > healed) => {}
    }
}

async fn pass(mut stream: TcpStream, target: SocketAddr) -> Result<()> {
    let mut server = TcpStream::connect(target).await?;
    tokio::io::copy_bidirectional(&mut stream, &mut server).await?;
    Ok(())
}

/// Carries what one side says while that way is open; once it is not, holds it.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    link: &Link,
    speaks: Side,
    mut picture: watch::Receiver<Picture>,
) {
    let mut buffer = vec![0; 65_535];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if picture.wait_for(|now| now.is_open(link, speaks)).await.is_err()
            || to.write_all(&buffer[..length]).await.is_err()
        {
            return;
        }
    }
}

/// The node whose process holds the other end of a connection, by the kernel's table of sockets.
fn who(from: SocketAddr, door: SocketAddr, nodes: &[(u32, String)]) -> Option<String> {
    let (local, remote) = (in_kernels_words(from)?, in_kernels_words(door)?);
    // The dialler's socket may be listed a moment later than the connection is accepted.
    super::wait::until_blocking("the dialler's socket", Duration::from_millis(200), || {
        let table = fs::read_to_string("/proc/net/tcp").ok()?;
        let line = table.lines().map(str::split_whitespace).map(Iterator::collect::<Vec<_>>);
        let inode = line.filter(|f| f.get(1) == Some(&local.as_str()) && f.get(2) == Some(&remote.as_str()));
        let wanted = format!("socket:[{}]", inode.filter_map(|f| f.get(9).copied()).next()?);
        let holds = |pid: u32| {
            let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            descriptors.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|link| link.as_os_str() == wanted.as_str())
        };
        Some(nodes.iter().find(|(pid, _)| holds(*pid)).map(|(_, name)| name.clone()))
    })
    .ok()
    .flatten()
}

/// `0B00007F:1F90`, as `/proc/net/tcp` writes an address.
fn in_kernels_words(address: SocketAddr) -> Option<String> {
    let IpAddr::V4(ip) = address.ip() else { return None };
    Some(format!("{:08X}:{:04X}", u32::from_le_bytes(ip.octets()), address.port()))
}
