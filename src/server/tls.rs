//! TLS: the handshake of a connection, with a certificate that is read again when its files change.
//!
//! TLS 1.2 and 1.3, HTTP/1.1 only (ALPN). Sessions are resumed from memory. Nothing that could resume or decrypt one leaves
//! the process or outlives the certificate: a new certificate starts with no sessions.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::select;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::client::verify_server_cert_signed_by_trust_anchor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{ParsedCertificate, ServerSessionMemoryCache, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{CertificateError, Error, RootCertStore, ServerConfig};

use super::ShutdownStage;
use super::exchange::Application;
use super::socket::Socket;
use crate::bounds;

/// The first byte of a TLS connection: the record type `handshake` (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

/// The first second after the latest end of a certificate (RFC 5280, section 4.1.2.5).
const AFTER_ALL: u64 = 253_402_300_800;

/// The files of a certificate.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    pub certs: PathBuf,
    pub key: PathBuf,
    pub clients: Option<ClientAuthorities>,
}

/// Who signs the certificates of clients.
#[derive(Debug, Clone)]
pub struct ClientAuthorities {
    pub ca_certs: PathBuf,
    /// Whether clients without a certificate are refused.
    pub mandatory: bool,
}

/// Why a file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}`: {why}")]
pub struct InvalidTls {
    /// The setting that names the file.
    pub key: &'static str,
    pub why: String,
}

/// What the files contain.
#[derive(Clone, PartialEq, Eq)]
struct Contents {
    certs: Vec<u8>,
    key: Vec<u8>,
    ca_certs: Option<Vec<u8>>,
}

/// Accepts TLS connections.
#[derive(Clone)]
pub struct Tls(Arc<Parts>);

struct Parts {
    files: TlsFiles,
    /// What the files contained at the start.
    first: Contents,
    current: RwLock<Loaded>,
    expiry: Gauge,
}

/// A certificate in use.
#[derive(Clone)]
struct Loaded {
    config: Arc<ServerConfig>,
    validity: Validity,
}

/// From when until when all certificates of a chain are valid, in seconds since 1970.
#[derive(Clone, Copy)]
struct Validity {
    from: u64,
    until: u64,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, or if certificate and key do not belong together.
    pub fn load(files: TlsFiles) -> Result<Self, InvalidTls> {
        let first = files.read()?;
        let loaded = files.load(&first)?;
        let expiry = Gauge::default();
        expiry.set(loaded.validity.until as i64);
        Ok(Tls(Arc::new(Parts { files, first, current: RwLock::new(loaded), expiry })))
    }

    /// Returns when the certificate in use expires, in seconds since 1970.
    pub fn expiry(&self) -> Gauge {
        self.0.expiry.clone()
    }

    /// Returns a sentence about a certificate that is not valid now. Footfall serves it anyway: its clients decide.
    pub fn warning(&self) -> Option<String> {
        let Validity { from, until } = self.current().validity;
        let now = UnixTime::now().as_secs();
        let what = if now > until {
            format!("expired on {}", date(until))
        } else if now < from {
            format!("is not valid before {}", date(from))
        } else {
            return None;
        };
        Some(format!("`tls.certs`: the certificate in {} {what}", self.0.files.certs.display()))
    }

