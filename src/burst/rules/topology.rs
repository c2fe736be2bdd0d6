//! Whether running pods let a pod onto a virtual node: required topology spread, required pod affinity and
//! required pod anti-affinity.
//!
//! In: the nodes and pods that were read ([`Neighbors`]), the placements, and the pods that this plan has put
//! there. Out: for a pod and a placement, the constraint that the scheduler would find violated, and what to
//! change. The module follows kube-scheduler 1.37 (`podtopologyspread/filtering.go`,
//! `interpodaffinity/filtering.go`) if all relevant objects are known. If some are not, affinity and spread do
//! not count against the pod, because an unknown pod could satisfy an affinity or even out a spread.
//! Anti-affinity does count: unknown pods can only add conflicts.

mod counts;
#[cfg(test)]
mod tests;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Taint;

use crate::aci::translate::Unsupported;
use crate::burst::facts::assignment::NamespaceLabels;
use crate::burst::facts::neighbors::{ListResult, Neighbors};
use crate::burst::facts::placement::PlacementFacts;
use crate::burst::facts::pod::{PodFacts, PodReference, provider_taint};
use crate::burst::facts::topology_rules::{AffinityTerm, SpreadConstraint, TopologyRules};
use crate::burst::observation::ObservedPool;
use counts::{NeighborCounts, domain};

type Labels = BTreeMap<String, String>;

/// What is known about the cluster, plus the pods that this plan has put into the placements.
///
/// Most pods have no such constraints, and a plan is made for every change of the cluster. So nodes are only
/// collected when a constraint depends on them, and pods only in the namespaces that constraints name.
pub(in crate::burst) struct Topology<'a> {
    pool: &'a str,
    namespaces: &'a NamespaceLabels,
    neighbors: &'a Neighbors,
    places: &'a [PlacementFacts],
    /// The pool's granted and user-placed pods.
    own: Vec<&'a PodFacts>,
    nodes: OnceCell<HashMap<&'a str, NodeParts<'a>>>,
    /// Pods with the node that each is bound to, by namespace.
    pods: HashMap<String, Vec<(&'a PodFacts, &'a str)>>,
    /// The anti-affinity terms of bound and assumed pods that cover a domain of a placement.
    apart: Vec<AntiAffinityEntry<'a>>,
    /// Pods that count in the placement with this index although the scheduler has not bound them yet.
    assumed: Vec<(&'a PodFacts, usize)>,
    counted: Vec<NeighborCounts<'a>>,
}

/// Labels and taints of a node.
type NodeParts<'a> = (&'a Labels, &'a [Taint]);

/// An anti-affinity term that pods of one namespace have in a domain.
struct AntiAffinityEntry<'a> {
    term: &'a AffinityTerm,
    /// The domain's value of the term's topology key.
    value: &'a str,
    /// The first of these pods by ID: a message that names another pod each time would create another Event.
    pod: &'a PodReference,
}

impl<'a> Topology<'a> {
    pub(in crate::burst) fn of(observed: &ObservedPool<'a>) -> Self {
        let own = observed.granted.iter().map(|granted| granted.pod);
        let own = own.chain(observed.user_placed.iter().map(|(pod, _)| *pod));
        let mut topology = Self {
            pool: observed.pool,
            namespaces: observed.namespaces,
            neighbors: observed.neighbors,
            places: observed.placements,
            own: own.filter(|pod| pod.bound().is_some()).collect(),
            nodes: OnceCell::new(),
            pods: HashMap::new(),
            apart: Vec::new(),
            assumed: Vec::new(),
            counted: Vec::new(),
        };
        let read = topology.neighbors.pods.values();
        let read = read.filter_map(ListResult::listed).flatten();
        let pods = topology.own.iter().copied().chain(read.map(Arc::as_ref));
        let keep_apart: Vec<&'a PodFacts> = pods.filter(|pod| has_apart(pod)).collect();
        for pod in keep_apart {
            if let Some(bound) = pod.bound() {
                topology.keeps_apart(pod, &bound.node);
            }
        }
        topology
    }

    /// Labels and taints by node name. The labels of virtual nodes come from the placements.
    fn nodes(&self) -> &HashMap<&'a str, NodeParts<'a>> {
        self.nodes.get_or_init(|| {
            let listed = self.neighbors.nodes.listed().into_iter().flatten();
            let mut nodes: HashMap<&str, NodeParts<'_>> = listed
                .map(|node| (node.name.as_str(), (&node.labels, node.taints.as_slice())))
                .collect();
            for place in self.places {
                let taints = nodes.get(place.node.as_str()).map(|(_, taints)| *taints);
                let taints = taints.unwrap_or(&place.taints);
                nodes.insert(&place.node, (&place.labels, taints));
            }
            nodes
        })
    }

