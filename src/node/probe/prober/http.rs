//! HTTP probes: a GET request, and those that its redirects ask for.
//!
//! In: a probe. Out: success if the last status is 200 to 299, success with a warning if it is 300 to 399, else the
//! message that the kubelet has for it (`pkg/probe/http/http.go`, which uses Go's `net/http`). Redirects to the same
//! host are followed, also to another port or scheme.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, Uri};
use http::{Request, StatusCode, Version};
use http_body_util::Full;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout_at;
use tokio_rustls::TlsConnector;
use url::Url;

use super::Prober;
use super::connect::{ProbeConnectError, ProbeConnector};
use super::exchange::{ProbeExchange, ProbeProtocol};
use crate::aci::probe::{HttpGetProbe, ProbeScheme};
use crate::node::probe::outcome::{ProbeAnswer, ProbeOutcome};

/// The longest part of a body that is read, in bytes: `maxRespBodyLength` of the kubelet.
const MAX_BODY: usize = 10 << 10;
/// How many requests a probe sends at most: Go stops after 10 redirects.
const MAX_REQUESTS: usize = 10;
/// The longest URL in a message, in bytes.
const MAX_SHOWN_URL: usize = 512;
/// Go's words when the app does not speak TLS.
pub(super) const NOT_TLS: &str = "http: server gave HTTP response to HTTPS client";
/// Go's words when the timeout is over before the head of the answer.
const NO_HEAD: &str = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
/// Go's words when it is over before the end of the body.
const NO_BODY: &str =
    "context deadline exceeded (Client.Timeout or context cancellation while reading body)";

/// One request of a probe.
struct ProbeHop {
    scheme: ProbeScheme,
    port: u16,
    /// The URL up to the path.
    origin: String,
    /// The path and query.
    target: String,
    /// The value of the header `Host`.
    host_header: HeaderValue,
    referer: Option<HeaderValue>,
}

impl ProbeHop {
    fn first(connector: &ProbeConnector, get: &HttpGetProbe) -> Result<Self, String> {
        let scheme = match get.scheme {
            ProbeScheme::Http | ProbeScheme::H2c => "http",
            ProbeScheme::Https => "https",
        };
        let authority = format!("{}:{}", connector.pod_host(), get.port);
        Ok(Self {
            scheme: get.scheme,
            port: get.port,
            origin: format!("{scheme}://{authority}"),
            target: get.target.to_string(),
            host_header: match &get.host_header {
                Some(given) => given.clone(),
                None => host_header(&authority)?,
            },
            referer: None,
        })
    }

    fn url(&self) -> String {
        format!("{}{}", self.origin, self.target)
    }

    /// The request after a redirect to `location`; `None` if it leads to another host.
    fn next(&self, location: &str) -> Result<Option<Self>, String> {
        let unreadable = |error: url::ParseError| {
            format!(
                "failed to parse Location header \"{}\": {error}",
                shown(location)
            )
        };
        let base = Url::parse(&self.url()).map_err(unreadable)?;
        let to = base.join(location).map_err(unreadable)?;
        if to.host_str() != base.host_str() {
            return Ok(None);
        }
        let is_same_scheme = to.scheme() == base.scheme();
        let (scheme, port) = match to.scheme() {
            "http" if is_same_scheme => (self.scheme, 80),
            "http" => (ProbeScheme::Http, 80),
            "https" => (ProbeScheme::Https, 443),
            other => return Err(format!("unsupported protocol scheme \"{other}\"")),
        };
        let is_relative = Url::parse(location) == Err(url::ParseError::RelativeUrlWithoutBase);
        // Without a user name and a password, which `to.authority()` has.
        let mut authority = to.host_str().unwrap_or_default().to_owned();
        if let Some(port) = to.port() {
            authority = format!("{authority}:{port}");
        }
        let host_header = if is_relative {
            self.host_header.clone()
        } else {
            host_header(&authority)?
        };
        // A page behind TLS is not named to one that is not.
        let may_name = !(base.scheme() == "https" && to.scheme() == "http");
        let target = match to.query() {
            Some(query) => format!("{}?{query}", to.path()),
            None => to.path().to_owned(),
        };
        Ok(Some(Self {
            scheme,
            port: to.port().unwrap_or(port),
            origin: format!("{}://{authority}", to.scheme()),
            target,
            host_header,
            referer: HeaderValue::from_str(&self.url()).ok().filter(|_| may_name),
        }))
    }

    fn request(
        &self,
        prober: &Prober,
        headers: &HeaderMap,
        protocol: ProbeProtocol,
    ) -> http::Result<Request<Full<Bytes>>> {
        let mut all = headers.clone();
        set_defaults(&mut all, &prober.user_agent);
        if let Some(referer) = &self.referer {
            all.entry(header::REFERER).or_insert(referer.clone());
        }
        let uri = match protocol {
            ProbeProtocol::Http1 => {
                close(&mut all);
                all.insert(header::HOST, self.host_header.clone());
                Uri::try_from(self.target.as_str())?
            }
            ProbeProtocol::Http2 => {
                for name in [header::CONNECTION, header::UPGRADE, header::TE] {
                    all.remove(name);
                }
                let scheme = self.origin.split_once(':');
                Uri::builder()
                    .scheme(scheme.map_or("http", |(scheme, _)| scheme))
                    .authority(Authority::try_from(self.host_header.as_bytes())?)
                    .path_and_query(self.target.as_str())
                    .build()?
            }
        };
        let mut request = Request::get(uri);
        if protocol == ProbeProtocol::Http2 {
            request = request.version(Version::HTTP_2);
        }
        let mut request = request.body(Full::default())?;
        *request.headers_mut() = all;
        Ok(request)
    }
}

