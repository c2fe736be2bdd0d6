//! Whether the pod's own rules (node selector, node affinity, tolerations) let it onto a virtual node.
//!
//! In: the pod's rules ([`NodeConstraints`], kept small), and a node's name, labels and taints. Out: the field that
//! keeps the pod off, and why.
//!
//! The semantics are upstream's (component-helpers/scheduling/corev1, v0.37): terms are `ORed` and an empty
//! term matches nothing; `Gt` and `Lt` compare integers; `matchFields` supports only `metadata.name` with
//! exactly one value. No Rust crate for Kubernetes matches node selectors.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};

use crate::aci::translate::Unsupported;

/// A pod's rules for the node that it runs on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeConstraints {
    node_selector: BTreeMap<String, String>,
    /// The terms of the required node affinity. `None` if there is none.
    required_terms: Option<Vec<NodeSelectorTerm>>,
    /// Topology keys that the node must have as labels, each with the field that requires it.
    required_keys: Vec<(&'static str, String)>,
    tolerations: Vec<Toleration>,
}

impl NodeConstraints {
    /// Extracts the rules from a pod's spec.
    pub fn from_pod_spec(spec: &PodSpec) -> Self {
        let affinity = spec.affinity.as_ref();
        let required = affinity
            .and_then(|affinity| affinity.node_affinity.as_ref())
            .and_then(|node| {
                node.required_during_scheduling_ignored_during_execution
                    .as_ref()
            });
        let together = affinity
            .and_then(|affinity| affinity.pod_affinity.as_ref())
            .and_then(|pods| {
                pods.required_during_scheduling_ignored_during_execution
                    .as_ref()
            });
        let spread = spec.topology_spread_constraints.iter().flatten();
        let spread = spread
            .filter(|spread| spread.when_unsatisfiable == "DoNotSchedule")
            .map(|spread| {
                (
                    "spec.topologySpreadConstraints",
                    spread.topology_key.clone(),
                )
            });
        let together = together
            .into_iter()
            .flatten()
            .map(|term| ("spec.affinity.podAffinity", term.topology_key.clone()));
        Self {
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            required_terms: required.map(|required| required.node_selector_terms.clone()),
            required_keys: spread.chain(together).collect(),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
        }
    }

    /// Whether the pod tolerates `taint`.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.tolerations
            .iter()
            .any(|toleration| tolerates(toleration, taint))
    }

    /// Whether the node selector and the required node affinity permit a node with this name and these labels.
    pub fn selects(&self, node: &str, labels: &BTreeMap<String, String>) -> bool {
        self.unmatched(labels).is_none() && self.is_affine(node, labels)
    }

    /// The first entry of the node selector that `labels` does not contain.
    fn unmatched(&self, labels: &BTreeMap<String, String>) -> Option<(&String, &String)> {
        let mut asked = self.node_selector.iter();
        asked.find(|(key, value)| labels.get(*key) != Some(*value))
    }

    fn is_affine(&self, node: &str, labels: &BTreeMap<String, String>) -> bool {
        let terms = self.required_terms.as_ref();
        terms.is_none_or(|terms| terms.iter().any(|term| matches_term(term, node, labels)))
    }

    /// What keeps the pod off a node with this name, these labels, and these taints besides the pool's own.
    /// `None` if the pod may run there.
    pub fn refusal(
        &self,
        node: &str,
        labels: &BTreeMap<String, String>,
        taints: &[Taint],
    ) -> Option<Unsupported> {
        let refuse = |field: &str, why: String| Some(Unsupported::new(field, why));
        if let Some((key, value)) = self.unmatched(labels) {
            return refuse(
                "spec.nodeSelector",
                format!("the virtual node {node} has no label {key}={value}"),
            );
        }
        if !self.is_affine(node, labels) {
            return refuse(
                "spec.affinity.nodeAffinity",
                format!("no required term matches the virtual node {node}"),
            );
        }
        if let Some((field, key)) = self
            .required_keys
            .iter()
            .find(|(_, k)| !labels.contains_key(k))
        {
            return refuse(
                field,
                format!(
                    "the virtual node {node} has no label {key}, which the scheduler needs there"
                ),
            );
        }
        let taint = taints
            .iter()
            .filter(|taint| taint.effect != "PreferNoSchedule")
            .find(|taint| !self.tolerates(taint))?;
        refuse(
            "spec.tolerations",
            format!(
                "the virtual node {node} has the taint {}={}:{}, which the pod does not tolerate",
                taint.key,
                taint.value.as_deref().unwrap_or_default(),
                taint.effect
            ),
        )
    }
}

