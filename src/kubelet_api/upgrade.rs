//! Protocol upgrade: from a request to a connection of SPDY or WebSocket.
//!
//! In: a request's head. Out: the answer 101 and the future connection, or an error as plain HTTP.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures::StreamExt as _;
use futures::stream::SplitStream;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use hyper::Request;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::response::{HttpError, text_response};

/// The header with the protocols that a SPDY client offers.
const STREAM_PROTOCOL: &str = "x-stream-protocol-version";
/// The header of the error that lists the supported protocols.
const ACCEPTED_PROTOCOLS: &str = "x-accepted-stream-protocol-versions";

/// The largest WebSocket message in bytes: the limit of Kubernetes' own servers.
const MAX_MESSAGE_BYTES: usize = 32 << 20;

/// The interval between pings: a client that is gone shows in a failed write, even while its messages are not read.
pub const PING_INTERVAL: Duration = Duration::from_secs(10);
/// How long a connection stays open if nothing arrives, not even a pong, while it is read: 1 hour. A client whose
/// user reads the output page by page does not read, and so does not answer pings.
pub const SILENCE_TIMEOUT: Duration = Duration::from_secs(3600);

/// What carries the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamTransport {
    /// SPDY/3.1.
    Spdy,
    /// A WebSocket.
    Websocket,
}

/// The supported protocols for each transport.
pub struct SupportedProtocols {
    /// Over SPDY.
    pub spdy: &'static [&'static str],
    /// Over a WebSocket.
    pub websocket: &'static [&'static str],
}

/// The negotiated transport and protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NegotiatedProtocol {
    /// What carries the streams.
    pub transport: StreamTransport,
    /// The protocol; empty if a WebSocket client offered none.
    pub protocol: String,
}

/// A connection that is available once the answer is sent.
pub struct PendingUpgrade {
    upgrade: OnUpgrade,
    /// The connection's permit of the listener.
    connection_permit: Option<Arc<OwnedSemaphorePermit>>,
}

impl PendingUpgrade {
    /// The connection, once the answer is sent; `None` if the upgrade failed. Keep the permit as long as the
    /// connection.
    pub async fn connection(
        self,
    ) -> Option<(TokioIo<Upgraded>, Option<Arc<OwnedSemaphorePermit>>)> {
        let upgraded = self.upgrade.await;
        let upgraded = upgraded.inspect_err(|error| tracing::debug!(%error, "upgrading"));
        Some((TokioIo::new(upgraded.ok()?), self.connection_permit))
    }
}

/// The client's next message; `None` once the client has closed the connection, or has been silent for
/// [`SILENCE_TIMEOUT`].
pub async fn next_message<S: AsyncRead + AsyncWrite + Unpin>(
    source: &mut SplitStream<WebSocketStream<S>>,
) -> Option<Message> {
    match tokio::time::timeout(SILENCE_TIMEOUT, source.next()).await {
        Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) => None,
        Ok(Some(Ok(message))) => Some(message),
        Err(_) => {
            tracing::debug!("the client of a WebSocket does not answer pings");
            None
        }
    }
}

/// Turns a connection into a WebSocket.
pub async fn websocket<S: AsyncRead + AsyncWrite + Unpin>(io: S) -> WebSocketStream<S> {
    let limits = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(limits)).await
}

