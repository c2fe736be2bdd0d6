//! gRPC probes: one call of the health service.
//!
//! In: a probe. Out: success if the service is serving, else the message that the kubelet has for it
//! (`pkg/probe/grpc/grpc.go`). One difference: the kubelet's client tries to connect again until the timeout, and
//! then reports the timeout; here a connection that is refused is reported at once.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::Full;
use percent_encoding::percent_decode_str;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout_at;
use tokio_rustls::TlsConnector;

use super::Prober;
use super::connect::{ProbeConnectError, ProbeConnector};
use super::exchange::{ProbeExchange, ProbeProtocol};
use super::health;
use crate::aci::probe::GrpcProbe;
use crate::node::probe::outcome::{ProbeAnswer, ProbeOutcome, ProbeUnreachable};

/// The longest answer that is read, in bytes; a health answer has seven.
const MAX_ANSWER: usize = 1 << 10;

/// The codes of gRPC in Go's spelling (`google.golang.org/grpc/codes`).
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
const UNKNOWN: usize = 2;
const DEADLINE_EXCEEDED: usize = 4;
const UNIMPLEMENTED: usize = 12;
const INTERNAL: usize = 13;
const UNAVAILABLE: usize = 14;

/// A status other than OK, or no answer.
struct ProbeRpcError {
    code: usize,
    message: String,
}

impl ProbeRpcError {
    fn new(code: usize, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// The kubelet's message for it.
    fn message(&self, timeout: Duration) -> String {
        let message = &self.message;
        match self.code {
            UNIMPLEMENTED => format!(
                "error: this server does not implement the grpc health protocol \
                 (grpc.health.v1.Health): {message}"
            ),
            DEADLINE_EXCEEDED => {
                format!(
                    "timeout: health rpc did not complete within {}",
                    go(timeout)
                )
            }
            code => {
                let code = CODES
                    .get(code)
                    .map_or_else(|| format!("Code({code})"), ToString::to_string);
                format!("error: health rpc probe failed: rpc error: code = {code} desc = {message}")
            }
        }
    }
}

/// Sends a probe.
pub(super) async fn probe(
    prober: &Prober,
    connector: &ProbeConnector,
    call: &GrpcProbe,
) -> ProbeAnswer {
    let authority = format!("{}:{}", connector.pod_host(), call.port);
    let stream = match connector.connect(call.port).await {
        Ok(stream) => stream,
        Err(error) => return not_connected(connector, error, &authority),
    };
    let called = check(prober, connector, call, &authority, stream);
    let status = match timeout_at(connector.deadline, called).await {
        Ok(status) => status,
        Err(_) => Err(ProbeRpcError::new(DEADLINE_EXCEEDED, "")),
    };
    connector.answer(match status {
        Ok(health::SERVING) => ProbeOutcome::Success { warning: None },
        Ok(status) => {
            let status = health::status_name(status);
            ProbeOutcome::Failure(format!("service unhealthy (responded with \"{status}\")"))
        }
        Err(error) => ProbeOutcome::Failure(error.message(connector.timeout)),
    })
}

fn not_connected(
    connector: &ProbeConnector,
    error: ProbeConnectError,
    authority: &str,
) -> ProbeAnswer {
    if let ProbeConnectError::Unreachable(ProbeUnreachable::Timeout(_)) = error {
        let why = format!(
            "timeout: failed to connect service \"{authority}\" within {}: context deadline exceeded",
            go(connector.timeout)
        );
        return connector.answer(ProbeOutcome::Unreachable(ProbeUnreachable::Timeout(why)));
    }
    connector.failed(error, |why| {
        format!(
            "error: failed to connect service at \"{authority}\": connection error: desc = \
             \"transport: Error while dialing: {why}\""
        )
    })
}

async fn check(
    prober: &Prober,
    connector: &ProbeConnector,
    call: &GrpcProbe,
    authority: &str,
    stream: TcpStream,
) -> Result<u64, ProbeRpcError> {
    let unavailable = |error: &dyn std::fmt::Display| {
        let why = format!("connection error: desc = \"{error}\"");
        ProbeRpcError::new(UNAVAILABLE, why)
    };
    let request = request(prober, connector, call, authority)
        .map_err(|error| ProbeRpcError::new(INTERNAL, error.to_string()))?;
    let sent = if call.is_tls {
        let name = ServerName::from(connector.pod());
        let tls = TlsConnector::from(prober.tls.clone());
        let stream = tls.connect(name, stream).await;
        let stream = stream.map_err(|error| unavailable(&error))?;
        ProbeExchange::send(stream, ProbeProtocol::Http2, request).await
    } else {
        ProbeExchange::send(stream, ProbeProtocol::Http2, request).await
    };
    let mut exchange = sent.map_err(|error| unavailable(&chain(&error)))?;
    check_head(exchange.head())?;
    if let Some(status) = status_of(exchange.head().headers()) {
        return status.and_then(|()| Err(ProbeRpcError::new(INTERNAL, "no message")));
    }
    let (body, trailers, _) = exchange
        .read(MAX_ANSWER)
        .await
        .map_err(|error| unavailable(&chain(&error)))?;
    let ended = status_of(&trailers).unwrap_or_else(|| {
        let why = "server closed the stream without sending trailers";
        Err(ProbeRpcError::new(INTERNAL, why))
    });
    ended?;
    let why = "the answer is no HealthCheckResponse";
    health::status(&body).ok_or_else(|| ProbeRpcError::new(INTERNAL, why))
}

fn request(
    prober: &Prober,
    connector: &ProbeConnector,
    call: &GrpcProbe,
    authority: &str,
) -> http::Result<Request<Full<Bytes>>> {
    let scheme = if call.is_tls { "https" } else { "http" };
    Request::post(format!("{scheme}://{authority}{}", health::CHECK))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::USER_AGENT, prober.user_agent.clone())
        .header(header::TE, "trailers")
        .header("grpc-timeout", grpc_timeout(connector.timeout))
        .body(Full::from(health::request(&call.service)))
}

