//! The steps that turn the live node into the wanted node.
//!
//! In: the Node object from the API server, or `None`, and the [`NodeConfig`]. Out: the steps. Pure. What other
//! clients wrote (labels, taints, conditions, an administrator's cordon) stays.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeStatus, Taint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};

use super::capacity;
use super::last_placement;
use super::node_object::{self, CLOSED_TAINT, LAST_RESORT_TAINT, NodeConfig, PROVIDER_TAINT};

/// The taints that burstpool manages; all others stay.
const OWN_TAINTS: [&str; 3] = [PROVIDER_TAINT, LAST_RESORT_TAINT, CLOSED_TAINT];
/// How often the node is compared although nothing changed: its status must be renewed.
pub const RESYNC_INTERVAL: Duration = Duration::from_secs(10);
/// The age in seconds from which a status is written again although nothing changed: a minute, less the interval
/// between two comparisons.
const MAX_STATUS_AGE_SECONDS: i64 = 60 - RESYNC_INTERVAL.as_secs().cast_signed();

type NodeQuantities = BTreeMap<String, Quantity>;

/// A step towards the wanted node.
#[derive(Clone, Debug, PartialEq)]
pub enum RegistrationStep {
    /// Create the node, which does not exist.
    Create(Box<Node>),
    /// Merge these labels and annotations; null removes one.
    Labels(Value),
    /// Replace all taints by these, if the node still has this version.
    Taints {
        /// The `resourceVersion` from which the taints were computed.
        version: String,
        /// All taints: burstpool's and those of others.
        taints: Vec<Taint>,
    },
    /// Apply this status.
    Status(Box<NodeStatus>),
}

/// The steps after which the node matches its configuration.
pub fn steps(live: Option<&Node>, config: &NodeConfig, now: Timestamp) -> Vec<RegistrationStep> {
    let Some(live) = live else {
        return vec![RegistrationStep::Create(Box::new(node_object::node(
            config, now,
        )))];
    };
    let mut steps = Vec::new();
    steps.extend(label_step(live, config));
    steps.extend(taint_step(live, config));
    steps.extend(status_step(live, config, now));
    steps
}

fn label_step(live: &Node, config: &NodeConfig) -> Option<RegistrationStep> {
    let (wanted, annotations) = (
        node_object::labels(config),
        node_object::annotations(config),
    );
    let lacks = |entries: Option<&BTreeMap<String, String>>, wanted: &BTreeMap<String, String>| {
        let has = |(key, value)| entries.is_some_and(|entries| entries.get(key) == Some(value));
        !wanted.iter().all(has)
    };
    let removed = removed_labels(live, &wanted);
    let is_wrong = lacks(live.metadata.labels.as_ref(), &wanted)
        || lacks(live.metadata.annotations.as_ref(), &annotations)
        || !removed.is_empty();
    is_wrong.then(|| {
        // In one patch: the annotation in it is the only record of which labels came from the placement.
        let labels = wanted.into_iter().map(|(key, value)| (key, json!(value)));
        let removed = removed.into_iter().map(|key| (key, Value::Null));
        let labels: serde_json::Map<String, Value> = labels.chain(removed).collect();
        RegistrationStep::Labels(
            json!({"metadata": {"labels": labels, "annotations": annotations}}),
        )
    })
}

/// Labels that the placement had when the node was last registered, and no longer has. A label whose value another
/// client has changed stays. Server-side apply cannot remove them: a label that was set at creation has a field
/// owner that no later apply removes.
fn removed_labels(live: &Node, wanted: &BTreeMap<String, String>) -> Vec<String> {
    let last_labels = last_placement::discover(live).and_then(|found| found.last_placement);
    let last_labels = last_labels.map(|record| record.placement.labels);
    let live_label = |key: &str| live.metadata.labels.as_ref()?.get(key);
    let last_labels = last_labels.into_iter().flatten();
    last_labels
        .filter(|(key, value)| !wanted.contains_key(key) && live_label(key) == Some(value))
        .map(|(key, _)| key)
        .collect()
}

fn taint_step(live: &Node, config: &NodeConfig) -> Option<RegistrationStep> {
    let live_taints = live
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.clone())
        .unwrap_or_default();
    let is_ours = |taint: &Taint| OWN_TAINTS.contains(&taint.key.as_str());
    let is_same =
        |a: &Taint, b: &Taint| a.key == b.key && a.value == b.value && a.effect == b.effect;
    let wanted = node_object::taints(config);
    let ours: Vec<&Taint> = live_taints.iter().filter(|taint| is_ours(taint)).collect();
    let is_right = ours.len() == wanted.len()
        && wanted
            .iter()
            .all(|taint| ours.iter().any(|current| is_same(current, taint)));
    if is_right {
        return None;
    }
    let others = live_taints.iter().filter(|taint| !is_ours(taint)).cloned();
    let taints = others.chain(wanted).collect();
    let version = live.metadata.resource_version.clone().unwrap_or_default();
    Some(RegistrationStep::Taints { version, taints })
}

