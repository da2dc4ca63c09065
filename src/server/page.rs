//! The status page, served: read-only, to viewers, and to a bounded number of them at once.
//!
//! On loopback in plain text; on any other address behind the same mutual TLS as gRPC, to whoever holds `viewer` or more. The
//! configuration is refused where it wants neither.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State, connect_info::Connected};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::{IncomingStream, Listener};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::api::page::{self, Lang, Part, Picture};
use crate::api::service::AdminService;
use crate::domain::identity::{Role, Roles};
use crate::tls::listen::{HTTP, incoming_of};
use crate::tls::{Conn, Material, Peer};

/// Pages that are kept up to date at once; whoever comes later loads again by hand.
const WATCHERS_MAX: usize = 16;
/// The picture is taken anew at most so often, for all of them together.
const PICTURE_EVERY: Duration = Duration::from_millis(900);
/// What changed is looked at so often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A browser that takes nothing for so long is let go.
const TAKE_WITHIN: Duration = Duration::from_secs(30);
/// A stream ends after this: the browser comes again, and proves itself anew.
const STREAM_MAX: Duration = Duration::from_secs(3600);
/// A proxy or firewall forgets a connection on which nothing goes.
const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// Nothing from elsewhere, nothing inline, and in nobody's frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// One node's page.
pub struct StatusPage {
    service: AdminService,
    roles: Roles,
    room: Arc<Semaphore>,
    picture: Mutex<Option<(Instant, Arc<Picture>)>>,
    shutdown: CancellationToken,
}

impl StatusPage {
    /// `service` is asked for the picture; `roles` says who may look.
    pub fn new(service: AdminService, roles: Roles, shutdown: CancellationToken) -> Arc<Self> {
        let room = Arc::new(Semaphore::new(WATCHERS_MAX));
        Arc::new(Self { service, roles, room, picture: Mutex::default(), shutdown })
    }

    async fn picture(&self) -> Arc<Picture> {
        let mut kept = self.picture.lock().await;
        if let Some((taken, picture)) = kept.as_ref().filter(|(taken, _)| taken.elapsed() < PICTURE_EVERY) {
            tracing::trace!(age = ?taken.elapsed(), "the picture is new enough");
            return picture.clone();
        }
        let picture = Arc::new(self.service.picture().await);
        *kept = Some((Instant::now(), picture.clone()));
        picture
    }

    /// Why this caller may not look.
    fn refusal(&self, peer: &Peer, headers: &HeaderMap) -> Option<(StatusCode, String)> {
        match peer {
            // A name that somebody else's page had resolve to this machine is not ours.
            Peer::Plain { .. } if is_of_this_machine(headers) => None,
            Peer::Plain { .. } => {
                let what = "this page is asked for by this machine's address alone: http://127.0.0.1:PORT/\n";
                Some((StatusCode::MISDIRECTED_REQUEST, what.to_owned()))
            }
            Peer::Nobody { .. } => {
                let what = "this page is shown to whoever has a certificate of the cluster's authority with the role viewer; \
                            put one into the browser: watchdogctl cert issue user NAME\n";
                Some((StatusCode::UNAUTHORIZED, what.to_owned()))
            }
            Peer::Known { identity, .. } => {
                let held = self.roles.of(identity);
                let may = held.person >= Some(Role::Viewer);
                (!may).then(|| {
                    let what = format!(
                        "{identity} has {}, and this page needs viewer: add it as a [[role]]\n",
                        held.in_words()
                    );
                    (StatusCode::FORBIDDEN, what)
                })
            }
        }
    }
}

fn is_of_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost" || name.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
}

/// Serves until dropped; streams end with `shutdown`.
pub async fn serve(listener: TcpListener, tls: Option<Arc<Material>>, page: Arc<StatusPage>) {
    let routes = Router::new()
        .route("/", get(whole))
        .route("/status.css", get(async || ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], page::STYLE)))
        .route("/status.js", get(async || ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], page::SCRIPT)))
        .route("/events", get(events))
        .layer(middleware::from_fn_with_state(page.clone(), admit))
        .with_state(page);
    let local = listener.local_addr();
    let door = Door { incoming: incoming_of(listener, tls, HTTP), local };
    if let Err(error) = axum::serve(door, routes.into_make_service_with_connect_info::<Who>()).await {
        tracing::error!(%error, "the status page's listener broke");
    }
}

