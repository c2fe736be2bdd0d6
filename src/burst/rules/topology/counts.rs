//! Counts of the pods that a pod's constraints depend on, and whether a placement satisfies the constraints.
//!
//! In: the counts that `topology` collects for all pods with the same constraints. Out: the constraint that a
//! placement violates, and what to change.

use std::collections::HashMap;

use crate::aci::translate::Unsupported;
use crate::burst::facts::assignment::NamespaceLabels;
use crate::burst::facts::placement::PlacementFacts;
use crate::burst::facts::pod::PodFacts;
use crate::burst::facts::topology_rules::{AffinityTerm, TopologyRules};

/// Counts of the known pods, for all pods that have the same constraints as `like`.
pub(super) struct NeighborCounts<'a> {
    /// The first of these pods.
    pub(super) like: &'a PodFacts,
    /// For each spread constraint, the number of pods by topology domain.
    pub(super) spread: Vec<HashMap<&'a str, i64>>,
    /// The number of pods that satisfy all affinity terms, by topology key and domain.
    pub(super) together: HashMap<(&'a str, &'a str), i64>,
    /// A pod that violates an anti-affinity term, by the term's index and the domain.
    pub(super) apart: HashMap<(usize, &'a str), &'a PodFacts>,
    /// How many of the topology's assumed pods these counts include.
    pub(super) assumed: usize,
}

impl NeighborCounts<'_> {
    /// The anti-affinity term that the placement violates.
    pub(super) fn apart(
        &self,
        rules: &TopologyRules,
        place: &PlacementFacts,
    ) -> Option<Unsupported> {
        rules.apart.iter().enumerate().find_map(|(index, term)| {
            let value = place.labels.get(&term.key)?;
            let other = self.apart.get(&(index, value.as_str()))?;
            Some(Unsupported::new(term.field.clone(), format!(
                    "{} has the pod {}/{}, which it keeps away from; make it preferred, or give the node of \
                     the placement another value of this label (spec.placements[].labels)",
                    domain(place, &term.key),
                    other.id.namespace,
                    other.id.name
                )))
        })
    }

    /// The affinity term that the placement violates.
    pub(super) fn together(
        &self,
        rules: &TopologyRules,
        pod: &PodFacts,
        place: &PlacementFacts,
        namespaces: &NamespaceLabels,
    ) -> Option<Unsupported> {
        let lacks = |term: &&AffinityTerm| {
            let value = place.labels.get(&term.key).map(String::as_str);
            value.is_none_or(|value| !self.together.contains_key(&(term.key.as_str(), value)))
        };
        let lacking = rules.together.iter().find(lacks)?;
        // The first pod of a group with affinity to itself may run in any domain.
        let is_first = self.together.is_empty()
            && rules.is_together_with(pod, &pod.id.namespace, namespaces)
            && rules
                .together
                .iter()
                .all(|term| place.labels.contains_key(&term.key));
        (!is_first).then(|| Unsupported::new(lacking.field.clone(), format!(
                "{} has no pod that it must run with; make it preferred, or let those pods spill first",
                domain(place, &lacking.key)
            )))
    }

    /// The spread constraint that the placement violates.
    pub(super) fn spread(
        &self,
        rules: &TopologyRules,
        pod: &PodFacts,
        place: &PlacementFacts,
    ) -> Option<Unsupported> {
        let all = rules.spread.iter().zip(&self.spread);
        all.into_iter().find_map(|(spread, counts)| {
            let value = place.labels.get(&spread.key)?;
            let there = counts.get(value.as_str()).copied().unwrap_or_default();
            let is_few = counts.len() < spread.min_domains;
            let fewest = counts.values().min().filter(|_| !is_few);
            let skew = there + i64::from(spread.selects(pod)) - fewest.copied().unwrap_or_default();
            let min_domains = if is_few {
                format!(", as there are fewer domains than minDomains {}", spread.min_domains)
            } else {
                String::new()
            };
            // No numbers of pods in the message: each new number would create another Event.
            (skew > spread.max_skew).then(|| Unsupported::new(spread.field.clone(), format!(
                    "{} cannot have one more of the pods that it spreads: that would be above maxSkew {}{min_domains}; \
                     raise maxSkew, set whenUnsatisfiable: ScheduleAnyway, or leave this label out of the \
                     placement's labels",
                    domain(place, &spread.key),
                    spread.max_skew
                )))
        })
    }
}

/// Describes the placement's domain for `key`, for use in a message.
pub(super) fn domain(place: &PlacementFacts, key: &str) -> String {
    let value = place.labels.get(key).map_or("", String::as_str);
    format!("placement {} is in {key}={value}, which", place.placement)
}
