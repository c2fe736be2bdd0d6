//! Ports of containers, and the IP address of the group.
//!
//! In: the pod's container ports, and the placement. Out: the ports in the group's body, and a public address or
//! none.
//!
//! In a subnet, every port of a group is reachable at its private address, and the body requests no address.
//! Without a subnet, a pod with ports gets a public address with these ports; a pod without ports gets none. A spot
//! group has no address at all, so a pod with ports is refused there.
//!
//! In Kubernetes, a container's `ports` are informational. A port that ACI reserves is therefore left out: in a
//! subnet it is reachable nevertheless, and a public address does not have it. If a probe that ACI runs uses such a
//! port, ACI could not run the probe, so the pod is refused.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Container;

use super::annotations::{self, annotation_path};
use super::body::{IpAddress, Port, PortProtocol, SubnetId};
use super::pod::TranslationContext;
use super::probes;
use super::refusals::Refusals;

/// The most ports of a public address (a hard limit; quotas page of 2025-11).
const MAX_PORTS: usize = 5;

/// Whether ACI reserves `port` (naming page of 2026-07).
const fn is_reserved(port: u16) -> bool {
    matches!(
        port,
        22 | 1025..=1027
            | 3389..=3399
            | 9999
            | 19000
            | 19080
            | 19100
            | 19390
            | 20000..=30000
            | 49152..=65534
    )
}

/// The ports of `container`, whose field path is `at`. Ports that are already in `taken` are left out, because all
/// containers share one address; the new ones are added to it.
pub(super) fn ports(
    (container, in_subnet): (&Container, bool),
    at: &str,
    taken: &mut BTreeSet<Port>,
    refusals: &mut Refusals,
) -> Vec<Port> {
    let mut ports = Vec::new();
    for (index, port) in container.ports.iter().flatten().enumerate() {
        let at = format!("{at}.ports[{index}]");
        let protocol = match port.protocol.as_deref() {
            Some("UDP") => PortProtocol::Udp,
            _ => PortProtocol::Tcp,
        };
        let number = u16::try_from(port.container_port).ok();
        let Some(number) = number.filter(|number| *number > 0) else {
            let why = format!("{} is not a port number", port.container_port);
            refusals.refuse(format!("{at}.containerPort"), why);
            continue;
        };
        if is_reserved(number) {
            refusals.require(
                !probes::azure_probe_uses_port(container, in_subnet, number),
                format!("{at}.containerPort"),
                format!("ACI reserves port {number}, and a probe that ACI runs uses it"),
            );
            continue;
        }
        let port = Port {
            protocol,
            port: number,
        };
        if taken.insert(port) {
            ports.push(port);
        }
    }
    ports
}

/// The subnet that contains the group, if the placement has one.
pub(super) fn subnets(context: &TranslationContext<'_>) -> Vec<SubnetId> {
    let id = context.placement.spec.subnet_id.iter();
    id.map(|id| SubnetId { id: id.clone() }).collect()
}

/// The public address of a group with these ports; `None` if it gets no public address.
pub(super) fn public_address(
    ports: &BTreeSet<Port>,
    context: &TranslationContext<'_>,
    refusals: &mut Refusals,
) -> Option<IpAddress> {
    let placement = context.placement;
    let label = annotations::dns_name_label(context.pod);
    let is_public = !placement.is_in_subnet() && !placement.is_spot() && !ports.is_empty();
    if let Some((name, label)) = label {
        let is_allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let is_valid = (5..=63).contains(&label.len())
            && label.bytes().all(is_allowed)
            && !label.starts_with('-')
            && !label.ends_with('-');
        let why = "a DNS label has 5 to 63 lower-case letters, digits and inner hyphens";
        refusals.require(is_valid, annotation_path(name), why);
        let why = "it needs a public address: ports, and a placement without a subnet and without Spot priority";
        refusals.require(is_public, annotation_path(name), why);
    }
    if placement.is_spot() {
        let why = "a spot container group has no address, so nothing could reach its ports";
        refusals.require(ports.is_empty(), "spec.containers[*].ports", why);
    }
    if !is_public {
        return None;
    }
    refusals.require(
        ports.len() <= MAX_PORTS,
        "spec.containers[*].ports",
        "a public address has 5 ports at most",
    );
    Some(IpAddress {
        kind: "Public",
        ports: ports.iter().copied().collect(),
        dns_name_label: label.map(|(_, label)| label.to_owned()),
    })
}
