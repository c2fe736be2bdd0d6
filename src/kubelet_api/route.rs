//! The endpoint of a request, and the permission that it needs.
//!
//! In: method and path. Out: a [`KubeletRoute`] and its [`NodePermission`]. Pure. The permissions are those of a
//! kubelet (`nodes/stats`, `nodes/metrics`, else `nodes/proxy`), with one difference: exec, attach and port-forward
//! always need the verb `create`, even if a WebSocket makes the request a GET.

use http::Method;

/// A pod, and one of its containers if the path names one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRef {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's UID, if the path contains it.
    pub uid: Option<String>,
    /// The container; empty if the path names none.
    pub container: String,
}

/// The endpoints of the kubelet API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KubeletRoute {
    /// Health of the process.
    Health,
    /// The pods, as objects.
    Pods,
    /// The running pods, by name.
    RunningPods,
    /// The stats summary, as JSON.
    Summary,
    /// Resource metrics for Prometheus and metrics-server, of all nodes or of one.
    ResourceMetrics(Option<String>),
    /// Another metrics endpoint of a kubelet.
    Scrape(ScrapeEndpoint),
    /// A container's log.
    Logs(ContainerRef),
    /// A command in a container.
    Exec(ContainerRef),
    /// A container's output from now on.
    Attach(ContainerRef),
    /// Ports of a pod.
    PortForward(ContainerRef),
}

/// The metrics endpoints that Prometheus is usually configured to scrape on every kubelet, besides resource
/// metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScrapeEndpoint {
    /// Metrics of the kubelet itself.
    Kubelet,
    /// Metrics of containers in cAdvisor's format.
    Cadvisor,
    /// Probe metrics.
    Probes,
    /// Health check metrics.
    Slis,
}

/// A permission on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodePermission {
    /// The verb.
    pub verb: &'static str,
    /// The subresource of the node.
    pub subresource: &'static str,
}

/// The endpoint of a path; `None` if there is none.
pub fn parse_route(path: &str) -> Option<KubeletRoute> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let target = |container: &str, uid: Option<&str>| ContainerRef {
        namespace: parts[1].to_owned(),
        pod: parts[2].to_owned(),
        uid: uid.map(str::to_owned),
        container: container.to_owned(),
    };
    Some(match parts.as_slice() {
        ["healthz"] => KubeletRoute::Health,
        ["pods"] => KubeletRoute::Pods,
        ["runningpods"] => KubeletRoute::RunningPods,
        ["stats", "summary"] => KubeletRoute::Summary,
        ["metrics"] => KubeletRoute::Scrape(ScrapeEndpoint::Kubelet),
        ["metrics", "cadvisor"] => KubeletRoute::Scrape(ScrapeEndpoint::Cadvisor),
        ["metrics", "probes"] => KubeletRoute::Scrape(ScrapeEndpoint::Probes),
        ["metrics", "slis"] => KubeletRoute::Scrape(ScrapeEndpoint::Slis),
        ["metrics", "resource"] => KubeletRoute::ResourceMetrics(None),
        ["metrics", "resource", node] => KubeletRoute::ResourceMetrics(Some((*node).to_owned())),
        ["containerLogs", _, _, container] => KubeletRoute::Logs(target(container, None)),
        ["exec", _, _, container] => KubeletRoute::Exec(target(container, None)),
        ["exec", _, _, uid, container] => KubeletRoute::Exec(target(container, Some(uid))),
        ["attach", _, _, container] => KubeletRoute::Attach(target(container, None)),
        ["attach", _, _, uid, container] => KubeletRoute::Attach(target(container, Some(uid))),
        ["portForward", _, _] => KubeletRoute::PortForward(target("", None)),
        ["portForward", _, _, uid] => KubeletRoute::PortForward(target("", Some(uid))),
        _ => return None,
    })
}

impl KubeletRoute {
    /// The pod that the request is about, if any.
    pub fn container_ref(&self) -> Option<&ContainerRef> {
        match self {
            Self::Logs(target)
            | Self::Exec(target)
            | Self::Attach(target)
            | Self::PortForward(target) => Some(target),
            _ => None,
        }
    }

    /// The permission that a request with this method needs.
    pub fn permission(&self, method: &Method) -> NodePermission {
        let verb = match *method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "get",
        };
        match self {
            Self::Summary => NodePermission {
                verb,
                subresource: "stats",
            },
            Self::ResourceMetrics(_) | Self::Scrape(_) => NodePermission {
                verb,
                subresource: "metrics",
            },
            Self::Exec(_) | Self::Attach(_) | Self::PortForward(_) => NodePermission {
                verb: "create",
                subresource: "proxy",
            },
            _ => NodePermission {
                verb,
                subresource: "proxy",
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_a_kubelet() {
        let Some(KubeletRoute::Logs(target)) = parse_route("/containerLogs/shop/web-0/main") else {
            unreachable!("logs");
        };
        assert_eq!(
            (&*target.namespace, &*target.pod, &*target.container),
            ("shop", "web-0", "main")
        );
        let Some(KubeletRoute::Exec(target)) = parse_route("/exec/shop/web-0/123/main") else {
            unreachable!("a command");
        };
        assert_eq!(
            (target.uid.as_deref(), &*target.container),
            (Some("123"), "main")
        );
        assert!(matches!(
            parse_route("/portForward/shop/web-0"),
            Some(KubeletRoute::PortForward(_))
        ));
        assert_eq!(
            parse_route("/runningpods/"),
            Some(KubeletRoute::RunningPods)
        );
        assert_eq!(
            parse_route("/metrics/resource/burst-a"),
            Some(KubeletRoute::ResourceMetrics(Some("burst-a".to_owned())))
        );
        for path in [
            "/",
            "/containerLogs/shop/web-0",
            "/pods/x",
            "/metrics/elsewhere",
        ] {
            assert_eq!(parse_route(path), None, "{path}");
        }
    }

    #[test]
    fn permissions_are_those_of_a_kubelet() {
        let permission = |path: &str| {
            let permission = parse_route(path).expect("a route").permission(&Method::GET);
            (permission.verb, permission.subresource)
        };
        assert_eq!(permission("/stats/summary"), ("get", "stats"));
        assert_eq!(permission("/metrics/resource"), ("get", "metrics"));
        assert_eq!(permission("/metrics"), ("get", "metrics"));
        assert_eq!(permission("/metrics/cadvisor"), ("get", "metrics"));
        assert_eq!(permission("/containerLogs/a/b/c"), ("get", "proxy"));
        assert_eq!(permission("/healthz"), ("get", "proxy"));
        assert_eq!(
            permission("/exec/a/b/c"),
            ("create", "proxy"),
            "a websocket's GET, too"
        );
    }
}
