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

use super::spdy::session::Session;
use super::upgrade::{Agreed, Carrier, Spoken};

/// SPDY inside a WebSocket.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// The supported subprotocols of port-forwards.
pub const SPOKEN: Spoken = Spoken {
    spdy: &["portforward.k8s.io"],
    websocket: &[TUNNEL, "v4.channel.k8s.io"],
};

/// The ports in the query, which clients of the plain WebSocket protocol send; an error if one is not a valid port.
pub fn ports(query: &str) -> Result<Vec<u16>, String> {
    let mut ports = Vec::new();
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if matches!(&*key, "port" | "ports") {
            for port in value.split(',') {
                let parsed = port.parse().ok().filter(|port| *port > 0);
                ports.push(parsed.ok_or_else(|| format!("port: {port} is no port"))?);
            }
        }
    }
    Ok(ports)
}

/// Forwards ports until the client disconnects.
pub async fn forward(io: TokioIo<Upgraded>, agreed: &Agreed, address: IpAddr, ports: &[u16]) {
    match agreed.carrier {
        Carrier::Spdy => spdy::forward(Session::new(io), address).await,
        Carrier::Websocket if agreed.protocol == TUNNEL => {
            tunnel::through(io, |io| spdy::forward(Session::new(io), address)).await;
        }
        Carrier::Websocket => websocket::forward(io, address, ports).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbers() {
        assert_eq!(ports("port=80&port=443,8080&x=1"), Ok(vec![80, 443, 8080]));
        assert!(ports("port=0").is_err() && ports("port=http").is_err());
    }
}
