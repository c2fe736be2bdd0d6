//! What is wrong with a pool's spec that the CRD's rules cannot see. Pure.

use super::Context;
use crate::aci::client::Scope;
use crate::api::BurstPool;

/// A pool's mistake that the CRD's rules cannot see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake(pub String);

/// Where the pool's groups are: what it says, else what the operator was told.
pub(super) fn scope(pool: &BurstPool, context: &Context) -> Result<Scope, Mistake> {
    let azure = &pool.spec.azure;
    let or = |own: &Option<String>, usual: &str, field: &str, flag: &str| {
        let value = own.clone().unwrap_or_else(|| usual.to_owned());
        if value.is_empty() {
            return Err(Mistake(format!(
                "spec.azure.{field} is not set, and the operator has no {flag}: set either"
            )));
        }
        Ok(value)
    };
    let usual = &context.scope;
    Ok(Scope {
        subscription: or(
            &azure.subscription_id,
            &usual.subscription,
            "subscriptionId",
            "--subscription-id",
        )?,
        resource_group: or(
            &azure.resource_group,
            &usual.resource_group,
            "resourceGroup",
            "--resource-group",
        )?,
    })
}

/// The spec names another place for groups than where they are.
pub(super) fn moved(from: &Scope, to: &Scope) -> Mistake {
    let place = |scope: &Scope| {
        let Scope {
            subscription,
            resource_group,
        } = scope;
        format!("resource group {resource_group} of subscription {subscription}")
    };
    Mistake(format!(
        "spec.azure names {}, but the pool's container groups are in {} and cannot move: change it back, or \
         make another pool; it can be changed while none of the pool's pods is on ACI",
        place(to),
        place(from)
    ))
}

/// Whether every kube-proxy that the pool wants can be told where the API server is.
pub(super) fn can_proxy(pool: &BurstPool, is_told: bool) -> Result<(), Mistake> {
    let mut wanted = pool.spec.placements.iter().enumerate();
    match wanted.find(|(_, placement)| placement.network.kube_proxy) {
        Some((index, _)) if !is_told => Err(Mistake(format!(
            "spec.placements[{index}].network.kubeProxy needs to know where pods on ACI reach the API \
             server: start burstpool with --api-server-url"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::BurstPoolSpec;

    #[test]
    fn kube_proxy_needs_to_know_where_the_api_server_is() {
        let spec = json!({"azure": {}, "placements": [
            {"name": "a", "region": "westeurope"},
            {"name": "b", "region": "westeurope", "subnetId": "s", "network": {"kubeProxy": true}},
        ]});
        let mut spec: BurstPoolSpec = serde_json::from_value(spec).expect("a spec");
        let pool = |spec: &BurstPoolSpec| BurstPool::new("shop", spec.clone());
        assert_eq!(can_proxy(&pool(&spec), true), Ok(()));
        let Err(Mistake(mistake)) = can_proxy(&pool(&spec), false) else {
            unreachable!("it is a mistake");
        };
        assert!(
            mistake.starts_with("spec.placements[1].network.kubeProxy ")
                && mistake.ends_with(" start burstpool with --api-server-url"),
            "{mistake}"
        );
        spec.placements.truncate(1);
        assert_eq!(can_proxy(&pool(&spec), false), Ok(()));
    }
}
