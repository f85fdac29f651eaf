//! The HTTP client of `send` and `tail`: HTTP/1.1 over TCP or TLS, to one server.
//!
//! It makes one attempt for each call and bounds each in time and bytes. The commands decide whether to retry; [`Backoff`]
//! says how long they wait.

use std::error::Error as _;
use std::fmt::{self, Display};
use std::io;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{
    AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, USER_AGENT,
};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// How long a connection may take, its handshake of TLS included.
const CONNECT: Duration = Duration::from_secs(10);

/// How long an answer, or the head of a stream, may take. It is above the server's `ingest.deadline`, 10 s by default.
const ANSWER: Duration = Duration::from_secs(60);

/// The most bytes of an answer.
const ANSWER_BYTES: usize = 16 << 20;

/// The most bytes of a file with a token.
const TOKEN_BYTES: u64 = 16 << 10;

/// How `send` and `tail` reach the server.
#[derive(Args)]
pub struct ClientOptions {
    /// Address of the server, http:// or https://, with its base path if it has one
    #[arg(long, env = "FOOTFALL_URL", hide_env_values = true, default_value = "http://127.0.0.1:8000")]
    url: String,
    /// A header of every request. Other users of the machine can see it: give secrets by --token-file
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// File with a token for `Authorization: Bearer`. Without it the variable FOOTFALL_TOKEN is used, if it is set
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// PEM file of the authorities to trust for https, instead of the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

/// The headers that the command sets itself, so `--header` may not name them.
const OWN_HEADERS: [&str; 8] = [
    "accept",
    "content-encoding",
    "content-length",
    "content-type",
    "idempotency-key",
    "last-event-id",
    "prefer",
    "transfer-encoding",
];

/// The parts of the server's address.
struct Address {
    https: bool,
    host: String,
    port: u16,
    /// For the header `Host`.
    authority: HeaderValue,
    /// The path before that of a route, without a slash at its end.
    base: String,
}

impl Address {
    /// Parses an address. The message does not repeat it, because it may have a password.
    fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || "--url: expected an address such as http://127.0.0.1:8000 or https://footfall.example.com".to_owned();
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().ok_or_else(wrong)?;
        if authority.as_str().contains('@') {
            return Err("--url: expected no user and password in the address: use --token-file".to_owned());
        }
        if uri.query().is_some() {
            return Err("--url: expected an address without a query".to_owned());
        }
        let port = match authority.as_str()[authority.host().len()..].trim_start_matches(':') {
            "" if https => 443,
            "" => 80,
            port => {
                let port = port.parse::<NonZeroU16>();
                port.map_err(|_| "--url: expected a port between 1 and 65535".to_owned())?.get()
            }
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Address {
            https,
            host: Some(host).filter(|host| !host.is_empty()).ok_or_else(wrong)?,
            port,
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_| wrong())?,
            base: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}{}", self.host, self.port, self.base)
    }
}

/// Parses a header. The message does not repeat it, because it may have a secret.
fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let parsed = text.split_once(':').and_then(|(name, value)| {
        let mut value = HeaderValue::from_str(value.trim()).ok()?;
        value.set_sensitive(true);
        Some((name.trim().parse::<HeaderName>().ok()?, value))
    });
    let header = parsed.ok_or("--header: expected a name, a colon and a value, such as 'X-Tenant: shop'")?;
    match OWN_HEADERS.contains(&header.0.as_str()) {
        true => Err(format!("--header: the command sets {} itself", header.0)),
        false => Ok(header),
    }
}

/// A client of one server. It keeps connections for later requests.
pub struct Client {
    address: Address,
    headers: HeaderMap,
    tls: Option<TlsConnector>,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

/// The answer to a request.
pub struct Answer {
    pub status: StatusCode,
    /// How long the server asks the client to wait.
    pub retry_after: Option<Duration>,
    /// Where a redirect leads.
    location: Option<String>,
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    #[error("cannot connect to {server}: {why}")]
    Connect { server: String, why: String },
    #[error("the connection broke: {0}")]
    Broken(String),
    #[error("no answer within {} s", ANSWER.as_secs())]
    TooLate,
}

impl Client {
    /// Checks the options and reads their files.
    ///
    /// # Errors
    ///
    /// A sentence, if a value is wrong or a file cannot be used.
    pub fn new(options: ClientOptions) -> Result<Self, String> {
        let ClientOptions { url, headers: given, token_file, ca_file } = options;
        let url = Address::parse(&url)?;
        let mut headers = HeaderMap::new();
        headers.insert(HOST, url.authority.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("footfall/", env!("CARGO_PKG_VERSION"))));
        if let Some(token) = token(token_file.as_deref())? {
            headers.insert(AUTHORIZATION, token);
        }
        let mut seen = Vec::new();
        for text in given {
            let (name, value) = header(&text)?;
            match seen.contains(&name) {
                true => headers.append(name.clone(), value),
                false => headers.insert(name.clone(), value).is_some(),
            };
            seen.push(name);
        }
        let tls = if url.https { Some(tls(ca_file.as_deref())?) } else { None };
        Ok(Client { address: url, headers, tls, idle: Mutex::default() })
    }

