//! A pod's required constraints on other pods: topology spread, affinity and anti-affinity.
//!
//! In: the spec and labels of a pod, read once for each version. Out: [`TopologyRules`], which `topology` checks
//! against the running pods.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{PodAffinityTerm, PodSpec, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Expression, Selector, SelectorExt as _};

use super::assignment::NamespaceLabels;
use super::pod::PodFacts;

/// A pod's required constraints on running pods. Preferred terms are not included.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopologyRules {
    pub(in crate::burst) spread: Vec<SpreadConstraint>,
    /// Required pod affinity terms.
    pub(in crate::burst) together: Vec<AffinityTerm>,
    /// Required pod anti-affinity terms.
    pub(in crate::burst) apart: Vec<AffinityTerm>,
}

/// A topology spread constraint with `whenUnsatisfiable: DoNotSchedule`.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::burst) struct SpreadConstraint {
    pub(in crate::burst) field: String,
    pub(in crate::burst) key: String,
    pub(in crate::burst) max_skew: i64,
    pub(in crate::burst) min_domains: usize,
    /// Whether to skip nodes that the pod's node selector or node affinity excludes. By `nodeAffinityPolicy`.
    pub(in crate::burst) honors_affinity: bool,
    /// Whether to skip nodes with taints that the pod does not tolerate. By `nodeTaintsPolicy`.
    pub(in crate::burst) honors_taints: bool,
    /// The pods that it spreads. Without a selector it spreads none.
    pods: Option<Selector>,
}

/// A required term of pod affinity or anti-affinity.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::burst) struct AffinityTerm {
    pub(in crate::burst) field: String,
    pub(in crate::burst) key: String,
    namespaces: Vec<String>,
    namespace_selector: Option<Selector>,
    /// The pods that the term selects. Without a selector it selects none.
    pods: Option<Selector>,
}

