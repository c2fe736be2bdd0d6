//! The stats summary of a kubelet (`/stats/summary`).
//!
//! In: nodes, and the [`UsageCache`] of their pods. Out: the summary as JSON. A pod whose use is not completely known
//! has no values, so that an autoscaler treats it as not measured; zero would make it scale in. The node's values
//! are the sum of the known ones.

use std::sync::Arc;

use serde_json::{Value, json};

use super::response::{self, ApiResult};
use super::usage::{CpuCounter, PodUsage, UsageCache};
use crate::node::pods::{PodInfo, PodsContext};

/// The CPU and memory use of the nodes' pods, and when they started.
pub fn summary(nodes: &[Arc<PodsContext>], usage: &UsageCache) -> ApiResult {
    let (all, total) = usage.pods_of_nodes(nodes);
    let pods = all.into_iter().map(|(used, pod)| pod_stats(&pod, used));
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
            let of = used.iter().find(|(name, _)| *name == container.name);
            let mut told = of.map_or_else(|| json!({}), |(_, counter)| usage_stats(counter));
            told["name"] = json!(container.name);
            told["startTime"] = json!(container.running_since);
            told
        })
        .collect();
    let all = used.into_iter().map(|(_, counter)| counter);
    let mut told = all
        .reduce(CpuCounter::plus)
        .map_or_else(|| json!({}), |counter| usage_stats(&counter));
    told["podRef"] = json!({"name": pod.name, "namespace": pod.namespace, "uid": pod.uid});
    told["startTime"] = json!(pod.started_at);
    told["containers"] = json!(containers);
    told
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
        let told = pod_stats(&pod("web"), Some(counters()));
        assert_eq!(told["cpu"]["usageCoreNanoSeconds"], 2_000_000_000_u64);
        assert_eq!(told["memory"]["workingSetBytes"], 1025);
        assert_eq!(told["containers"][0]["cpu"]["usageNanoCores"], 250_000_000);
        let told = pod_stats(&pod("new"), None);
        assert!(told["cpu"].is_null() && told["containers"][1]["memory"].is_null());
        assert_eq!(told["containers"][1]["name"], "b");
        assert_eq!(told["podRef"]["uid"], "uid-new");
    }
}
