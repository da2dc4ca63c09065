//! One program's certificate, key and authority, from three files, and newer ones when the files change.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};

use super::read::{Seen, read};
use super::words;
use crate::clock::unix_now;
use crate::domain::identity::Identity;
use crate::domain::ids::UnixMs;

/// No file of these is longer, bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Changed files are taken up within this.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);
/// From so long before its end on, a certificate is warned about.
const WARN_BEFORE_MS: u64 = 21 * 24 * 3600 * 1000;

/// Where the three lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// PEM: the authority's certificate; several, while one is being replaced by another.
    pub ca: PathBuf,
    /// PEM: this program's certificate, then those between it and the authority.
    pub certificate: PathBuf,
    /// PEM: the certificate's private key.
    pub key: PathBuf,
}

/// Why files cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {what}; {todo}", .file.display())]
pub struct TlsError {
    /// Which file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub what: String,
    /// What to do next.
    pub todo: String,
}

/// What a certificate must be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Calling others: people's programs.
    Call,
    /// Calling and being called: nodes and guards.
    Both,
}

/// What was loaded from the files at one time.
pub struct Loaded {
    pub(super) roots: Arc<RootCertStore>,
    pub(super) own: Arc<SingleCertAndKey>,
    pub(super) server: Arc<ServerConfig>,
    /// Who this program is.
    pub identity: Identity,
    /// When that ends.
    pub not_after: UnixMs,
}

/// What tells a file from its next version.
type Print = [Option<(i64, i64, u64, u64)>; 3];

/// The files, as last loaded without a fault.
pub struct Material {
    files: Files,
    usage: Use,
    current: RwLock<Arc<Loaded>>,
    state: Mutex<State>,
}

struct State {
    seen: Print,
    fault: Option<String>,
    warned: bool,
}

/// The one crypto provider.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl Material {
    /// Loads the files.
    ///
    /// # Errors
    /// The file, what is wrong with it, what to do.
    pub fn open(files: Files, usage: Use) -> Result<Arc<Self>, TlsError> {
        let seen = print(&files);
        let loaded = load(&files, usage, unix_now())?;
        let state = State { seen, fault: None, warned: false };
        Ok(Arc::new(Self { files, usage, current: RwLock::new(Arc::new(loaded)), state: Mutex::new(state) }))
    }

    /// What connections made from now on use.
    pub fn current(&self) -> Arc<Loaded> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The files.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Takes up files that changed. What cannot be used is told, and what was loaded before stays: connections go on.
    /// The two files of a pair are written one after the other; whoever looks between them finds the rest next time.
    pub fn look_again(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = print(&self.files);
        if now != state.seen {
            state.seen = now;
            match load(&self.files, self.usage, unix_now()) {
                Ok(loaded) => {
                    tracing::info!(identity = %loaded.identity, until = %words::day(loaded.not_after), "certificate taken up");
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
                    (state.fault, state.warned) = (None, false);
                }
                Err(error) => {
                    tracing::error!("{error} (the certificate loaded before stays in use)");
                    state.fault = Some(error.to_string());
                }
            }
        }
        if !state.warned
            && let Some(warning) = self.ending(unix_now())
        {
            tracing::warn!("{warning}");
            state.warned = true;
        }
    }

    fn ending(&self, now: UnixMs) -> Option<String> {
        let loaded = self.current();
        let (file, end) = (self.files.certificate.display(), words::day(loaded.not_after));
        let todo = "put a new one in its place, it is taken up by itself";
        match loaded.not_after.0.checked_sub(now.0) {
            None => Some(format!("{file} expired at {end}: no new connection is made or taken; {todo}")),
            Some(left) if left < WARN_BEFORE_MS => {
                Some(format!("{file} expires at {end}, in {} days; {todo}", left / (24 * 3600 * 1000)))
            }
            Some(_) => None,
        }
    }

    /// What somebody should know, for as long as it lasts.
    pub fn warnings(&self) -> Vec<String> {
        let fault = self.state.lock().unwrap_or_else(PoisonError::into_inner).fault.clone();
        let fault = fault.map(|fault| format!("{fault} (the certificate loaded before stays in use)"));
        fault.into_iter().chain(self.ending(unix_now())).collect()
    }

    /// Looks at the files every so often, and at once on SIGHUP. Runs until dropped.
    pub async fn keep_fresh(self: Arc<Self>) {
        let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok();
        loop {
            let asked = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                _ = asked => tracing::info!("SIGHUP: looking at the certificate's files"),
            }
            let this = self.clone();
            // A disk that hangs must hold up nothing else.
            let _ = tokio::task::spawn_blocking(move || this.look_again()).await;
        }
    }
}

fn print(files: &Files) -> Print {
    [&files.ca, &files.certificate, &files.key].map(|file| {
        let seen = std::fs::metadata(file).ok()?;
        Some((seen.mtime(), seen.mtime_nsec(), seen.len(), seen.ino()))
    })
}