    fn current(&self) -> Loaded {
        self.0.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Performs the handshake of a connection. Returns `None` if that fails, or if the server ends: the connection is then
    /// closed, also if it takes longer than `within`. `speaks_https` makes the answer to plain HTTP.
    pub(super) async fn accept(
        &self,
        socket: TcpStream,
        remote: SocketAddr,
        application: &Application,
        mut stage: watch::Receiver<ShutdownStage>,
    ) -> Option<Socket> {
        select! {
            socket = self.shake_hands(socket, remote, application) => socket,
            _ = stage.wait_for(|stage| matches!(stage, ShutdownStage::Cutting | ShutdownStage::Ended)) => None,
        }
    }

    async fn shake_hands(&self, socket: TcpStream, remote: SocketAddr, application: &Application) -> Option<Socket> {
        let deadline = Instant::now() + application.limits.deadlines.head;
        let mut first = [0];
        // A client that sends nothing, or leaves, gets no answer.
        let 1.. = timeout_at(deadline, socket.peek(&mut first)).await.ok()?.ok()? else { return None };
        if first[0] != HANDSHAKE {
            let answer = if first[0].is_ascii_alphabetic() { (application.speaks_https)() } else { Vec::new() };
            leave(socket, &answer).await;
            return None;
        }
        let acceptor = TlsAcceptor::from(self.current().config);
        let handshake = acceptor.accept_with(socket, |tls| tls.set_buffer_limit(Some(bounds::TLS_UNSENT_BYTES)));
        match timeout_at(deadline, handshake.into_fallible()).await {
            Ok(Ok(tls)) => Some(Socket::Tls(Box::new(tls))),
            Ok(Err((error, socket))) => {
                tracing::debug!(client.ip = %remote.ip(), error = %error, "TLS handshake failed");
                leave(socket, &[]).await;
                None
            }
            Err(_) => {
                application.metrics.timeouts.get_or_create(&super::HANDSHAKE).inc();
                None
            }
        }
    }

    /// Reads the files again and again until the server ends, and uses what they contain for new connections.
    pub(super) async fn follow(self, mut stage: watch::Receiver<ShutdownStage>) {
        let mut used = Ok(self.0.first.clone());
        let mut changed = None;
        loop {
            select! {
                () = sleep(bounds::TLS_RELOAD) => {}
                _ = stage.wait_for(|stage| *stage != ShutdownStage::Serving) => return,
            }
            let files = self.0.files.clone();
            let Ok(contents) = tokio::task::spawn_blocking(move || files.read()).await else { continue };
            if contents == used {
                changed = None;
                continue;
            }
            // Whoever replaces the files may not have finished: they count when they are the same twice.
            if changed.as_ref() != Some(&contents) {
                changed = Some(contents);
                continue;
            }
            changed = None;
            match contents.clone().and_then(|contents| self.0.files.load(&contents)) {
                Ok(loaded) => {
                    let (certs, until) = (self.0.files.certs.display(), loaded.validity.until);
                    tracing::info!(certs = %certs, until = date(until), "new connections get the changed certificate");
                    self.0.expiry.set(until as i64);
                    *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
                    if let Some(warning) = self.warning() {
                        tracing::warn!("{warning}");
                    }
                }
                Err(error) => {
                    tracing::warn!(error = %error, "the changed certificate cannot be used, the previous one stays");
                }
            }
            used = contents;
        }
    }
}

impl TlsFiles {
    fn read(&self) -> Result<Contents, InvalidTls> {
        let ca_certs = self.clients.as_ref().map(|clients| read("tls.mutual.ca_certs", &clients.ca_certs));
        Ok(Contents {
            certs: read("tls.certs", &self.certs)?,
            key: read("tls.key", &self.key)?,
            ca_certs: ca_certs.transpose()?,
        })
    }

    fn load(&self, contents: &Contents) -> Result<Loaded, InvalidTls> {
        let provider = Arc::new(ring::default_provider());
        let chain = certificates("tls.certs", &self.certs, &contents.certs)?;
        let validity = validity_of(&chain, &provider);
        let certified = CertifiedKey::from_der(chain, self.private_key(&contents.key)?, &provider);
        let certified = certified.map_err(|error| self.unusable(error))?;
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&TLS13, &TLS12]);
        // Cannot fail: the provider has suites for both versions.
        let builder = builder.map_err(|error| invalid("tls.certs", &self.certs, error))?;
        let builder = match (&self.clients, &contents.ca_certs) {
            (Some(clients), Some(ca_certs)) => builder.with_client_cert_verifier(clients.verifier(ca_certs, provider)?),
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.session_storage = ServerSessionMemoryCache::new(bounds::TLS_SESSIONS);
        Ok(Loaded { config: Arc::new(config), validity })
    }

