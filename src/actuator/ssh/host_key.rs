//! A host's public key as in `known_hosts`, and its fingerprint as `ssh-keygen -lf` shows it.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ring::digest;

/// The text is no host key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "host_key {text:?} {fault}; give type and key as `ssh-keyscan -t ed25519 HOST` prints them, without the host's name"
)]
pub struct HostKeyError {
    text: String,
    fault: &'static str,
}

/// The only key a host may prove itself with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey {
    kind: String,
    blob: Vec<u8>,
}

impl HostKey {
    /// Reads `ssh-ed25519 AAAA…`, with or without a comment.
    ///
    /// # Errors
    /// Where it is no such text, or the key says it is of another type.
    pub fn parse(text: &str) -> Result<Self, HostKeyError> {
        let wrong = |fault| HostKeyError { text: text.chars().take(200).collect(), fault };
        let mut words = text.split_whitespace();
        let (Some(kind), Some(encoded)) = (words.next(), words.next()) else {
            return Err(wrong("is not of the form TYPE BASE64"));
        };
        if !matches!(
            kind,
            "ssh-ed25519" | "ssh-rsa" | "ecdsa-sha2-nistp256" | "ecdsa-sha2-nistp384" | "ecdsa-sha2-nistp521"
        ) {
            return Err(wrong("is not of a known type"));
        }
        let blob = STANDARD.decode(encoded).map_err(|_| wrong("is not base64"))?;
        // The blob begins with its own type: a length of four bytes, then the name (RFC 4253, section 6.6).
        let named = blob
            .split_first_chunk::<4>()
            .and_then(|(length, rest)| rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?));
        if named != Some(kind.as_bytes()) {
            return Err(wrong("is cut short or of another type than it says"));
        }
        Ok(Self { kind: kind.to_owned(), blob })
    }

    /// Signature algorithms to ask the server for, so that it proves itself with this key and no other of its keys.
    pub(super) fn algorithms(&self) -> &str {
        if self.kind == "ssh-rsa" { "rsa-sha2-512,rsa-sha2-256" } else { &self.kind }
    }

    /// Whether the server's key is this one.
    pub(super) fn is(&self, blob: &[u8]) -> bool {
        self.blob == blob
    }

    /// `SHA256:…`.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.blob)
    }
}

/// `SHA256:…` of a key as the server sent it.
pub(super) fn fingerprint(blob: &[u8]) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(digest::digest(&digest::SHA256, blob)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";

    #[test]
    fn a_key_is_read_and_shown_as_ssh_keygen_does() {
        // GitHub's published key and fingerprint.
        let key = HostKey::parse(&format!("{KEY} comment\n")).unwrap();
        assert_eq!(key.fingerprint(), "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU");
    }

    #[test]
    fn what_is_no_key_is_named() {
        for (text, fault) in [
            ("", "TYPE BASE64"),
            ("ssh-ed25519", "TYPE BASE64"),
            (&format!("db.example.vn {KEY}"), "known type"),
            ("ssh-dss AAAAB3NzaC1kc3M=", "known type"),
            ("ssh-ed25519 AAAA*", "not base64"),
            ("ssh-ed25519 AAAA", "cut short"),
            (&KEY.replace("ssh-ed25519", "ssh-rsa"), "another type"),
        ] {
            let error = HostKey::parse(text).unwrap_err().to_string();
            assert!(error.contains(fault), "{text}: {error}");
        }
    }
}
