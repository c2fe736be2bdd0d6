//! What a node says of its placement for whoever leads when no spec names it any more.
//!
//! In: where a placement's groups are, and the placement. Out: an annotation of its node; and, of nodes
//! as they are found, which are ours, of which pool, and what their annotation says. Pure.
//!
//! Draining takes the region, the subscription and the resource group, and they are on the node because
//! it is there for exactly as long as there is something to drain: a pool's status goes with a pool whose
//! finalizer somebody removes, and a spec forgets a placement at once. Azure is not asked for all groups
//! of this cluster instead: it lists by subscription, and which there were is what has been forgotten.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use serde::{Deserialize, Serialize};

use super::capacity::{self, Offer, Room};
use super::object::{self, Closed, PLACEMENT_LABEL, POOL_LABEL, PROVIDER_TAINT};
use crate::aci::client::Scope;
use crate::api::Placement;

/// Annotation: a placement as its node was kept last, and where its groups are.
pub const ANNOTATION: &str = "burstpool.io/last-placement";

/// A placement as its node is kept, and where its groups are.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    subscription_id: String,
    resource_group: String,
    /// The placement.
    pub placement: Placement,
}

impl Record {
    /// The record of a placement whose groups are in this scope.
    pub fn new(scope: &Scope, placement: &Placement) -> Self {
        Self {
            subscription_id: scope.subscription.clone(),
            resource_group: scope.resource_group.clone(),
            placement: placement.clone(),
        }
    }

    /// Where its groups are.
    pub fn scope(&self) -> Scope {
        Scope {
            subscription: self.subscription_id.clone(),
            resource_group: self.resource_group.clone(),
        }
    }

    /// The annotation's value.
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).expect("a placement is plain data")
    }
}

/// A node of ours as it is found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its name.
    pub node: String,
    /// The pool.
    pub pool: String,
    /// The placement in it.
    pub placement: String,
    /// What it says of the placement; nothing if it says nothing, or of another one.
    pub record: Option<Record>,
    /// What it offers, as it says; nothing if it does not say so yet.
    pub offers: Option<Offers>,
}

/// What a node offers, and why it takes no pods, if it does not.
#[derive(Clone, Debug, PartialEq)]
pub struct Offers {
    /// How much it offers.
    pub offer: Offer,
    /// Why it takes no pods.
    pub closed: Option<Closed>,
}

impl Found {
    /// What the node offers, if it is of a placement whose groups are, and will be, in the same place: until
    /// somebody has asked the region anew, that is as good an answer as it was.
    pub fn offers(&self, wanted: &Record) -> Option<Offers> {
        let before = self.record.as_ref()?;
        let is_same = before.scope() == wanted.scope()
            && before.placement.region == wanted.placement.region
            && before.placement.priority == wanted.placement.priority;
        let offers = self.offers.clone().filter(|_| is_same)?;
        let asked = capacity::asked(&wanted.placement);
        Some(Offers {
            offer: Offer {
                allocatable: offers.offer.allocatable.at_most(asked),
                capacity: offers.offer.capacity.at_most(asked),
            },
            ..offers
        })
    }
}

/// The node, if it is ours. A label alone proves nothing: whoever runs on a node of home may have its kubelet
/// set it there, and what is found here is drained and removed. Ours are called as only ours are, and keep off
/// whom the pool has not granted.
pub fn found(node: &Node) -> Option<Found> {
    let text =
        |from: &Option<BTreeMap<String, String>>, key: &str| from.as_ref()?.get(key).cloned();
    let name = node.metadata.name.clone()?;
    let pool = text(&node.metadata.labels, POOL_LABEL)?;
    let placement = text(&node.metadata.labels, PLACEMENT_LABEL)?;
    let taints = node.spec.as_ref()?.taints.as_ref()?;
    let is_ours = name == object::name(&pool, &placement)
        && text(&node.metadata.labels, "type")? == object::TYPE
        && taints
            .iter()
            .any(|taint| taint.key == PROVIDER_TAINT && taint.value.as_ref() == Some(&pool));
    let record = text(&node.metadata.annotations, ANNOTATION);
    let record = record.and_then(|text| serde_json::from_str::<Record>(&text).ok());
    is_ours.then(|| Found {
        node: name,
        pool,
        record: record.filter(|record| record.placement.name == placement),
        offers: offers(node),
        placement,
    })
}

