//! Errors in a pool's spec that the CRD's validation rules cannot detect. Pure.
//!
//! In: a pool, the operator's options, the nodes and the other pools. Out: an [`InvalidSpec`], whose text names
//! the field and the remedy.

mod labels;
mod node_owner;

use self::labels::check_labels;
use crate::aci::client::GroupScope;
use crate::api::{BurstPool, Placement};
use crate::node::capacity;

pub(super) use self::node_owner::{check_node_owner, node_owned_by_other};

/// An error in a pool's spec that the CRD's validation rules cannot detect, as text for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSpec(pub String);

/// The subscription and resource group of the pool's container groups: from its spec, or else from the
/// operator's options.
pub(super) fn azure_scope(
    pool: &BurstPool,
    default: &GroupScope,
) -> Result<GroupScope, InvalidSpec> {
    let azure = &pool.spec.azure;
    let or = |specified: &Option<String>, default: &str, field: &str, flag: &str| {
        let value = specified.clone().unwrap_or_else(|| default.to_owned());
        if value.is_empty() {
            return Err(InvalidSpec(format!(
                "spec.azure.{field} is not set, and the operator has no {flag}: set either"
            )));
        }
        Ok(value)
    };
    Ok(GroupScope {
        subscription: or(
            &azure.subscription_id,
            &default.subscription,
            "subscriptionId",
            "--subscription-id",
        )?,
        resource_group: or(
            &azure.resource_group,
            &default.resource_group,
            "resourceGroup",
            "--resource-group",
        )?,
    })
}

/// The error that the spec names another scope than that of the existing container groups.
pub(super) fn scope_changed(from: &GroupScope, to: &GroupScope) -> InvalidSpec {
    let describe = |scope: &GroupScope| {
        let GroupScope {
            subscription,
            resource_group,
        } = scope;
        format!("resource group {resource_group} of subscription {subscription}")
    };
    InvalidSpec(format!(
        "spec.azure names {}, but the pool's container groups are in {} and cannot move: change it back, or \
         create another pool; the change is possible once the pool has neither pods on ACI nor container groups \
         there",
        describe(to),
        describe(from)
    ))
}

/// The error that the spec names another scope, and that Azure forbids the operator to list the container groups
/// in the existing one.
pub(super) fn unlisted(from: &GroupScope, to: &GroupScope) -> InvalidSpec {
    let InvalidSpec(message) = scope_changed(from, to);
    let group = &from.resource_group;
    InvalidSpec(format!(
        "{message}. Azure answers 403 when burstpool lists container groups there: give its identity the permission \
         Microsoft.ContainerInstance/containerGroups/read on resource group {group} (if {group} was deleted, create \
         it again and assign the role there), or give the placements other names"
    ))
}

/// Checks that the operator knows the API server's address if a placement of the pool runs kube-proxy.
pub(super) fn check_kube_proxy(
    pool: &BurstPool,
    has_api_server_url: bool,
) -> Result<(), InvalidSpec> {
    let mut placements = pool.spec.placements.iter().enumerate();
    match placements.find(|(_, placement)| placement.network.kube_proxy) {
        Some((index, _)) if !has_api_server_url => Err(InvalidSpec(format!(
            "spec.placements[{index}].network.kubeProxy needs the address at which pods on ACI reach the API \
             server: start burstpool with --api-server-url"
        ))),
        _ => Ok(()),
    }
}

/// Checks that the pool's placements can become nodes. The CRD's rules reject most of these errors, but not
/// all, and a pool may be older than the rules.
pub(super) fn check_placements(pool: &BurstPool) -> Result<(), InvalidSpec> {
    for (index, placement) in pool.spec.placements.iter().enumerate() {
        let field = format!("spec.placements[{index}]");
        check_capacity(placement, &field)?;
        check_labels(&placement.labels, &format!("{field}.labels"))?;
    }
    Ok(())
}

