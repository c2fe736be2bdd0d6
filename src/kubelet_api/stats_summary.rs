//! The stats summary of a kubelet (`/stats/summary`).
//!
//! In: nodes, and the [`UsageCache`] of their pods. Out: the summary as JSON. A pod whose use is not completely
//! known has no values, so that an autoscaler treats it as not measured; zero would make it scale in. The node's
//! values are the sum of the known ones.

use std::sync::Arc;

use serde_json::{Value, json};

use super::response::{self, ApiResult};
use super::usage::{CpuCounter, PodUsage, UsageCache};
use crate::node::pods::{PodInfo, PodsContext};

/// The CPU and memory use of the nodes' pods, and when they started.
pub fn summary(nodes: &[Arc<PodsContext>], usage: &UsageCache) -> ApiResult {
    let (pods, total) = usage.pods_of_nodes(nodes);
    let pods = pods.into_iter().map(|(used, pod)| pod_stats(&pod, used));
    let pods: Vec<Value> = pods.collect();
    // A summary has one node, and this listener serves several: use the name of the first.
    let name = nodes.first().map(|node| node.owner.node.as_str());
    let mut node = total.map_or_else(|| json!({}), |counter| usage_stats(&counter));
    node["nodeName"] = json!(name.unwrap_or_default());
    response::json_response(&json!({"node": node, "pods": pods}))
}

fn pod_stats(pod: &PodInfo, usage: PodUsage) -> Value {
    let used = usage.unwrap_or_default();
    let running = pod.containers.iter().filter(|c| c.running_since.is_some());
    let containers: Vec<Value> = running
        .map(|container| {
            let counter = used.iter().find(|(name, _)| *name == container.name);
            let mut stats = counter.map_or_else(|| json!({}), |(_, counter)| usage_stats(counter));
            stats["name"] = json!(container.name);
            stats["startTime"] = json!(container.running_since);
            stats
        })
        .collect();
    let counters = used.into_iter().map(|(_, counter)| counter);
    let mut stats = counters
        .reduce(CpuCounter::plus)
        .map_or_else(|| json!({}), |counter| usage_stats(&counter));
    stats["podRef"] = json!({"name": pod.name, "namespace": pod.namespace, "uid": pod.uid});
    stats["startTime"] = json!(pod.started_at);
    stats["containers"] = json!(containers);
    stats
}

fn usage_stats(counter: &CpuCounter) -> Value {
    json!({
        "cpu": {
            "time": counter.at,
            "usageNanoCores": rounded(counter.millicores * 1e6),
            "usageCoreNanoSeconds": rounded(counter.cpu_seconds * 1e9),
        },
        "memory": {
            "time": counter.at,
            "usageBytes": rounded(counter.memory_bytes),
            "workingSetBytes": rounded(counter.memory_bytes),
        },
    })
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "such a cast goes to the nearest number that there is"
)]
fn rounded(number: f64) -> u64 {
    number.round() as u64
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{counters, pod};
    use super::*;

    #[test]
    fn a_summary_has_the_sum_and_each_container() {
        let stats = pod_stats(&pod("web"), Some(counters()));
        assert_eq!(stats["cpu"]["usageCoreNanoSeconds"], 2_000_000_000_u64);
        assert_eq!(stats["memory"]["workingSetBytes"], 1025);
        assert_eq!(stats["containers"][0]["cpu"]["usageNanoCores"], 250_000_000);
        let stats = pod_stats(&pod("new"), None);
        assert!(stats["cpu"].is_null() && stats["containers"][1]["memory"].is_null());
        assert_eq!(stats["containers"][1]["name"], "b");
        assert_eq!(stats["podRef"]["uid"], "uid-new");
    }
}
