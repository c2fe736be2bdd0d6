//! A probe as the node runs it.
//!
//! In: a container of a pod. Out: its startup or readiness probe, checked and with the defaults of Kubernetes
//! ([`ProbeSpec`]), or an error that names the field. Pure. Nothing is left to check when the probe is sent.

use std::fmt;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use k8s_openapi::api::core::v1::{
    Container, GRPCAction, HTTPGetAction, HTTPHeader, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use thiserror::Error;

use super::request_target::request_target;

/// How many HTTP headers a probe may have, and how many bytes they may be together. Servers accept about as much.
const MAX_HEADERS: usize = 100;
const MAX_HEADER_BYTES: usize = 64 << 10;

/// Which of a container's probes it is. The kubelet also has liveness probes; Azure runs those.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    /// `startupProbe`: until it succeeds, the container has not started, and no other probe runs.
    Startup,
    /// `readinessProbe`: whether the container gets traffic.
    Readiness,
}

impl ProbeKind {
    /// The field of the container.
    pub fn field(self) -> &'static str {
        match self {
            Self::Startup => "startupProbe",
            Self::Readiness => "readinessProbe",
        }
    }
}

impl fmt::Display for ProbeKind {
    /// As in the kubelet's Events.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
        })
    }
}

/// A probe that the node can run.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeSpec {
    /// What is sent.
    pub handler: ProbeHandler,
    /// How long after the start of the container the first probe is sent, in whole seconds; 0 by default.
    pub initial_delay: Duration,
    /// The time between two probes, in whole seconds; 10 by default, at least 1.
    pub period: Duration,
    /// How long the probe may take, in whole seconds; 1 by default, at least 1.
    pub timeout: Duration,
    /// How many successes in a row count as success; 1 by default, at least 1.
    pub success_threshold: u32,
    /// How many failures in a row count as failure; 3 by default, at least 1.
    pub failure_threshold: u32,
}

/// What a probe sends.
#[derive(Clone, Debug, PartialEq)]
pub enum ProbeHandler {
    /// `httpGet`.
    HttpGet(HttpGetProbe),
    /// `tcpSocket`.
    TcpSocket(TcpSocketProbe),
    /// `grpc`.
    Grpc(GrpcProbe),
}

impl ProbeHandler {
    /// The port that the probe connects to.
    pub fn port(&self) -> u16 {
        match self {
            Self::HttpGet(get) => get.port,
            Self::TcpSocket(socket) => socket.port,
            Self::Grpc(grpc) => grpc.port,
        }
    }
}

/// The protocol of an HTTP probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeScheme {
    /// HTTP/1.1.
    Http,
    /// HTTP/2 or HTTP/1.1 over TLS; the certificate is not verified.
    Https,
    /// HTTP/2 without TLS (`httpGet.protocol: HTTP2`; alpha in Kubernetes 1.37).
    H2c,
}

/// An HTTP GET request.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpGetProbe {
    /// The protocol.
    pub scheme: ProbeScheme,
    /// The port to connect to.
    pub port: u16,
    /// The path and query.
    pub target: PathAndQuery,
    /// The headers, without `Host`.
    pub headers: HeaderMap,
    /// The value of the header `Host`, if the probe sets it.
    pub host_header: Option<HeaderValue>,
}

/// A TCP connection that is closed at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpSocketProbe {
    /// The port to connect to.
    pub port: u16,
}

/// A call of `grpc.health.v1.Health/Check` at the pod's IP address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcProbe {
    /// The port to connect to.
    pub port: u16,
    /// The service to ask for; may be empty.
    pub service: String,
    /// Whether the connection uses TLS (`grpc.mode: TLS`; alpha in Kubernetes 1.37). The certificate is not
    /// verified.
    pub is_tls: bool,
}

/// A probe that the node cannot run.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{field}: {why}")]
pub struct ProbeSpecError {
    /// The field of the pod.
    pub field: String,
    /// What is wrong with its value.
    pub why: String,
}

impl ProbeSpecError {
    fn new(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            why: why.into(),
        }
    }
}

type Result<T> = std::result::Result<T, ProbeSpecError>;

