//! TLS from outside: authorities, certificates in files, clients, and a tunnel through which every other client of the tests
//! reaches a server of HTTPS.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, PKCS_RSA_SHA256,
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion, version,
};

use super::wait::PATIENCE;

/// An RSA key of 2048 bits as PKCS#8: nothing here can generate one.
const RSA: &str = include_str!("rsa.pem");

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// A certificate and its private key, in PEM.
#[derive(Clone)]
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for `localhost` and 127.0.0.1, for a server and a client.
    pub fn identity(&self) -> Identity {
        self.identity_with(KeyPair::generate().expect("a key"), |_| {})
    }

    pub fn identity_of_rsa(&self) -> Identity {
        let key = KeyPair::from_pkcs8_pem_and_sign_algo(RSA, &PKCS_RSA_SHA256).expect("a key");
        self.identity_with(key, |_| {})
    }

    pub fn identity_with(&self, key: KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// A client that trusts this authority only.
    pub fn client(&self) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("PEM")).expect("a certificate");
        Client {
            roots: Arc::new(roots),
            versions: vec![&version::TLS13, &version::TLS12],
            alpn: vec![],
            identity: None,
        }
    }
}

impl Identity {
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("PEM")
    }

    /// The key inside of PKCS#8 (RFC 5208, section 5), as a PEM section of this kind.
    pub fn traditional_key(&self, kind: &str) -> String {
        let PrivateKeyDer::Pkcs8(key) = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("PEM") else {
            panic!("not PKCS#8")
        };
        let (whole, _) = element(key.secret_pkcs8_der());
        let (_version, rest) = element(whole);
        let (_algorithm, rest) = element(rest);
        let (inner, _) = element(rest);
        format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", BASE64.encode(inner))
    }
}

/// Splits DER into the content of its first element and the rest.
fn element(der: &[u8]) -> (&[u8], &[u8]) {
    let (header, length) = match der[1] {
        short @ ..0x80 => (2, usize::from(short)),
        long => {
            let bytes = usize::from(long & 0x7f);
            (2 + bytes, der[2..2 + bytes].iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
        }
    };
    (&der[header..header + length], &der[header + length..])
}

/// The files of a certificate, replaced as Kubernetes replaces those of a secret: by one rename of a link to their folder.
pub struct Files {
    folder: TempDir,
}

impl Files {
    pub fn with(identity: &Identity) -> Self {
        let files = Files { folder: TempDir::with_prefix("footfall-tls-").expect("a temporary folder") };
        for name in ["certs.pem", "key.pem", "ca.pem"] {
            symlink(format!("..data/{name}"), files.folder.path().join(name)).expect("a link");
        }
        files.replace(identity);
        files
    }

    pub fn replace(&self, identity: &Identity) {
        self.replace_all(&[("certs.pem", &identity.certificate), ("key.pem", &identity.key)]);
    }

    /// Replaces all files by these.
    pub fn replace_all(&self, files: &[(&str, &str)]) {
        let version = TempDir::with_prefix_in("..", self.folder.path()).expect("a temporary folder").keep();
        for (name, text) in files {
            std::fs::write(version.join(name), text).expect("a file");
        }
        let link = self.folder.path().join("..data_tmp");
        symlink(&version, &link).expect("a link");
        std::fs::rename(&link, self.folder.path().join("..data")).expect("a link");
    }

    pub fn path(&self, name: &str) -> String {
        let path: PathBuf = self.folder.path().join(name);
        path.to_str().expect("UTF-8").to_owned()
    }
}

/// How a client connects.
#[derive(Clone)]
pub struct Client {
    roots: Arc<RootCertStore>,
    versions: Vec<&'static SupportedProtocolVersion>,
    alpn: Vec<Vec<u8>>,
    identity: Option<Identity>,
}

pub type Connected = StreamOwned<ClientConnection, TcpStream>;

impl Client {
    pub fn version(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.versions = vec![version];
        self
    }

    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        self.alpn = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        self
    }

    pub fn identity(mut self, identity: &Identity) -> Self {
        self.identity = Some(identity.clone());
        self
    }

    /// The configuration, with a memory of sessions.
    pub fn config(&self) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(&self.versions).expect("versions");
        let builder = builder.with_root_certificates(self.roots.clone());
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("PEM");
                builder.with_client_auth_cert(vec![identity.der()], key).expect("a certificate and its key")
            }
        };
        config.alpn_protocols = self.alpn.clone();
        Arc::new(config)
    }

    /// Connects with a handshake that succeeds on this side.
    #[track_caller]
    pub fn connect(&self, server: SocketAddr) -> Connected {
        connect(&self.config(), server).unwrap_or_else(|error| panic!("no TLS connection: {error}"))
    }
}

/// Connects. In TLS 1.3 a server that refuses the client's certificate says so in the first read.
pub fn connect(config: &Arc<ClientConfig>, server: SocketAddr) -> io::Result<Connected> {
    let mut socket = TcpStream::connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let name = ServerName::IpAddress(server.ip().into());
    let mut tls = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
    while tls.is_handshaking() {
        tls.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(tls, socket))
}

/// Sends a request and reads to the end of the connection. An end without `close_notify` is an error.
pub fn exchange(connection: &mut Connected, request: &str) -> io::Result<String> {
    connection.write_all(request.as_bytes())?;
    connection.flush()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A request whose connection is closed after the answer.
pub fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

/// Takes plain connections and makes a TLS connection for each.
pub struct Tunnel {
    pub address: SocketAddr,
    _end: oneshot::Sender<()>,
}

impl Tunnel {
    pub fn to(server: SocketAddr, client: &Client) -> Self {
        let (end, ended) = oneshot::channel::<()>();
        let connector = TlsConnector::from(client.config());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        let accept = async move {
            while let Ok((mut plain, _)) = listener.accept().await {
                let connector = connector.clone();
                tokio::spawn(async move {
                    let socket = tokio::net::TcpStream::connect(server).await?;
                    plain.set_nodelay(true)?;
                    socket.set_nodelay(true)?;
                    let name = ServerName::IpAddress(server.ip().into());
                    let mut tls = connector.connect(name, socket).await?;
                    tokio::io::copy_bidirectional(&mut plain, &mut tls).await
                });
            }
        };
        std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept => {}
                    _ = ended => {}
                }
            });
        });
        Tunnel { address, _end: end }
    }
}
