//! Certificates, and the connections they prove: TLS 1.3 by rustls, both ends known to each other.
//!
//! [`material`] keeps one program's three files loaded, and newer ones when they change. [`dial`] is its side that calls,
//! [`listen`] its side that is called; [`read`] takes from a certificate who it is for, [`words`] says what is wrong with
//! one. [`authority`] makes certificates, for clusters without a PKI of their own.

pub mod authority;
pub mod dial;
pub mod listen;
pub mod material;
pub mod read;
pub mod words;

pub use dial::{Dialer, Expect};
pub use listen::{Conn, Peer, incoming};
pub use material::{Files, Material, TlsError};
