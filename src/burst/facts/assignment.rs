//! Assigns pods to pools and workloads.
//!
//! In: all pools, the `/scale` of their targets, and the namespaces' labels. Out: for a pod, every workload
//! that selects it. The first one owns it: in the older pool (then by name), the first in `spec.workloads`.
//! Pods of one template share their labels, so each set of labels is matched once per namespace.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::core::{Selector, SelectorExt as _};

use super::pod::PodFacts;
use crate::api::{BurstPool, Workload};

/// The scale subresource of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetScale {
    /// `spec.replicas`.
    pub spec_replicas: u64,
    /// `status.replicas`: more than desired while a rollout surges.
    pub status_replicas: u64,
    /// `status.selector`, parsed by [`label_selector::parse`](crate::k8s::label_selector::parse).
    pub selector: Selector,
}

/// The scales of targets, or why each cannot be read, by pool and workload name.
pub type TargetScales = HashMap<(String, String), Result<TargetScale, String>>;
/// Labels of namespaces, by the namespace's name.
pub type NamespaceLabels = HashMap<String, BTreeMap<String, String>>;

/// Identifies a workload of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Membership<'a> {
    /// The pool's name.
    pub pool: &'a str,
    /// The workload's index in `spec.workloads`.
    pub index: usize,
    /// The workload's name.
    pub workload: &'a str,
}

struct Matcher<'a> {
    member: Membership<'a>,
    namespace: Option<&'a str>,
    namespace_selector: Selector,
    pod_selector: Selector,
}

/// Assigns pods to workloads, with a cache by namespace and labels.
pub struct Assignment<'a> {
    matchers: Vec<Matcher<'a>>,
    /// Workloads whose pods cannot be determined, with the reason.
    selection_errors: HashMap<Membership<'a>, String>,
    namespaces: &'a NamespaceLabels,
    matches_by_labels: HashMap<(&'a str, &'a BTreeMap<String, String>), Vec<usize>>,
    /// The names of the pools that are not being deleted.
    pools: HashSet<&'a str>,
}

impl<'a> Assignment<'a> {
    /// Prepares the assignment for `pools`. A pool that is being deleted gets no pods.
    pub fn new(
        pools: &[&'a BurstPool],
        scales: &'a TargetScales,
        namespaces: &'a NamespaceLabels,
    ) -> Self {
        let (mut matchers, mut selection_errors) = (Vec::new(), HashMap::new());
        let mut names = HashSet::new();
        for pool in live_by_age(pools.iter().copied()) {
            let name = pool.metadata.name.as_deref().unwrap_or_default();
            names.insert(name);
            for (index, workload) in pool.spec.workloads.iter().enumerate() {
                let member = Membership {
                    pool: name,
                    index,
                    workload: &workload.name,
                };
                match build_matcher(member, workload, scales) {
                    Ok(matcher) => matchers.push(matcher),
                    Err(why) => drop(selection_errors.insert(member, why)),
                }
            }
        }
        Self {
            matchers,
            selection_errors,
            namespaces,
            matches_by_labels: HashMap::new(),
            pools: names,
        }
    }

    /// Whether the pod has a grant of a pool that exists and is not being deleted. A grant of any other pool
    /// leads to no node, so the pool that owns the pod now may grant it again.
    pub fn is_granted(&self, pod: &PodFacts) -> bool {
        let grant = pod.grant.as_ref();
        grant.is_some_and(|grant| self.pools.contains(grant.pool.as_str()))
    }

    /// All workloads that select `pod`. The first one owns it.
    pub fn workloads_of(&mut self, pod: &'a PodFacts) -> impl Iterator<Item = Membership<'a>> + '_ {
        let (matchers, namespaces) = (&self.matchers, self.namespaces);
        let key = (pod.id.namespace.as_str(), &pod.labels);
        let all = self.matches_by_labels.entry(key).or_insert_with(|| {
            let matching = matchers.iter().enumerate();
            let matching = matching.filter(|(_, matcher)| matcher.matches(pod, namespaces));
            matching.map(|(at, _)| at).collect()
        });
        all.iter().map(|at| matchers[*at].member)
    }

    /// The workload of `pool` whose limit applies to a pod that the pool granted for the workload `named`: the
    /// first workload that selects the pod now, whatever its name. The name decides only while the operator
    /// cannot determine the pods of `named`.
    pub fn limiting_workload(
        &mut self,
        pool: &str,
        pod: &'a PodFacts,
        named: &str,
    ) -> Option<Membership<'a>> {
        let mut unresolved = self.selection_errors.keys();
        let unresolved = unresolved.find(|member| member.pool == pool && member.workload == named);
        if let Some(member) = unresolved {
            return Some(*member);
        }
        self.workloads_of(pod).find(|member| member.pool == pool)
    }