fn check_capacity(placement: &Placement, field: &str) -> Result<(), InvalidSpec> {
    let capacity = &placement.capacity;
    for (name, quantity, example) in [
        ("cpu", &capacity.cpu, "100 or 500m"),
        ("memory", &capacity.memory, "400Gi"),
    ] {
        if capacity::quantity_milli(quantity).is_none() {
            return Err(InvalidSpec(format!(
                "{field}.capacity.{name}: '{}' is not an amount that a node can have: write a quantity from 0 to \
                 2^63 - 1, such as {example}",
                quantity.0
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::BurstPoolSpec;

    #[test]
    fn kube_proxy_needs_the_address_of_the_api_server() {
        let spec = json!({"azure": {}, "placements": [
            {"name": "a", "region": "westeurope"},
            {"name": "b", "region": "westeurope", "subnetId": "s", "network": {"kubeProxy": true}},
        ]});
        let mut spec: BurstPoolSpec = serde_json::from_value(spec).expect("a spec");
        let pool = |spec: &BurstPoolSpec| BurstPool::new("shop", spec.clone());
        assert_eq!(check_kube_proxy(&pool(&spec), true), Ok(()));
        let Err(InvalidSpec(mistake)) = check_kube_proxy(&pool(&spec), false) else {
            unreachable!("the spec is invalid");
        };
        assert!(
            mistake.starts_with("spec.placements[1].network.kubeProxy ")
                && mistake.ends_with(" start burstpool with --api-server-url"),
            "{mistake}"
        );
        spec.placements.truncate(1);
        assert_eq!(check_kube_proxy(&pool(&spec), false), Ok(()));
    }

    /// Changes of a placement, and how the error begins after the placement. `LONG` stands for 64 letters.
    const INVALID: [(&str, &str); 14] = [
        (r#"{"capacity": {"cpu": "lots"}}"#, "capacity.cpu: 'lots' "),
        (r#"{"capacity": {"cpu": ""}}"#, "capacity.cpu: '' "),
        (
            r#"{"capacity": {"memory": "-1Gi"}}"#,
            "capacity.memory: '-1Gi' ",
        ),
        (
            r#"{"capacity": {"memory": "9Ei"}}"#,
            "capacity.memory: '9Ei' ",
        ),
        (
            r#"{"labels": {"": "x"}}"#,
            "labels: '' is not a valid label key",
        ),
        (
            r#"{"labels": {"a b": "x"}}"#,
            "labels: 'a b' is not a valid label key",
        ),
        (
            r#"{"labels": {"a/b/c": "x"}}"#,
            "labels: 'a/b/c' is not a valid label key",
        ),
        (
            r#"{"labels": {"/a": "x"}}"#,
            "labels: '/a' is not a valid label key",
        ),
        (
            r#"{"labels": {"A.example/b": "x"}}"#,
            "labels: 'A.example/b' is not a valid label key",
        ),
        (
            r#"{"labels": {"-a": "x"}}"#,
            "labels: '-a' is not a valid label key",
        ),
        (
            r#"{"labels": {"LONG": "x"}}"#,
            "labels: 'LONG' is not a valid label key",
        ),
        (r#"{"labels": {"a": "not so"}}"#, "labels: 'not so' of a "),
        (r#"{"labels": {"a": "LONG"}}"#, "labels: 'LONG' of a "),
        (r#"{"labels": {"a": "é"}}"#, "labels: 'é' of a "),
    ];

    #[test]
    fn amounts_and_labels_that_no_node_can_have_are_named_with_their_field() {
        let error = |placement: serde_json::Value| {
            let mut two = json!([{"name": "a", "region": "westeurope"}, {"name": "b", "region": "westeurope"}]);
            json_patch::merge(&mut two[1], &placement);
            let spec = json!({"azure": {}, "placements": two});
            let spec: BurstPoolSpec = serde_json::from_value(spec).expect("a spec");
            check_placements(&BurstPool::new("shop", spec))
                .err()
                .map(|InvalidSpec(mistake)| mistake)
        };
        let long = "a".repeat(64);
        for valid in [
            json!({}),
            json!({"capacity": {"cpu": null, "memory": 0}}),
            json!({"capacity": {"cpu": "1.5", "memory": "7Ei"}}),
            json!({"labels": {"tier": "", "topology.kubernetes.io/zone": "1", "A_b.c-d": "A_b.c-d"}}),
        ] {
            assert_eq!(error(valid.clone()), None, "{valid}");
        }
        for (invalid, field) in INVALID {
            let field = format!("spec.placements[1].{}", field.replace("LONG", &long));
            let invalid = invalid.replace("LONG", &long);
            let invalid: serde_json::Value = serde_json::from_str(&invalid).expect("JSON");
            let mistake = error(invalid.clone()).unwrap_or_default();
            assert!(
                mistake.starts_with(&field) && mistake.contains(": write "),
                "{invalid}: {mistake}"
            );
        }
    }
}