    /// Returns the server's address in one spelling.
    pub fn server(&self) -> String {
        self.address.to_string()
    }

    /// Posts a body and returns the whole answer.
    pub async fn post(&self, target: &str, headers: &[(HeaderName, &str)], body: Bytes) -> Result<Answer, NoAnswer> {
        let mut connection = self.connection().await?;
        let exchange = async {
            let response = self.exchange(&mut connection, Method::POST, target, headers, body).await?;
            answer(response).await
        };
        let answer = timeout(ANSWER, exchange).await.unwrap_or(Err(NoAnswer::TooLate))?;
        self.idle().push(connection);
        Ok(answer)
    }

    /// Requests Server-Sent Events. Any other answer is returned as a whole, one of 200 without its body.
    pub async fn stream(
        &self,
        target: &str,
        headers: &[(HeaderName, &str)],
    ) -> Result<Result<Incoming, Answer>, NoAnswer> {
        let mut connection = self.connect().await?;
        let exchange = async {
            let response = self.exchange(&mut connection, Method::GET, target, headers, Bytes::new()).await?;
            if response.status() != StatusCode::OK {
                return Ok(Err(answer(response).await?));
            }
            let content_type = response.headers().get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
            let expected = b"text/event-stream";
            if content_type.get(..expected.len()).is_some_and(|start| start.eq_ignore_ascii_case(expected)) {
                return Ok(Ok(response.into_body()));
            }
            Ok(Err(Answer { status: StatusCode::OK, retry_after: None, location: None, body: Bytes::new() }))
        };
        timeout(ANSWER, exchange).await.unwrap_or(Err(NoAnswer::TooLate))
    }

    async fn exchange(
        &self,
        connection: &mut SendRequest<Full<Bytes>>,
        method: Method,
        target: &str,
        headers: &[(HeaderName, &str)],
        body: Bytes,
    ) -> Result<Response<Incoming>, NoAnswer> {
        let broken = |why: &dyn Display| NoAnswer::Broken(why.to_string());
        let target = format!("{}{target}", self.address.base);
        let mut request =
            Request::builder().method(method).uri(target).body(Full::new(body)).map_err(|e| broken(&e))?;
        *request.headers_mut() = self.headers.clone();
        for (name, value) in headers {
            request.headers_mut().insert(name, HeaderValue::from_str(value).map_err(|e| broken(&e))?);
        }
        connection.send_request(request).await.map_err(|error| broken(&causes(&error)))
    }

    /// Returns a connection that is open, or a new one.
    async fn connection(&self) -> Result<SendRequest<Full<Bytes>>, NoAnswer> {
        loop {
            let Some(mut connection) = self.idle().pop() else { return self.connect().await };
            if connection.ready().await.is_ok() {
                return Ok(connection);
            }
        }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, NoAnswer> {
        let failed = |why: &dyn Display| NoAnswer::Connect {
            server: format!("{}:{}", self.address.host, self.address.port),
            why: why.to_string(),
        };
        let connect = async {
            let socket = TcpStream::connect((&*self.address.host, self.address.port)).await.map_err(|e| failed(&e))?;
            let _ = socket.set_nodelay(true); // without it only slower
            let Some(tls) = &self.tls else { return speak(socket).await.map_err(|e| failed(&causes(&e))) };
            let name = ServerName::try_from(self.address.host.clone()).map_err(|e| failed(&e))?;
            let socket = tls.connect(name, socket).await.map_err(|e| failed(&e))?;
            speak(socket).await.map_err(|e| failed(&causes(&e)))
        };
        timeout(CONNECT, connect).await.unwrap_or_else(|_| Err(failed(&format!("no answer within {CONNECT:?}"))))
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<SendRequest<Full<Bytes>>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads an answer to its end.
async fn answer(response: Response<Incoming>) -> Result<Answer, NoAnswer> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_BYTES).collect().await;
    let body = body.map_err(|error| NoAnswer::Broken(error.to_string()))?.to_bytes();
    let location = head.headers.get(LOCATION).map(|to| String::from_utf8_lossy(to.as_bytes()).into_owned());
    Ok(Answer { status: head.status, retry_after: retry_after(&head.headers), location, body })
}

/// Starts HTTP on a socket. A task of its own serves the connection until it closes.
async fn speak<S>(socket: S) -> hyper::Result<SendRequest<Full<Bytes>>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (requests, connection) = http1::handshake(TokioIo::new(socket)).await?;
    tokio::spawn(connection); // its errors are those of the requests
    Ok(requests)
}