    /// The earlier workload with the same selection, which therefore owns all pods of this workload.
    pub fn shadowed_by(&self, pool: &str, index: usize) -> Option<Membership<'a>> {
        let is_named =
            |matcher: &Matcher<'_>| matcher.member.pool == pool && matcher.member.index == index;
        let at = self.matchers.iter().position(is_named)?;
        let mut before = self.matchers[..at].iter();
        let owner = before.find(|matcher| matcher.is_same_selection(&self.matchers[at]))?;
        Some(owner.member)
    }

    /// Why the pods of a workload cannot be determined.
    pub fn selection_error(&self, pool: &str, index: usize) -> Option<&str> {
        let mut errors = self.selection_errors.iter();
        errors
            .find(|(member, _)| member.pool == pool && member.index == index)
            .map(|(_, why)| why.as_str())
    }
}

impl Matcher<'_> {
    fn is_same_selection(&self, other: &Self) -> bool {
        self.namespace == other.namespace
            && self.namespace_selector == other.namespace_selector
            && self.pod_selector == other.pod_selector
    }

    fn matches(&self, pod: &PodFacts, namespaces: &NamespaceLabels) -> bool {
        let namespace = pod.id.namespace.as_str();
        match self.namespace {
            Some(own) if own != namespace => return false,
            Some(_) => {}
            None => {
                let labels = namespaces.get(namespace);
                if !labels.is_some_and(|labels| self.namespace_selector.matches(labels)) {
                    return false;
                }
            }
        }
        self.pod_selector.matches(&pod.labels)
    }
}

/// The pools that are not being deleted, in order of precedence: oldest first, then by name.
pub fn live_by_age<'a>(pools: impl IntoIterator<Item = &'a BurstPool>) -> Vec<&'a BurstPool> {
    let stays = |pool: &&BurstPool| pool.metadata.deletion_timestamp.is_none();
    let mut pools: Vec<&BurstPool> = pools.into_iter().filter(stays).collect();
    pools.sort_by_cached_key(|pool| (created(pool), pool.name_any()));
    pools
}

fn created(pool: &BurstPool) -> Timestamp {
    let created = pool.metadata.creation_timestamp.as_ref();
    created.map_or(Timestamp::MAX, |created| created.0)
}

