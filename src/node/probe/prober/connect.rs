//! Opens the connection of a probe, and records whether the pod answered.
//!
//! In: the pod's IP address, and a port. Out: a connection, or an error in the words of Go's `net` package,
//! which the kubelet's messages contain.

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::aci::address::is_reserved;
use crate::node::probe::outcome::{ProbeAnswer, ProbeOutcome, ProbeUnreachable};

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum ProbeConnectError {
    /// The other side refused it.
    Answered(String),
    /// The pod did not answer.
    Unreachable(ProbeUnreachable),
}

/// The connections of one probe.
#[derive(Debug)]
pub(super) struct ProbeConnector {
    pod: IpAddr,
    /// When the probe must have ended.
    pub deadline: Instant,
    /// The probe's timeout, for messages.
    pub timeout: Duration,
    /// Whether the pod has answered.
    is_answered: AtomicBool,
}

impl ProbeConnector {
    pub fn new(pod: IpAddr, timeout: Duration) -> Self {
        Self {
            pod: pod.to_canonical(),
            deadline: Instant::now() + timeout,
            timeout,
            is_answered: AtomicBool::new(false),
        }
    }

    /// The pod's IP address.
    pub fn pod(&self) -> IpAddr {
        self.pod
    }

    /// The pod's IP address as it stands in a URL.
    pub fn pod_host(&self) -> String {
        match self.pod {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        }
    }

    /// Connects to the pod.
    pub async fn connect(&self, port: u16) -> Result<TcpStream, ProbeConnectError> {
        let connected = connect(SocketAddr::new(self.pod, port), self.deadline).await;
        if matches!(connected, Ok(_) | Err(ProbeConnectError::Answered(_))) {
            self.is_answered.store(true, Ordering::Relaxed);
        }
        connected
    }

    /// The answer of a probe with this outcome.
    pub fn answer(&self, outcome: ProbeOutcome) -> ProbeAnswer {
        if self.is_answered.load(Ordering::Relaxed) {
            ProbeAnswer::from_pod(outcome)
        } else {
            ProbeAnswer::without_contact(outcome)
        }
    }

    /// The answer of a probe that got no connection. `message` makes the kubelet's message of the error's.
    pub fn failed(
        &self,
        error: ProbeConnectError,
        message: impl Fn(String) -> String,
    ) -> ProbeAnswer {
        self.answer(match error {
            ProbeConnectError::Answered(why) => ProbeOutcome::Failure(message(why)),
            ProbeConnectError::Unreachable(why) => ProbeOutcome::Unreachable(why.map(message)),
        })
    }
}

/// Connects to an address.
pub(super) async fn connect(
    address: SocketAddr,
    deadline: Instant,
) -> Result<TcpStream, ProbeConnectError> {
    let local = |why: String| ProbeConnectError::Unreachable(ProbeUnreachable::Local(why));
    // Azure says what the pod's address is. Whatever it says, the operator sends nothing to the metadata service.
    if is_reserved(address.ip()) {
        return Err(local(format!(
            "dial tcp {address}: the address is reserved"
        )));
    }
    let error = match timeout_at(deadline, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(error)) => error,
        Err(_) => return Err(timed_out(address)),
    };
    let message = |why: &str| format!("dial tcp {address}: connect: {why}");
    let no_route =
        |why: &str| ProbeConnectError::Unreachable(ProbeUnreachable::NoRoute(message(why)));
    Err(match error.kind() {
        ErrorKind::ConnectionRefused => ProbeConnectError::Answered(message("connection refused")),
        ErrorKind::ConnectionReset => {
            ProbeConnectError::Answered(message("connection reset by peer"))
        }
        // The kernel gave up before the probe's timeout.
        ErrorKind::TimedOut => timed_out(address),
        ErrorKind::HostUnreachable => no_route("no route to host"),
        ErrorKind::NetworkUnreachable => no_route("network is unreachable"),
        ErrorKind::NetworkDown => no_route("network is down"),
        _ => local(message(&described(&error))),
    })
}

fn timed_out(address: SocketAddr) -> ProbeConnectError {
    let why = format!("dial tcp {address}: i/o timeout");
    ProbeConnectError::Unreachable(ProbeUnreachable::Timeout(why))
}

/// An error of the operating system without Rust's number at the end.
fn described(error: &Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" (os error") {
        Some((text, _)) => text.to_lowercase(),
        None => text,
    }
}