/// Returns an error's text with those of its causes.
fn causes(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Returns the header with the token of the file, or else of the variable.
fn token(file: Option<&Path>) -> Result<Option<HeaderValue>, String> {
    let (token, origin) = match file {
        Some(file) => (Some(read(file, TOKEN_BYTES)?), file.display().to_string()),
        None => (std::env::var_os("FOOTFALL_TOKEN").map(|token| token.into_encoded_bytes()), "FOOTFALL_TOKEN".into()),
    };
    let Some(token) = token.filter(|token| file.is_some() || !token.is_empty()) else { return Ok(None) };
    let text = [b"Bearer ", token.trim_ascii()].concat();
    let mut header = match HeaderValue::from_bytes(&text) {
        Ok(header) if text.len() > b"Bearer ".len() => header,
        _ => return Err(format!("{origin} has no token: expected one line of text")),
    };
    header.set_sensitive(true);
    Ok(Some(header))
}

/// Reads a file of at most this many bytes.
fn read(file: &Path, most: u64) -> Result<Vec<u8>, String> {
    use io::Read;
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).and_then(|opened| opened.take(most + 1).read_to_end(&mut bytes));
    opened.map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    match bytes.len() as u64 <= most {
        true => Ok(bytes),
        false => Err(format!("{} is too large: expected at most {most} bytes", file.display())),
    }
}

/// Returns a connector for TLS 1.2 and 1.3 that trusts the authorities in the file, or without one those of the system.
fn tls(ca_file: Option<&Path>) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(file) => {
            let wrong = |why: &dyn Display| format!("cannot use the certificates in {}: {why}", file.display());
            for certificate in CertificateDer::pem_file_iter(file).map_err(|error| wrong(&error))? {
                let certificate = certificate.map_err(|error| wrong(&error))?;
                roots.add(certificate).map_err(|error| wrong(&error))?;
            }
            if roots.is_empty() {
                return Err(wrong(&"there are none"));
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err("the system has no certificates of authorities: name a file with --ca-file".to_owned());
            }
        }
    }
    let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = config.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Whether the same request may succeed later.
pub fn is_retryable(status: StatusCode) -> bool {
    match status.as_u16() {
        408 | 425 | 429 => true,
        501 | 505 => false, // the server cannot do that at all
        _ => status.is_server_error(),
    }
}

/// What an answer that is not a success says: its status, and the `detail` of a problem.
pub fn explain(answer: &Answer) -> String {
    #[derive(serde::Deserialize)]
    struct Problem {
        detail: String,
    }
    if let (true, Some(location)) = (answer.status.is_redirection(), &answer.location) {
        let status = answer.status.as_u16();
        return format!("the server answered {status} and refers to {}: name that server by --url", OneLine(location));
    }
    match serde_json::from_slice::<Problem>(&answer.body) {
        Ok(Problem { detail }) => format!("the server answered {}: {}", answer.status.as_u16(), OneLine(&detail)),
        Err(_) => format!("the server answered {}", answer.status),
    }
}

/// Text of a server, with its control characters escaped.
pub struct OneLine<'a>(pub &'a str);

impl Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for c in self.0.chars() {
            match c.is_control() {
                true => write!(f, "{}", c.escape_default())?,
                false => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// How long to wait before the next attempt: 100 ms, then twice as long each time up to 5 s, less up to a half by chance.
#[derive(Default)]
pub struct Backoff(u32);

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(5);
    /// The longest `Retry-After` that is kept.
    const LONGEST_ASKED: Duration = Duration::from_secs(60);

    /// Returns the next wait, which is at least as long as the server asks for.
    pub fn next(&mut self, retry_after: Option<Duration>) -> Duration {
        let wait = (Self::FIRST * 2_u32.pow(self.0.min(10))).min(Self::LONGEST);
        self.0 += 1;
        let wait = wait.mul_f64(1.0 - fastrand::f64() / 2.0);
        wait.max(retry_after.unwrap_or_default().min(Self::LONGEST_ASKED))
    }

    /// Makes the next wait the first one again, after a success.
    pub fn reset(&mut self) {
        self.0 = 0;
    }
}