fn status_step(live: &Node, config: &NodeConfig, now: Timestamp) -> Option<RegistrationStep> {
    let old = live.status.as_ref();
    let wanted = node_object::status(config, old, now);
    let is_right = old.is_some_and(|old| is_same_status(old, &wanted) && is_fresh(old, now));
    (!is_right).then(|| RegistrationStep::Status(Box::new(wanted)))
}

/// Whether the live status already contains everything that is wanted.
fn is_same_status(live: &NodeStatus, wanted: &NodeStatus) -> bool {
    let is_same = |a: &NodeCondition, b: &NodeCondition| {
        a.type_ == b.type_ && a.status == b.status && a.reason == b.reason && a.message == b.message
    };
    let live_conditions = live.conditions.as_deref().unwrap_or_default();
    let conditions = wanted.conditions.as_deref().unwrap_or_default();
    live.addresses == wanted.addresses
        && same_quantities(live.capacity.as_ref(), wanted.capacity.as_ref())
        && same_quantities(live.allocatable.as_ref(), wanted.allocatable.as_ref())
        && live.daemon_endpoints == wanted.daemon_endpoints
        && live.declared_features == wanted.declared_features
        && live.node_info.as_ref().map(|info| &info.kubelet_version)
            == wanted.node_info.as_ref().map(|info| &info.kubelet_version)
        && conditions
            .iter()
            .all(|wanted| live_conditions.iter().any(|live| is_same(live, wanted)))
}

/// Whether two lists of quantities are the same amounts: the API server writes `100000m` as `100`.
fn same_quantities(live: Option<&NodeQuantities>, wanted: Option<&NodeQuantities>) -> bool {
    let amounts = |list: Option<&NodeQuantities>| -> BTreeMap<String, Option<i64>> {
        let list = list.into_iter().flatten();
        list.map(|(name, quantity)| (name.clone(), capacity::quantity_milli(quantity)))
            .collect()
    };
    amounts(live) == amounts(wanted)
}