impl ProbeSpec {
    /// The probe of this kind of `container`; `None` if it has none. `at` is the container's field path.
    ///
    /// # Errors
    ///
    /// If the node cannot run the probe: it is an exec probe, or a field has a value that no API server accepts.
    pub fn of(kind: ProbeKind, container: &Container, at: &str) -> Result<Option<Self>> {
        let probe = match kind {
            ProbeKind::Startup => container.startup_probe.as_ref(),
            ProbeKind::Readiness => container.readiness_probe.as_ref(),
        };
        let at = format!("{at}.{}", kind.field());
        probe
            .map(|probe| Self::checked(kind, probe, container, &at))
            .transpose()
    }

    fn checked(kind: ProbeKind, probe: &Probe, container: &Container, at: &str) -> Result<Self> {
        // The defaults of the API (`SetDefaults_Probe`), which also replace a zero.
        let number = |name: &str, value: Option<i32>, default: u32| {
            let value = value.filter(|value| *value != 0);
            let value = value.map_or(Ok(default), u32::try_from);
            value.map_err(|_| ProbeSpecError::new(format!("{at}.{name}"), "it is negative"))
        };
        let seconds = |name: &str, value: Option<i32>, default: u32| {
            number(name, value, default).map(|seconds| Duration::from_secs(seconds.into()))
        };
        let success_threshold = number("successThreshold", probe.success_threshold, 1)?;
        if kind == ProbeKind::Startup && success_threshold != 1 {
            let field = format!("{at}.successThreshold");
            return Err(ProbeSpecError::new(field, "it must be 1"));
        }
        Ok(Self {
            handler: ProbeHandler::of(probe, container, at)?,
            initial_delay: seconds("initialDelaySeconds", probe.initial_delay_seconds, 0)?,
            period: seconds("periodSeconds", probe.period_seconds, 10)?,
            timeout: seconds("timeoutSeconds", probe.timeout_seconds, 1)?,
            success_threshold,
            failure_threshold: number("failureThreshold", probe.failure_threshold, 3)?,
        })
    }
}

impl ProbeHandler {
    fn of(probe: &Probe, container: &Container, at: &str) -> Result<Self> {
        if probe.exec.is_some() {
            let why = "the node runs httpGet, tcpSocket and grpc probes; it cannot run a command";
            return Err(ProbeSpecError::new(format!("{at}.exec"), why));
        }
        match (&probe.http_get, &probe.tcp_socket, &probe.grpc) {
            (Some(get), None, None) => {
                HttpGetProbe::of(get, container, &format!("{at}.httpGet")).map(Self::HttpGet)
            }
            (None, Some(socket), None) => {
                TcpSocketProbe::of(socket, container, &format!("{at}.tcpSocket"))
                    .map(Self::TcpSocket)
            }
            (None, None, Some(grpc)) => GrpcProbe::of(grpc, &format!("{at}.grpc")).map(Self::Grpc),
            _ => Err(ProbeSpecError::new(
                at,
                "a probe has exactly one of httpGet, tcpSocket and grpc",
            )),
        }
    }
}

impl HttpGetProbe {
    /// The request of `get`, which is a probe or a hook of `container`. `at` is its field path.
    ///
    /// # Errors
    ///
    /// If it names a host, or if a field has a value that no API server accepts.
    pub(in crate::aci) fn of(get: &HTTPGetAction, container: &Container, at: &str) -> Result<Self> {
        let field = |name: &str| format!("{at}.{name}");
        refuse_host(get.host.as_ref(), at)?;
        let is_h2c = match get.protocol.as_deref() {
            None | Some("" | "HTTP1" | "HTTP/1.1") => false,
            Some("HTTP2") => true,
            Some(other) => {
                let why = format!("'{other}' is neither HTTP1 nor HTTP2");
                return Err(ProbeSpecError::new(field("protocol"), why));
            }
        };
        let scheme = match (get.scheme.as_deref().unwrap_or_default(), is_h2c) {
            ("" | "HTTP", false) => ProbeScheme::Http,
            ("" | "HTTP", true) => ProbeScheme::H2c,
            ("HTTPS", false) => ProbeScheme::Https,
            ("HTTPS", true) => {
                let why = "HTTP2 is supported with scheme HTTP only";
                return Err(ProbeSpecError::new(field("protocol"), why));
            }
            (other, _) => {
                let why = format!("'{other}' is neither HTTP nor HTTPS");
                return Err(ProbeSpecError::new(field("scheme"), why));
            }
        };
        let path = get.path.as_deref().unwrap_or_default();
        let target = request_target(path);
        let (headers, host_header) = headers(get.http_headers.as_deref().unwrap_or_default(), at)?;
        Ok(Self {
            scheme,
            port: port(&get.port, container, &field("port"))?,
            target: target.map_err(|why| ProbeSpecError::new(field("path"), why))?,
            headers,
            host_header,
        })
    }
}