fn offers(node: &Node) -> Option<Offers> {
    let status = node.status.as_ref()?;
    let offer = Offer {
        allocatable: Room::of(status.allocatable.as_ref()?)?,
        capacity: Room::of(status.capacity.as_ref()?)?,
    };
    let mut conditions = status.conditions.iter().flatten();
    let azure = conditions.find(|one| one.type_ == object::AZURE_CONDITION)?;
    let closed = (azure.status != "True").then(|| Closed {
        reason: azure.reason.clone().unwrap_or_default(),
        message: azure.message.clone().unwrap_or_default(),
    });
    Some(Offers { offer, closed })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use serde_json::{Value, json};

    use super::*;
    use crate::node::fixtures::facts;
    use crate::node::object::Facts;

    fn node() -> Node {
        object::node(&facts(), Timestamp::UNIX_EPOCH)
    }

    fn changed(changes: &Value) -> Option<Found> {
        let mut node = serde_json::to_value(node()).expect("JSON");
        json_patch::merge(&mut node, changes);
        found(&serde_json::from_value(node).expect("a node"))
    }

    #[test]
    fn a_node_tells_all_that_draining_it_takes() {
        let found = found(&node()).expect("it is ours");
        assert_eq!(
            (&*found.pool, &*found.placement, &*found.node),
            ("shop", "weu", "burst-shop-weu")
        );
        let record = found.record.expect("it says so");
        assert_eq!(record, facts().record);
        assert_eq!(record.placement.region, "westeurope");
        assert_eq!(record.scope().resource_group, "rg");
    }

    #[test]
    fn a_node_goes_on_offering_what_it_did_unless_its_groups_will_be_elsewhere() {
        let told = |facts: &Facts| {
            let node = object::node(facts, Timestamp::UNIX_EPOCH);
            found(&node).expect("it is ours")
        };
        let mut before = facts();
        let asked = before.record.clone();
        let offer = before.offer;
        let offers = told(&before).offers(&asked);
        assert_eq!(
            offers,
            Some(Offers {
                offer,
                closed: None
            })
        );
        before.closed = Some(Closed {
            reason: "Exhausted".to_owned(),
            message: "no quota".to_owned(),
        });
        let closed = before.closed.clone();
        assert_eq!(told(&before).offers(&asked), Some(Offers { offer, closed }));

        let mut less = asked.clone();
        less.placement.capacity.cpu = Quantity("250m".to_owned());
        let offers = told(&before)
            .offers(&less)
            .expect("it is in the same place");
        assert_eq!(
            (
                offers.offer.allocatable.cpu_milli,
                offers.offer.capacity.pods
            ),
            (250, 1)
        );
        let mut elsewhere = asked.clone();
        elsewhere.placement.region = "northeurope".to_owned();
        assert_eq!(told(&before).offers(&elsewhere), None);
        let mut elsewhere = asked.clone();
        elsewhere.subscription_id = "other".to_owned();
        assert_eq!(told(&before).offers(&elsewhere), None);
        let silent = changed(&json!({"status": null})).expect("it is ours");
        assert_eq!(silent.offers(&asked), None);
    }

    #[test]
    fn a_node_of_somebody_else_is_not_found_whatever_label_it_has() {
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
    fn an_annotation_that_is_missing_broken_or_of_another_placement_says_nothing() {
        let mut other = facts().record;
        other.placement.name = "neu".to_owned();
        for text in [json!(null), json!("{"), json!(other.text())] {
            let changes = json!({"metadata": {"annotations": {ANNOTATION: text}}});
            let found = changed(&changes).expect("it is ours");
            assert_eq!(found.record, None, "{text}");
        }
    }
}
