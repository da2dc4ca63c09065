//! The side that is called: each connection with what its caller's certificate proves.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tokio_rustls::{TlsAcceptor, client, server};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::material::Material;
use super::read::read;
use super::words;
use crate::domain::identity::Identity;
use crate::domain::ids::UnixMs;

/// Who does not finish a handshake within this is dropped.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A refused caller has so long to read why.
const LINGER: Duration = Duration::from_millis(500);
/// Handshakes under way at once; more wait in the system's queue.
const HANDSHAKES_MAX: usize = 64;
/// Accepted connections that wait to be served.
const READY_MAX: usize = 16;
/// The same refusal is logged once within this.
const QUIET: Duration = Duration::from_secs(60);
/// So many refusals are remembered for that.
const REFUSALS_MAX: usize = 32;

/// HTTP/2, as gRPC speaks it.
pub const GRPC: &[u8] = b"h2";
/// HTTP/1.1, as browsers and scrapers speak it.
pub const HTTP: &[u8] = b"http/1.1";

/// What a connection proves of its caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Plain text: nothing.
    Plain {
        /// From where.
        from: Option<SocketAddr>,
    },
    /// By TLS, without a certificate.
    Nobody {
        /// From where.
        from: Option<SocketAddr>,
    },
    /// By TLS, with a certificate of the authority that carries this identity.
    Known {
        /// Who.
        identity: Identity,
        /// From where.
        from: Option<SocketAddr>,
        /// The certificate proves it until then.
        until: UnixMs,
    },
}

impl Peer {
    /// From where it calls.
    pub fn from(&self) -> Option<SocketAddr> {
        match self {
            Peer::Plain { from } | Peer::Nobody { from } | Peer::Known { from, .. } => *from,
        }
    }
}

/// A connection's bytes, either way.
pub struct Stream(Inner);

enum Inner {
    Plain(TcpStream),
    /// With what was read of it already.
    Called(Box<client::TlsStream<TcpStream>>, Bytes),
    Taken(Box<server::TlsStream<TcpStream>>),
}

impl Stream {
    pub(super) fn plain(tcp: TcpStream) -> Self {
        Self(Inner::Plain(tcp))
    }

    /// `first`: what was read of it already.
    pub(super) fn called(stream: client::TlsStream<TcpStream>, first: Bytes) -> Self {
        Self(Inner::Called(Box::new(stream), first))
    }
}

macro_rules! on_each {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut $self.get_mut().0 {
            Inner::Plain($stream) => $call,
            Inner::Called($stream, _) => $call,
            Inner::Taken($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Inner::Called(_, first) = &mut this.0
            && !first.is_empty()
        {
            buf.put_slice(&first.split_to(first.len().min(buf.remaining())));
            return Poll::Ready(Ok(()));
        }
        let this = Pin::new(this);
        on_each!(this, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        on_each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

/// An accepted connection.
pub struct Conn {
    stream: Stream,
    peer: Peer,
}

impl Conn {
    /// What it proves of its caller.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl AsyncRead for Conn {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Conn {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl Connected for Conn {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

/// The listener's connections, for tonic's `serve_with_incoming`. Without `material`, in plain text. Accepting ends when
/// the stream is dropped.
pub fn incoming(listener: TcpListener, material: Option<Arc<Material>>) -> ReceiverStream<io::Result<Conn>> {
    incoming_of(listener, material, GRPC)
}

/// The same for callers that speak another protocol, by its ALPN name.
pub fn incoming_of(
    listener: TcpListener,
    material: Option<Arc<Material>>,
    protocol: &'static [u8],
) -> ReceiverStream<io::Result<Conn>> {
    let (ready, stream) = mpsc::channel(READY_MAX);
    tokio::spawn(async move {
        tokio::select! {
            () = ready.closed() => {}
            () = accept(listener, material, protocol, ready.clone()) => {}
        }
    });
    ReceiverStream::new(stream)
}

async fn accept(
    listener: TcpListener,
    material: Option<Arc<Material>>,
    protocol: &'static [u8],
    ready: mpsc::Sender<io::Result<Conn>>,
) {
    let room = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let refusals = Arc::new(std::sync::Mutex::new(Refusals::default()));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let (tcp, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or gone before it was accepted: the listener itself is well.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = tcp.set_nodelay(true);
        let Some(material) = material.clone() else {
            let peer = Peer::Plain { from: Some(from) };
            if ready.send(Ok(Conn { stream: Stream::plain(tcp), peer })).await.is_err() {
                return;
            }
            continue;
        };
        let (ready, refusals) = (ready.clone(), refusals.clone());
        tokio::spawn(async move {
            let _place = place;
            match timeout(HANDSHAKE, shake_hands(tcp, from, &material, protocol)).await {
                Ok(Ok(conn)) => drop(ready.send(Ok(conn)).await),
                Ok(Err(Some(why))) => Refusals::tell(&refusals, from, &why),
                Ok(Err(None)) => {}
                Err(_) => Refusals::tell(&refusals, from, "it did not finish the TLS handshake"),
            }
        });
    }
}

/// An error: why it is refused; nothing where it only went away.
async fn shake_hands(
    tcp: TcpStream,
    from: SocketAddr,
    material: &Material,
    protocol: &'static [u8],
) -> Result<Conn, Option<String>> {
    let mut config = material.current().server.clone();
    if protocol != GRPC {
        Arc::make_mut(&mut config).alpn_protocols = vec![protocol.to_vec()];
    }
    let acceptor = TlsAcceptor::from(config);
    let stream = match acceptor.accept(tcp).into_fallible().await {
        Ok(stream) => stream,
        Err((error, tcp)) => {
            let gone = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
            if gone.contains(&error.kind()) {
                return Err(None);
            }
            linger(tcp).await;
            return Err(Some(words::of_caller(&error)));
        }
    };
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let from = Some(from);
    let peer = match shown {
        None => Peer::Nobody { from },
        Some(certificate) => {
            let wrong = |why| Some(format!("its certificate: {why}"));
            let seen = read(certificate).map_err(wrong)?;
            Peer::Known { identity: seen.identity.map_err(wrong)?, from, until: seen.not_after }
        }
    };
    Ok(Conn { stream: Stream(Inner::Taken(Box::new(stream))), peer })
}

/// Takes in what the caller still sends, until it hangs up: closing over unread bytes resets the connection, and the alert
/// that tells the caller why would be lost.
async fn linger(mut tcp: TcpStream) {
    let rest = async {
        let mut sink = [0; 1024];
        tcp.shutdown().await?;
        while tcp.read(&mut sink).await? > 0 {}
        Ok::<(), io::Error>(())
    };
    // However it ends, the connection does.
    let _ = timeout(LINGER, rest).await;
}

/// Refusals lately told, so that one caller that tries again and again does not fill the log.
#[derive(Default)]
struct Refusals(VecDeque<(Instant, IpAddr, String)>);

impl Refusals {
    fn tell(this: &std::sync::Mutex<Self>, from: SocketAddr, why: &str) {
        let mut this = this.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        this.0.retain(|(at, _, _)| at.elapsed() < QUIET);
        if this.0.iter().any(|(_, ip, told)| *ip == from.ip() && told == why) {
            return;
        }
        tracing::warn!(%from, "refused a connection: {why}");
        if this.0.len() >= REFUSALS_MAX {
            this.0.pop_front();
        }
        this.0.push_back((Instant::now(), from.ip(), why.to_owned()));
    }
}
