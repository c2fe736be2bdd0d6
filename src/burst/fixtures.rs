//! Small pods, pools and clusters for the tests of `burst`.

use std::collections::{BTreeMap, HashMap};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::facts::assignment::{NamespaceLabels, TargetScale, TargetScales};
use super::facts::eligibility::{ClaimStates, EligibilityCache};
use super::facts::neighbors::Neighbors;
use super::facts::node_constraints::NodeConstraints;
use super::facts::placement::PlacementFacts;
use super::facts::pod::{
    BoundPod, GrantRecord, OwnerKind, PodFacts, PodOwner, PodReference, PodStage,
};
use super::facts::resource_amounts::ResourceAmounts;
use super::leader_state::{LeaderState, PodWriteResult};
use super::observation::{ClusterInputs, Leadership, PoolInputs, observe};
use super::outcome::PodOutcome;
use super::plan::{BurstPlan, plan};
use crate::aci::translate::{self, Unsupported};
use crate::api::{BurstPool, Reservation};
use crate::k8s::label_selector;

/// A time in the tests, in seconds since the epoch.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

/// A pod of the workload `web`, created and refused at second 0.
pub fn pod(name: &str) -> PodFacts {
    PodFacts {
        id: PodReference {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            resource_version: "1".to_owned(),
        },
        labels: [("app".to_owned(), "web".to_owned())].into(),
        owner: Some(PodOwner {
            kind: OwnerKind::ReplicaController,
            name: "web-1".to_owned(),
            uid: "web-1".to_owned(),
            template: "web-1/".to_owned(),
        }),
        created: at(0),
        is_first_generation: true,
        is_deleting: false,
        scheduler: None,
        is_nominated: false,
        stage: PodStage::Unschedulable(Some(at(0))),
        grant: None,
        foreign_grant: None,
        refused_since: None,
        requests: ResourceAmounts {
            cpu_milli: 1000,
            memory: 1 << 30,
            storage: 0,
            pods: 1,
        },
        group_requests: ResourceAmounts {
            cpu_milli: 1000,
            memory: 1 << 30,
            storage: 0,
            pods: 1,
        },
        node_constraints: NodeConstraints::default(),
        rules: None,
        claims: Vec::new(),
    }
}

impl PodFacts {
    /// The pod, bound to `node` and started.
    #[must_use]
    pub fn on(mut self, node: &str) -> Self {
        self.stage = PodStage::Bound(BoundPod {
            node: node.to_owned(),
            bound_since: Some(at(0)),
            has_started: true,
            is_running: true,
            azure_refusal: None,
            waiting_for_azure: None,
        });
        self
    }

    /// The pod with a grant of `pool`.
    #[must_use]
    pub fn granted(mut self, pool: &str, workload: &str, second: i64) -> Self {
        self.grant = Some(GrantRecord {
            pool: pool.to_owned(),
            workload: workload.to_owned(),
            granted_at: Some(at(second)),
            is_expired: false,
            refused: None,
        });
        self
    }

    /// The pod at another version.
    #[must_use]
    pub fn at_version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.id.resource_version);
        self
    }

    /// The pod with another `app` label, which makes it part of another workload.
    #[must_use]
    pub fn of_app(mut self, app: &str) -> Self {
        self.labels.insert("app".to_owned(), app.to_owned());
        self
    }
}

/// A pool with one placement and, unless `spec` contains others, the workload `web`.
pub fn pool(name: &str, spec: &Value) -> BurstPool {
    let mut all = json!({
        "azure": {},
        "placements": [{"name": "weu", "region": "westeurope"}],
        "workloads": [target("web")],
    });
    for (field, value) in spec.as_object().expect("fields") {
        all[field] = value.clone();
    }
    let pool = json!({
        "apiVersion": "burstpool.io/v1alpha1",
        "kind": "BurstPool",
        "metadata": {"name": name, "creationTimestamp": "1970-01-01T00:00:00Z"},
        "spec": all,
    });
    serde_json::from_value(pool).expect("a pool")
}

