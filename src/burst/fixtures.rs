//! Small pods, pools and worlds for the tests of this room.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::amounts::Amounts;
use super::assign::{Namespaces, Scale, Scales};
use super::fit::Demands;
use super::labels;
use super::place::Place;
use super::pod::{Bound, Grant, Owner, OwnerKind, PodFacts, PodRef, Stage};
use crate::api::BurstPool;

/// A second of the tests' time.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

/// A pod of the workload `web`, created and refused at second 0.
pub fn pod(name: &str) -> PodFacts {
    PodFacts {
        id: PodRef {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            resource_version: "1".to_owned(),
        },
        labels: [("app".to_owned(), "web".to_owned())].into(),
        owner: Some(Owner {
            kind: OwnerKind::Replaces,
            template: "web-1/".to_owned(),
        }),
        created: at(0),
        is_first_generation: true,
        is_deleting: false,
        scheduler: None,
        is_nominated: false,
        stage: Stage::Refused(Some(at(0))),
        grant: None,
        stamped: None,
        asks: Amounts {
            cpu_milli: 1000,
            memory: 1 << 30,
            storage: 0,
            pods: 1,
        },
        demands: Demands::default(),
    }
}

impl PodFacts {
    /// The same, on a node and started.
    #[must_use]
    pub fn on(mut self, node: &str) -> Self {
        self.stage = Stage::Bound(Bound {
            node: node.to_owned(),
            since: Some(at(0)),
            has_started: true,
            is_running: true,
            refused: None,
        });
        self
    }

    /// The same, granted.
    #[must_use]
    pub fn granted(mut self, pool: &str, workload: &str, second: i64) -> Self {
        self.grant = Some(Grant {
            pool: pool.to_owned(),
            workload: workload.to_owned(),
            at: Some(at(second)),
        });
        self
    }

    /// The same, of another workload.
    #[must_use]
    pub fn of_app(mut self, app: &str) -> Self {
        self.labels.insert("app".to_owned(), app.to_owned());
        self
    }
}

/// A pool with one placement and, unless `spec` says otherwise, the workload `web`.
pub fn pool(name: &str, spec: Value) -> BurstPool {
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

/// A workload with a target of its name.
pub fn target(name: &str) -> Value {
    json!({"name": name, "target":
        {"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "shop", "name": name}})
}

/// A scale of the workload `web`.
pub fn scale(desired: u64, replicas: u64) -> Scale {
    scale_of("web", desired, replicas)
}

/// A scale of a workload whose pods have its name as their app.
pub fn scale_of(app: &str, desired: u64, replicas: u64) -> Scale {
    Scale {
        desired,
        replicas,
        selector: labels::selector(&format!("app={app}")).expect("a selector"),
    }
}

/// Scales of the pool `shop`.
pub fn scales(all: &[(&str, u64, u64)]) -> Scales {
    let scales = all.iter().map(|(app, desired, replicas)| {
        let key = ("shop".to_owned(), (*app).to_owned());
        (key, Ok(scale_of(app, *desired, *replicas)))
    });
    scales.collect()
}

/// The namespace `shop`.
pub fn namespaces() -> Namespaces {
    HashMap::from([("shop".to_owned(), BTreeMap::new())])
}

/// An open placement of the pool `shop` with room for `pods`.
pub fn place(name: &str, pods: i64) -> Place {
    Place {
        placement: name.to_owned(),
        node: format!("burst-shop-{name}"),
        labels: BTreeMap::new(),
        taints: Vec::new(),
        offers: Amounts {
            cpu_milli: pods * 1000,
            memory: pods << 30,
            storage: 0,
            pods,
        },
        shut: None,
    }
}