fn host_header(authority: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(authority).map_err(|_| format!("invalid host \"{}\"", shown(authority)))
}

/// A URL for a message: without a user name and a password, and no longer than the reason after it allows.
fn shown(url: &str) -> String {
    let has_user = |url: &Url| !url.username().is_empty() || url.password().is_some();
    let mut text = url.to_owned();
    if let Some(mut parsed) = Url::parse(url).ok().filter(has_user) {
        // It fails only for URLs without a host, which have no user.
        let _ = parsed.set_username("");
        let _ = parsed.set_password(None);
        text = parsed.into();
    }
    if text.len() > MAX_SHOWN_URL {
        text.truncate(text.floor_char_boundary(MAX_SHOWN_URL));
        text.push_str("...");
    }
    text
}

/// Adds `User-Agent` and `Accept`, unless the probe has them; one with an empty value is left out.
fn set_defaults(headers: &mut HeaderMap, user_agent: &HeaderValue) {
    let mut set = |name: HeaderName, default: HeaderValue| match headers.get(&name) {
        None => {
            headers.insert(name, default);
        }
        Some(value) if value.is_empty() => {
            headers.remove(name);
        }
        Some(_) => {}
    };
    set(header::USER_AGENT, user_agent.clone());
    set(header::ACCEPT, HeaderValue::from_static("*/*"));
}

