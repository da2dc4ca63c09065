//! The side that calls: connections to whom was meant, or none.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::Uri;
use tower::Service;

use super::listen::Stream;
use super::material::{Material, provider, signed_for_serving};
use super::read::read;
use super::words::{self, NotWhoWasCalled};
use crate::domain::identity::Kind;
use crate::domain::ids::{ClusterName, HostName, NodeName};

/// Of the other side's first words so many are read before the connection counts, bytes.
const FIRST_BYTES_MAX: usize = 256;

/// Who must answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expect {
    kind: Kind,
    /// The caller's own cluster, where it knows one.
    cluster: Option<ClusterName>,
    /// The name, where the caller knows it.
    name: Option<String>,
}

impl Expect {
    /// That node; any node of the cluster, where the name is not known; of any cluster that the authority knows, where
    /// not even that is.
    pub fn node(cluster: Option<&ClusterName>, name: Option<&NodeName>) -> Self {
        Self { kind: Kind::Node, cluster: cluster.cloned(), name: name.map(|name| name.0.clone()) }
    }

    /// The guard of that host.
    pub fn guard(cluster: &ClusterName, host: &HostName) -> Self {
        Self { kind: Kind::Guard, cluster: Some(cluster.clone()), name: Some(host.0.clone()) }
    }

    /// A certificate of ours must say who was called, one without URIs must name it, or the host that was dialled.
    fn judge(&self, leaf: &CertificateDer<'_>, host: &ServerName<'_>) -> Result<(), rustls::Error> {
        let wrong = |what: String| {
            let other = OtherError(Arc::new(NotWhoWasCalled(what)));
            rustls::Error::InvalidCertificate(CertificateError::Other(other))
        };
        let identity = read(leaf).and_then(|seen| seen.identity).map_err(wrong)?;
        let todo = "correct the address, or the certificate there";
        if let Some((cluster, kind, name)) = identity.parts() {
            let is_cluster = self.cluster.as_ref().is_none_or(|known| known.as_str() == cluster);
            let is_name = self.name.as_ref().is_none_or(|known| known == name);
            if is_cluster && is_name && kind == self.kind {
                return Ok(());
            }
            return Err(wrong(format!("it is {identity}, and {self} was called: {todo}")));
        }
        if let (Some(wanted), Some(named)) = (&self.name, identity.plain_name()) {
            let it_is = |text: &str| wrong(format!("it is {text}, and {self} was called: {todo}"));
            return if wanted == named { Ok(()) } else { Err(it_is(identity.as_str())) };
        }
        verify_server_name(&ParsedCertificate::try_from(leaf)?, host).map_err(|_| {
            wrong(format!("it is {identity}, and does not name the host that was dialled, {}: {todo}", host.to_str()))
        })
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = self.cluster.as_ref().map(|cluster| format!(" of cluster {cluster}")).unwrap_or_default();
        match (self.kind, &self.name) {
            (Kind::Guard, Some(name)) => write!(f, "the guard of {name}{of}"),
            (kind, Some(name)) => write!(f, "{} {name}{of}", kind.word()),
            (kind, None) => write!(f, "a {}{of}", kind.word()),
        }
    }
}

/// Makes connections, all alike.
#[derive(Clone)]
pub enum Dialer {
    /// Plain text: to loopback only, whoever answers.
    Plain,
    /// By TLS, with this certificate.
    Tls(Arc<Material>),
}

impl Dialer {
    /// Of a program that has a certificate, or none.
    pub fn of(material: Option<Arc<Material>>) -> Self {
        material.map_or(Dialer::Plain, Dialer::Tls)
    }

    /// For `Endpoint::connect_with_connector`: give the endpoint an `http://` address, the connection is by TLS all the
    /// same. The endpoint's own time limit for connecting bounds the whole of it.
    pub fn to(&self, expect: Expect) -> Connector {
        Connector { dialer: self.clone(), expect: Arc::new(expect) }
    }
}

/// Connects to one address after another, and expects the same there.
#[derive(Clone)]
pub struct Connector {
    dialer: Dialer,
    expect: Arc<Expect>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { dialer, expect } = self.clone();
        Box::pin(async move { connect(&dialer, expect, &uri).await.map(TokioIo::new) })
    }
}

async fn connect(dialer: &Dialer, expect: Arc<Expect>, uri: &Uri) -> io::Result<Stream> {
    let no_address = || io::Error::other(format!("{uri} has no host and port"));
    let authority = uri.authority().ok_or_else(no_address)?;
    let tcp = TcpStream::connect(authority.as_str()).await?;
    tcp.set_nodelay(true)?;
    let Dialer::Tls(material) = dialer else { return Ok(Stream::plain(tcp)) };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let host = ServerName::try_from(host.to_owned()).map_err(|_| no_address())?;
    let loaded = material.current();
    let verifier =
        Verifier { roots: loaded.roots.clone(), algorithms: provider().signature_verification_algorithms, expect };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(loaded.own.clone());
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    match taken(TlsConnector::from(Arc::new(config)), host, tcp).await {
        Ok(stream) => Ok(stream),
        Err(error) => match words::of_call(&error) {
            Some(said) => Err(io::Error::other(NotConnected(said))),
            None => Err(error),
        },
    }
}

/// A connection that the other side has taken. For the caller TLS 1.3 is over before the other side has looked at its
/// certificate; an HTTP/2 server speaks first (RFC 9113, 3.4), or it says what is wrong.
async fn taken(connector: TlsConnector, host: ServerName<'static>, tcp: TcpStream) -> io::Result<Stream> {
    let mut stream = connector.connect(host, tcp).await?;
    let mut first = BytesMut::with_capacity(FIRST_BYTES_MAX);
    if stream.read_buf(&mut first).await? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other side hung up after the TLS handshake"));
    }
    Ok(Stream::called(stream, first.freeze()))
}

/// Why TLS came to nothing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotConnected(String);

/// Why a call failed, with what TLS has to say about it.
pub fn why(error: &(dyn std::error::Error + 'static)) -> String {
    let innermost = words::innermost(error);
    words::of_call(error).or_else(|| words::of_text(&innermost)).unwrap_or(innermost)
}

/// The authority's signature, the time and the use by rustls' own verifier; whom it names by [`Expect`].
#[derive(Debug)]
struct Verifier {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
    expect: Arc<Expect>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain: Vec<CertificateDer<'_>> = std::iter::once(leaf).chain(between).cloned().collect();
        signed_for_serving(&chain, &self.roots, now)?;
        self.expect.judge(leaf, host)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
