//! Health: which names are serving at a leader, a follower and a node alone, and that whoever watches is told.

use tonic::transport::Channel;
use tonic::{Code, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use watchdog::api::health::{LEADER, LIVENESS, QUORUM};

use crate::standin::{Log, Served, StandInNode, serve, wait_until};

const ADMIN: &str = "watchdog.v1.Admin";

async fn health(served: &Served) -> HealthClient<Channel> {
    let channel = Channel::from_shared(format!("http://{}", served.address)).unwrap();
    HealthClient::new(channel.connect().await.unwrap())
}

/// Until each name is serving, or not, as wanted.
async fn is(client: &HealthClient<Channel>, wanted: [(&str, bool); 5]) {
    for (name, serving) in wanted {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        wait_until(name, || async {
            let ask = HealthCheckRequest { service: name.to_owned() };
            client.clone().check(ask).await.is_ok_and(|answer| answer.into_inner().status() == status)
        })
        .await;
    }
}

#[tokio::test]
async fn the_names_tell_leader_follower_and_a_node_alone_apart() {
    let log = Log::new();
    let node = StandInNode::new(1, &log);
    let served = serve(&node).await;
    let health = health(&served).await;
    let alone = [(LIVENESS, true), (QUORUM, false), ("", false), (ADMIN, false), (LEADER, false)];
    let follower = [(LIVENESS, true), (QUORUM, true), ("", true), (ADMIN, true), (LEADER, false)];
    let leader = [(LIVENESS, true), (QUORUM, true), ("", true), (ADMIN, true), (LEADER, true)];
    is(&health, alone).await;
    node.lead();
    is(&health, leader).await;
    node.follow(3, "127.0.0.1:1");
    is(&health, follower).await;
    node.lead();
    is(&health, leader).await;
    node.lead_alone();
    is(&health, alone).await;
    node.lose_quorum();
    is(&health, alone).await;
    let unknown = health.clone().check(HealthCheckRequest { service: "nobody".to_owned() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

async fn watch(served: &Served, name: &str) -> Streaming<HealthCheckResponse> {
    let ask = HealthCheckRequest { service: name.to_owned() };
    health(served).await.watch(ask).await.unwrap().into_inner()
}

/// Until the watcher was told so.
async fn told(stream: &mut Streaming<HealthCheckResponse>, wanted: ServingStatus) {
    while stream.message().await.unwrap().unwrap().status() != wanted {}
}

/// Three nodes, and leadership moves from the first to the second: each watcher hears of it without asking again.
#[tokio::test]
async fn who_watches_is_told_when_leadership_moves() {
    let log = Log::new();
    let nodes = [1, 2, 3].map(|id| StandInNode::new(id, &log));
    let served = [serve(&nodes[0]).await, serve(&nodes[1]).await, serve(&nodes[2]).await];
    let lead = |leader: usize| {
        for (n, node) in nodes.iter().enumerate() {
            if n == leader { node.lead() } else { node.follow(leader as u64 + 1, &served[leader].address) }
        }
    };
    lead(0);
    let mut leaders = Vec::new();
    for served in &served {
        leaders.push(watch(served, LEADER).await);
    }
    for (stream, wanted) in
        leaders.iter_mut().zip([ServingStatus::Serving, ServingStatus::NotServing, ServingStatus::NotServing])
    {
        told(stream, wanted).await;
    }
    lead(1);
    told(&mut leaders[0], ServingStatus::NotServing).await;
    told(&mut leaders[1], ServingStatus::Serving).await;
    let mut third = watch(&served[2], QUORUM).await;
    told(&mut third, ServingStatus::Serving).await;
    nodes[2].lose_quorum();
    told(&mut third, ServingStatus::NotServing).await;
}
