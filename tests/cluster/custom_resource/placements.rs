//! Placements that the API server accepts, and those that it rejects.

use serde_json::{Value, json};

use super::{accepted, pool, refused, with};
use crate::support::Cluster;

const SUBNET: &str =
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/n";

/// Changes of a placement without a subnet that are accepted.
const ACCEPTED: [&str; 3] = [
    r#"{"network": {"kubeProxy": false}}"#,
    r#"{"priority": "Spot", "sku": "Standard"}"#,
    r#"{"priority": "Spot", "zones": []}"#,
];

/// Changes of a placement in a subnet that are accepted.
const ACCEPTED_IN_SUBNET: [&str; 6] = [
    r#"{"network": {"kubeProxy": true}}"#,
    r#"{"network": {"dns": {"nameServers": ["10.0.0.10", "168.63.129.16", "255.255.255.255"]}}}"#,
    r#"{"network": {"dns": {"nameServers": ["10.0.0.10"], "clusterDomain": "cluster.local"}}}"#,
    r#"{"network": {"dns": {"nameServers": ["10.0.0.10"], "clusterDomain": "k8s"}}}"#,
    r#"{"capacity": {"cpu": 4, "memory": "1.5Gi"}}"#,
    r#"{"labels": {"example.com/tier": "", "team": "A_b.c-1"}}"#,
];

/// Changes of a placement without a subnet that are rejected, and a part of the message.
const REJECTED: [(&str, &str); 6] = [
    (
        r#"{"network": {"kubeProxy": true}}"#,
        "network.kubeProxy needs subnetId",
    ),
    (
        r#"{"network": {"dns": {"nameServers": ["10.0.0.10"]}}}"#,
        "network.dns needs subnetId",
    ),
    (
        r#"{"priority": "Spot", "zones": ["1"]}"#,
        "priority Spot cannot be combined with zones",
    ),
    (
        r#"{"priority": "Spot", "sku": "Confidential"}"#,
        "priority Spot needs sku Standard",
    ),
    (r#"{"name": "W"}"#, "spec.placements[0].name"),
    (r#"{"region": "West Europe"}"#, "spec.placements[0].region"),
];

/// Changes of a placement in a subnet that are rejected, and a part of the message.
const REJECTED_IN_SUBNET: [(&str, &str); 10] = [
    (r#"{"zones": ["west"]}"#, "spec.placements[0].zones"),
    (
        r#"{"zones": ["w"]}"#,
        "zones must contain the number of an availability zone",
    ),
    (r#"{"priority": "Spot"}"#, "subnetId"),
    (r#"{"subnetId": "v/s"}"#, "subnetId"),
    (
        r#"{"labels": {"kubernetes.io/hostname": "x"}}"#,
        "kubernetes.io/hostname",
    ),
    (
        r#"{"labels": {"tier": "not so"}}"#,
        "spec.placements[0].labels.tier",
    ),
    (
        r#"{"capacity": {"cpu": "lots"}}"#,
        "spec.placements[0].capacity.cpu",
    ),
    (
        r#"{"capacity": {"memory": "-1Gi"}}"#,
        "spec.placements[0].capacity.memory",
    ),
    (
        r#"{"capacity": {"cpu": -1}}"#,
        "spec.placements[0].capacity.cpu",
    ),
    (
        r#"{"network": {"dns": {"nameServers": []}}}"#,
        "spec.placements[0].network.dns.nameServers",
    ),
];

/// Name servers that are rejected, and a part of the message.
const REJECTED_SERVERS: [(&[&str], &str); 5] = [
    (
        &["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"],
        "spec.placements[0].network.dns.nameServers",
    ),
    (&["10.0.0.256"], "nameServers must be IPv4 addresses"),
    (&["10.0.0.1."], "nameServers must be IPv4 addresses"),
    (&["dns.example"], "nameServers must be IPv4 addresses"),
    (&["fd00::1"], "nameServers must be IPv4 addresses"),
];

/// Domains of a cluster that are rejected.
const REJECTED_DOMAINS: [&str; 4] = ["Cluster.local", "cluster.local.", "a..b", ""];

/// The pool with one placement with these changes.
fn placement(in_subnet: bool, changes: &str) -> Value {
    let mut placement = json!({"name": "weu", "region": "westeurope"});
    if in_subnet {
        placement["subnetId"] = SUBNET.into();
    }
    let changes: Value = serde_json::from_str(changes).expect(changes);
    for (field, value) in changes.as_object().expect("changes") {
        placement[field] = value.clone();
    }
    with("/spec/placements", json!([placement]))
}

fn dns(dns: &Value) -> Value {
    let changes = json!({"network": {"dns": dns}});
    placement(true, &changes.to_string())
}

/// Applies placements of both kinds, and changes of a placement that exists: the pool `shop` must exist.
pub fn are_checked(cluster: &Cluster) {
    let without = ACCEPTED.map(|changes| placement(false, changes));
    let within = ACCEPTED_IN_SUBNET.map(|changes| placement(true, changes));
    for right in without.iter().chain(&within) {
        accepted(cluster, right);
        let one = cluster.kubectl().args(["delete", "bp", "one"]).output();
        assert!(one.expect("kubectl").status.success());
    }
    let rejected = |wrong: &Value, field: &str| {
        let said = refused(cluster, wrong);
        assert!(said.contains(field), "{field}: {said}");
    };
    for (changes, field) in REJECTED {
        rejected(&placement(false, changes), field);
    }
    for (changes, field) in REJECTED_IN_SUBNET {
        rejected(&placement(true, changes), field);
    }
    for (servers, field) in REJECTED_SERVERS {
        rejected(&dns(&json!({"nameServers": servers})), field);
    }
    for domain in REJECTED_DOMAINS {
        let dns = dns(&json!({"nameServers": ["10.0.0.10"], "clusterDomain": domain}));
        rejected(&dns, "clusterDomain must be a DNS name");
    }
    rejected(&with("/spec/placements", json!([])), "spec.placements");
    let [a, b] = [("a", "westus"), ("a", "eastus")]
        .map(|(name, region)| json!({"name": name, "region": region}));
    rejected(&with("/spec/placements", json!([a, b])), "spec.placements");
    for (field, value) in [("region", "northeurope"), ("subnetId", SUBNET)] {
        let mut moved = pool("shop");
        moved["spec"]["placements"][0][field] = value.into();
        let said = refused(cluster, &moved);
        assert!(said.contains("add another placement instead"), "{said}");
    }
}