/// Negotiates transport and protocol: the first protocol of the client's list that is supported. The error is the
/// response to send.
pub fn negotiate(
    headers: &HeaderMap,
    supported: &SupportedProtocols,
) -> Result<NegotiatedProtocol, Box<Response<Body>>> {
    let bad = |message: String| Box::new(HttpError::bad_request(message).into_response());
    let upgrade = headers.get(UPGRADE).and_then(|value| value.to_str().ok());
    let upgrade = upgrade.unwrap_or_default().to_ascii_lowercase();
    let (transport, offered, known) = match upgrade.as_str() {
        "websocket" => {
            let offered = header_values(headers, SEC_WEBSOCKET_PROTOCOL.as_str());
            (StreamTransport::Websocket, offered, supported.websocket)
        }
        "spdy/3.1" => (
            StreamTransport::Spdy,
            header_values(headers, STREAM_PROTOCOL),
            supported.spdy,
        ),
        _ => {
            return Err(bad(
                "unable to upgrade: request SPDY/3.1 or websocket".to_owned()
            ));
        }
    };
    if let Some(protocol) = offered.iter().find(|offer| known.contains(&offer.as_str())) {
        let protocol = protocol.clone();
        return Ok(NegotiatedProtocol {
            transport,
            protocol,
        });
    }
    match transport {
        StreamTransport::Websocket if offered.is_empty() => Ok(NegotiatedProtocol {
            transport,
            protocol: String::new(),
        }),
        StreamTransport::Spdy if offered.is_empty() => Err(bad(format!(
            "unable to upgrade: {STREAM_PROTOCOL} is missing"
        ))),
        StreamTransport::Websocket => Err(bad(format!(
            "none of the subprotocols is supported: {offered:?}"
        ))),
        StreamTransport::Spdy => Err(Box::new(no_common_protocol(&offered, known))),
    }
}

/// The response to a SPDY client that supports none of the `known` protocols.
fn no_common_protocol(offered: &[String], known: &'static [&'static str]) -> Response<Body> {
    let message = format!("unable to negotiate protocol: client supports {offered:?}");
    let mut response = text_response(StatusCode::FORBIDDEN, message);
    for protocol in known {
        let value = HeaderValue::from_static(protocol);
        response.headers_mut().append(ACCEPTED_PROTOCOLS, value);
    }
    response
}

/// The answer 101, and the future connection.
pub fn upgrade(
    request: &mut Request<Incoming>,
    negotiated: &NegotiatedProtocol,
) -> Result<(Response<Body>, PendingUpgrade), HttpError> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let protocol = HeaderValue::try_from(&negotiated.protocol);
    let protocol = protocol.map_err(|_| HttpError::bad_request("a protocol that is not text"))?;
    match negotiated.transport {
        StreamTransport::Spdy => {
            headers.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
            headers.insert(STREAM_PROTOCOL, protocol);
        }
        StreamTransport::Websocket => {
            let key = request.headers().get(SEC_WEBSOCKET_KEY);
            let key = key.ok_or_else(|| HttpError::bad_request("Sec-WebSocket-Key is missing"))?;
            let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept.expect("base64 is a header"));
            if !protocol.is_empty() {
                headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
            }
        }
    }
    let pending = PendingUpgrade {
        upgrade: hyper::upgrade::on(&mut *request),
        connection_permit: request.extensions().get().cloned(),
    };
    Ok((response, pending))
}

fn header_values(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    let parts = values.flat_map(|value| value.split(','));
    let parts = parts.map(|part| part.trim().to_owned());
    parts.filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUPPORTED: SupportedProtocols = SupportedProtocols {
        spdy: &["v4.channel.k8s.io", "channel.k8s.io"],
        websocket: &["v5.channel.k8s.io"],
    };

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_first_supported_protocol_of_the_client_is_chosen() {
        let offers = [
            ("upgrade", "SPDY/3.1"),
            (
                "x-stream-protocol-version",
                "v9.channel.k8s.io, channel.k8s.io",
            ),
            ("x-stream-protocol-version", "v4.channel.k8s.io"),
        ];
        let agreed = negotiate(&headers(&offers), &SUPPORTED).expect("they agree");
        assert_eq!(agreed.protocol, "channel.k8s.io");
    }

    #[test]
    fn a_client_without_a_supported_protocol_gets_the_supported_ones() {
        let offers = [("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v9")];
        let refused = negotiate(&headers(&offers), &SUPPORTED).expect_err("they do not");
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
        assert_eq!(
            refused.headers().get_all(ACCEPTED_PROTOCOLS).iter().count(),
            2
        );
        for offers in [&[("upgrade", "SPDY/3.1")][..], &[("upgrade", "h2c")], &[]] {
            let refused = negotiate(&headers(offers), &SUPPORTED).expect_err("they do not");
            assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
        }
    }
}