fn is_fresh(live: &NodeStatus, now: Timestamp) -> bool {
    let heartbeats = live
        .conditions
        .iter()
        .flatten()
        .filter(|c| c.type_ == "Ready");
    let newest = heartbeats
        .filter_map(|c| c.last_heartbeat_time.as_ref())
        .map(|time| time.0)
        .max();
    // A heartbeat in the future is from a leader whose clock was ahead. If it counted as fresh, this leader would
    // write no status until then.
    newest
        .is_some_and(|at| (0..MAX_STATUS_AGE_SECONDS).contains(&(now.as_second() - at.as_second())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::fixtures::config;
    use crate::node::node_object::Unavailable;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn closed(mut config: NodeConfig) -> NodeConfig {
        config.region_unavailable = Some(Unavailable {
            reason: "Unreachable".into(),
            message: "no answer".into(),
        });
        config
    }

    #[test]
    fn a_correct_and_fresh_node_needs_no_step_and_a_missing_one_is_created() {
        let node = node_object::node(&config(), at(0));
        assert_eq!(steps(Some(&node), &config(), at(49)), []);
        assert!(matches!(
            &steps(Some(&node), &config(), at(50))[..],
            [RegistrationStep::Status(_)]
        ));
        assert!(matches!(
            &steps(None, &config(), at(0))[..],
            [RegistrationStep::Create(_)]
        ));
    }

    #[test]
    fn a_heartbeat_in_the_future_is_replaced() {
        let node = node_object::node(&config(), at(100));
        assert!(matches!(
            &steps(Some(&node), &config(), at(40))[..],
            [RegistrationStep::Status(_)]
        ));
        assert_eq!(steps(Some(&node), &config(), at(100)), []);
    }

    #[test]
    fn amounts_that_the_api_server_writes_in_another_form_are_the_same() {
        let mut node = node_object::node(&config(), at(0));
        let status = node.status.as_mut().expect("a status");
        let amounts = BTreeMap::from([
            ("cpu".to_owned(), Quantity("1".to_owned())),
            ("memory".to_owned(), Quantity("1Gi".to_owned())),
            ("pods".to_owned(), Quantity("1".to_owned())),
            ("ephemeral-storage".to_owned(), Quantity("50G".to_owned())),
        ]);
        (status.capacity, status.allocatable) = (Some(amounts.clone()), Some(amounts));
        assert_eq!(steps(Some(&node), &config(), at(1)), []);
    }

    #[test]
    fn a_node_has_no_hostname_label_and_topology_only_as_the_placement_says() {
        let labels = node_object::labels(&config());
        assert!(!labels.contains_key("kubernetes.io/hostname"));
        assert_eq!(labels["topology.kubernetes.io/region"], "westeurope");
        let mut hostile = config();
        hostile
            .last_placement
            .placement
            .labels
            .insert("type".into(), "mine".into());
        assert_eq!(
            node_object::labels(&hostile)["type"],
            "virtual-kubelet",
            "ours win"
        );
    }

    #[test]
    fn a_label_that_the_placement_no_longer_has_is_removed_unless_another_writer_changed_it() {
        let mut before = config();
        let labels = &mut before.last_placement.placement.labels;
        labels.insert("tier".into(), "burst".into());
        labels.insert("team".into(), "shop".into());
        let mut node = node_object::node(&before, at(0));
        let live = node.metadata.labels.get_or_insert_default();
        live.insert("team".into(), "theirs".into());
        live.insert("added".into(), "theirs".into());
        let steps = |node: &Node| steps(Some(node), &config(), at(1));
        let [RegistrationStep::Labels(patch)] = &steps(&node)[..] else {
            unreachable!("{:?}", steps(&node))
        };
        let labels = patch["metadata"]["labels"].as_object().expect("labels");
        assert_eq!(labels.get("tier"), Some(&Value::Null));
        assert!(!labels.contains_key("team") && !labels.contains_key("added"));

        // After this patch the node's annotation has the current placement, so no step is left.
        let mut patched = serde_json::to_value(&node).expect("JSON");
        json_patch::merge(&mut patched, patch);
        let patched: Node = serde_json::from_value(patched).expect("a node");
        assert_eq!(steps(&patched), []);
        // Without the annotation, a node keeps all its labels.
        node.metadata.annotations = None;
        let [RegistrationStep::Labels(patch)] = &steps(&node)[..] else {
            unreachable!("{:?}", steps(&node))
        };
        assert!(!patch.to_string().contains("tier"), "{patch}");
    }

    #[test]
    fn removed_labels_and_taints_are_restored_and_others_stay() {
        let mut node = node_object::node(&config(), at(0));
        node.metadata.resource_version = Some("7".into());
        node.metadata.labels = Some(BTreeMap::from([("theirs".into(), "yes".into())]));
        let foreign = Taint {
            key: "theirs".into(),
            effect: "NoExecute".into(),
            ..Taint::default()
        };
        node.spec.as_mut().expect("a spec").taints = Some(vec![foreign.clone()]);
        let steps = steps(Some(&node), &config(), at(1));
        let [
            RegistrationStep::Labels(labels),
            RegistrationStep::Taints { version, taints },
        ] = &steps[..]
        else {
            unreachable!("{steps:?}")
        };
        assert!(
            labels["metadata"]["labels"].get("theirs").is_none(),
            "labels of others are not in the patch"
        );
        assert_eq!(
            (version.as_str(), taints.len(), &taints[0]),
            ("7", 3, &foreign)
        );
    }

    #[test]
    fn closing_adds_a_taint_and_a_condition_and_keeps_the_node_ready() {
        let mut node = node_object::node(&config(), at(0));
        node.spec.as_mut().expect("a spec").unschedulable = Some(true);
        let steps = steps(Some(&node), &closed(config()), at(1));
        let [
            RegistrationStep::Taints { taints, .. },
            RegistrationStep::Status(status),
        ] = &steps[..]
        else {
            unreachable!("{steps:?}")
        };
        assert!(
            taints
                .iter()
                .any(|t| t.key == CLOSED_TAINT && t.effect == "NoSchedule")
        );
        let conditions = status.conditions.as_deref().expect("conditions");
        let find = |kind: &str| {
            conditions
                .iter()
                .find(|c| c.type_ == kind)
                .expect("it is there")
        };
        assert_eq!(find("Ready").status, "True");
        assert_eq!(
            find(node_object::AZURE_CONDITION).message.as_deref(),
            Some("no answer")
        );
        let opened = node_object::node(&closed(config()), at(0));
        let steps = super::steps(Some(&opened), &config(), at(1));
        assert!(
            matches!(&steps[0], RegistrationStep::Taints { taints, .. } if taints.len() == 2),
            "it opens again"
        );
    }

    #[test]
    fn a_condition_keeps_its_transition_time_while_its_status_stays() {
        let first = node_object::status(&config(), None, at(0));
        let second = node_object::status(&config(), Some(&first), at(100));
        let third = node_object::status(&closed(config()), Some(&second), at(200));
        let changed = |status: &NodeStatus, kind: &str| {
            let conditions = status.conditions.as_deref().expect("conditions");
            let condition = conditions
                .iter()
                .find(|c| c.type_ == kind)
                .expect("it is there");
            condition
                .last_transition_time
                .as_ref()
                .map(|time| time.0.as_second())
        };
        assert_eq!(changed(&third, "Ready"), Some(0));
        assert_eq!(changed(&third, node_object::AZURE_CONDITION), Some(200));
    }
}
