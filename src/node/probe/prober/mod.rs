//! Sends one probe.
//!
//! In: the pod's IP address and a probe. Out: a [`ProbeAnswer`] with the kubelet's messages. Each probe opens a
//! connection of its own and closes it: a connection that is kept would show an app that no longer accepts any.
//!
//! `connect` opens connections and records whether the pod answered, `tls` accepts any certificate, `exchange` sends
//! one request over HTTP/1.1 or HTTP/2, `http` follows redirects and reads answers, `grpc` calls the health service,
//! `health` has its two messages. `hook` sends the requests of lifecycle hooks in the same way.

mod connect;
mod exchange;
mod grpc;
mod health;
mod hook;
mod http;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::outcome::{ProbeAnswer, ProbeOutcome};
use crate::aci::probe::{ProbeHandler, ProbeSpec};
use connect::{ProbeConnectError, ProbeConnector};
pub use hook::HookAnswer;

/// How many probes may be in their first second at once. A pod that answers does so within that second.
pub const MAX_STARTING_PROBES: usize = 256;
/// How often a probe without a usable answer is sent before its result is dropped (`maxProbeRetries` of
/// `pkg/kubelet/prober/prober.go`).
const MAX_TRIES: u32 = 3;

/// Sends probes. Its clones, one for each node, share the limit of probes that start at once.
#[derive(Clone, Debug)]
pub struct Prober {
    /// `kube-probe/` and the version of Kubernetes.
    user_agent: ::http::HeaderValue,
    /// The same for hooks: `kube-lifecycle/` and the version.
    hook_user_agent: ::http::HeaderValue,
    tls: Arc<ClientConfig>,
    /// Permits to start a probe; [`MAX_STARTING_PROBES`].
    start_permits: Arc<Semaphore>,
}

impl Prober {
    /// A prober that names this version of Kubernetes to the apps, for example `1.37`.
    pub fn new(version: &str) -> Self {
        let named = |name: &'static str| {
            let value = format!("{name}/{version}").try_into();
            value.unwrap_or(::http::HeaderValue::from_static(name))
        };
        Self {
            user_agent: named("kube-probe"),
            hook_user_agent: named("kube-lifecycle"),
            tls: tls::any_certificate(),
            start_permits: Arc::new(Semaphore::new(MAX_STARTING_PROBES)),
        }
    }

    /// The permits to start a probe, which all clones share.
    pub(super) fn start_permits(&self) -> Arc<Semaphore> {
        self.start_permits.clone()
    }

    /// Probes a pod once. It takes at most the timeout of the probe; three times as long if the app begins an answer
    /// and does not complete it.
    pub async fn probe(&self, pod: IpAddr, spec: &ProbeSpec) -> ProbeAnswer {
        let mut answer = self.probe_once(pod, spec).await;
        for _ in 1..MAX_TRIES {
            if !matches!(answer.outcome, ProbeOutcome::Errored(_)) {
                break;
            }
            answer = self.probe_once(pod, spec).await;
        }
        answer
    }

    /// Whether something answers a connection to `address`: with a connection, or by refusing it.
    pub async fn is_answered(&self, address: SocketAddr, timeout: Duration) -> bool {
        let connected = connect::connect(address, Instant::now() + timeout).await;
        matches!(connected, Ok(_) | Err(ProbeConnectError::Answered(_)))
    }

    async fn probe_once(&self, pod: IpAddr, spec: &ProbeSpec) -> ProbeAnswer {
        let connector = ProbeConnector::new(pod, spec.timeout);
        match &spec.handler {
            ProbeHandler::HttpGet(get) => http::probe(self, &connector, get).await,
            ProbeHandler::Grpc(call) => grpc::probe(self, &connector, call).await,
            ProbeHandler::TcpSocket(socket) => match connector.connect(socket.port).await {
                Ok(_) => connector.answer(ProbeOutcome::Success { warning: None }),
                Err(error) => connector.failed(error, |message| message),
            },
        }
    }
}

#[cfg(test)]
mod tests;