/// Connections as axum takes them.
struct Door {
    incoming: ReceiverStream<io::Result<Conn>>,
    local: io::Result<SocketAddr>,
}

impl Listener for Door {
    type Io = Conn;
    type Addr = Peer;

    async fn accept(&mut self) -> (Conn, Peer) {
        loop {
            match self.incoming.next().await {
                Some(Ok(conn)) => {
                    let peer = conn.peer().clone();
                    return (conn, peer);
                }
                Some(Err(error)) => tracing::debug!(%error, "a connection to the status page broke"),
                None => std::future::pending().await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        match &self.local {
            Ok(address) => Ok(Peer::Plain { from: Some(*address) }),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        }
    }
}

#[derive(Clone)]
struct Who(Peer);

impl Connected<IncomingStream<'_, Door>> for Who {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        Who(stream.remote_addr().clone())
    }
}

async fn admit(
    State(page): State<Arc<StatusPage>>,
    ConnectInfo(Who(peer)): ConnectInfo<Who>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = match page.refusal(&peer, request.headers()) {
        Some((status, what)) => {
            tracing::debug!(from = ?peer.from(), %status, "the status page was refused");
            (status, what).into_response()
        }
        None => next.run(request).await,
    };
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// By the link, else by what the browser likes.
fn language(uri: &Uri, headers: &HeaderMap) -> Lang {
    let words = uri.query().unwrap_or_default().split('&');
    let asked = words.filter_map(|pair| pair.strip_prefix("lang=")).find_map(Lang::of_tag);
    let accepts = || headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    asked.unwrap_or_else(|| Lang::of_header(accepts()))
}

async fn whole(State(page): State<Arc<StatusPage>>, uri: Uri, headers: HeaderMap) -> Response {
    let picture = page.picture().await;
    let lang = language(&uri, &headers);
    let fixed = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::VARY, "accept-language")];
    (fixed, page::page(&picture, lang)).into_response()
}

async fn events(State(page): State<Arc<StatusPage>>, uri: Uri, headers: HeaderMap) -> Response {
    let Ok(place) = page.room.clone().try_acquire_owned() else {
        let what = "as many pages as may be are kept up to date already: load this one again by hand\n";
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "30")], what).into_response();
    };
    let (news, stream) = mpsc::channel(1);
    tokio::spawn(keep_up_to_date(page, language(&uri, &headers), news, place));
    Sse::new(ReceiverStream::new(stream)).keep_alive(KeepAlive::new().interval(ALIVE_EVERY)).into_response()
}

type News = Result<Event, std::convert::Infallible>;

/// Sends what changed, until the browser or this node goes.
async fn keep_up_to_date(page: Arc<StatusPage>, lang: Lang, news: mpsc::Sender<News>, _place: OwnedSemaphorePermit) {
    let ends = Instant::now() + STREAM_MAX;
    let mut shown: Vec<Part> = Vec::new();
    while Instant::now() < ends {
        let parts = page::parts(&*page.picture().await, lang);
        let changed = || parts.iter().filter(|part| !shown.contains(part)).map(|(id, html)| (*id, html.as_str()));
        let body: std::collections::BTreeMap<_, _> = changed().collect();
        if !body.is_empty() {
            let Ok(event) = Event::default().json_data(&body) else { return };
            tokio::select! {
                () = page.shutdown.cancelled() => return,
                sent = timeout(TAKE_WITHIN, news.send(Ok(event))) => if !matches!(sent, Ok(Ok(()))) { return },
            }
        }
        shown = parts;
        tokio::select! {
            () = page.shutdown.cancelled() => return,
            () = news.closed() => return,
            () = sleep(LOOK_EVERY) => {}
        }
    }
}