    fn private_key(&self, pem: &[u8]) -> Result<PrivateKeyDer<'static>, InvalidTls> {
        PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
            PemError::NoItemsFound => {
                let is_encrypted = pem.windows(9).any(|word| word == b"ENCRYPTED");
                let found = if is_encrypted { "an encrypted private key" } else { "no private key" };
                let why = format!("{found}; expected one as PKCS#8, PKCS#1 or SEC1 in PEM, not encrypted");
                InvalidTls { key: "tls.key", why: format!("{} has {why}", self.key.display()) }
            }
            other => invalid("tls.key", &self.key, other),
        })
    }

    /// Says which of the two files is wrong.
    fn unusable(&self, error: Error) -> InvalidTls {
        match error {
            Error::InconsistentKeys(_) => InvalidTls {
                key: "tls.key",
                why: format!(
                    "the private key in {} does not belong to the first certificate in {}",
                    self.key.display(),
                    self.certs.display()
                ),
            },
            Error::InvalidCertificate(_) => invalid("tls.certs", &self.certs, error),
            _ => {
                let expected = "expected RSA with 2048 to 8192 bits, ECDSA on P-256 or P-384, or Ed25519";
                let why = format!("cannot use the private key in {}: {expected} ({error})", self.key.display());
                InvalidTls { key: "tls.key", why }
            }
        }
    }
}

impl ClientAuthorities {
    fn verifier(&self, pem: &[u8], provider: Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, InvalidTls> {
        let failed = |error: &dyn std::fmt::Display| invalid("tls.mutual.ca_certs", &self.ca_certs, error);
        let mut roots = RootCertStore::empty();
        for certificate in certificates("tls.mutual.ca_certs", &self.ca_certs, pem)? {
            roots.add(certificate).map_err(|error| failed(&error))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = if self.mandatory { verifier } else { verifier.allow_unauthenticated() };
        verifier.build().map_err(|error| failed(&error))
    }
}

fn invalid(key: &'static str, path: &Path, error: impl std::fmt::Display) -> InvalidTls {
    InvalidTls { key, why: format!("cannot use {}: {error}", path.display()) }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, InvalidTls> {
    std::fs::read(path).map_err(|error| InvalidTls { key, why: format!("cannot read {}: {error}", path.display()) })
}

/// Returns the certificates of a file, at least one.
fn certificates(key: &'static str, path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, InvalidTls> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => {
            Err(InvalidTls { key, why: format!("{} has no certificate in PEM", path.display()) })
        }
        Ok(found) => Ok(found),
        Err(error) => Err(invalid(key, path, error)),
    }
}

/// Returns when all these certificates are valid. rustls tells the end of a certificate only to those who verify it at
/// another time, and looks at the time before it looks for an authority.
fn validity_of(chain: &[CertificateDer<'_>], provider: &CryptoProvider) -> Validity {
    let verified = |certificate: &CertificateDer<'_>, at: u64| {
        let certificate = ParsedCertificate::try_from(certificate)?;
        let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
        let algorithms = provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &RootCertStore::empty(), &[], at, algorithms)
    };
    let mut validity = Validity { from: 0, until: AFTER_ALL - 1 };
    for certificate in chain {
        if let Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) =
            verified(certificate, 0)
        {
            validity.from = validity.from.max(not_before.as_secs());
        }
        if let Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) =
            verified(certificate, AFTER_ALL)
        {
            validity.until = validity.until.min(not_after.as_secs());
        }
    }
    validity
}

fn date(seconds: u64) -> String {
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(AFTER_ALL - 1)))
}

/// Sends `answer` and closes. Closing a socket with unread bytes resets the connection, and the client may lose the answer,
/// or the alert of a failed handshake: they are read first.
async fn leave(mut socket: TcpStream, answer: &[u8]) {
    let rest = async {
        socket.write_all(answer).await?;
        socket.shutdown().await?;
        tokio::io::copy(&mut socket.take(bounds::LINGER_BYTES), &mut tokio::io::sink()).await
    };
    let _: Result<io::Result<u64>, _> = timeout(bounds::LINGER, rest).await; // best effort: the client may be gone
}
