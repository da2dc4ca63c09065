//! The lab: the main job's real parts on loopback, in one private folder.
//!
//! PostgreSQL with a streaming standby, an SSH server per region with the guard as forced command, BIND (or a Route 53
//! server) as the zone, a service per region that uses its database, a receiver of pages, a client that writes, and the
//! nodes. The demo, the bench and the end-to-end tests use the same lab. Each region has its own loopback address, so
//! that an address record moves the traffic as it would between data centres.
//!
//! Everything carries the folder's path as its mark, and a janitor process kills whatever carries it as soon as the lab
//! is gone, however that came about.
#![allow(dead_code, reason = "the demo and the tests each use a part of it")]

pub mod bench;
pub mod boot;
pub mod browser;
pub mod calm;
pub mod client;
pub mod config;
pub mod cost;
pub mod crowd;
pub mod demo;
pub mod dns;
pub mod door;
pub mod folder;
pub mod frozen;
pub mod homeward;
pub mod hub;
pub mod lease;
pub mod links;
pub mod measure;
pub mod nodes;
pub mod parts;
pub mod pki;
pub mod postgres;
pub mod process;
pub mod receiver;
pub mod redis;
pub mod region;
pub mod rest;
pub mod route53;
pub mod scene;
pub mod service;
pub mod ssh;
pub mod stopped;
pub mod story;
pub mod trip;
pub mod wait;
pub mod watch;

use std::net::{IpAddr, Ipv4Addr};

/// Where the group is at home.
pub const HOME: &str = "hcmc";
/// Where it goes when its home is lost.
pub const DR: &str = "hanoi";
/// The voter without services.
pub const WITNESS: &str = "witness";
/// The public name the client and the checks use.
pub const PUBLIC_NAME: &str = "api.demo.test.";
/// The zone.
pub const ZONE: &str = "demo.test.";
/// The cluster.
pub const CLUSTER: &str = "demo";
/// The group.
pub const GROUP: &str = "aicamera";

/// A site's own loopback address, its node's too; inside a hub everybody has one of its own.
pub fn address_of(site: &str) -> IpAddr {
    if hub::inside() {
        return hub::address(site);
    }
    let last = match site.trim_end_matches("-1") {
        HOME => 11,
        DR => 12,
        WITNESS => 13,
        // BIND listens only on addresses that an interface carries.
        "bind" => 1,
        _ => 10,
    };
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
}
