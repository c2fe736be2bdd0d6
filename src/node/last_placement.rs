//! The last placement of a node: an annotation from which a later leader can drain a placement that no spec names.
//!
//! In: a placement, and where its container groups are; nodes of the cluster. Out: the node's annotation; the nodes
//! that belong to burstpool, each with its pool and the placement that its annotation holds. Pure.
//!
//! A drain needs the region, the subscription and the resource group. They are on the node because it exists for
//! exactly as long as there is something to drain: a pool's status is lost if a user removes the pool's finalizer,
//! and a spec forgets a placement at once. The operator cannot list all groups of the cluster in Azure instead:
//! Azure lists by subscription, and the subscriptions are what has been forgotten.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use serde::{Deserialize, Serialize};

use super::capacity::{self, NodeResourceStatus, NodeResources};
use super::node_object::{self, PLACEMENT_LABEL, POOL_LABEL, PROVIDER_TAINT, Unavailable};
use crate::aci::client::GroupScope;
use crate::api::Placement;
use crate::api::names::POOL_UID_ANNOTATION;

/// Annotation: the placement that the node was last registered with, and where its groups are.
pub const LAST_PLACEMENT_ANNOTATION: &str = "burstpool.io/last-placement";

/// A placement, and where its container groups are.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LastPlacement {
    subscription_id: String,
    resource_group: String,
    /// The placement.
    pub placement: Placement,
}

impl LastPlacement {
    /// The record of a placement whose groups are in this scope.
    pub fn new(scope: &GroupScope, placement: &Placement) -> Self {
        Self {
            subscription_id: scope.subscription.clone(),
            resource_group: scope.resource_group.clone(),
            placement: placement.clone(),
        }
    }

    /// The subscription and resource group of its groups.
    pub fn scope(&self) -> GroupScope {
        GroupScope {
            subscription: self.subscription_id.clone(),
            resource_group: self.resource_group.clone(),
        }
    }

    /// The annotation's value, as JSON.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a placement is plain data")
    }
}

/// A virtual node of burstpool that was found in the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct DiscoveredNode {
    /// Its name.
    pub node: String,
    /// The name of its pool.
    pub pool: String,
    /// The pool's UID; `None` on nodes of earlier versions.
    pub pool_uid: Option<String>,
    /// The name of its placement.
    pub placement: String,
    /// Its last placement; `None` if the annotation is missing or names another placement.
    pub last_placement: Option<LastPlacement>,
    /// What its status offers; `None` if it has no full status yet.
    pub advertised: Option<Advertised>,
}

/// What a node offers, and why it takes no pods, if so.
#[derive(Clone, Debug, PartialEq)]
pub struct Advertised {
    /// The amounts.
    pub offer: NodeResourceStatus,
    /// Why it takes no pods; `None` if it takes pods.
    pub unavailable: Option<Unavailable>,
}

impl DiscoveredNode {
    /// What the node's status offers, if its groups are in the same scope, region and priority as `wanted`: until
    /// the region is checked again, this is the best answer. It is limited to the capacity of `wanted`.
    pub fn advertised_for(&self, wanted: &LastPlacement) -> Option<Advertised> {
        let last = self.last_placement.as_ref()?;
        let is_same = last.scope() == wanted.scope()
            && last.placement.region == wanted.placement.region
            && last.placement.priority == wanted.placement.priority;
        let advertised = self.advertised.clone().filter(|_| is_same)?;
        let capacity_limit = capacity::placement_capacity(&wanted.placement);
        Some(Advertised {
            offer: NodeResourceStatus {
                allocatable: advertised.offer.allocatable.at_most(capacity_limit),
                capacity: advertised.offer.capacity.at_most(capacity_limit),
            },
            ..advertised
        })
    }
}

/// A node that is known to belong to this pool ([`other_owner`]), even if its labels were changed.
pub fn discovered_node(node: &Node, pool: &str, placement: &str) -> DiscoveredNode {
    let annotations = node.metadata.annotations.as_ref();
    let text = |key: &str| annotations.and_then(|annotations| annotations.get(key));
    let record = text(LAST_PLACEMENT_ANNOTATION)
        .and_then(|text| serde_json::from_str::<LastPlacement>(text).ok());
    DiscoveredNode {
        node: node.metadata.name.clone().unwrap_or_default(),
        pool: pool.to_owned(),
        pool_uid: text(POOL_UID_ANNOTATION).cloned(),
        placement: placement.to_owned(),
        last_placement: record.filter(|record| record.placement.name == placement),
        advertised: advertised_by(node),
    }
}