fn build_matcher<'a>(
    member: Membership<'a>,
    workload: &'a Workload,
    scales: &TargetScales,
) -> Result<Matcher<'a>, String> {
    if let Some(target) = &workload.target {
        let key = (member.pool.to_owned(), member.workload.to_owned());
        let scale = match scales.get(&key) {
            Some(scale) => scale.as_ref().map_err(Clone::clone)?,
            None => return Err("its scale has not been read yet".to_owned()),
        };
        if scale.selector.selects_all() {
            return Err("the selector of its scale is empty, so its pods are unknown".to_owned());
        }
        return Ok(Matcher {
            member,
            namespace: Some(&target.namespace),
            namespace_selector: Selector::default(),
            pod_selector: scale.selector.clone(),
        });
    }
    let selector = workload.selector.as_ref();
    let selector = selector.ok_or("it has neither target nor selector: set one of them")?;
    let read =
        |field: &str, selector: &k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector| {
            Selector::try_from(selector.clone())
                .map_err(|error| format!("selector.{field}: {error}"))
        };
    Ok(Matcher {
        member,
        namespace: None,
        namespace_selector: read("namespaceSelector", &selector.namespace_selector)?,
        pod_selector: read("podSelector", &selector.pod_selector)?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::burst::fixtures::{pod, pool, scale};

    fn chosen(
        pools: &[&BurstPool],
        scales: &TargetScales,
        pod: &PodFacts,
    ) -> Vec<(String, String)> {
        let namespaces = [(
            "shop".to_owned(),
            [("team".to_owned(), "a".to_owned())].into(),
        )];
        let namespaces: NamespaceLabels = namespaces.into();
        let mut assignment = Assignment::new(pools, scales, &namespaces);
        let all = assignment.workloads_of(pod);
        all.map(|member| (member.pool.to_owned(), member.workload.to_owned()))
            .collect()
    }

    fn selecting(team: &str, app: &str) -> serde_json::Value {
        json!({"name": app, "selector": {
            "namespaceSelector": {"matchLabels": {"team": team}},
            "podSelector": {"matchLabels": {"app": app}},
        }})
    }

    fn named(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let pairs = pairs.iter();
        pairs
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
            .collect()
    }

    #[test]
    fn a_target_has_the_pods_of_its_namespace_that_its_scale_selects() {
        let mut pool = pool("shop", &json!({}));
        pool.metadata.creation_timestamp = None;
        let scales: TargetScales =
            [(("shop".to_owned(), "web".to_owned()), Ok(scale(4, 4)))].into();
        assert_eq!(
            chosen(&[&pool], &scales, &pod("a")),
            named(&[("shop", "web")])
        );
        let mut elsewhere = pod("a");
        elsewhere.id.namespace = "other".to_owned();
        assert_eq!(chosen(&[&pool], &scales, &elsewhere), []);
        let mut other = pod("a");
        other.labels = [("app".to_owned(), "db".to_owned())].into();
        assert_eq!(chosen(&[&pool], &scales, &other), []);
        assert_eq!(
            chosen(&[&pool], &TargetScales::new(), &pod("a")),
            [],
            "an unread scale has none"
        );
    }

    #[test]
    fn a_selector_has_pods_by_their_labels_and_their_namespaces_labels() {
        let none = TargetScales::new();
        for (team, app, has) in [("a", "web", true), ("b", "web", false), ("a", "db", false)] {
            let pool = pool("shop", &json!({"workloads": [selecting(team, app)]}));
            assert_eq!(chosen(&[&pool], &none, &pod("a")).len(), usize::from(has));
        }
    }

    #[test]
    fn the_older_pool_owns_a_pod_then_the_first_by_name_and_its_first_workload() {
        let twice = json!([selecting("a", "web"), {"name": "again", "selector":
            {"namespaceSelector": {}, "podSelector": {}}}]);
        let pool_of = |name: &str, created: i64| {
            let mut pool = pool(name, &json!({"workloads": twice}));
            let time = crate::burst::fixtures::at(created);
            let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time);
            pool.metadata.creation_timestamp = Some(time);
            pool
        };
        let (older, b, a) = (pool_of("z", 1), pool_of("b", 2), pool_of("a", 2));
        let all = named(&[
            ("z", "web"),
            ("z", "again"),
            ("a", "web"),
            ("a", "again"),
            ("b", "web"),
            ("b", "again"),
        ]);
        assert_eq!(
            chosen(&[&b, &older, &a], &TargetScales::new(), &pod("a")),
            all
        );
        let mut leaving = older.clone();
        leaving.metadata.deletion_timestamp = leaving.metadata.creation_timestamp.clone();
        assert_eq!(
            chosen(&[&b, &leaving, &a], &TargetScales::new(), &pod("a")),
            all[2..]
        );
        let (scales, namespaces) = (TargetScales::new(), NamespaceLabels::new());
        let assignment = Assignment::new(&[&b, &older, &a], &scales, &namespaces);
        let owner = |pool: &str| {
            let owner = assignment.shadowed_by(pool, 1)?;
            Some((owner.pool, owner.workload))
        };
        assert_eq!([owner("z"), owner("b")], [None, Some(("z", "again"))]);
    }
}