/// The value of the header `grpc-timeout`: at most eight digits and a unit.
fn grpc_timeout(timeout: Duration) -> String {
    let (millis, seconds) = (timeout.as_millis(), timeout.as_secs());
    match (millis, seconds) {
        (..=99_999_999, _) => format!("{millis}m"),
        (_, ..=99_999_999) => format!("{seconds}S"),
        _ => format!("{}M", seconds / 60),
    }
}

/// An answer that is not gRPC, with the code that grpc-go derives from its HTTP status.
fn check_head<B>(response: &Response<B>) -> Result<(), ProbeRpcError> {
    let status = response.status();
    let content = response.headers().get(header::CONTENT_TYPE);
    let content = content.and_then(|value| value.to_str().ok());
    if status == StatusCode::OK {
        return match content {
            Some(content) if content.starts_with("application/grpc") => Ok(()),
            other => {
                let other = other.unwrap_or_default();
                let why = format!("unexpected content-type \"{other}\"");
                Err(ProbeRpcError::new(UNKNOWN, why))
            }
        };
    }
    let code = match status.as_u16() {
        400 => INTERNAL,
        401 => 16,
        403 => 7,
        404 => UNIMPLEMENTED,
        429 | 502 | 503 | 504 => UNAVAILABLE,
        _ => UNKNOWN,
    };
    let reason = status.canonical_reason().unwrap_or_default();
    let number = status.as_u16();
    let why = format!("unexpected HTTP status code received from server: {number} ({reason})");
    Err(ProbeRpcError::new(code, why))
}

/// The status of the call, if these headers or trailers have one.
fn status_of(headers: &HeaderMap) -> Option<Result<(), ProbeRpcError>> {
    let code = headers.get("grpc-status")?.to_str().ok()?;
    let code = code.parse().unwrap_or(UNKNOWN);
    if code == 0 {
        return Some(Ok(()));
    }
    let message = headers.get("grpc-message");
    let message = message.and_then(|message| message.to_str().ok());
    let message = percent_decode_str(message.unwrap_or_default()).decode_utf8_lossy();
    Some(Err(ProbeRpcError::new(code, message)))
}

/// An error of hyper with its causes.
fn chain(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// A duration of whole seconds as Go prints it.
fn go(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_has_eight_digits_at_most() {
        for (seconds, sent) in [
            (1, "1000m"),
            (99_999, "99999000m"),
            (100_000, "100000S"),
            (2_147_483_647, "35791394M"),
        ] {
            assert_eq!(grpc_timeout(Duration::from_secs(seconds)), sent);
        }
    }

    #[test]
    fn a_duration_is_printed_as_go_prints_it() {
        for (seconds, printed) in [(1, "1s"), (60, "1m0s"), (75, "1m15s"), (3600, "1h0m0s")] {
            assert_eq!(go(Duration::from_secs(seconds)), printed);
        }
    }
}
