//! The replicated log on real parts: redb files, loopback gRPC, real clocks.

mod cluster;
mod damage;
mod identity;
mod image;
mod restored;
mod suite;
mod support;
mod wire;