/// The node, if it belongs to burstpool. The pool label alone proves nothing: a user with root access to a node can
/// have its kubelet set the label, and nodes that are found here are drained and removed. So the node's name, type
/// label and provider taint must also match.
pub fn discover(node: &Node) -> Option<DiscoveredNode> {
    let text =
        |from: &Option<BTreeMap<String, String>>, key: &str| from.as_ref()?.get(key).cloned();
    let name = node.metadata.name.clone()?;
    let pool = text(&node.metadata.labels, POOL_LABEL)?;
    let placement = text(&node.metadata.labels, PLACEMENT_LABEL)?;
    let taints = node.spec.as_ref()?.taints.as_ref()?;
    let is_ours = name == node_object::name(&pool, &placement)
        && text(&node.metadata.labels, "type")? == node_object::NODE_TYPE
        && taints
            .iter()
            .any(|taint| taint.key == PROVIDER_TAINT && taint.value.as_ref() == Some(&pool));
    is_ours.then(|| discovered_node(node, &pool, &placement))
}

/// The pool of a node, by its labels; `None` if the node's name does not match them: a kubelet may set the labels
/// on its own node.
pub fn pool_from_labels(node: &Node) -> Option<&str> {
    let labels = node.metadata.labels.as_ref()?;
    let (pool, placement) = (labels.get(POOL_LABEL)?, labels.get(PLACEMENT_LABEL)?);
    let name = node.metadata.name.as_deref()?;
    (name == node_object::name(pool, placement)).then_some(pool)
}

/// The owner of a node, as text, if it is not this pool. A node belongs to the pool whose UID it carries. A node of
/// an earlier version carries none, and belongs to the pool that its label or its last placement names. If its label
/// names this pool and its UID is another, the pool was deleted and created again under the same name.
pub fn other_owner(node: &Node, pool: &str, uid: &str) -> Option<String> {
    let labels = node.metadata.labels.as_ref();
    let annotations = node.metadata.annotations.as_ref();
    let label = labels.and_then(|labels| labels.get(POOL_LABEL));
    let pool_uid = annotations.and_then(|annotations| annotations.get(POOL_UID_ANNOTATION));
    match (pool_uid, label) {
        (Some(pool_uid), _) if pool_uid == uid => None,
        (_, Some(label)) if label == pool => None,
        (_, Some(label)) => Some(format!("pool {label}")),
        (Some(pool_uid), None) => Some(format!("the pool of UID {pool_uid}")),
        (None, None) => {
            let record =
                annotations.and_then(|annotations| annotations.get(LAST_PLACEMENT_ANNOTATION));
            let record = record.and_then(|text| serde_json::from_str::<LastPlacement>(text).ok());
            let named = record.map(|record| node_object::name(pool, &record.placement.name));
            let is_ours = named.is_some() && named == node.metadata.name;
            (!is_ours).then(|| "an owner other than burstpool".to_owned())
        }
    }
}

