//! The digest of a configuration: SHA-256 over its meaning. Comments, the order of keys and of independent tables do not matter.
//!
//! It is taken over the judged form, plans included: two versions of the program that resolve the same file to different
//! plans must not take each other's runs for their own.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::types::Config;
use crate::domain::ids::ConfigDigest;

/// The digest, in hexadecimal.
pub fn of(config: &Config) -> ConfigDigest {
    // Struct fields come in the order of their declaration and maps sorted, so that equal meaning gives equal bytes.
    let canonical = serde_json::to_vec(config).expect("plain data with text keys always serialises");
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(&canonical) {
        let _ = write!(hex, "{byte:02x}");
    }
    ConfigDigest(hex)
}