fn fault(file: &Path, what: impl Into<String>, todo: impl Into<String>) -> TlsError {
    TlsError { file: file.to_owned(), what: what.into(), todo: todo.into() }
}

fn bytes(file: &Path) -> Result<Vec<u8>, TlsError> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(file).and_then(|open| open.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    match read {
        Err(error) => Err(fault(file, error.to_string(), "put the file there, readable by this program's user")),
        Ok(_) if bytes.len() as u64 > FILE_BYTES_MAX => {
            Err(fault(file, format!("longer than {FILE_BYTES_MAX} bytes"), "is it the right file?"))
        }
        Ok(_) => Ok(bytes),
    }
}

/// The certificates of a file, one at least.
pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = bytes(file)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match read {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(fault(file, "holds no certificate", "it must be PEM: -----BEGIN CERTIFICATE-----")),
        Err(error) => Err(fault(file, format!("not PEM: {error}"), "it must be PEM: -----BEGIN CERTIFICATE-----")),
    }
}

/// A private key that nobody else may read.
pub(super) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = bytes(file)?;
    let mode = std::fs::metadata(file).map(|seen| seen.permissions().mode() & 0o777).unwrap_or_default();
    if mode & 0o007 != 0 {
        let what =
            format!("holds a private key and has mode {mode:03o}: everybody on this machine may read or change it");
        return Err(fault(file, what, format!("chmod 600 {}", file.display())));
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        let todo = "it must be PEM, not encrypted: -----BEGIN PRIVATE KEY-----";
        fault(file, format!("holds no private key: {error}"), todo)
    })
}

/// Loads and judges the three together, as they would be used at `now`.
///
/// # Errors
/// The first fault.
pub fn load(files: &Files, usage: Use, now: UnixMs) -> Result<Loaded, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.ca)? {
        roots.add(certificate).map_err(|error| {
            fault(&files.ca, format!("holds a certificate that cannot be trusted: {error}"), "name the authority's own")
        })?;
    }
    let roots = Arc::new(roots);
    let chain = certificates(&files.certificate)?;
    let seen = read(&chain[0]).map_err(|what| fault(&files.certificate, what, "issue it again"))?;
    let key = private_key(&files.key)?;
    let (identity, verifier) = judge(files, usage, &chain, &seen, &roots, now)?;
    let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            let what = format!("is not the key of the certificate in {}", files.certificate.display());
            fault(&files.key, what, "put the two files of one issue side by side")
        }
        error => fault(&files.key, format!("cannot be used: {error}"), "issue certificate and key again"),
    })?;
    let own = Arc::new(SingleCertAndKey::from(certified));
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| fault(&files.certificate, error.to_string(), "report this: the build lacks TLS 1.3"))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(own.clone());
    server.alpn_protocols = vec![b"h2".to_vec()];
    // Every connection proves itself anew.
    server.send_tls13_tickets = 0;
    server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Loaded { roots, own, server: Arc::new(server), identity, not_after: seen.not_after })
}

/// The certificate is of the authority, for this use, in its time, and says who it is for.
fn judge(
    files: &Files,
    usage: Use,
    chain: &[CertificateDer<'static>],
    seen: &Seen,
    roots: &Arc<RootCertStore>,
    now: UnixMs,
) -> Result<(Identity, Arc<dyn ClientCertVerifier>), TlsError> {
    let wrong = |what: String, todo: &str| Err(fault(&files.certificate, what, todo));
    let identity = match &seen.identity {
        Ok(identity) => identity.clone(),
        Err(why) => return wrong(why.clone(), "issue it again: watchdogctl cert issue"),
    };
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| fault(&files.ca, format!("cannot be trusted: {error}"), "name the authority's own"))?;
    let at = UnixTime::since_unix_epoch(Duration::from_millis(now.0));
    let served = |_| match usage {
        Use::Call => Ok(()),
        Use::Both => signed_for_serving(chain, roots, at),
    };
    if let Err(error) = verifier.verify_client_cert(&chain[0], &chain[1..], at).and_then(served) {
        let what = match &error {
            rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => {
                format!("the authority in {} did not sign it (it was signed by {:?})", files.ca.display(), seen.issuer)
            }
            rustls::Error::InvalidCertificate(error) => words::of_certificate(error),
            error => error.to_string(),
        };
        return wrong(what, "watchdogctl cert show FILE tells what it says, watchdogctl cert issue makes a new one");
    }
    Ok((identity, verifier))
}

/// A server's certificate of the authority, whomever it names.
pub(super) fn signed_for_serving(
    chain: &[CertificateDer<'_>],
    roots: &RootCertStore,
    at: UnixTime,
) -> Result<(), rustls::Error> {
    let Some((leaf, between)) = chain.split_first() else { return Err(rustls::Error::NoCertificatesPresented) };
    let algorithms = provider().signature_verification_algorithms;
    verify_server_cert_signed_by_trust_anchor(&ParsedCertificate::try_from(leaf)?, roots, between, at, algorithms.all)
}