impl TopologyRules {
    /// The constraints of a pod with this spec and these labels. `None` if there are none, or if a selector is
    /// invalid, which the API server would not accept.
    pub fn of(spec: &PodSpec, labels: &BTreeMap<String, String>) -> Option<Self> {
        let hard = spec
            .topology_spread_constraints
            .iter()
            .flatten()
            .enumerate();
        let hard = hard.filter(|(_, one)| one.when_unsatisfiable == "DoNotSchedule");
        let spread: Option<Vec<SpreadConstraint>> = hard
            .map(|(index, one)| SpreadConstraint::of(index, one, labels))
            .collect();
        let affinity = spec.affinity.as_ref();
        let together = affinity.and_then(|affinity| affinity.pod_affinity.as_ref());
        let together = together.and_then(|one| {
            one.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
        let apart = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
        let apart = apart.and_then(|one| {
            one.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
        let terms =
            |field: &str, terms: Option<&Vec<PodAffinityTerm>>| -> Option<Vec<AffinityTerm>> {
                let all = terms.into_iter().flatten().enumerate();
                all.map(|(index, one)| AffinityTerm::of(field, index, one))
                    .collect()
            };
        let rules = Self {
            spread: spread?,
            together: terms("podAffinity", together)?,
            apart: terms("podAntiAffinity", apart)?,
        };
        (rules != Self::default()).then_some(rules)
    }

    /// The namespaces of all pods that can affect a pod in the namespace `own`. `known` holds the namespaces'
    /// labels.
    pub fn namespaces(&self, own: &str, known: &NamespaceLabels) -> BTreeSet<String> {
        let mut all = self.together_in(own, known);
        all.extend(
            self.apart
                .iter()
                .flat_map(|term| term.namespaces(own, known)),
        );
        if !self.spread.is_empty() {
            all.insert(own.to_owned());
        }
        all
    }

    /// The namespaces of the pods that can satisfy the affinity.
    pub(in crate::burst) fn together_in(
        &self,
        own: &str,
        known: &NamespaceLabels,
    ) -> BTreeSet<String> {
        let terms = self.together.iter();
        terms.flat_map(|term| term.namespaces(own, known)).collect()
    }

    /// Whether `other` satisfies every affinity term of a pod in the namespace `own`.
    pub(in crate::burst) fn is_together_with(
        &self,
        other: &PodFacts,
        own: &str,
        known: &NamespaceLabels,
    ) -> bool {
        let mut terms = self.together.iter();
        !self.together.is_empty() && terms.all(|term| term.selects(other, own, known))
    }
}

impl SpreadConstraint {
    fn of(
        index: usize,
        constraint: &TopologySpreadConstraint,
        labels: &BTreeMap<String, String>,
    ) -> Option<Self> {
        let keys = constraint.match_label_keys.iter().flatten();
        let same = keys.filter_map(|key| Some((key, labels.get(key)?)));
        let mut pods = selector(constraint.label_selector.as_ref())?;
        if let Some(pods) = &mut pods {
            let more = same.map(|(key, value)| Expression::Equal(key.clone(), value.clone()));
            pods.extend(more);
        }
        let honors = |policy: &Option<String>, default| {
            policy.as_ref().map_or(default, |policy| policy == "Honor")
        };
        Some(Self {
            field: format!("spec.topologySpreadConstraints[{index}]"),
            key: constraint.topology_key.clone(),
            max_skew: constraint.max_skew.into(),
            min_domains: usize::try_from(constraint.min_domains.unwrap_or(1)).unwrap_or(1),
            honors_affinity: honors(&constraint.node_affinity_policy, true),
            honors_taints: honors(&constraint.node_taints_policy, false),
            pods,
        })
    }

    /// Whether the selector matches the pod's labels. An empty selector matches all pods.
    pub(in crate::burst) fn selects(&self, pod: &PodFacts) -> bool {
        let mut pods = self.pods.iter();
        pods.any(|selector| selector.matches(&pod.labels))
    }

    /// Whether a running pod counts. As in the scheduler, an empty selector counts no pods here.
    pub(in crate::burst) fn counts(&self, pod: &PodFacts) -> bool {
        let mut pods = self.pods.iter();
        pods.any(|selector| !selector.selects_all() && selector.matches(&pod.labels))
    }
}

impl AffinityTerm {
    fn of(field: &str, index: usize, term: &PodAffinityTerm) -> Option<Self> {
        let field = format!(
            "spec.affinity.{field}.requiredDuringSchedulingIgnoredDuringExecution[{index}]"
        );
        Some(Self {
            field,
            key: term.topology_key.clone(),
            namespaces: term.namespaces.clone().unwrap_or_default(),
            namespace_selector: selector(term.namespace_selector.as_ref())?,
            pods: selector(term.label_selector.as_ref())?,
        })
    }

    fn namespaces(&self, own: &str, known: &NamespaceLabels) -> Vec<String> {
        if self.namespaces.is_empty() && self.namespace_selector.is_none() {
            return vec![own.to_owned()];
        }
        let selected = known.iter().filter(|(_, labels)| {
            let mut selectors = self.namespace_selector.iter();
            selectors.any(|selector| selector.matches(*labels))
        });
        let selected = selected.map(|(name, _)| name.clone());
        self.namespaces.iter().cloned().chain(selected).collect()
    }

    /// Whether the term selects `pod`, if the term belongs to a pod in the namespace `own`.
    pub(in crate::burst) fn selects(
        &self,
        pod: &PodFacts,
        own: &str,
        known: &NamespaceLabels,
    ) -> bool {
        let namespace = &pod.id.namespace;
        let is_in = if self.namespaces.is_empty() && self.namespace_selector.is_none() {
            namespace == own
        } else {
            let labels = known.get(namespace);
            let mut selectors = self.namespace_selector.iter();
            self.namespaces.contains(namespace)
                || selectors.any(|one| labels.is_some_and(|labels| one.matches(labels)))
        };
        let mut pods = self.pods.iter();
        is_in && pods.any(|selector| selector.matches(&pod.labels))
    }
}

/// Converts the selector. `Some(None)` if there is none, `None` if it is invalid.
#[expect(
    clippy::option_option,
    reason = "a selector that is not there selects nothing"
)]
fn selector(selector: Option<&LabelSelector>) -> Option<Option<Selector>> {
    let Some(selector) = selector else {
        return Some(None);
    };
    Some(Some(selector.clone().try_into().ok()?))
}
