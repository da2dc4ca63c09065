//! The replicated log on real parts: redb files, loopback gRPC, real clocks.

mod cluster;
mod suite;
mod support;
