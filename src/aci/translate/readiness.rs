//! Who decides whether a container has started and is ready.
//!
//! In: a container, and whether its group is in a subnet. Out: the probes that the virtual node runs, and whether
//! ACI gets a readiness probe; or the field that prevents both. Either the node or ACI judges a container, never both:
//! ACI cuts a container off whose readiness probe fails, and its API does not tell the result.
//!
//! The node reaches a group only in a subnet. There it runs the probes `httpGet`, `tcpSocket` and `grpc`. ACI runs
//! `exec`, and `httpGet` without a subnet.

use k8s_openapi::api::core::v1::{Container, Probe};

use crate::aci::probe::{ProbeKind, ProbeSpec, ProbeSpecError};

/// Who decides whether a running container is ready.
#[derive(Clone, Debug, PartialEq)]
pub enum ReadinessJudge {
    /// The container has no readiness probe.
    None,
    /// The virtual node: it sends this probe to the pod.
    Node(Box<ProbeSpec>),
    /// ACI: the probe is a part of the group.
    Azure,
    /// Nobody can run the probe.
    Refused(ProbeSpecError),
}

/// Who decides whether `container` is ready. `at` is the container's field path.
pub fn readiness_judge(container: &Container, in_subnet: bool, at: &str) -> ReadinessJudge {
    let Some(probe) = &container.readiness_probe else {
        return ReadinessJudge::None;
    };
    let is_exec = probe.exec.is_some();
    if in_subnet && !is_exec {
        return match ProbeSpec::of(ProbeKind::Readiness, container, at) {
            Ok(Some(spec)) => ReadinessJudge::Node(Box::new(spec)),
            Ok(None) => ReadinessJudge::None,
            Err(error) => ReadinessJudge::Refused(error),
        };
    }
    for (field, is_set) in [
        ("tcpSocket", probe.tcp_socket.is_some()),
        ("grpc", probe.grpc.is_some()),
    ] {
        if is_set && !is_exec {
            let why = "without a subnet, ACI runs the probe, by exec or httpGet: use one of these, or a \
                 placement with subnetId";
            return ReadinessJudge::Refused(refusal(&format!("{at}.readinessProbe.{field}"), why));
        }
    }
    ReadinessJudge::Azure
}

/// The startup probe of `container`, which the virtual node runs; `None` if it has none. `at` is the container's
/// field path.
///
/// Only ACI can restart a container, by its liveness probe. So the startup probe must be the same as the liveness
/// probe: ACI then sends its first liveness probe only when the startup probe may have failed for good.
///
/// # Errors
///
/// If the group is not in a subnet, if the probe is a command, or if the liveness probe is another one.
pub fn startup_probe(
    container: &Container,
    in_subnet: bool,
    at: &str,
) -> Result<Option<ProbeSpec>, ProbeSpecError> {
    let Some(startup) = &container.startup_probe else {
        return Ok(None);
    };
    let field = format!("{at}.startupProbe");
    if !in_subnet {
        let why = "without a subnet, nothing can tell when the container has started: use a placement with subnetId";
        return Err(refusal(&field, why));
    }
    let is_same =
        |liveness: &Probe| startup.http_get.is_some() && liveness.http_get == startup.http_get;
    if startup.exec.is_none() && !container.liveness_probe.as_ref().is_some_and(is_same) {
        let why = "only ACI's liveness probe can restart the container: give livenessProbe the same httpGet";
        return Err(refusal(&field, why));
    }
    ProbeSpec::of(ProbeKind::Startup, container, at)
}

/// The probes of `container` that the virtual node runs: the startup probe and the readiness probe. A pod with probes
/// that nobody can run is refused before this matters.
pub fn node_probes(
    container: &Container,
    in_subnet: bool,
) -> (Option<ProbeSpec>, Option<ProbeSpec>) {
    let startup = startup_probe(container, in_subnet, "").unwrap_or_default();
    let readiness = match readiness_judge(container, in_subnet, "") {
        ReadinessJudge::Node(spec) => Some(*spec),
        _ => None,
    };
    (startup, readiness)
}

fn refusal(field: &str, why: &str) -> ProbeSpecError {
    ProbeSpecError {
        field: field.to_owned(),
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn container(fields: Value) -> Container {
        let mut fields = fields;
        fields["name"] = json!("web");
        serde_json::from_value(fields).expect("a container")
    }

    #[test]
    fn the_node_judges_what_it_can_send_into_a_subnet_and_azure_the_rest() {
        let exec = json!({"exec": {"command": ["true"]}});
        let get = json!({"httpGet": {"port": 80}});
        let socket = json!({"tcpSocket": {"port": 80}});
        let grpc = json!({"grpc": {"port": 80}});
        for (probe, in_subnet, outside) in [
            (&exec, "Azure", "Azure"),
            (&get, "Node", "Azure"),
            (&socket, "Node", "c.readinessProbe.tcpSocket"),
            (&grpc, "Node", "c.readinessProbe.grpc"),
        ] {
            for (is_in_subnet, wanted) in [(true, in_subnet), (false, outside)] {
                let container = container(json!({"readinessProbe": probe}));
                let judge = match readiness_judge(&container, is_in_subnet, "c") {
                    ReadinessJudge::None => "None".to_owned(),
                    ReadinessJudge::Node(_) => "Node".to_owned(),
                    ReadinessJudge::Azure => "Azure".to_owned(),
                    ReadinessJudge::Refused(error) => error.field,
                };
                assert_eq!(judge, wanted, "{probe}");
                let (startup, readiness) = node_probes(&container, is_in_subnet);
                assert_eq!((startup, readiness.is_some()), (None, wanted == "Node"));
            }
        }
        let none = container(json!({}));
        assert_eq!(readiness_judge(&none, true, "c"), ReadinessJudge::None);
        let host =
            container(json!({"readinessProbe": {"tcpSocket": {"port": 80, "host": "a.example"}}}));
        assert!(matches!(
            readiness_judge(&host, true, "c"),
            ReadinessJudge::Refused(_)
        ));
    }

    #[test]
    fn a_startup_probe_needs_a_subnet_and_the_same_liveness_probe() {
        let get = json!({"httpGet": {"port": 80, "path": "/live"}});
        let other = json!({"httpGet": {"port": 80, "path": "/started"}});
        let socket = json!({"tcpSocket": {"port": 80}});
        let exec = json!({"exec": {"command": ["true"]}});
        for (startup, liveness, in_subnet, refused) in [
            (&get, Some(&get), true, None),
            (&get, Some(&get), false, Some("c.startupProbe")),
            (&get, Some(&other), true, Some("c.startupProbe")),
            (&get, None, true, Some("c.startupProbe")),
            (&socket, Some(&socket), true, Some("c.startupProbe")),
            (&exec, Some(&exec), true, Some("c.startupProbe.exec")),
        ] {
            let container = container(json!({"startupProbe": startup, "livenessProbe": liveness}));
            let probe = startup_probe(&container, in_subnet, "c");
            let field = probe.as_ref().err().map(|error| error.field.as_str());
            assert_eq!(field, refused, "{startup} {liveness:?}");
            assert_eq!(
                node_probes(&container, in_subnet).0.is_some(),
                refused.is_none()
            );
        }
    }
}