impl TcpSocketProbe {
    fn of(socket: &TCPSocketAction, container: &Container, at: &str) -> Result<Self> {
        refuse_host(socket.host.as_ref(), at)?;
        Ok(Self {
            port: port(&socket.port, container, &format!("{at}.port"))?,
        })
    }
}

impl GrpcProbe {
    fn of(grpc: &GRPCAction, at: &str) -> Result<Self> {
        let is_tls = match grpc.mode.as_deref() {
            None | Some("" | "Plaintext") => false,
            Some("TLS") => true,
            Some(other) => {
                let why = format!("'{other}' is neither Plaintext nor TLS");
                return Err(ProbeSpecError::new(format!("{at}.mode"), why));
            }
        };
        Ok(Self {
            port: port_number(grpc.port, &format!("{at}.port"))?,
            service: grpc.service.clone().unwrap_or_default(),
            is_tls,
        })
    }
}

/// A user who may create pods must not choose where the operator connects to.
fn refuse_host(host: Option<&String>, at: &str) -> Result<()> {
    if host.is_none_or(String::is_empty) {
        return Ok(());
    }
    let why = "probes are sent to the pod's own IP address: remove host, and use httpHeaders for the header Host";
    Err(ProbeSpecError::new(format!("{at}.host"), why))
}

/// The number of a port that is given by number, or by a name among the container's ports.
fn port(port: &IntOrString, container: &Container, at: &str) -> Result<u16> {
    match port {
        IntOrString::Int(number) => port_number(*number, at),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|port| port.name.as_ref() == Some(name));
            let number = named.map(|port| port.container_port);
            // A string that contains a number is a port number, as for the kubelet.
            let number = number.or_else(|| name.parse().ok());
            let why = || format!("the container has no port '{name}'");
            let number = number.ok_or_else(|| ProbeSpecError::new(at, why()));
            port_number(number?, at)
        }
    }
}

fn port_number(number: i32, at: &str) -> Result<u16> {
    let port = u16::try_from(number).ok().filter(|port| *port > 0);
    port.ok_or_else(|| ProbeSpecError::new(at, format!("{number} is not a port number")))
}

/// The headers to send, and the value of `Host`. As the kubelet's HTTP client does, it sends the first `Host` and
/// the first `User-Agent`, none of these if they are empty, and no header that describes a body.
fn headers(given: &[HTTPHeader], at: &str) -> Result<(HeaderMap, Option<HeaderValue>)> {
    let mut headers = HeaderMap::new();
    let mut size = 0;
    for (index, HTTPHeader { name, value }) in given.iter().enumerate() {
        let at = format!("{at}.httpHeaders[{index}]");
        let parsed: Option<HeaderName> = name.parse().ok();
        let why = || format!("'{name}' is no name of an HTTP header");
        let parsed = parsed.ok_or_else(|| ProbeSpecError::new(format!("{at}.name"), why()))?;
        let value = HeaderValue::from_bytes(value.as_bytes());
        let why = "an HTTP header cannot contain a line break or another control character";
        let value = value.map_err(|_| ProbeSpecError::new(format!("{at}.value"), why))?;
        size += name.len() + value.len();
        let is_appended = headers.try_append(parsed, value).is_ok();
        if !is_appended || headers.len() > MAX_HEADERS || size > MAX_HEADER_BYTES {
            let why = "a probe has at most 100 HTTP headers of together 64 KiB";
            return Err(ProbeSpecError::new(at, why));
        }
    }
    let unused = [
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::TRAILER,
    ];
    for name in unused {
        headers.remove(name);
    }
    let host = headers.remove(header::HOST);
    if let Some(agent) = headers.get(header::USER_AGENT).cloned() {
        // An empty value stays in the map: it means that no such header is sent.
        headers.insert(header::USER_AGENT, agent);
    }
    Ok((headers, host.filter(|host| !host.is_empty())))
}

#[cfg(test)]
mod tests;