/// A workload whose target is the Deployment of the same name.
pub fn target(name: &str) -> Value {
    json!({"name": name, "target":
        {"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "shop", "name": name}})
}

/// A reservation of a pod of the workload `web`, at the pod's present version.
pub fn reservation(pod: &PodFacts, holder: &str) -> Reservation {
    Reservation {
        uid: pod.id.uid.clone(),
        namespace: pod.id.namespace.clone(),
        name: pod.id.name.clone(),
        workload: "web".to_owned(),
        holder: holder.to_owned(),
        resource_version: pod.id.resource_version.clone(),
    }
}

/// A scale of the workload `web`.
pub fn scale(desired: u64, replicas: u64) -> TargetScale {
    scale_of("web", desired, replicas)
}

/// A scale that selects the pods with this `app` label.
pub fn scale_of(app: &str, desired: u64, replicas: u64) -> TargetScale {
    TargetScale {
        spec_replicas: desired,
        status_replicas: replicas,
        selector: label_selector::parse(&format!("app={app}")).expect("a selector"),
    }
}

/// Scales in the pool `shop`: workload, desired replicas, replicas.
pub fn scales(all: &[(&str, u64, u64)]) -> TargetScales {
    let scales = all.iter().map(|(app, desired, replicas)| {
        let key = ("shop".to_owned(), (*app).to_owned());
        (key, Ok(scale_of(app, *desired, *replicas)))
    });
    scales.collect()
}

/// The namespaces `shop` and `other`, with the label that the API server sets.
pub fn namespaces() -> NamespaceLabels {
    let all = ["shop", "other"].map(|name| {
        let label = ("kubernetes.io/metadata.name".to_owned(), name.to_owned());
        (name.to_owned(), BTreeMap::from([label]))
    });
    HashMap::from(all)
}

/// An open placement of the pool `shop` with room for `pods` pods of 1 core and 1 GiB.
pub fn placement_facts(name: &str, pods: i64) -> PlacementFacts {
    PlacementFacts {
        placement: name.to_owned(),
        node: format!("burst-shop-{name}"),
        labels: BTreeMap::new(),
        taints: Vec::new(),
        allocatable: ResourceAmounts {
            cpu_milli: pods * 1000,
            memory: pods << 30,
            storage: 0,
            pods,
        },
        capacity: ResourceAmounts {
            cpu_milli: pods * 1000,
            memory: pods << 30,
            storage: 0,
            pods,
        },
        unavailable: None,
    }
}

/// The input of a plan in a test, with ways to change it and to carry out plans.
#[derive(Debug)]
pub struct PlanScene {
    /// The pool to plan for.
    pub pool: BurstPool,
    /// Other pools.
    pub others: Vec<BurstPool>,
    /// Pods without a node.
    pub waiting: Vec<PodFacts>,
    /// Pods that left the watch of pending pods.
    pub departed: Vec<PodFacts>,
    /// Pods with a pool's label.
    pub labelled: Vec<PodFacts>,
    /// Pods on the pool's nodes.
    pub bound: Vec<PodFacts>,
    /// Pods on other pools' nodes.
    pub placed: Vec<PodFacts>,
    /// The pool of each virtual node, by the node's name.
    pub nodes: HashMap<String, String>,
    /// The scales.
    pub scales: TargetScales,
    /// The state of volume claims.
    pub claims: ClaimStates,
    /// The placements.
    pub placements: Vec<PlacementFacts>,
    /// Nodes and pods that affect where pending pods may run.
    pub neighbors: Neighbors,
    /// What translation refuses, by the pod's name.
    pub refused: HashMap<String, Unsupported>,
    /// The leader's memory.
    pub leader_state: LeaderState,
    /// The leadership state of this instance.
    pub leadership: Leadership,
    pub is_triggered: bool,
    /// This instance's identity.
    pub identity: String,
    /// How far the API server's clock is ahead of the operator's monotonic clock.
    pub ahead: SignedDuration,
}

impl PlanScene {
    /// The pool `shop` with these fields of its spec, one placement for 100 pods, the workload `web` with ten
    /// replicas, and these pods, pending since second 0.
    pub fn new(spec: &Value, waiting: &[&str]) -> Self {
        let mut pool = pool("shop", spec);
        pool.status.get_or_insert_default().leader = Some("me".to_owned());
        Self {
            pool,
            others: Vec::new(),
            waiting: waiting.iter().map(|name| pod(name)).collect(),
            departed: Vec::new(),
            labelled: Vec::new(),
            bound: Vec::new(),
            placed: Vec::new(),
            nodes: HashMap::new(),
            scales: scales(&[("web", 10, 10)]),
            claims: ClaimStates::new(),
            placements: vec![placement_facts("weu", 100)],
            neighbors: Neighbors::default(),
            refused: HashMap::new(),
            leader_state: LeaderState::default(),
            leadership: Leadership::Leading,
            is_triggered: false,
            identity: "me".to_owned(),
            ahead: SignedDuration::ZERO,
        }
    }

    /// The plan at this second.
    pub fn plan(&self, second: i64) -> BurstPlan {
        self.plan_at(at(second))
    }

    /// The plan at this time.
    pub fn plan_at(&self, now: Timestamp) -> BurstPlan {
        let pools: Vec<&BurstPool> = std::iter::once(&self.pool).chain(&self.others).collect();
        let waiting: Vec<&PodFacts> = self.waiting.iter().collect();
        let departed: Vec<&PodFacts> = self.departed.iter().collect();
        let labelled: Vec<&PodFacts> = self.labelled.iter().collect();
        let bound: Vec<&PodFacts> = self.bound.iter().collect();
        let placed: Vec<&PodFacts> = self.bound.iter().chain(&self.placed).collect();
        let (verdicts, namespaces) = (self.eligibility(), namespaces());
        let world = ClusterInputs {
            pools: &pools,
            nodes: &self.nodes,
            waiting: &waiting,
            departed: &departed,
            labelled: &labelled,
            on_pool_nodes: &placed,
            scales: &self.scales,
            namespaces: &namespaces,
            claims: &self.claims,
            neighbors: &self.neighbors,
        };
        let own = PoolInputs {
            placements: &self.placements,
            bound: &bound,
            eligibility: &verdicts,
            leader_state: &self.leader_state,
            is_triggered: self.is_triggered,
            leadership: self.leadership,
            identity: &self.identity,
            ahead: self.ahead,
        };
        plan(&self.pool, &observe(&self.pool, &world, &own), now)
    }

    fn eligibility(&self) -> EligibilityCache {
        let mut verdicts = EligibilityCache::default();
        for pod in &self.waiting {
            for place in &self.placements {
                let mut specs = self.pool.spec.placements.iter();
                let spec = specs
                    .find(|spec| spec.name == place.placement)
                    .expect("a place is of a placement");
                let placement = translate::TranslationTarget {
                    spec,
                    tags: &self.pool.spec.azure.tags,
                    node: &place.node,
                    node_address: None,
                    identities: &translate::NO_IDENTITIES,
                };
                let refusals = self.refused.get(&pod.id.name).cloned();
                verdicts.insert(&pod.id, &placement, refusals.into_iter().collect());
            }
        }
        verdicts
    }

    /// The outcome at this second for the pod with this name.
    pub fn outcome(&self, second: i64, name: &str) -> PodOutcome {
        let plan = self.plan(second);
        let mut decisions = plan.decisions.into_iter();
        let decision = decisions.find(|decision| decision.pod.name == name);
        decision.expect("a decision about it").outcome
    }

    /// Makes `identity` the leader: with empty memory, after it has claimed the pool and counted its pods.
    pub fn change_leader(&mut self, identity: &str) {
        identity.clone_into(&mut self.identity);
        self.leader_state = LeaderState::default();
        self.pool.status.get_or_insert_default().leader = Some(identity.to_owned());
    }

    /// Carries out `plan`: reserves, grants, stamps and remembers. Granted pods stay without a node.
    pub fn execute(&mut self, plan: &BurstPlan, second: i64) {
        self.write_reservations(plan);
        if plan.must_write_reservations {
            self.leader_state.record_reservations_written(at(second));
        }
        for decision in plan.grants() {
            self.leader_state.record_patch_sent(&decision.pod);
            self.leader_state.record_grant_answer(
                &decision.pod,
                PodWriteResult::Granted,
                at(second),
            );
            let position = self
                .waiting
                .iter()
                .position(|pod| pod.id.uid == decision.pod.uid);
            let pod = self.waiting.remove(position.expect("it waits"));
            let mut pod = pod.granted("shop", &decision.workload, second);
            pod.id.resource_version.push('1');
            self.labelled.push(pod);
        }
        for stamp in &plan.refused_since_stamps {
            let mut waiting = self.waiting.iter_mut();
            if let Some(pod) = waiting.find(|pod| pod.id.uid == stamp.pod.uid) {
                pod.refused_since = Some(stamp.since);
            }
        }
        self.record(plan, second);
    }

    /// Writes the plan's reservations to the pool's status.
    pub fn write_reservations(&mut self, plan: &BurstPlan) {
        let status = self.pool.status.get_or_insert_default();
        status.reservations.clone_from(&plan.reservations);
    }

    /// Lets memory keep what the plan contains.
    pub fn record(&mut self, plan: &BurstPlan, second: i64) {
        let waiting = self.waiting.iter().map(|pod| pod.id.uid.as_str()).collect();
        self.leader_state
            .record_plan(&plan.record(), &waiting, at(second));
    }

    /// Adds pods with these names on ACI, granted at second 0.
    #[must_use]
    pub fn spilled(mut self, workload: &str, names: &[&str]) -> Self {
        for name in names {
            let pod = pod(name).of_app(workload).granted("shop", workload, 0);
            self.labelled.push(pod.on("burst-shop-weu"));
        }
        self
    }
}

/// The names of the pods that the plan grants.
pub fn granted(plan: &BurstPlan) -> Vec<&str> {
    plan.grants()
        .map(|decision| decision.pod.name.as_str())
        .collect()
}
