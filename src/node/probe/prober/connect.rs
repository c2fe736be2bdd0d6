//! Opens the connection of a probe, and records whether the pod answered.
//!
//! In: the pod's IP address, and a host and port. Out: a connection, or an error in the words of Go's `net` package,
//! which the kubelet's messages contain.

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::aci::address::is_loopback_or_reserved;
use crate::node::probe::outcome::{ProbeAnswer, ProbeOutcome, ProbeUnreachable};

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum ProbeDialError {
    /// The other side refused it.
    Answered(String),
    /// The pod did not answer.
    Unreachable(ProbeUnreachable),
    /// Another host than the pod did not answer, has no address, or must not be probed.
    Elsewhere(String),
    /// The node itself could not try, for example because it has no free file descriptor.
    Local(String),
}

/// The connections of one probe.
#[derive(Debug)]
pub(super) struct ProbeDial {
    pod: IpAddr,
    /// When the probe must have ended.
    pub deadline: Instant,
    /// The probe's timeout, for messages.
    pub timeout: Duration,
    /// Whether the pod has answered.
    is_answered: AtomicBool,
}

impl ProbeDial {
    pub fn new(pod: IpAddr, timeout: Duration) -> Self {
        Self {
            pod,
            deadline: Instant::now() + timeout,
            timeout,
            is_answered: AtomicBool::new(false),
        }
    }

    /// The pod's IP address.
    pub fn pod(&self) -> IpAddr {
        self.pod
    }

    /// The host that a probe without `host` connects to.
    pub fn pod_host(&self) -> String {
        host_of(self.pod)
    }

    /// Connects to `host`, or to the pod if it is `None`.
    pub async fn dial(&self, host: Option<&str>, port: u16) -> Result<TcpStream, ProbeDialError> {
        let Some(host) = host else {
            return self.dial_address(SocketAddr::new(self.pod, port)).await;
        };
        let address = host.trim_matches(['[', ']']).parse();
        if let Ok(address) = address {
            return self.dial_address(SocketAddr::new(address, port)).await;
        }
        let found = timeout_at(self.deadline, tokio::net::lookup_host((host, port))).await;
        let unknown =
            |why: &str| ProbeDialError::Elsewhere(format!("dial tcp: lookup {host}: {why}"));
        let addresses = match found {
            Err(_) => return Err(unknown("i/o timeout")),
            Ok(Err(error)) => return Err(unknown(&error.to_string())),
            Ok(Ok(addresses)) => addresses,
        };
        let mut last = unknown("no such host");
        for address in addresses {
            match self.dial_address(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn dial_address(&self, address: SocketAddr) -> Result<TcpStream, ProbeDialError> {
        let is_pod = address.ip() == self.pod;
        // A user who may create pods must not reach the cloud's own addresses, or the operator's own ports, from
        // the operator.
        if !is_pod && is_loopback_or_reserved(address.ip()) {
            let why = format!("dial tcp {address}: the node sends no probes to this address");
            return Err(ProbeDialError::Elsewhere(why));
        }
        let connected = connect(address, self.deadline).await;
        if is_pod {
            if matches!(connected, Ok(_) | Err(ProbeDialError::Answered(_))) {
                self.is_answered.store(true, Ordering::Relaxed);
            }
            return connected;
        }
        connected.map_err(|error| match error {
            ProbeDialError::Unreachable(why) => ProbeDialError::Elsewhere(why.message().to_owned()),
            error => error,
        })
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
    pub fn failed(&self, error: ProbeDialError, message: impl Fn(String) -> String) -> ProbeAnswer {
        self.answer(match error {
            ProbeDialError::Answered(why) | ProbeDialError::Elsewhere(why) => {
                ProbeOutcome::Failure(message(why))
            }
            ProbeDialError::Unreachable(ProbeUnreachable::Timeout(why)) => {
                ProbeOutcome::Unreachable(ProbeUnreachable::Timeout(message(why)))
            }
            ProbeDialError::Unreachable(ProbeUnreachable::NoRoute(why)) => {
                ProbeOutcome::Unreachable(ProbeUnreachable::NoRoute(message(why)))
            }
            ProbeDialError::Local(why) => ProbeOutcome::Errored(message(why)),
        })
    }
}

/// A host as it stands in a URL.
pub(super) fn host_of(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// Connects to an address.
pub(super) async fn connect(
    address: SocketAddr,
    deadline: Instant,
) -> Result<TcpStream, ProbeDialError> {
    let error = match timeout_at(deadline, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(error)) => error,
        Err(_) => return Err(timed_out(address)),
    };
    let message = |why: &str| format!("dial tcp {address}: connect: {why}");
    let no_route = |why: &str| ProbeDialError::Unreachable(ProbeUnreachable::NoRoute(message(why)));
    Err(match error.kind() {
        ErrorKind::ConnectionRefused => ProbeDialError::Answered(message("connection refused")),
        ErrorKind::ConnectionReset => ProbeDialError::Answered(message("connection reset by peer")),
        // The kernel gave up before the probe's timeout.
        ErrorKind::TimedOut => timed_out(address),
        ErrorKind::HostUnreachable => no_route("no route to host"),
        ErrorKind::NetworkUnreachable => no_route("network is unreachable"),
        ErrorKind::NetworkDown => no_route("network is down"),
        _ => ProbeDialError::Local(message(&described(&error))),
    })
}

fn timed_out(address: SocketAddr) -> ProbeDialError {
    let why = format!("dial tcp {address}: i/o timeout");
    ProbeDialError::Unreachable(ProbeUnreachable::Timeout(why))
}

/// An error of the operating system without Rust's number at the end.
fn described(error: &Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" (os error") {
        Some((text, _)) => text.to_lowercase(),
        None => text,
    }
}
