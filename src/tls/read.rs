//! What a certificate says: who it is for, and from when until when.

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;

use crate::domain::identity::Identity;
use crate::domain::ids::UnixMs;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// A certificate in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Who it is for; or why that cannot be told.
    pub identity: Result<Identity, String>,
    /// Every URI it carries.
    pub uris: Vec<String>,
    /// The common name of the authority that signed it, else its whole name.
    pub issuer: String,
    /// Whom it names, whole.
    pub subject: String,
    /// Its first moment.
    pub not_before: UnixMs,
    /// Its last.
    pub not_after: UnixMs,
}

/// Reads a certificate. Nothing of it is proved by that.
///
/// # Errors
/// It is not X.509.
pub fn read(certificate: &CertificateDer<'_>) -> Result<Seen, String> {
    let parsed = Certificate::from_der(certificate).map_err(|error| format!("not an X.509 certificate: {error}"))?;
    let body = &parsed.tbs_certificate;
    let names = body.get::<SubjectAltName>().map_err(|error| format!("its names cannot be read: {error}"))?;
    let mut uris = Vec::new();
    for name in names.iter().flat_map(|(_, names)| &names.0) {
        if let GeneralName::UniformResourceIdentifier(uri) = name {
            uris.push(uri.as_str().to_owned());
        }
    }
    let moment =
        |time: &x509_cert::time::Time| UnixMs(u64::try_from(time.to_unix_duration().as_millis()).unwrap_or(u64::MAX));
    Ok(Seen {
        identity: identity(&uris, common_name(&body.subject)),
        uris,
        issuer: common_name(&body.issuer).unwrap_or_else(|| body.issuer.to_string()),
        subject: body.subject.to_string(),
        not_before: moment(&body.validity.not_before),
        not_after: moment(&body.validity.not_after),
    })
}

/// One of ours goes before every other URI, and any URI before the common name.
fn identity(uris: &[String], common_name: Option<String>) -> Result<Identity, String> {
    let ours: Vec<&String> = uris.iter().filter(|uri| uri.starts_with("watchdog://")).collect();
    match (ours.as_slice(), uris, common_name) {
        ([one], _, _) => Identity::parse(one),
        ([], [one], _) => Identity::parse(one),
        ([], [], Some(name)) => Identity::common_name(&name),
        ([], [], None) => Err("it carries neither a URI nor a common name".to_owned()),
        (many, all, _) => {
            let count = many.len().max(all.len());
            Err(format!("it carries {count} URIs, and nothing says which of them counts"))
        }
    }
}

fn common_name(name: &Name) -> Option<String> {
    let mut attributes = name.0.iter().flat_map(|set| set.0.iter());
    let found = attributes.rfind(|attribute| attribute.oid == COMMON_NAME)?;
    std::str::from_utf8(found.value.value()).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_go_before_others_and_two_of_a_kind_are_none() {
        let (ours, other) = ("watchdog://demo/node/a".to_owned(), "spiffe://corp/a".to_owned());
        let said = |uris: &[&String], cn: Option<&str>| {
            let uris: Vec<String> = uris.iter().map(|uri| (*uri).clone()).collect();
            identity(&uris, cn.map(str::to_owned)).map(|identity| identity.to_string())
        };
        assert_eq!(said(&[&other, &ours], Some("x")), Ok(ours.clone()));
        assert_eq!(said(&[&other], Some("x")), Ok(other.clone()));
        assert_eq!(said(&[], Some("x")), Ok("CN=x".to_owned()));
        assert!(said(&[], None).is_err());
        assert!(said(&[&ours, &"watchdog://demo/user/root".to_owned()], None).is_err());
        assert!(said(&[&other, &"spiffe://corp/b".to_owned()], Some("x")).is_err());
        assert!(said(&[&"watchdog://demo/root/a".to_owned()], Some("x")).is_err(), "ours, and badly written");
    }
}
