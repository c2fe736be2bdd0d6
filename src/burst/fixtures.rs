//! Small pods, pools and clusters for the tests of `burst`.

mod plan_scene;

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::facts::assignment::{NamespaceLabels, TargetScale, TargetScales};
use super::facts::node_constraints::NodeConstraints;
use super::facts::placement::PlacementFacts;
use super::facts::pod::{
    BoundPod, GrantRecord, OwnerKind, PodFacts, PodOwner, PodReference, PodStage,
};
use super::facts::resource_amounts::ResourceAmounts;
use super::plan::BurstPlan;
use crate::api::{BurstPool, LossSet, Reservation};
use crate::k8s::label_selector;
pub use plan_scene::PlanScene;

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
            refusal: None,
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
            not_kept: LossSet::default(),
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

/// The names of the pods that the plan grants.
pub fn granted(plan: &BurstPlan) -> Vec<&str> {
    plan.grants()
        .map(|decision| decision.pod.name.as_str())
        .collect()
}
