//! The request of an `httpGet` hook.
//!
//! In: the pod's IP address, the hook, and how long it may take. Out: how the app answered, or why it did not. As with a
//! kubelet (`pkg/kubelet/lifecycle/handlers.go` of Kubernetes 1.37), any status is success, redirects are followed as
//! those of probes, and a hook that asks for HTTPS of an app that speaks HTTP is sent again without TLS.

use std::net::IpAddr;
use std::time::Duration;

use http::header;

use super::connect::ProbeConnector;
use super::{Prober, http as probe_http};
use crate::aci::probe::{HttpGetProbe, ProbeScheme};

/// How an app answered the request of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookAnswer {
    /// By the scheme of the hook.
    AsAsked,
    /// The hook asks for HTTPS, and the app answered the second request, over HTTP.
    WithoutTls,
}

impl Prober {
    /// Sends the request of a hook.
    ///
    /// # Errors
    ///
    /// If no answer begins within the timeout: why, in the words of Go.
    pub async fn run_hook(
        &self,
        pod: IpAddr,
        get: &HttpGetProbe,
        timeout: Duration,
    ) -> Result<HookAnswer, String> {
        let sender = Self {
            user_agent: self.hook_user_agent.clone(),
            ..self.clone()
        };
        let connector = ProbeConnector::new(pod, timeout);
        let Err(error) = probe_http::fetch(&sender, &connector, get).await else {
            return Ok(HookAnswer::AsAsked);
        };
        if error.why() != probe_http::NOT_TLS {
            return Err(error.why().to_owned());
        }
        let mut plain = HttpGetProbe {
            scheme: ProbeScheme::Http,
            ..get.clone()
        };
        // Credentials that were meant for TLS.
        plain.headers.remove(header::AUTHORIZATION);
        match probe_http::fetch(&sender, &connector, &plain).await {
            Ok(_) => Ok(HookAnswer::WithoutTls),
            Err(error) => Err(error.why().to_owned()),
        }
    }
}
