//! A certificate authority in a folder: `ca.pem` and `ca.key`, and what it issues beside them as `KIND-NAME.pem` and `.key`.
//!
//! Every file appears whole or not at all, keys before their certificates: whoever dies in between does it again and goes
//! on with the key that is there.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::material::{Files, TlsError, Use, certificates, load, private_key};
use super::read::read;
use super::words::day;
use crate::domain::identity::{Identity, Kind, is_name};
use crate::domain::ids::{ClusterName, UnixMs};

/// The authority's certificate.
pub const CA_FILE: &str = "ca.pem";
/// Its private key: keep it off the nodes.
pub const CA_KEY_FILE: &str = "ca.key";
/// The URI in the authority's certificate that names its cluster.
const CLUSTER_URI: &str = "watchdog://";
const DAY_MS: u64 = 24 * 3600 * 1000;
/// Certificates are valid from this long before they are made: clocks differ.
const BACKDATED_MS: u64 = DAY_MS;

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file that was there before.
    #[error("{} is there already; {todo}", .file.display())]
    There {
        /// The file.
        file: PathBuf,
        /// What to do.
        todo: String,
    },
    /// A file that cannot be written.
    #[error("{}: {source}; name a folder that can be written with --dir", .file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that cannot be used.
    #[error(transparent)]
    File(#[from] TlsError),
    /// A word of the command line.
    #[error("{0}")]
    Word(String),
    /// The library.
    #[error("the certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// What to issue.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    /// For a node, a person or a guard.
    pub kind: Kind,
    /// Its name.
    pub name: &'a str,
    /// Host names and addresses by which programs other than ours may call it.
    pub hosts: &'a [String],
    /// For how long.
    pub days: u32,
    /// One is there: replace it, keeping its key.
    pub renew: bool,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Whose it is: an identity, or the authority's cluster.
    pub whose: String,
    /// The files, as a program that uses them names them.
    pub files: Files,
    /// When it ends.
    pub not_after: UnixMs,
}

/// Makes an authority for a cluster in a folder, which is made if need be.
///
/// # Errors
/// There is one, or a file cannot be written.
pub fn init(dir: &Path, cluster: &str, days: u32, now: UnixMs) -> Result<Made, AuthorityError> {
    if !is_name(cluster) {
        return Err(AuthorityError::Word(format!("{cluster:?} is no cluster's name (letters, digits, . _ -)")));
    }
    fs::create_dir_all(dir).map_err(|source| AuthorityError::Write { file: dir.to_owned(), source })?;
    let (file, key_file) = (dir.join(CA_FILE), dir.join(CA_KEY_FILE));
    if file.exists() {
        let todo =
            "issue certificates of it with `watchdogctl cert issue`, or give another folder with --dir".to_owned();
        return Err(AuthorityError::There { file, todo });
    }
    let key = key(&key_file)?;
    let mut params = authority(cluster)?;
    let not_after = lasting(&mut params, now, days, None);
    let made = params.self_signed(&key)?;
    let fresh = staged(&file, made.pem().as_bytes(), 0o644)?;
    put(&fresh, &file)?;
    let files = Files { ca: file.clone(), certificate: file, key: key_file };
    Ok(Made { whose: cluster.to_owned(), files, not_after })
}