    /// The known pods of a namespace that are bound to nodes, each with its node.
    fn bound(&self, namespace: &str) -> Vec<(&'a PodFacts, &'a str)> {
        let own = self.own.iter().copied();
        let own = own.filter(|pod| pod.id.namespace == namespace);
        let read = self.neighbors.of_namespace(namespace).into_iter().flatten();
        let mut known = HashSet::new();
        let all = own.chain(read.map(Arc::as_ref)).filter_map(|pod| {
            let node = pod.bound()?.node.as_str();
            known.insert(pod.id.uid.as_str()).then_some((pod, node))
        });
        all.collect()
    }

    /// Keeps the anti-affinity terms of `pod` that cover a domain of a placement.
    fn keeps_apart(&mut self, pod: &'a PodFacts, node: &str) {
        let Some((labels, _)) = self.nodes().get(node).copied() else {
            return;
        };
        for term in pod.rules.iter().flat_map(|rules| &rules.apart) {
            let Some(value) = labels.get(&term.key) else {
                continue;
            };
            let mut places = self.places.iter();
            if !places.any(|place| place.labels.get(&term.key) == Some(value)) {
                continue;
            }
            let mut same = self.apart.iter_mut();
            let same = same.find(|one| {
                one.value == value && one.pod.namespace == pod.id.namespace && one.term == term
            });
            match same {
                Some(same) if pod.id < *same.pod => same.pod = &pod.id,
                Some(_) => {}
                None => self.apart.push(AntiAffinityEntry {
                    term,
                    value,
                    pod: &pod.id,
                }),
            }
        }
    }

    /// Counts the pod in that placement from now on.
    pub(in crate::burst) fn assume(&mut self, pod: &'a PodFacts, place: usize) {
        if has_apart(pod)
            && let Some(node) = self.places.get(place).map(|place| &place.node)
        {
            self.keeps_apart(pod, node);
        }
        self.assumed.push((pod, place));
    }

    /// The constraint that keeps the scheduler from placing the pod there. `None` if no violation is certain.
    pub(in crate::burst) fn refusal(
        &mut self,
        pod: &'a PodFacts,
        place: usize,
    ) -> Option<Unsupported> {
        let at = self.places.get(place)?;
        self.kept_out(pod, at).or_else(|| {
            let rules = pod.rules.as_deref()?;
            let counted = self.counted(pod, rules);
            let counted = self.counted.get(counted)?;
            let knows = |namespaces: &[&str]| {
                let mut all = namespaces.iter();
                all.all(|one| self.neighbors.of_namespace(one).is_some())
                    && self.neighbors.nodes.listed().is_some()
            };
            counted
                .apart(rules, at)
                .or_else(|| {
                    let all = rules.together_in(&pod.id.namespace, self.namespaces);
                    let all: Vec<&str> = all.iter().map(String::as_str).collect();
                    let is_known = !rules.together.is_empty() && knows(&all);
                    is_known.then(|| counted.together(rules, pod, at, self.namespaces))?
                })
                .or_else(|| {
                    let is_known = !rules.spread.is_empty() && knows(&[&pod.id.namespace]);
                    is_known.then(|| counted.spread(rules, pod, at))?
                })
        })
    }

    /// The anti-affinity of another pod in one of the placement's domains that keeps this pod out.
    fn kept_out(&self, pod: &PodFacts, place: &PlacementFacts) -> Option<Unsupported> {
        let matching = self.apart.iter().filter(|one| {
            place.labels.get(&one.term.key).map(String::as_str) == Some(one.value)
                && (one.term).selects(pod, &one.pod.namespace, self.namespaces)
        });
        let first = matching.min_by_key(|one| (one.pod, &one.term.field))?;
        let (other, term) = (first.pod, first.term);
        Some(Unsupported::new(
            "metadata.labels",
            format!(
                "{} has the pod {}/{}, which keeps this one away by its {}; change that term's labelSelector, or \
                 delete that pod",
                domain(place, &term.key),
                other.namespace,
                other.name,
                term.field
            ),
        ))
    }