/// Says that the connection ends with the answer, unless the probe asks to switch protocols.
fn close(headers: &mut HeaderMap) {
    let mut values = headers.get_all(header::CONNECTION).iter();
    let switches = |value: &HeaderValue| {
        let value = value.to_str().unwrap_or_default();
        value.to_ascii_lowercase().contains("upgrade")
    };
    if !values.any(switches) {
        headers.append(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Why there is no head of an answer.
enum ProbeHttpError {
    Connect(ProbeConnectError),
    /// In the words of Go, without the URL.
    Message(String),
}

/// Go's words for a connection that could not be opened.
fn not_connected(url: &str, why: &str) -> String {
    let late = if why.ends_with("i/o timeout") {
        " (Client.Timeout exceeded while awaiting headers)"
    } else {
        ""
    };
    format!("Get \"{}\": {why}{late}", shown(url))
}

/// Why there is no answer, and the URL that was asked.
pub(super) struct ProbeFetchError {
    url: String,
    why: ProbeHttpError,
}

impl ProbeFetchError {
    fn message(url: &str, why: &str) -> Self {
        Self {
            url: url.to_owned(),
            why: ProbeHttpError::Message(why.to_owned()),
        }
    }

    /// The reason, in the words of Go, without the URL.
    pub fn why(&self) -> &str {
        match &self.why {
            ProbeHttpError::Message(why)
            | ProbeHttpError::Connect(ProbeConnectError::Answered(why)) => why,
            ProbeHttpError::Connect(ProbeConnectError::Unreachable(why)) => why.message(),
        }
    }
}

/// Sends a probe.
pub(super) async fn probe(
    prober: &Prober,
    connector: &ProbeConnector,
    get: &HttpGetProbe,
) -> ProbeAnswer {
    match fetch(prober, connector, get).await {
        Ok(mut exchange) => read(connector, &mut exchange).await,
        Err(ProbeFetchError { url, why }) => match why {
            ProbeHttpError::Message(why) => {
                let message = format!("Get \"{}\": {why}", shown(&url));
                connector.answer(ProbeOutcome::Failure(message))
            }
            ProbeHttpError::Connect(error) => {
                connector.failed(error, |why| not_connected(&url, &why))
            }
        },
    }
}

/// Sends a request and those that its redirects ask for. Returns the last answer, whose body is not read yet.
pub(super) async fn fetch(
    prober: &Prober,
    connector: &ProbeConnector,
    get: &HttpGetProbe,
) -> Result<ProbeExchange, ProbeFetchError> {
    let first = ProbeHop::first(connector, get);
    let mut hop = first.map_err(|why| ProbeFetchError::message("", &why))?;
    for sent in 1.. {
        let url = hop.url();
        let exchanged = exchange(prober, connector, &hop, &get.headers);
        let exchange = match timeout_at(connector.deadline, exchanged).await {
            Ok(Ok(exchange)) => exchange,
            Ok(Err(why)) => return Err(ProbeFetchError { url, why }),
            Err(_) => return Err(ProbeFetchError::message(&url, NO_HEAD)),
        };
        let location = location(&exchange);
        let next = location.as_deref().map(|location| hop.next(location));
        let next = next.transpose();
        let next = next.map_err(|why| ProbeFetchError::message(&url, &why))?;
        let Some(next) = next.flatten() else {
            return Ok(exchange);
        };
        if sent == MAX_REQUESTS {
            let location = location.unwrap_or_default();
            return Err(ProbeFetchError::message(
                &location,
                "stopped after 10 redirects",
            ));
        }
        hop = next;
    }
    unreachable!("the loop returns after the last request")
}

/// Where a redirect leads; `None` if the answer is not a redirect.
fn location(exchange: &ProbeExchange) -> Option<String> {
    let head = exchange.head();
    let is_redirect = matches!(head.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = head
        .headers()
        .get(header::LOCATION)
        .filter(|_| is_redirect)?;
    let location = String::from_utf8_lossy(location.as_bytes()).into_owned();
    Some(location).filter(|location| !location.is_empty())
}

async fn exchange(
    prober: &Prober,
    connector: &ProbeConnector,
    hop: &ProbeHop,
    headers: &HeaderMap,
) -> Result<ProbeExchange, ProbeHttpError> {
    let stream = connector.connect(hop.port).await;
    let stream = stream.map_err(ProbeHttpError::Connect)?;
    let request = |protocol| {
        let request = hop.request(prober, headers, protocol);
        request.map_err(|error| ProbeHttpError::Message(error.to_string()))
    };
    let sent = match hop.scheme {
        ProbeScheme::Https => return exchange_tls(prober, connector, stream, request).await,
        ProbeScheme::Http => {
            let protocol = ProbeProtocol::Http1;
            ProbeExchange::send(stream, protocol, request(protocol)?).await
        }
        ProbeScheme::H2c => {
            let protocol = ProbeProtocol::Http2;
            ProbeExchange::send(stream, protocol, request(protocol)?).await
        }
    };
    sent.map_err(|error| ProbeHttpError::Message(http_error_message(&error)))
}

async fn exchange_tls(
    prober: &Prober,
    connector: &ProbeConnector,
    stream: TcpStream,
    request: impl Fn(ProbeProtocol) -> Result<Request<Full<Bytes>>, ProbeHttpError>,
) -> Result<ProbeExchange, ProbeHttpError> {
    let name = ServerName::from(connector.pod());
    let tls = TlsConnector::from(prober.tls.clone());
    let stream = tls.connect(name, stream).await;
    let stream = stream.map_err(|error| ProbeHttpError::Message(tls_error_message(&error)))?;
    let protocol = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => ProbeProtocol::Http2,
        _ => ProbeProtocol::Http1,
    };
    let sent = ProbeExchange::send(stream, protocol, request(protocol)?).await;
    sent.map_err(|error| ProbeHttpError::Message(http_error_message(&error)))
}

/// Reads the body and judges the status. A probe whose body does not arrive does not count, as with the kubelet.
async fn read(connector: &ProbeConnector, exchange: &mut ProbeExchange) -> ProbeAnswer {
    let status = exchange.head().status();
    let body = match timeout_at(connector.deadline, exchange.read(MAX_BODY)).await {
        Ok(Ok((body, _, _))) => body,
        Ok(Err(error)) => {
            return connector.answer(ProbeOutcome::Errored(http_error_message(&error)));
        }
        Err(_) => return connector.answer(ProbeOutcome::Errored(NO_BODY.to_owned())),
    };
    connector.answer(if status.is_success() {
        ProbeOutcome::Success { warning: None }
    } else if status.is_redirection() {
        let body = String::from_utf8_lossy(&body);
        let warning = format!("Probe terminated redirects, Response body: {body}");
        ProbeOutcome::Success {
            warning: Some(warning),
        }
    } else {
        // The body may contain secrets and is not in the message.
        ProbeOutcome::Failure(failed_status(status))
    })
}

fn failed_status(status: StatusCode) -> String {
    format!("HTTP probe failed with statuscode: {}", status.as_u16())
}

/// An error of hyper in the words of Go.
fn http_error_message(error: &hyper::Error) -> String {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return match io.kind() {
                std::io::ErrorKind::ConnectionReset => "read: connection reset by peer".to_owned(),
                std::io::ErrorKind::UnexpectedEof => "unexpected EOF".to_owned(),
                std::io::ErrorKind::BrokenPipe => "write: broken pipe".to_owned(),
                _ => io.to_string(),
            };
        }
        source = cause.source();
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        "EOF".to_owned()
    } else if error.is_parse() {
        format!("net/http: HTTP/1.x transport connection broken: malformed HTTP response: {error}")
    } else {
        error.to_string()
    }
}

/// An error of a TLS handshake in the words of Go.
fn tls_error_message(error: &std::io::Error) -> String {
    let cause = error
        .get_ref()
        .and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match (cause, error.kind()) {
        (Some(rustls::Error::InvalidMessage(_)), _) => NOT_TLS.to_owned(),
        (Some(cause), _) => format!("remote error: tls: {cause}"),
        (None, std::io::ErrorKind::UnexpectedEof) => "EOF".to_owned(),
        (None, _) => error.to_string(),
    }
}
