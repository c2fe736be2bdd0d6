//! Liveness and readiness probes of ACI.
//!
//! In: a container's probes. Out: those in the group's body, or refusals. The defaults of Kubernetes are written
//! explicitly, because ACI's may differ.

use k8s_openapi::api::core::v1::{Container, ContainerPort, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::body::{self, HttpHeader, ProbeExec, ProbeHttpGet};
use super::expansion::expand;
use super::readiness::{ReadinessJudge, readiness_judge, startup_probe};
use super::refusals::Refusals;
use crate::aci::probe::ProbeSpec;

/// Expands a part of a probe's command as the kubelet does (`ExpandContainerCommandOnlyStatic` in its source):
/// references are replaced with the literal values in `env`. A variable with `valueFrom` counts as empty, so no
/// secret gets into the command.
fn expand_static(part: &str, container: &Container) -> String {
    let lookup = |name: &str| {
        let mut variables = container.env.iter().flatten().rev();
        let variable = variables.find(|variable| variable.name == name)?;
        Some((variable.value.as_deref().unwrap_or_default(), false))
    };
    expand(part, lookup).text
}

/// The liveness and the readiness probe that ACI runs; `at` is the field path of `container`.
pub(super) fn probes(
    container: &Container,
    in_subnet: bool,
    at: &str,
    refusals: &mut Refusals,
) -> (Option<body::Probe>, Option<body::Probe>) {
    let mut liveness = translated(
        container.liveness_probe.as_ref(),
        container,
        &format!("{at}.livenessProbe"),
        refusals,
    );
    match startup_probe(container, in_subnet, at) {
        Ok(None) => {}
        Ok(Some(startup)) => {
            if let Some(liveness) = &mut liveness {
                let delay = startup_budget(&startup);
                liveness.initial_delay_seconds = liveness.initial_delay_seconds.max(delay);
            }
        }
        Err(error) => refusals.refuse(error.field, error.why),
    }
    let readiness = match readiness_judge(container, in_subnet, at) {
        ReadinessJudge::None | ReadinessJudge::Node(_) => None,
        ReadinessJudge::Azure => translated(
            container.readiness_probe.as_ref(),
            container,
            &format!("{at}.readinessProbe"),
            refusals,
        ),
        ReadinessJudge::Refused(error) => {
            refusals.refuse(error.field, error.why);
            None
        }
    };
    (liveness, readiness)
}

/// How many seconds after the start of the container a kubelet restarts it at the earliest because of its startup
/// probe.
fn startup_budget(startup: &ProbeSpec) -> i32 {
    let budget = startup.period.saturating_mul(startup.failure_threshold);
    let budget = startup.initial_delay.saturating_add(budget);
    i32::try_from(budget.as_secs()).unwrap_or(i32::MAX)
}

/// Translates a probe of `container`; `at` is its field path.
fn translated(
    probe: Option<&Probe>,
    container: &Container,
    at: &str,
    refusals: &mut Refusals,
) -> Option<body::Probe> {
    let probe = probe?;
    let exec = probe.exec.as_ref().map(|exec| {
        let parts = exec.command.iter().flatten();
        ProbeExec {
            command: parts.map(|part| expand_static(part, container)).collect(),
        }
    });
    if let Some(exec) = &exec {
        let given = !exec.command.is_empty();
        refusals.require(given, format!("{at}.exec.command"), "it is empty");
    }
    let ports = container.ports.as_deref().unwrap_or_default();
    let http_get = probe.http_get.as_ref();
    let http_get =
        http_get.and_then(|get| self::http_get(get, ports, &format!("{at}.httpGet"), refusals));
    let kinds = [probe.exec.is_some(), probe.http_get.is_some()];
    let refused_kinds = [
        ("tcpSocket", probe.tcp_socket.is_some()),
        ("grpc", probe.grpc.is_some()),
    ];
    for (field, is_set) in refused_kinds {
        let why = "ACI probes by exec and httpGet";
        refusals.require(!is_set, format!("{at}.{field}"), why);
    }
    refusals.require(
        refused_kinds.iter().any(|(_, is_set)| *is_set)
            || kinds.iter().filter(|given| **given).count() == 1,
        at,
        "a probe has exactly one of exec and httpGet on ACI",
    );
    let mut seconds = |name: &str, value: Option<i32>, default: i32| {
        let value = value.unwrap_or(0);
        refusals.require(value >= 0, format!("{at}.{name}"), "it is negative");
        if value == 0 { default } else { value }
    };
    // The defaults of the Kubernetes API: 0, 10, 3, 1 and 1.
    Some(body::Probe {
        exec,
        http_get,
        initial_delay_seconds: seconds("initialDelaySeconds", probe.initial_delay_seconds, 0),
        period_seconds: seconds("periodSeconds", probe.period_seconds, 10),
        failure_threshold: seconds("failureThreshold", probe.failure_threshold, 3),
        success_threshold: seconds("successThreshold", probe.success_threshold, 1),
        timeout_seconds: seconds("timeoutSeconds", probe.timeout_seconds, 1),
    })
}

fn http_get(
    get: &HTTPGetAction,
    ports: &[ContainerPort],
    at: &str,
    refusals: &mut Refusals,
) -> Option<ProbeHttpGet> {
    let scheme = match get.scheme.as_deref().unwrap_or_default() {
        "" | "HTTP" => "http",
        "HTTPS" => "https",
        other => {
            refusals.refuse(
                format!("{at}.scheme"),
                format!("'{other}' is neither HTTP nor HTTPS"),
            );
            "http"
        }
    };
    let port = match resolve_port(&get.port, ports) {
        Ok(port) => port,
        Err(why) => {
            refusals.refuse(format!("{at}.port"), why);
            return None;
        }
    };
    let path = get.path.as_deref().filter(|path| !path.is_empty());
    let headers = get.http_headers.iter().flatten();
    let headers = headers.map(|header| HttpHeader {
        name: header.name.clone(),
        value: header.value.clone(),
    });
    Some(ProbeHttpGet {
        path: path.unwrap_or("/").to_owned(),
        port,
        scheme,
        http_headers: headers.collect(),
    })
}

/// Whether an HTTP probe of `container` that ACI runs uses this port. The virtual node reaches every port.
pub(super) fn azure_probe_uses_port(container: &Container, in_subnet: bool, number: u16) -> bool {
    let ports = container.ports.as_deref().unwrap_or_default();
    let judge = readiness_judge(container, in_subnet, "");
    let readiness = container.readiness_probe.iter();
    let readiness = readiness.filter(|_| judge == ReadinessJudge::Azure);
    let probes = container.liveness_probe.iter().chain(readiness);
    let mut http_gets = probes.filter_map(|probe| probe.http_get.as_ref());
    http_gets.any(|get| resolve_port(&get.port, ports) == Ok(number))
}

/// The number of a port that is given by number, or by a name among the container's ports.
fn resolve_port(port: &IntOrString, ports: &[ContainerPort]) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let mut named = ports.iter().filter(|p| p.name.as_ref() == Some(name));
            let number = named.next().map(|port| port.container_port);
            // A string that contains a number is a port number, as for the kubelet.
            number
                .or_else(|| name.parse().ok())
                .ok_or_else(|| format!("the container has no port '{name}'"))?
        }
    };
    u16::try_from(number)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("{number} is not a port number"))
}
