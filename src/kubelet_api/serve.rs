//! Serves one request of the kubelet API.
//!
//! In: a request's head and the client's certificates. Out: the answer, after routing, authentication and
//! authorization.

use std::sync::Arc;

use axum::body::Body;
use http::{Response, StatusCode};
use hyper::Request;
use hyper::body::{Body as _, Incoming};
use kube::Client;
use rustls::pki_types::CertificateDer;

use super::answer::{Answer, Refusal, text};
use super::callers::{Caller, Callers};
use super::nodes::{Found, Nodes};
use super::route::{Right, Route, Scrape, Target, route};
use super::tasks::Tasks;
use super::usage::Usage;
use super::{listing, logs, numbers, scraped, streams};
use crate::node::pods::Context;

/// The largest request body in bytes; no endpoint reads one.
const BODY_SIZE: u64 = 64 << 10;

/// What answers need.
pub struct Server {
    /// Authenticates and authorizes clients.
    pub callers: Callers,
    /// The Kubernetes client.
    pub client: Client,
    /// The nodes that are served.
    pub nodes: Nodes,
    /// The cached CPU and memory use of pods.
    pub usage: Arc<Usage>,
    /// Tasks that continue after an answer's head.
    pub tasks: Tasks,
}

impl Server {
    /// Answers a request.
    pub async fn answer(
        self: &Arc<Self>,
        certificates: &[CertificateDer<'static>],
        request: Request<Incoming>,
    ) -> Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let answered = self.admitted(certificates, request).await;
        let response = answered.unwrap_or_else(Refusal::response);
        tracing::debug!(%method, path, status = response.status().as_u16(), "answered");
        response
    }

    async fn admitted(
        self: &Arc<Self>,
        certificates: &[CertificateDer<'static>],
        request: Request<Incoming>,
    ) -> Answer {
        if request.body().size_hint().lower() > BODY_SIZE {
            return Err(Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is too big",
            ));
        }
        let caller = self.callers.who(certificates, request.headers()).await?;
        let path = request.uri().path();
        let Some(route) = route(path) else {
            return Err(Refusal::new(
                StatusCode::NOT_FOUND,
                format!("nothing is served at {path}"),
            ));
        };
        let right = route.right(request.method());
        match route.target() {
            Some(target) => {
                let found = self.find(&caller, target, right).await?;
                self.of_pod(route, found, request).await
            }
            None => self.of_nodes(&route, &caller, right).await,
        }
    }

    /// The pod that is requested, if the user has the permission on its node. Only a user with the permission on
    /// some node learns that a pod does not exist.
    async fn find(&self, caller: &Caller, target: &Target, right: Right) -> Result<Found, Refusal> {
        let Some(found) = self.nodes.find(&target.namespace, &target.pod) else {
            self.may_some(caller, right).await?;
            let message = format!("pod {}/{} is not here", target.namespace, target.pod);
            return Err(Refusal::new(StatusCode::NOT_FOUND, message));
        };
        let node = &found.node.owner.node;
        if !self.callers.may(caller, node, right).await? {
            return Err(forbidden(caller, node, right));
        }
        if target.uid.as_ref().is_some_and(|uid| *uid != found.pod.uid) {
            let message = format!("pod {}/{} is another one now", target.namespace, target.pod);
            return Err(Refusal::new(StatusCode::NOT_FOUND, message));
        }
        if !target.container.is_empty() && found.pod.container(&target.container).is_none() {
            let message = format!("pod {} has no container {}", target.pod, target.container);
            return Err(Refusal::new(StatusCode::NOT_FOUND, message));
        }
        Ok(found)
    }

    async fn of_pod(
        self: &Arc<Self>,
        route: Route,
        found: Found,
        request: Request<Incoming>,
    ) -> Answer {
        match route {
            Route::Logs(target) => {
                let container = target.container;
                let source = logs::Source { container, found };
                let query = request.uri().query().unwrap_or_default();
                logs::answer(source, query, &self.tasks).await
            }
            Route::Exec(target) => streams::exec(found, &target.container, request, &self.tasks),
            Route::Attach(target) => {
                streams::attach(found, &target.container, request, &self.tasks)
            }
            Route::PortForward(_) => streams::port_forward(&found, request, &self.tasks),
            _ => Err(Refusal::new(StatusCode::NOT_FOUND, "not of a pod")),
        }
    }

    async fn of_nodes(&self, route: &Route, caller: &Caller, right: Right) -> Answer {
        let mut nodes = self.may_some(caller, right).await?;
        if let Route::Resource(Some(node)) = route {
            nodes.retain(|context| context.owner.node == *node);
            if nodes.is_empty() {
                let message = format!("node {node} is not here");
                return Err(Refusal::new(StatusCode::NOT_FOUND, message));
            }
        }
        match route {
            Route::Health => Ok(text(StatusCode::OK, "ok".to_owned())),
            Route::Pods => listing::pods(&self.client, &nodes).await,
            Route::RunningPods => listing::running(&nodes),
            Route::Summary => {
                self.usage.refresh(&nodes, &self.tasks).await;
                numbers::summary(&nodes, &self.usage)
            }
            Route::Resource(_) => {
                self.usage.refresh(&nodes, &self.tasks).await;
                Ok(scraped::resource(&nodes, &self.usage))
            }
            Route::Scrape(what) => {
                if *what == Scrape::Cadvisor {
                    self.usage.refresh(&nodes, &self.tasks).await;
                }
                Ok(scraped::scrape(*what, &nodes, &self.usage))
            }
            _ => Err(Refusal::new(StatusCode::NOT_FOUND, "of a pod")),
        }
    }

    /// The nodes on which the user has the permission; 403 if there are none. All nodes share one address, so a
    /// request that names no node means all of these. If the process serves no node, the user needs the permission
    /// on the empty node name.
    async fn may_some(&self, caller: &Caller, right: Right) -> Result<Vec<Arc<Context>>, Refusal> {
        let mut allowed = Vec::new();
        let all = self.nodes.all();
        for node in &all {
            if self.callers.may(caller, &node.owner.node, right).await? {
                allowed.push(node.clone());
            }
        }
        let none = all.is_empty() && self.callers.may(caller, "", right).await?;
        if allowed.is_empty() && !none {
            return Err(forbidden(caller, "", right));
        }
        Ok(allowed)
    }
}

fn forbidden(caller: &Caller, node: &str, right: Right) -> Refusal {
    let Right { verb, subresource } = right;
    let message = format!(
        "Forbidden (user={}, verb={verb}, resource=nodes, subresource={subresource}, name={node})",
        caller.user
    );
    Refusal::new(StatusCode::FORBIDDEN, message)
}
