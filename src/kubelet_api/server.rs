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

use super::auth::{AuthenticatedUser, Authenticator};
use super::nodes::{FoundPod, NodeRegistry};
use super::response::{ApiResult, HttpError, text_response};
use super::route::{ContainerRef, KubeletRoute, NodePermission, ScrapeEndpoint, parse_route};
use super::tasks::ListenerTasks;
use super::usage::UsageCache;
use super::{logs, pods, prometheus_metrics, stats_summary, streams};
use crate::node::pods::PodsContext;

/// The largest request body in bytes; no endpoint reads one.
const MAX_BODY_BYTES: u64 = 64 << 10;

/// What the answers are made from.
pub struct KubeletServer {
    /// Authenticates and authorizes clients.
    pub authenticator: Authenticator,
    /// The Kubernetes client.
    pub client: Client,
    /// The nodes that are served.
    pub nodes: NodeRegistry,
    /// The cached CPU and memory use of pods.
    pub usage: Arc<UsageCache>,
    /// Tasks that continue after an answer's head.
    pub tasks: ListenerTasks,
}

impl KubeletServer {
    /// Answers a request.
    pub async fn handle(
        self: &Arc<Self>,
        certificates: &[CertificateDer<'static>],
        request: Request<Incoming>,
    ) -> Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let answered = self.authorize_and_serve(certificates, request).await;
        let response = answered.unwrap_or_else(HttpError::into_response);
        tracing::debug!(%method, path, status = response.status().as_u16(), "answered");
        response
    }

    async fn authorize_and_serve(
        self: &Arc<Self>,
        certificates: &[CertificateDer<'static>],
        request: Request<Incoming>,
    ) -> ApiResult {
        if request.body().size_hint().lower() > MAX_BODY_BYTES {
            return Err(HttpError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is too large",
            ));
        }
        let caller = self
            .authenticator
            .authenticate(certificates, request.headers())
            .await?;
        let path = request.uri().path();
        let Some(route) = parse_route(path) else {
            return Err(HttpError::new(
                StatusCode::NOT_FOUND,
                format!("nothing is served at {path}"),
            ));
        };
        let permission = route.permission(request.method());
        match route.container_ref() {
            Some(target) => {
                let found = self
                    .find_authorized_pod(&caller, target, permission)
                    .await?;
                self.serve_pod(route, found, request).await
            }
            None => self.serve_nodes(&route, &caller, permission).await,
        }
    }

    /// The pod that is requested, if the user has the permission on its node. Only a user with the permission on
    /// some node learns that a pod does not exist.
    async fn find_authorized_pod(
        &self,
        caller: &AuthenticatedUser,
        target: &ContainerRef,
        permission: NodePermission,
    ) -> Result<FoundPod, HttpError> {
        let Some(found) = self.nodes.find_pod(&target.namespace, &target.pod) else {
            self.authorized_nodes(caller, permission).await?;
            let message = format!(
                "pod {}/{} is not on a node of this kubelet API",
                target.namespace, target.pod
            );
            return Err(HttpError::new(StatusCode::NOT_FOUND, message));
        };
        let node = &found.node.owner.node;
        if !self
            .authenticator
            .authorize(caller, node, permission)
            .await?
        {
            return Err(forbidden(caller, node, permission));
        }
        if target.uid.as_ref().is_some_and(|uid| *uid != found.pod.uid) {
            let message = format!(
                "pod {}/{} has another UID now",
                target.namespace, target.pod
            );
            return Err(HttpError::new(StatusCode::NOT_FOUND, message));
        }
        if !target.container.is_empty() && found.pod.container(&target.container).is_none() {
            let message = format!("pod {} has no container {}", target.pod, target.container);
            return Err(HttpError::new(StatusCode::NOT_FOUND, message));
        }
        Ok(found)
    }

    async fn serve_pod(
        self: &Arc<Self>,
        route: KubeletRoute,
        found: FoundPod,
        request: Request<Incoming>,
    ) -> ApiResult {
        match route {
            KubeletRoute::Logs(target) => {
                let container = target.container;
                let source = logs::LogSource {
                    container,
                    pod: found,
                };
                let query = request.uri().query().unwrap_or_default();
                logs::serve_log(source, query, &self.tasks).await
            }
            KubeletRoute::Exec(target) => {
                streams::exec(found, &target.container, request, &self.tasks)
            }
            KubeletRoute::Attach(target) => {
                streams::attach(found, &target.container, request, &self.tasks)
            }
            KubeletRoute::PortForward(_) => streams::port_forward(&found, request, &self.tasks),
            _ => Err(HttpError::new(
                StatusCode::NOT_FOUND,
                "not an endpoint of a pod",
            )),
        }
    }

    async fn serve_nodes(
        &self,
        route: &KubeletRoute,
        caller: &AuthenticatedUser,
        permission: NodePermission,
    ) -> ApiResult {
        let mut nodes = self.authorized_nodes(caller, permission).await?;
        if let KubeletRoute::ResourceMetrics(Some(node)) = route {
            nodes.retain(|context| context.owner.node == *node);
            if nodes.is_empty() {
                let message = format!("node {node} is not a node of this kubelet API");
                return Err(HttpError::new(StatusCode::NOT_FOUND, message));
            }
        }
        match route {
            KubeletRoute::Health => Ok(text_response(StatusCode::OK, "ok".to_owned())),
            KubeletRoute::Pods => pods::list_pods(&self.client, &nodes).await,
            KubeletRoute::RunningPods => pods::list_running_pods(&nodes),
            KubeletRoute::Summary => {
                self.usage.refresh(&nodes, &self.tasks).await;
                stats_summary::summary(&nodes, &self.usage)
            }
            KubeletRoute::ResourceMetrics(_) => {
                self.usage.refresh(&nodes, &self.tasks).await;
                Ok(prometheus_metrics::resource_metrics(&nodes, &self.usage))
            }
            KubeletRoute::Scrape(endpoint) => {
                if *endpoint == ScrapeEndpoint::Cadvisor {
                    self.usage.refresh(&nodes, &self.tasks).await;
                }
                Ok(prometheus_metrics::endpoint_metrics(
                    *endpoint,
                    &nodes,
                    &self.usage,
                ))
            }
            _ => Err(HttpError::new(
                StatusCode::NOT_FOUND,
                "an endpoint of a pod",
            )),
        }
    }

    /// The nodes on which the user has the permission; 403 if there are none. All nodes share one address, so a
    /// request that names no node means all of these. If the process serves no node, the user needs the permission
    /// on the empty node name.
    async fn authorized_nodes(
        &self,
        caller: &AuthenticatedUser,
        permission: NodePermission,
    ) -> Result<Vec<Arc<PodsContext>>, HttpError> {
        let mut allowed = Vec::new();
        let nodes = self.nodes.all();
        for node in &nodes {
            if self
                .authenticator
                .authorize(caller, &node.owner.node, permission)
                .await?
            {
                allowed.push(node.clone());
            }
        }
        let none_served =
            nodes.is_empty() && self.authenticator.authorize(caller, "", permission).await?;
        if allowed.is_empty() && !none_served {
            return Err(forbidden(caller, "", permission));
        }
        Ok(allowed)
    }
}

fn forbidden(caller: &AuthenticatedUser, node: &str, permission: NodePermission) -> HttpError {
    let NodePermission { verb, subresource } = permission;
    let message = format!(
        "Forbidden (user={}, verb={verb}, resource=nodes, subresource={subresource}, name={node})",
        caller.user
    );
    HttpError::new(StatusCode::FORBIDDEN, message)
}
