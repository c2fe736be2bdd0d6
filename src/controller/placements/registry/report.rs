//! Reports the running placements to the pool's status and to the grant loop.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::ResourceExt as _;

use super::task::PlacementTask;
use super::{PlacementRegistry, has_placement};
use crate::api::{BurstPool, Placement, PlacementStatus};
use crate::burst::PodFacts;
use crate::controller::placements::PlacementId;
use crate::node::node_object::Unavailable;
use crate::node::{daemon_set, last_placement, pods};

/// The state of the pool's placements.
#[derive(Debug, Default)]
pub struct PlacementReport {
    /// The placements, for the status.
    pub placements: Vec<PlacementStatus>,
    /// The nodes of placements that the spec lists and that are not registered.
    pub unregistered_nodes: Vec<String>,
    /// Whether a cordon is the only reason why any placement takes no pods.
    pub is_only_cordoned: bool,
}

impl PlacementRegistry {
    /// Reads the state of the pool's placements.
    pub async fn report(&self, pool: &BurstPool) -> PlacementReport {
        let running = self.running.lock().await;
        let mut report = PlacementReport {
            is_only_cordoned: true,
            ..PlacementReport::default()
        };
        for (id, task) in running.of_pool(&pool.name_any()) {
            let config = task.node_config.borrow();
            let node = config.name();
            let cache = &self.context.parts.cache;
            // A node of that name with another pool's label belongs to another owner.
            let live = cache
                .node(&node)
                .filter(|live| last_placement::pool_from_labels(live) == Some(id.pool.as_str()));
            let is_listed = has_placement(pool, &id.placement);
            if live.is_none() && is_listed && cache.has_synced_nodes() {
                report.unregistered_nodes.push(node.clone());
            }
            let spec = live.as_ref().and_then(|live| live.spec.as_ref());
            let is_cordoned = spec.and_then(|spec| spec.unschedulable) == Some(true);
            report.is_only_cordoned &= config.unavailable().is_none();
            let status = placement_status(&id.placement, task, is_cordoned);
            report.placements.push(status);
        }
        report
    }

    /// The results of creates on a pool's placements since the last call, with the placements' names.
    pub async fn take_create_results(&self, pool: &str) -> Vec<(String, pods::CreateResult)> {
        let running = self.running.lock().await;
        let results = running.of_pool(pool).flat_map(|(id, task)| {
            let results = task.pods.take_create_results().into_iter();
            results.map(|result| (id.placement.clone(), result))
        });
        results.collect()
    }

    /// By pool, the pods on its nodes, as the grant loop needs them.
    pub async fn pods_on_pool_nodes(&self) -> BTreeMap<String, Vec<Arc<PodFacts>>> {
        let running = self.running.lock().await;
        let mut pods = BTreeMap::<String, Vec<Arc<PodFacts>>>::new();
        for (id, task) in running.all() {
            let of_pool = pods.entry(id.pool.clone()).or_default();
            of_pool.extend(task.pods.pod_facts());
        }
        pods
    }

    /// By placement, why its node or its region takes no pods. A placement without tasks takes none.
    pub async fn unavailable_placements(&self, pool: &BurstPool) -> BTreeMap<String, String> {
        let running = self.running.lock().await;
        let why = |placement: &Placement| {
            let id = PlacementId::new(&pool.name_any(), &placement.name);
            let Some(task) = running.get(&id) else {
                return Some("the tasks of its node have not started yet".to_owned());
            };
            let config = task.node_config.borrow();
            let closed = config.region_unavailable.as_ref();
            closed.map(|closed| closed.message.clone())
        };
        let listed = pool.spec.placements.iter();
        listed
            .filter_map(|placement| Some((placement.name.clone(), why(placement)?)))
            .collect()
    }

    /// Closes a placement to new pods, or opens it again if `closed` is `None`. The cause is that creates fail.
    pub async fn set_creates_failing(&self, id: &PlacementId, closed: Option<Unavailable>) {
        let running = self.running.lock().await;
        if let Some(task) = running.get(id) {
            task.node_config.send_if_modified(|config| {
                let changed = config.creates_failing != closed;
                config.creates_failing = closed;
                changed
            });
        }
    }
}

/// The status of a placement; `is_cordoned` says whether its node is.
fn placement_status(name: &str, task: &PlacementTask, is_cordoned: bool) -> PlacementStatus {
    let config = task.node_config.borrow();
    let node = config.name();
    let why = match config.unavailable() {
        Some(closed) => Some(closed.message.clone()),
        None if is_cordoned => Some(format!(
            "its node {node} is cordoned: kubectl uncordon {node} lets it take pods"
        )),
        None => None,
    };
    let groups = task.pods.group_count().and_then(|n| i64::try_from(n).ok());
    PlacementStatus {
        name: name.to_owned(),
        ready: why.is_none(),
        node,
        groups: groups.unwrap_or_default(),
        message: placement_message(
            why,
            config.region_notice.as_deref(),
            &task.spec.placement,
            &task.pods.daemon_sets(),
        ),
    }
}

/// The status message of a placement: why it takes no pods, and other notices.
fn placement_message(
    closed: Option<String>,
    region_notice: Option<&str>,
    placement: &Placement,
    daemon_sets: &[String],
) -> String {
    let first = closed.unwrap_or_else(|| placement_notice(placement).to_owned());
    let region_notice = region_notice.unwrap_or_default().to_owned();
    let notices = [
        first,
        region_notice,
        daemon_set::status_message(daemon_sets),
    ];
    let notices: Vec<String> = notices
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect();
    notices.join("; ")
}

/// A notice for users of an open placement about DNS and public addresses, which no error reports (decision
/// D17). It appears once for each placement, in the output of `kubectl describe`.
fn placement_notice(placement: &Placement) -> &'static str {
    match (&placement.network.dns, &placement.subnet_id) {
        (Some(_), _) => "",
        (None, Some(_)) => {
            "dnsPolicy ClusterFirst means Azure's resolver here, which does not know the cluster's names: set network.dns to name servers that the subnet reaches"
        }
        (None, None) => {
            "without a subnetId, pods with containerPorts get public addresses where those are open to the internet; dnsPolicy ClusterFirst means Azure's resolver here, which does not know the cluster's names: only a placement with a subnetId can have network.dns"
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_placement_explains_cluster_first_until_it_has_name_servers() {
        let of = |placement: serde_json::Value| {
            placement_notice(&serde_json::from_value(placement).expect("a placement"))
        };
        let plain = of(json!({"name": "a", "region": "b"}));
        assert!(
            plain.contains("ClusterFirst") && plain.contains("subnetId"),
            "{plain}"
        );
        let subnet = of(json!({"name": "a", "region": "b", "subnetId": "c"}));
        assert!(
            subnet.contains("ClusterFirst") && subnet.contains("set network.dns"),
            "{subnet}"
        );
        let dns = json!({"dns": {"nameServers": ["10.0.0.10"]}});
        assert_eq!(
            of(json!({"name": "a", "region": "b", "subnetId": "c", "network": dns})),
            ""
        );
    }
}
