//! Calls between nodes: the real client and server of the peer service, with the virtual network in place of HTTP/2.
//! What travels is the request as bytes, so that it may be lost, late, or come twice.

use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use tokio::sync::oneshot;
use tonic::body::Body;
use tonic::codegen::{Bytes, Service, http};
use tower::util::BoxCloneSyncService;
use watchdog::consensus::{Dial, LineError, PeerService};

use crate::world::{Place, Shared};

/// Each node's service, while its program runs.
pub type Doors = Arc<Mutex<std::collections::BTreeMap<u64, PeerService>>>;

/// A message as bytes.
struct Parcel {
    head: http::response::Parts,
    bytes: Bytes,
    trailers: Option<http::HeaderMap>,
}

/// Carries calls from `from`; addresses end with the number of the node.
pub fn dial(shared: &Shared, doors: &Doors, from: u64) -> Dial {
    let (shared, doors) = (shared.clone(), doors.clone());
    Box::new(move |address| {
        let to = address.rsplit('-').next().and_then(|id| id.parse::<u64>().ok());
        let to = to.ok_or_else(|| "an address ends with the node's number".to_owned())?;
        let (shared, doors) = (shared.clone(), doors.clone());
        let carry = move |request: http::Request<Body>| call(shared.clone(), doors.clone(), from, to, request);
        Ok(BoxCloneSyncService::new(tower::service_fn(carry)))
    })
}

async fn call(
    shared: Shared,
    doors: Doors,
    from: u64,
    to: u64,
    request: http::Request<Body>,
) -> Result<http::Response<Body>, LineError> {
    let (head, body) = request.into_parts();
    let bytes = body.collect().await.map_err(|error| LineError(error.into()))?.to_bytes();
    let (answered, answer) = oneshot::channel();
    let sent = {
        let serve = serve(shared.clone(), doors.clone(), (from, to), head.clone(), bytes.clone(), Some(answered));
        let mut world = shared.lock();
        let way = Place::Node(from);
        let sent = world.send_to_node(way, to, Box::pin(serve));
        if sent && world.comes_twice(way, Place::Node(to)) {
            let echo = serve_again(shared.clone(), doors, (from, to), head, bytes);
            world.send_to_node(way, to, echo);
        }
        sent
    };
    if !sent {
        // A dead way says nothing.
        return std::future::pending().await;
    }
    let parcel: Parcel = match answer.await {
        Ok(parcel) => parcel,
        // The other end died with the question.
        Err(_) => return std::future::pending().await,
    };
    let trailers = parcel.trailers.unwrap_or_default();
    let body = Full::new(parcel.bytes).with_trailers(async move { Some(Ok(trailers)) });
    Ok(http::Response::from_parts(parcel.head, Body::new(body)))
}

type Served = futures::future::BoxFuture<'static, ()>;

fn serve_again(shared: Shared, doors: Doors, ends: (u64, u64), head: http::request::Parts, bytes: Bytes) -> Served {
    Box::pin(serve(shared, doors, ends, head, bytes, None))
}

/// Runs in the called node's program.
async fn serve(
    shared: Shared,
    doors: Doors,
    (from, to): (u64, u64),
    head: http::request::Parts,
    bytes: Bytes,
    answered: Option<oneshot::Sender<Parcel>>,
) {
    let service = doors.lock().expect("whole").get(&to).cloned();
    let Some(service) = service else {
        // Still coming up: whoever called is not answered.
        std::mem::forget(answered);
        return;
    };
    let request = http::Request::from_parts(head, Full::new(bytes));
    let Ok(response) = service.into_server().call(request).await;
    let (head, body) = response.into_parts();
    let Ok(collected) = body.collect().await else { return };
    let trailers = collected.trailers().cloned();
    let parcel = Parcel { head, bytes: collected.to_bytes(), trailers };
    let Some(answered) = answered else { return };
    let job = Box::pin(async move { drop(answered.send(parcel)) });
    shared.lock().send_to_node(Place::Node(to), from, job);
}
