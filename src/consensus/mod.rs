//! The replicated log: openraft over gRPC, stored in redb.