fn matches_term(term: &NodeSelectorTerm, node: &str, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions
        .iter()
        .all(|one| matches_expression(one, labels))
        && fields.iter().all(|one| matches_field(one, node))
}

fn matches_expression(
    requirement: &NodeSelectorRequirement,
    labels: &BTreeMap<String, String>,
) -> bool {
    let value = labels.get(&requirement.key);
    let values = requirement.values.as_deref().unwrap_or_default();
    let compared = || {
        let [bound] = values else { return None };
        Some((parse_number(value?)?, parse_number(bound)?))
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|value| values.contains(value)),
        "NotIn" => value.is_none_or(|value| !values.contains(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared().is_some_and(|(value, bound)| value > bound),
        "Lt" => compared().is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

fn parse_number(text: &str) -> Option<i64> {
    text.parse().ok()
}

fn matches_field(requirement: &NodeSelectorRequirement, node: &str) -> bool {
    let (Some([name]), "metadata.name") = (requirement.values.as_deref(), requirement.key.as_str())
    else {
        return false;
    };
    match requirement.operator.as_str() {
        "In" => name == node,
        "NotIn" => name != node,
        _ => false,
    }
}

/// Whether `toleration` tolerates `taint`.
///
/// `Gt` and `Lt` tolerate nothing here. They are alpha in Kubernetes 1.37 and off by default. If a cluster
/// turns them on, the operator grants fewer pods than it could, never more.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let is = |asked: &Option<String>, has: &str| {
        let asked = asked.as_deref().unwrap_or_default();
        asked.is_empty() || asked == has
    };
    if !is(&toleration.effect, &taint.effect) || !is(&toleration.key, &taint.key) {
        return false;
    }
    match toleration.operator.as_deref() {
        None | Some("" | "Equal") => {
            toleration.value.as_deref().unwrap_or_default()
                == taint.value.as_deref().unwrap_or_default()
        }
        Some("Exists") => true,
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NODE: &str = "burst-shop-weu";

    fn labels() -> BTreeMap<String, String> {
        [
            ("type", "virtual-kubelet"),
            ("generation", "7"),
            ("word", "x"),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
    }

    fn refused(spec: &Value, taints: &Value) -> Option<String> {
        let mut spec = spec.clone();
        spec["containers"] = json!([]);
        let spec: PodSpec = serde_json::from_value(spec).expect("a spec");
        let taints: Vec<Taint> = serde_json::from_value(taints.clone()).expect("taints");
        let refusal = NodeConstraints::from_pod_spec(&spec).refusal(NODE, &labels(), &taints)?;
        Some(refusal.field)
    }

    fn affine(terms: &Value) -> Value {
        json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
        }}})
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> Value {
        affine(
            &json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]),
        )
    }

    #[test]
    fn a_node_selector_must_be_labels_of_the_node() {
        let none = json!([]);
        assert_eq!(
            refused(&json!({"nodeSelector": {"type": "virtual-kubelet"}}), &none),
            None
        );
        for other in [json!({"type": "agent"}), json!({"agentpool": "x"})] {
            let field = refused(&json!({"nodeSelector": other}), &none);
            assert_eq!(field.as_deref(), Some("spec.nodeSelector"));
        }
    }

    #[test]
    fn expressions_hold_as_upstream_says() {
        for (key, operator, values, holds) in [
            ("type", "In", &["virtual-kubelet", "agent"][..], true),
            ("type", "In", &["agent"], false),
            ("none", "In", &["agent"], false),
            ("type", "NotIn", &["virtual-kubelet"], false),
            ("type", "NotIn", &["agent"], true),
            ("none", "NotIn", &["agent"], true),
            ("type", "Exists", &[], true),
            ("none", "Exists", &[], false),
            ("type", "DoesNotExist", &[], false),
            ("none", "DoesNotExist", &[], true),
            ("generation", "Gt", &["6"], true),
            ("generation", "Gt", &["7"], false),
            ("generation", "Lt", &["8"], true),
            ("generation", "Lt", &["7"], false),
            ("generation", "Gt", &["-1"], true),
            ("word", "Gt", &["6"], false),
            ("word", "Lt", &["6"], false),
            ("none", "Gt", &["6"], false),
            ("generation", "Gt", &["x"], false),
            ("generation", "Gt", &["1", "2"], false),
            ("type", "Near", &["virtual-kubelet"], false),
        ] {
            let refused = refused(&expression(key, operator, values), &json!([]));
            assert_eq!(refused.is_none(), holds, "{key} {operator} {values:?}");
        }
    }

    #[test]
    fn terms_are_alternatives_and_an_empty_one_matches_nothing() {
        let none = json!([]);
        let yes = json!({"matchExpressions": [{"key": "type", "operator": "Exists"}]});
        let no = json!({"matchExpressions": [{"key": "none", "operator": "Exists"}]});
        assert_eq!(refused(&affine(&json!([no, yes])), &none), None);
        assert!(refused(&affine(&json!([no])), &none).is_some());
        assert!(refused(&affine(&json!([{}])), &none).is_some());
        assert!(refused(&affine(&json!([])), &none).is_some());
        let both = json!({"matchExpressions": [
            {"key": "type", "operator": "Exists"}, {"key": "none", "operator": "Exists"}]});
        assert!(refused(&affine(&json!([both])), &none).is_some());
    }

    #[test]
    fn fields_are_the_nodes_name_and_nothing_else() {
        let field = |key: &str, operator: &str, values: &[&str]| {
            let one =
                json!([{"matchFields": [{"key": key, "operator": operator, "values": values}]}]);
            refused(&affine(&one), &json!([])).is_none()
        };
        assert!(field("metadata.name", "In", &[NODE]));
        assert!(!field("metadata.name", "In", &["home-1"]));
        assert!(!field("metadata.name", "NotIn", &[NODE]));
        assert!(field("metadata.name", "NotIn", &["home-1"]));
        assert!(!field("metadata.name", "In", &[NODE, "home-1"]));
        assert!(!field("metadata.name", "Exists", &[]));
        assert!(!field("metadata.uid", "In", &[NODE]));
    }

    #[test]
    fn a_hard_spread_or_pod_affinity_over_a_label_that_the_node_lacks_keeps_a_pod_off() {
        let spread = |when: &str, key: &str| {
            let one = json!([{"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": when}]);
            refused(&json!({"topologySpreadConstraints": one}), &json!([]))
        };
        let field = spread("DoNotSchedule", "kubernetes.io/hostname");
        assert_eq!(field.as_deref(), Some("spec.topologySpreadConstraints"));
        assert_eq!(spread("ScheduleAnyway", "kubernetes.io/hostname"), None);
        assert_eq!(spread("DoNotSchedule", "type"), None);
        let together = json!({"affinity": {"podAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]}}});
        let field = refused(&together, &json!([]));
        assert_eq!(field.as_deref(), Some("spec.affinity.podAffinity"));
        let apart = json!({"affinity": {"podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]}}});
        assert_eq!(refused(&apart, &json!([])), None, "it is alone there");
    }

    #[test]
    fn a_taint_that_is_not_tolerated_keeps_a_pod_off_unless_it_only_prefers() {
        let taint = |effect: &str| json!([{"key": "team", "value": "a", "effect": effect}]);
        let none = json!({});
        for effect in ["NoSchedule", "NoExecute"] {
            let field = refused(&none, &taint(effect));
            assert_eq!(field.as_deref(), Some("spec.tolerations"));
        }
        assert_eq!(refused(&none, &taint("PreferNoSchedule")), None);
        for (toleration, holds) in [
            (
                json!({"key": "team", "operator": "Equal", "value": "a", "effect": "NoSchedule"}),
                true,
            ),
            (json!({"key": "team", "value": "a"}), true),
            (json!({"key": "team", "operator": "Exists"}), true),
            (json!({"operator": "Exists"}), true),
            (json!({"key": "team", "value": "b"}), false),
            (json!({"key": "other", "operator": "Exists"}), false),
            (json!({"operator": "Exists", "effect": "NoExecute"}), false),
            (
                json!({"key": "team", "operator": "Lt", "value": "5"}),
                false,
            ),
        ] {
            let pod = json!({"tolerations": [toleration]});
            let refused = refused(&pod, &taint("NoSchedule"));
            assert_eq!(refused.is_none(), holds, "{toleration}");
        }
    }
}