fn advertised_by(node: &Node) -> Option<Advertised> {
    let status = node.status.as_ref()?;
    let offer = NodeResourceStatus {
        allocatable: NodeResources::from_quantities(status.allocatable.as_ref()?)?,
        capacity: NodeResources::from_quantities(status.capacity.as_ref()?)?,
    };
    let mut conditions = status.conditions.iter().flatten();
    let available = conditions.find(|condition| condition.type_ == node_object::AZURE_CONDITION)?;
    let unavailable = (available.status != "True").then(|| Unavailable {
        reason: available.reason.clone().unwrap_or_default(),
        message: available.message.clone().unwrap_or_default(),
    });
    Some(Advertised { offer, unavailable })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use serde_json::{Value, json};

    use super::*;
    use crate::node::fixtures::config;
    use crate::node::node_object::NodeConfig;

    fn node() -> Node {
        node_object::node(&config(), Timestamp::UNIX_EPOCH)
    }

    fn changed(changes: &Value) -> Option<DiscoveredNode> {
        let mut node = serde_json::to_value(node()).expect("JSON");
        json_patch::merge(&mut node, changes);
        discover(&serde_json::from_value(node).expect("a node"))
    }

    #[test]
    fn a_node_belongs_to_the_pool_of_its_uid_and_without_one_to_the_pool_that_it_names() {
        let without = |keys: &[&str]| {
            let mut node = node();
            for key in keys {
                node.metadata
                    .annotations
                    .as_mut()
                    .expect("annotations")
                    .remove(*key);
                node.metadata.labels.as_mut().expect("labels").remove(*key);
            }
            node
        };
        let (uid, record) = (POOL_UID_ANNOTATION, LAST_PLACEMENT_ANNOTATION);
        for (lacks, pool, own, whose) in [
            (&[][..], "shop", "u", None),
            (&[], "shop", "made again", None),
            (&[], "shop-w", "other", Some("pool shop")),
            (&[POOL_LABEL], "shop", "u", None),
            (&[POOL_LABEL], "shop-w", "other", Some("the pool of UID u")),
            (&[uid], "shop", "u", None),
            (&[uid], "shop-w", "other", Some("pool shop")),
            (&[uid, POOL_LABEL], "shop", "u", None),
            (
                &[uid, POOL_LABEL],
                "sho",
                "other",
                Some("an owner other than burstpool"),
            ),
            (
                &[uid, POOL_LABEL, record],
                "shop",
                "u",
                Some("an owner other than burstpool"),
            ),
        ] {
            let node = without(lacks);
            let another = other_owner(&node, pool, own);
            assert_eq!(another.as_deref(), whose, "{pool} {own} without {lacks:?}");
        }
        assert_eq!(pool_from_labels(&node()), Some("shop"));
        assert_eq!(pool_from_labels(&without(&[POOL_LABEL])), None);
    }

    #[test]
    fn a_node_has_everything_that_a_drain_needs() {
        let found = discover(&node()).expect("it is ours");
        assert_eq!(
            (&*found.pool, &*found.placement, &*found.node),
            ("shop", "weu", "burst-shop-weu")
        );
        let record = found.last_placement.expect("it says so");
        assert_eq!(record, config().last_placement);
        assert_eq!(record.placement.region, "westeurope");
        assert_eq!(record.scope().resource_group, "rg");
    }

    #[test]
    fn a_node_keeps_its_offer_unless_its_groups_will_be_elsewhere() {
        let discovered = |config: &NodeConfig| {
            let node = node_object::node(config, Timestamp::UNIX_EPOCH);
            discover(&node).expect("it is ours")
        };
        let mut previous = config();
        let wanted = previous.last_placement.clone();
        let offer = previous.offer;
        let advertised = discovered(&previous).advertised_for(&wanted);
        assert_eq!(
            advertised,
            Some(Advertised {
                offer,
                unavailable: None
            })
        );
        previous.region_unavailable = Some(Unavailable {
            reason: "Exhausted".to_owned(),
            message: "no quota".to_owned(),
        });
        let unavailable = previous.region_unavailable.clone();
        assert_eq!(
            discovered(&previous).advertised_for(&wanted),
            Some(Advertised { offer, unavailable })
        );

        let mut less = wanted.clone();
        less.placement.capacity.cpu = Quantity("250m".to_owned());
        let advertised = discovered(&previous)
            .advertised_for(&less)
            .expect("it is in the same place");
        assert_eq!(
            (
                advertised.offer.allocatable.cpu_milli,
                advertised.offer.capacity.pods
            ),
            (250, 1)
        );
        let mut elsewhere = wanted.clone();
        elsewhere.placement.region = "northeurope".to_owned();
        assert_eq!(discovered(&previous).advertised_for(&elsewhere), None);
        let mut elsewhere = wanted.clone();
        elsewhere.subscription_id = "other".to_owned();
        assert_eq!(discovered(&previous).advertised_for(&elsewhere), None);
        let silent = changed(&json!({"status": null})).expect("it is ours");
        assert_eq!(silent.advertised_for(&wanted), None);
    }

    #[test]
    fn a_node_of_another_owner_is_not_discovered_whatever_label_it_has() {
        for foreign in [
            json!({"metadata": {"name": "home-1"}}),
            json!({"metadata": {"name": "burst-shop-neu"}}),
            json!({"metadata": {"labels": {POOL_LABEL: "other"}}}),
            json!({"metadata": {"labels": {PLACEMENT_LABEL: null}}}),
            json!({"metadata": {"labels": {"type": null}}}),
            json!({"spec": {"taints": null}}),
            json!({"spec": {"taints": [{"key": PROVIDER_TAINT, "value": "azure", "effect": "NoSchedule"}]}}),
        ] {
            assert_eq!(changed(&foreign), None, "{foreign}");
        }
    }

    #[test]
    fn an_annotation_that_is_missing_broken_or_of_another_placement_is_ignored() {
        let mut other = config().last_placement;
        other.placement.name = "neu".to_owned();
        for text in [json!(null), json!("{"), json!(other.to_json())] {
            let changes = json!({"metadata": {"annotations": {LAST_PLACEMENT_ANNOTATION: text}}});
            let found = changed(&changes).expect("it is ours");
            assert_eq!(found.last_placement, None, "{text}");
        }
    }
}
