//! Validates ports, the group's IP address, its subnet and its DNS settings.

use std::collections::HashSet;

use super::{ValidationResult, is_dns_label, require};
use crate::emulator::arm::error::ArmFailure;
use crate::emulator::group::model::{IpAddress, Port, Properties};

/// The maximum number of ports of an IP address (hard limit, quotas page 2025-11).
const MAX_PORTS: usize = 5;

/// Whether the service reserves `port` for itself (naming page 2026-07).
fn is_reserved(port: i64) -> bool {
    matches!(
        port,
        22 | 1025..=1027 | 3389..=3399 | 9999 | 19000 | 19080 | 19100 | 19390 | 20000..=30000 | 49152..=65534
    )
}

/// Validates the network properties.
pub(super) fn check(properties: &Properties) -> ValidationResult {
    let container_properties = properties
        .containers()
        .iter()
        .filter_map(|c| c.properties.as_ref());
    ports(
        container_properties.flat_map(|p| p.ports.iter().flatten()),
        "containers",
    )?;
    for subnet in properties.subnet_ids.iter().flatten() {
        let id = subnet.id.as_deref().unwrap_or_default();
        require_resource_id(id, "properties.subnetIds[0].id")?;
        let is_subnet = id
            .to_lowercase()
            .contains("/providers/microsoft.network/virtualnetworks/");
        require(
            is_subnet && id.split('/').count() == 11,
            "VirtualNetworkNotFound",
            || format!("The virtual network of the subnet '{id}' was not found."),
        )?;
    }
    if let Some(requested) = &properties.ip_address {
        address(requested, properties)?;
    }
    if let Some(dns) = &properties.dns_config {
        let servers = dns.name_servers.as_deref().unwrap_or_default();
        let is_address = |server: &String| server.parse::<std::net::IpAddr>().is_ok();
        require(
            !servers.is_empty() && servers.iter().all(is_address),
            "InvalidDnsConfig",
            || "The DNS configuration must have name servers, each an IP address.".to_owned(),
        )?;
    }
    Ok(())
}

fn address(requested: &IpAddress, properties: &Properties) -> ValidationResult {
    let kind = requested
        .kind
        .as_deref()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let refuse = |ok, why: &str| {
        require(ok, "InvalidIpAddress", || {
            format!("The IP address of the container group is invalid: {why}.")
        })
    };
    refuse(
        ["public", "private"].contains(&kind.as_str()),
        "'type' must be Public or Private",
    )?;
    refuse(
        (kind == "private") == properties.is_in_subnet(),
        "an address of type Private needs a subnet, and one of type Public cannot have any",
    )?;
    let port_list = requested.ports.as_deref().unwrap_or_default();
    refuse(!port_list.is_empty(), "it must have at least one port")?;
    refuse(port_list.len() <= MAX_PORTS, "it may have 5 ports at most")?;
    if let Some(label) = &requested.dns_name_label {
        refuse(
            is_dns_label(label, 5),
            "'dnsNameLabel' must be 5 to 63 lowercase letters, numbers and hyphens",
        )?;
        refuse(
            kind == "public",
            "'dnsNameLabel' needs an address of type Public",
        )?;
    }
    ports(port_list.iter(), "the IP address")
}

fn ports<'a>(list: impl Iterator<Item = &'a Port>, owner: &str) -> ValidationResult {
    let mut used = HashSet::new();
    for port in list {
        let number = port.port.unwrap_or_default();
        let protocol = port
            .protocol
            .as_deref()
            .unwrap_or("TCP")
            .to_ascii_uppercase();
        let is_known_protocol = protocol == "TCP" || protocol == "UDP";
        require(
            (1..=65535).contains(&number) && is_known_protocol,
            "InvalidPort",
            || format!("The port '{number}/{protocol}' of {owner} must be 1 to 65535, TCP or UDP."),
        )?;
        require(!is_reserved(number), "ReservedPort", || {
            format!("The port '{number}' of {owner} is reserved by the service.")
        })?;
        require(used.insert((number, protocol)), "DuplicatePort", || {
            format!(
                "The port '{number}' of {owner} is used more than once: containers share one address."
            )
        })?;
    }
    Ok(())
}

/// Fails if `id` is not a resource id. ARM's gateway checks this before the service sees the request.
pub(super) fn require_resource_id(id: &str, path: &str) -> ValidationResult {
    if id.starts_with("/subscriptions/") {
        return Ok(());
    }
    let message = format!(
        "Property id '{id}' at path '{path}' is invalid. Expect fully qualified resource Id that \
         start with '/subscriptions/{{subscriptionId}}' or '/providers/{{resourceProviderNamespace}}/'."
    );
    Err(ArmFailure::bad_request("LinkedInvalidPropertyId", message).from_gateway())
}
