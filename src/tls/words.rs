//! What is wrong with a certificate or a connection, in words that say what to do next.

use std::error::Error;
use std::time::Duration;

use rustls::{CertificateError, Error as Tls, InvalidMessage, PeerIncompatible};

use crate::domain::ids::UnixMs;

const REFUSED: &str = "it refused the certificate that was shown to it";

/// The other side is not who was called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotWhoWasCalled(pub String);

/// A UTC day and minute: `2026-11-21 12:30Z`.
pub fn day(at: UnixMs) -> String {
    match x509_cert::der::DateTime::from_unix_duration(Duration::from_millis(at.0)) {
        Ok(at) => format!("{:04}-{:02}-{:02} {:02}:{:02}Z", at.year(), at.month(), at.day(), at.hour(), at.minutes()),
        Err(_) => "the end of time".to_owned(),
    }
}

/// A certificate that another party showed, or that is to be shown.
pub fn of_certificate(error: &CertificateError) -> String {
    let seconds = |time: &rustls::pki_types::UnixTime| day(UnixMs(time.as_secs().saturating_mul(1000)));
    match error {
        CertificateError::Expired => "it has expired: issue a new one".to_owned(),
        CertificateError::ExpiredContext { time, not_after } => {
            let (end, now) = (seconds(not_after), seconds(time));
            format!("it expired at {end} (it is {now} here): issue a new one, or set the clock right")
        }
        CertificateError::NotValidYet => "it is not valid yet: set the clock right".to_owned(),
        CertificateError::NotValidYetContext { time, not_before } => {
            let (start, now) = (seconds(not_before), seconds(time));
            format!("it is valid from {start} only (it is {now} here): set the clock right")
        }
        CertificateError::UnknownIssuer => {
            "the authority that is trusted here did not sign it: use one certificate authority for the whole cluster"
                .to_owned()
        }
        CertificateError::BadSignature => {
            "its signature is not that of the authority trusted here, though the names are alike: use one certificate \
             authority for the whole cluster"
                .to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it was not issued for this use: a node and a guard need serverAuth and clientAuth, a person clientAuth"
                .to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it does not name the host that was called".to_owned()
        }
        CertificateError::Other(other) => other.0.to_string(),
        error => format!("it cannot be used: {error:?}"),
    }
}

/// Why a connection came to nothing, as the one who made it sees it. `None` where TLS has nothing to do with it.
pub fn of_call(error: &(dyn Error + 'static)) -> Option<String> {
    let said = match tls_error(error)? {
        Tls::InvalidCertificate(error) => format!("the certificate that it showed: {}", of_certificate(error)),
        Tls::AlertReceived(alert) => format!("{REFUSED}: {}", of_alert(&format!("{alert:?}"))),
        Tls::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "it speaks no TLS: is that a node's gRPC port, and does its configuration name certificates?".to_owned()
        }
        error => format!("no TLS connection: {error}"),
    };
    Some(said)
}

/// Why a connection came to nothing, as the one who was called sees it.
pub fn of_caller(error: &(dyn Error + 'static)) -> String {
    match tls_error(error) {
        Some(Tls::InvalidCertificate(error)) => format!("its certificate: {}", of_certificate(error)),
        Some(Tls::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "it speaks no TLS; give it a certificate (watchdogctl: --ca, --certificate and --key)".to_owned()
        }
        Some(Tls::AlertReceived(alert)) => format!("{REFUSED}: {}", of_alert(&format!("{alert:?}"))),
        Some(Tls::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon | PeerIncompatible::Tls12NotOffered)) => {
            "it speaks no TLS that is spoken here".to_owned()
        }
        Some(error) => error.to_string(),
        None => innermost(error),
    }
}

/// By the name of the alert: HTTP/2 keeps no more of an error than its text.
fn of_alert(alert: &str) -> String {
    let words = match alert {
        "CertificateExpired" => "it has expired by its clock: issue a new one",
        // Of two authorities of one name, the signature tells which.
        "UnknownCA" | "DecryptError" => {
            "it trusts another authority: use one certificate authority for the whole cluster"
        }
        "CertificateRequired" => "none was shown, and it asks for one",
        "UnsupportedCertificate" => "it was not issued for this use",
        other => return format!("{other}; its log says more"),
    };
    words.to_owned()
}

/// What an alert's text says, where an error is no more than that.
pub fn of_text(text: &str) -> Option<String> {
    let alert = text.split_once("received fatal alert: ")?.1;
    let alert = alert.split(|c: char| !c.is_ascii_alphanumeric()).next()?;
    Some(format!("{REFUSED}: {}", of_alert(alert)))
}

/// rustls' own error within an error.
fn tls_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e Tls> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<Tls>() {
            return Some(found);
        }
        // An `io::Error` passes over what it wraps when it is asked for its source.
        if let Some(found) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            next = Some(found);
            continue;
        }
        next = error.source();
    }
    None
}

/// The innermost error says what happened; the outer ones only that something did.
pub fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