    /// The index of the counts for the pod's constraints, after adding the newly assumed pods.
    fn counted(&mut self, pod: &'a PodFacts, rules: &'a TopologyRules) -> usize {
        let is_alike = |one: &NeighborCounts<'_>| {
            one.like.id.namespace == pod.id.namespace
                && one.like.rules.as_deref() == Some(rules)
                && one.like.node_constraints == pod.node_constraints
        };
        let at = self.counted.iter().position(is_alike).unwrap_or_else(|| {
            let namespaces = rules.namespaces(&pod.id.namespace, self.namespaces);
            for namespace in &namespaces {
                if !self.pods.contains_key(namespace) {
                    let bound = self.bound(namespace);
                    self.pods.insert(namespace.clone(), bound);
                }
            }
            self.counted.push(self.count(pod, rules, &namespaces));
            self.counted.len() - 1
        });
        let mut counted = self.counted.swap_remove(at);
        for (other, place) in &self.assumed[counted.assumed..] {
            let node = self.places.get(*place).map(|place| place.node.as_str());
            if let Some(node) = node {
                self.add(&mut counted, other, node);
            }
        }
        counted.assumed = self.assumed.len();
        self.counted.push(counted);
        self.counted.len() - 1
    }

    fn count(
        &self,
        pod: &'a PodFacts,
        rules: &'a TopologyRules,
        namespaces: &BTreeSet<String>,
    ) -> NeighborCounts<'a> {
        let mut counted = NeighborCounts {
            like: pod,
            spread: vec![HashMap::new(); rules.spread.len()],
            together: HashMap::new(),
            apart: HashMap::new(),
            assumed: 0,
        };
        for (name, (labels, taints)) in self.nodes() {
            for (spread, counts) in rules.spread.iter().zip(&mut counted.spread) {
                if let Some(value) = self.domain_of(pod, rules, spread, (name, labels, taints)) {
                    counts.entry(value).or_default();
                }
            }
        }
        let pods = namespaces.iter().filter_map(|one| self.pods.get(one));
        for (other, node) in pods.flatten() {
            self.add(&mut counted, other, node);
        }
        counted
    }

    fn add(&self, counted: &mut NeighborCounts<'a>, other: &'a PodFacts, node: &str) {
        let pod = counted.like;
        let (Some(rules), Some((labels, taints))) = (pod.rules.as_deref(), self.nodes().get(node))
        else {
            return;
        };
        let own = &pod.id.namespace;
        for (spread, counts) in rules.spread.iter().zip(&mut counted.spread) {
            let counts_it =
                !other.is_deleting && other.id.namespace == *own && spread.counts(other);
            let value = counts_it
                .then(|| self.domain_of(pod, rules, spread, (node, labels, taints)))
                .flatten();
            if let Some(value) = value {
                *counts.entry(value).or_default() += 1;
            }
        }
        if rules.is_together_with(other, own, self.namespaces) {
            for term in &rules.together {
                if let Some(value) = labels.get(&term.key) {
                    let domain = (term.key.as_str(), value.as_str());
                    *counted.together.entry(domain).or_default() += 1;
                }
            }
        }
        for (index, term) in rules.apart.iter().enumerate() {
            if let Some(value) = labels.get(&term.key)
                && term.selects(other, own, self.namespaces)
            {
                let first = counted.apart.entry((index, value)).or_insert(other);
                // Always keep the same pod: a changed message would create another Event.
                if other.id < first.id {
                    *first = other;
                }
            }
        }
    }

    /// The domain of a node for a spread constraint. `None` if the constraint does not count the node.
    fn domain_of(
        &self,
        pod: &PodFacts,
        rules: &TopologyRules,
        spread: &SpreadConstraint,
        (name, labels, taints): (&str, &&'a Labels, &&'a [Taint]),
    ) -> Option<&'a str> {
        let has_all = rules.spread.iter().all(|one| labels.contains_key(&one.key));
        let is_selected = !spread.honors_affinity || pod.node_constraints.selects(name, labels);
        let is_tolerated = || {
            let own = provider_taint(self.pool);
            let mut hard = taints.iter().filter(|one| one.effect != "PreferNoSchedule");
            hard.all(|taint| {
                let is_granted =
                    taint.key == own.key && taint.value == own.value && taint.effect == own.effect;
                is_granted || pod.node_constraints.tolerates(taint)
            })
        };
        let counts = has_all && is_selected && (!spread.honors_taints || is_tolerated());
        counts.then(|| labels.get(&spread.key).map(String::as_str))?
    }
}

fn has_apart(pod: &PodFacts) -> bool {
    pod.rules
        .as_ref()
        .is_some_and(|rules| !rules.apart.is_empty())
}
