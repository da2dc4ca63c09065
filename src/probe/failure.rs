//! What an error from the network means: whose fault it is, and of which kind.

use std::error::Error;
use std::io;

use crate::domain::observation::{Failure, FailureKind};

/// Longest detail kept: it travels in every report.
const MAX_DETAIL_CHARS: usize = 300;

/// A failure with its words, cut to a bounded length and cleared of control characters.
pub(super) fn failure(kind: FailureKind, detail: impl AsRef<str>) -> Failure {
    let mut clean = String::new();
    for (index, c) in detail.as_ref().chars().enumerate() {
        if index == MAX_DETAIL_CHARS {
            clean.push('…');
            break;
        }
        clean.push(if c.is_control() { ' ' } else { c });
    }
    Failure { kind, detail: clean }
}

/// The failure that `error` means for a probe of `place`.
pub(super) fn from_error(place: &str, error: &(dyn Error + 'static)) -> Failure {
    failure(kind_of(error), format!("{place}: {}", words(error)))
}

/// The error and its causes in one line, without repeating what a cause already said.
pub(super) fn words(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// The kind, from the first cause that tells it. What nothing explains was at least an answer, and a wrong one.
pub(super) fn kind_of(error: &(dyn Error + 'static)) -> FailureKind {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(kind) = told_by(current) {
            return kind;
        }
        next = current.source();
    }
    FailureKind::WrongAnswer
}

fn told_by(error: &(dyn Error + 'static)) -> Option<FailureKind> {
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return Some(of_tls(tls));
    }
    if let Some(io) = error.downcast_ref::<io::Error>() {
        // An io::Error's source() skips the error it wraps and gives that one's source.
        if let Some(wrapped) = io.get_ref() {
            let wrapped: &(dyn Error + 'static) = wrapped;
            let kind = if wrapped.is::<rustls::Error>() || wrapped.is::<io::Error>() { told_by(wrapped) } else { None };
            if kind.is_some() {
                return kind;
            }
        }
        return of_io(io);
    }
    None
}

fn of_io(error: &io::Error) -> Option<FailureKind> {
    use io::ErrorKind as Io;
    // Files or ports used up on this node, or a name that this node cannot resolve: the target is not to blame.
    let ours = error.raw_os_error().is_some_and(|code| {
        [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE, rustix::io::Errno::NOBUFS, rustix::io::Errno::NOMEM]
            .iter()
            .any(|ours| ours.raw_os_error() == code)
    });
    if ours || error.to_string().contains("failed to lookup address") {
        return Some(FailureKind::OurFault);
    }
    match error.kind() {
        Io::ConnectionRefused => Some(FailureKind::Refused),
        Io::TimedOut => Some(FailureKind::TimedOut),
        Io::HostUnreachable | Io::NetworkUnreachable | Io::NetworkDown => Some(FailureKind::Unreachable),
        Io::PermissionDenied | Io::AddrNotAvailable | Io::AddrInUse => Some(FailureKind::OurFault),
        _ => None,
    }
}

fn of_tls(error: &rustls::Error) -> FailureKind {
    use rustls::{AlertDescription as Alert, Error as Tls};
    match error {
        Tls::InvalidCertificate(_)
        | Tls::PeerIncompatible(_)
        | Tls::UnsupportedNameType
        | Tls::AlertReceived(
            Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::CertificateRequired
            | Alert::CertificateExpired
            | Alert::AccessDenied
            | Alert::UnrecognisedName
            | Alert::ProtocolVersion
            | Alert::HandshakeFailure,
        ) => FailureKind::OurFault,
        _ => FailureKind::WrongAnswer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_errors_are_told_apart() {
        use FailureKind::*;
        use io::ErrorKind as Io;
        let certificate = || rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let table = [
            (io::Error::from(Io::ConnectionRefused), Refused),
            (io::Error::from(Io::HostUnreachable), Unreachable),
            (io::Error::from(Io::NetworkUnreachable), Unreachable),
            (io::Error::from(Io::TimedOut), TimedOut),
            (io::Error::from(Io::ConnectionReset), WrongAnswer),
            (io::Error::from(Io::UnexpectedEof), WrongAnswer),
            (io::Error::from(Io::AddrNotAvailable), OurFault),
            (io::Error::from_raw_os_error(24), OurFault),
            (io::Error::other("failed to lookup address information: Name or service not known"), OurFault),
            (io::Error::new(Io::InvalidData, certificate()), OurFault),
            (io::Error::other(io::Error::new(Io::InvalidData, certificate())), OurFault),
            (io::Error::new(Io::InvalidData, rustls::Error::DecryptError), WrongAnswer),
        ];
        for (error, wanted) in table {
            assert_eq!(kind_of(&error), wanted, "{error:?}");
        }
    }

    #[test]
    fn details_are_bounded_and_printable() {
        let long = failure(FailureKind::WrongAnswer, format!("a\n\u{1b}[31m{}", "x".repeat(5000)));
        assert!(long.detail.chars().count() <= MAX_DETAIL_CHARS + 1);
        assert!(!long.detail.contains(char::is_control));
    }
}
