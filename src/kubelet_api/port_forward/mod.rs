//! `kubectl port-forward`: connections to ports of pods.
//!
//! In: an upgraded connection. Out: connections to the pod's address, as many as the client opens, over SPDY, over
//! SPDY inside a WebSocket, or over a WebSocket alone. ACI has no port-forwarding: the operator itself must be able
//! to reach the address.

mod dial;
mod spdy;
mod tunnel;
mod websocket;

use std::net::IpAddr;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;

use super::spdy::session::SpdySession;
use super::upgrade::{NegotiatedProtocol, StreamTransport, SupportedProtocols};

/// SPDY inside a WebSocket.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// The supported subprotocols of port-forwards.
pub const PROTOCOLS: SupportedProtocols = SupportedProtocols {
    spdy: &["portforward.k8s.io"],
    websocket: &[TUNNEL, "v4.channel.k8s.io"],
};

/// The ports in the query, which clients of the plain WebSocket protocol send; an error if one is not a valid port.
pub fn parse_ports(query: &str) -> Result<Vec<u16>, String> {
    let mut ports = Vec::new();
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if matches!(&*key, "port" | "ports") {
            for port in value.split(',') {
                let parsed = port.parse().ok().filter(|port| *port > 0);
                ports.push(parsed.ok_or_else(|| format!("port: {port} is not a port number"))?);
            }
        }
    }
    Ok(ports)
}

/// Forwards ports until the client disconnects.
pub async fn forward(
    io: TokioIo<Upgraded>,
    negotiated: &NegotiatedProtocol,
    address: IpAddr,
    ports: &[u16],
) {
    match negotiated.transport {
        StreamTransport::Spdy => spdy::forward(SpdySession::new(io), address).await,
        StreamTransport::Websocket if negotiated.protocol == TUNNEL => {
            tunnel::run_through(io, |io| spdy::forward(SpdySession::new(io), address)).await;
        }
        StreamTransport::Websocket => websocket::forward(io, address, ports).await,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::StreamExt as _;
    use tokio::net::TcpListener;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    /// A client that vanished answers nothing; one that is connected answers pings.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Peer {
        Gone,
        There,
    }

    /// Whether a port-forward over a WebSocket lasts for two hours in which no port sends anything.
    async fn goes_on(peer: Peer, is_tunnel: bool) -> bool {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address");
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let client = async {
            if peer == Peer::Gone {
                return std::future::pending().await;
            }
            let mut client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
            // Reading answers pings.
            while let Some(Ok(_)) = client.next().await {}
        };
        let forwarding = async {
            if is_tunnel {
                let silent = |io| async move {
                    let _open = io;
                    std::future::pending::<()>().await;
                };
                tunnel::run_through(ours, silent).await;
            } else {
                websocket::forward(ours, port.ip(), &[port.port()]).await;
            }
        };
        let both = async {
            tokio::select! {
                () = client => {}
                () = forwarding => {}
            }
        };
        tokio::time::timeout(Duration::from_secs(7200), both)
            .await
            .is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_forward_over_a_websocket_ends_when_its_client_does_not_answer_pings() {
        for (peer, is_tunnel, expected) in [
            (Peer::There, true, true),
            (Peer::There, false, true),
            (Peer::Gone, true, false),
            (Peer::Gone, false, false),
        ] {
            assert_eq!(
                goes_on(peer, is_tunnel).await,
                expected,
                "{peer:?} {is_tunnel}"
            );
        }
    }

    #[test]
    fn ports_are_parsed_as_numbers() {
        assert_eq!(
            parse_ports("port=80&port=443,8080&x=1"),
            Ok(vec![80, 443, 8080])
        );
        assert!(parse_ports("port=0").is_err() && parse_ports("port=http").is_err());
    }
}