/// Issues a certificate of the folder's authority.
///
/// # Errors
/// There is no authority, or it is not of [`init`]; there is such a certificate; or a file cannot be written.
pub fn issue(dir: &Path, ask: &Ask<'_>, now: UnixMs) -> Result<Made, AuthorityError> {
    if !is_name(ask.name) {
        return Err(AuthorityError::Word(format!("{:?} is no name (letters, digits, . _ -; at most 63)", ask.name)));
    }
    let ca = dir.join(CA_FILE);
    let (cluster, ca_ends) = cluster_of(&ca)?;
    let ca_key = key_pair(&dir.join(CA_KEY_FILE))?;
    let stem = format!("{}-{}", ask.kind.word(), ask.name);
    let (file, key_file) = (dir.join(format!("{stem}.pem")), dir.join(format!("{stem}.key")));
    if file.exists() && !ask.renew {
        let todo = "replace it with --renew, which keeps its key".to_owned();
        return Err(AuthorityError::There { file, todo });
    }
    let identity = Identity::own(&cluster, ask.kind, ask.name);
    let key = key(&key_file)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = named(ask.name);
    params.subject_alt_names.push(SanType::URI(identity.as_str().try_into()?));
    for host in ask.hosts {
        let name = match host.parse::<IpAddr>() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(host.as_str().try_into()?),
        };
        params.subject_alt_names.push(name);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if ask.kind != Kind::User {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    params.use_authority_key_identifier_extension = true;
    let not_after = lasting(&mut params, now, ask.days, Some(ca_ends));
    let made = params.signed_by(&key, &Issuer::new(authority(cluster.as_str())?, ca_key))?;
    let fresh = staged(&file, made.pem().as_bytes(), 0o644)?;
    let usage = if ask.kind == Kind::User { Use::Call } else { Use::Both };
    // Judged as its user will judge it, before it takes its place.
    let judged = load(&Files { ca: ca.clone(), certificate: fresh.clone(), key: key_file.clone() }, usage, now);
    judged.inspect_err(|_| drop(fs::remove_file(&fresh)))?;
    put(&fresh, &file)?;
    let files = Files { ca, certificate: file, key: key_file };
    Ok(Made { whose: identity.to_string(), files, not_after })
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn authority(cluster: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(&format!("watchdog authority of {cluster}"));
    params.subject_alt_names = vec![SanType::URI(format!("{CLUSTER_URI}{cluster}").as_str().try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// From a little before now, for so many days; never beyond the authority's own end.
fn lasting(params: &mut CertificateParams, now: UnixMs, days: u32, ends: Option<UnixMs>) -> UnixMs {
    let wanted = now.0.saturating_add(u64::from(days).saturating_mul(DAY_MS));
    let until = ends.map_or(wanted, |ends| wanted.min(ends.0)) / 1000 * 1000;
    let start = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = start + Duration::from_millis(now.0.saturating_sub(BACKDATED_MS));
    params.not_after = start + Duration::from_millis(until);
    UnixMs(until)
}

/// The cluster of an authority of [`init`], and when it ends.
fn cluster_of(ca: &Path) -> Result<(ClusterName, UnixMs), AuthorityError> {
    let fault = |what: String, todo: &str| TlsError { file: ca.to_owned(), what, todo: todo.to_owned() };
    let certificate = certificates(ca)?;
    let seen = read(&certificate[0]).map_err(|what| fault(what, "make an authority with `watchdogctl cert init`"))?;
    let named = seen.uris.iter().find_map(|uri| uri.strip_prefix(CLUSTER_URI)).filter(|name| is_name(name));
    let Some(cluster) = named else {
        let todo = "issue certificates with the tools of its authority; docs/OPERATIONS.md says what they must carry";
        return Err(fault("was not made by `watchdogctl cert init`".to_owned(), todo).into());
    };
    Ok((ClusterName::from(cluster), seen.not_after))
}

/// The key of that file; a new one where there is none.
fn key(file: &Path) -> Result<KeyPair, AuthorityError> {
    if !file.exists() {
        let made = KeyPair::generate()?;
        let fresh = staged(file, made.serialize_pem().as_bytes(), 0o600)?;
        // Unlike a rename, a link replaces nothing: of two at once, both go on with the first one's key.
        let linked = fs::hard_link(&fresh, file);
        let _ = fs::remove_file(&fresh);
        match linked {
            Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(AuthorityError::Write { file: file.to_owned(), source });
            }
            _ => {}
        }
    }
    key_pair(file)
}

fn key_pair(file: &Path) -> Result<KeyPair, AuthorityError> {
    let key = private_key(file)?;
    let bad = |error: rcgen::Error| {
        let todo = "only keys that this command made can be used; for others use the tools that made them";
        TlsError { file: file.to_owned(), what: error.to_string(), todo: todo.to_owned() }
    };
    Ok(KeyPair::try_from(key.secret_der()).map_err(bad)?)
}

/// A file of that content beside `file`, on disk.
fn staged(file: &Path, content: &[u8], mode: u32) -> Result<PathBuf, AuthorityError> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let fresh = file.with_file_name(name);
    let _ = fs::remove_file(&fresh);
    let written = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh).and_then(|mut open| {
        open.write_all(content)?;
        open.sync_all()
    });
    written.map_err(|source| AuthorityError::Write { file: fresh.clone(), source })?;
    Ok(fresh)
}

fn put(fresh: &Path, file: &Path) -> Result<(), AuthorityError> {
    let dir = file.parent().unwrap_or(Path::new("/"));
    let moved = fs::rename(fresh, file).and_then(|()| File::open(dir)?.sync_all());
    moved.map_err(|source| AuthorityError::Write { file: file.to_owned(), source })
}

/// A certificate's words for people: whose, from whom, from when until when.
///
/// # Errors
/// The file holds none.
pub fn show(file: &Path) -> Result<Vec<(&'static str, String)>, TlsError> {
    let certificate = certificates(file)?;
    let unreadable = |what| TlsError { file: file.to_owned(), what, todo: "is it the right file?".to_owned() };
    let seen = read(&certificate[0]).map_err(unreadable)?;
    Ok(vec![
        ("identity", seen.identity.map_or_else(|why| format!("none: {why}"), |identity| identity.to_string())),
        ("subject", seen.subject),
        ("signed by", seen.issuer),
        ("valid from", day(seen.not_before)),
        ("valid until", day(seen.not_after)),
    ])
}
