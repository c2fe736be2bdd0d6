//! What pods use, in the words of a kubelet.
//!
//! In: nodes, and what is known of their pods' [`Usage`]. Out: a summary in JSON, and text for Prometheus and
//! metrics-server. A pod of which not all is known is told without numbers, which an autoscaler takes for
//! what it is: not measured (never for zero, on which it would scale in).

use std::fmt::{Display, Write as _};
use std::sync::Arc;

use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::answer::{self, Answer};
use super::usage::{Counter, Usage};
use crate::node::pods::{Context, Hosted};

/// What the pods use, as far as it is known, and since when they run.
pub fn summary(nodes: &[Arc<Context>], usage: &Usage) -> Answer {
    let all = nodes.iter().flat_map(|node| node.all_hosted());
    let pods: Vec<Value> = all.map(|pod| summed(&pod, usage.of(&pod))).collect();
    // The listener is all nodes', and a summary has one: the first stands for them.
    let name = nodes.first().map(|node| node.owner.node.as_str());
    answer::json(&json!({"node": {"nodeName": name.unwrap_or_default()}, "pods": pods}))
}

fn summed(pod: &Hosted, usage: Option<Vec<(String, Counter)>>) -> Value {
    let used = usage.unwrap_or_default();
    let running = pod.containers.iter().filter(|c| c.running_since.is_some());
    let containers: Vec<Value> = running
        .map(|container| {
            let of = used.iter().find(|(name, _)| *name == container.name);
            let mut told = of.map_or_else(|| json!({}), |(_, counter)| numbers(counter));
            told["name"] = json!(container.name);
            told["startTime"] = json!(container.running_since);
            told
        })
        .collect();
    let all = used.into_iter().map(|(_, counter)| counter);
    let mut told = all
        .reduce(sum)
        .map_or_else(|| json!({}), |counter| numbers(&counter));
    told["podRef"] = json!({"name": pod.name, "namespace": pod.namespace, "uid": pod.uid});
    told["startTime"] = json!(pod.started);
    told["containers"] = json!(containers);
    told
}

/// What two containers use together.
fn sum(a: Counter, b: Counter) -> Counter {
    Counter {
        cpu_seconds: a.cpu_seconds + b.cpu_seconds,
        millicores: a.millicores + b.millicores,
        bytes: a.bytes + b.bytes,
        at: a.at.min(b.at),
    }
}

fn numbers(counter: &Counter) -> Value {
    json!({
        "cpu": {
            "time": counter.at,
            "usageNanoCores": whole(counter.millicores * 1e6),
            "usageCoreNanoSeconds": whole(counter.cpu_seconds * 1e9),
        },
        "memory": {
            "time": counter.at,
            "usageBytes": whole(counter.bytes),
            "workingSetBytes": whole(counter.bytes),
        },
    })
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "such a cast goes to the nearest number that there is"
)]
fn whole(number: f64) -> u64 {
    number.round() as u64
}

/// The same for Prometheus.
pub fn resource(nodes: &[Arc<Context>], usage: &Usage) -> Response<Body> {
    let all = nodes.iter().flat_map(|node| node.all_hosted());
    let pods: Vec<_> = all.map(|pod| (usage.of(&pod), pod)).collect();
    let mut response = answer::text(StatusCode::OK, exposed(&pods));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

type Used = Option<Vec<(String, Counter)>>;

/// A metric of containers, and of pods.
struct Family {
    name: &'static str,
    kind: &'static str,
    /// In the words of a kubelet, around what it is of.
    help: [&'static str; 2],
    number: fn(&Counter) -> f64,
}

const FAMILIES: [Family; 2] = [
    Family {
        name: "cpu_usage_seconds_total",
        kind: "counter",
        help: ["Cumulative cpu time consumed by the", "in core-seconds"],
        number: |counter| counter.cpu_seconds,
    },
    Family {
        name: "memory_working_set_bytes",
        kind: "gauge",
        help: ["Current working set of the", "in bytes"],
        number: |counter| counter.bytes,
    },
];

impl Family {
    fn write(&self, text: &mut String, of: &str, counters: &[(String, Counter)]) {
        let (name, [before, after]) = (format!("{of}_{}", self.name), self.help);
        head(text, &name, self.kind, &format!("{before} {of} {after}"));
        for (labels, counter) in counters {
            let number = (self.number)(counter);
            line(text, &name, labels, number, Some(counter.at));
        }
    }
}

fn exposed(pods: &[(Used, Arc<Hosted>)]) -> String {
    let (mut of_containers, mut of_pods) = (Vec::new(), Vec::new());
    for (used, pod) in pods {
        for (container, counter) in used.iter().flatten() {
            of_containers.push((of_container(pod, container), *counter));
        }
        let counters = used.iter().flatten().map(|(_, counter)| *counter);
        of_pods.extend(counters.reduce(sum).map(|counter| (of_pod(pod), counter)));
    }
    let mut text = String::new();
    starts(&mut text, pods);
    for (of, counters) in [("container", &of_containers), ("pod", &of_pods)] {
        for family in &FAMILIES {
            family.write(&mut text, of, counters);
        }
    }
    let help = "1 if there was an error while getting container metrics, 0 otherwise";
    head(&mut text, "resource_scrape_error", "gauge", help);
    text.push_str("resource_scrape_error 0\n");
    text
}

fn starts(text: &mut String, pods: &[(Used, Arc<Hosted>)]) {
    let name = "container_start_time_seconds";
    let help = "Start time of the container since unix epoch in seconds";
    head(text, name, "gauge", help);
    for (_, pod) in pods {
        for container in &pod.containers {
            if let Some(since) = container.running_since {
                let labels = of_container(pod, &container.name);
                line(text, name, &labels, since.as_second(), None);
            }
        }
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}");
}

fn line(text: &mut String, name: &str, labels: &str, number: impl Display, at: Option<Timestamp>) {
    let _ = write!(text, "{name}{{{labels}}} {number}");
    if let Some(at) = at {
        let _ = write!(text, " {}", at.as_millisecond());
    }
    text.push('\n');
}

fn of_container(pod: &Hosted, container: &str) -> String {
    format!("container=\"{container}\",{}", of_pod(pod))
}

fn of_pod(pod: &Hosted) -> String {
    format!("namespace=\"{}\",pod=\"{}\"", pod.namespace, pod.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aci::names::GroupName;
    use crate::node::pods::HostedContainer;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn pod(name: &str) -> Arc<Hosted> {
        let container = |name: &str| HostedContainer {
            name: name.to_owned(),
            running_since: Some(at(60)),
            has_ended: false,
        };
        Arc::new(Hosted {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            group: GroupName::of("cluster", &k8s_openapi::api::core::v1::Pod::default()),
            containers: vec![container("a"), container("b")],
            init_containers: Vec::new(),
            address: None,
            started: Some(at(0)),
            has_ended: false,
        })
    }

    fn used() -> Vec<(String, Counter)> {
        let counter = |cpu_seconds, bytes, second| Counter {
            cpu_seconds,
            millicores: 250.0,
            bytes,
            at: at(second),
        };
        let both = [
            ("a", counter(1.5, 1024.0, 180)),
            ("b", counter(0.5, 1.0, 120)),
        ];
        both.map(|(name, counter)| (name.to_owned(), counter))
            .into()
    }

    #[test]
    fn a_pod_without_numbers_is_told_without_and_spoils_no_other() {
        let text = exposed(&[(None, pod("new")), (Some(used()), pod("web"))]);
        for line in [
            "container_start_time_seconds{container=\"a\",namespace=\"shop\",pod=\"new\"} 60",
            "container_cpu_usage_seconds_total{container=\"a\",namespace=\"shop\",pod=\"web\"} 1.5 180000",
            "container_memory_working_set_bytes{container=\"b\",namespace=\"shop\",pod=\"web\"} 1 120000",
            "pod_cpu_usage_seconds_total{namespace=\"shop\",pod=\"web\"} 2 120000",
            "pod_memory_working_set_bytes{namespace=\"shop\",pod=\"web\"} 1025 120000",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}: {text}");
        }
        let of_new = text.lines().filter(|line| line.contains("pod=\"new\""));
        assert_eq!(of_new.count(), 2, "{text}");
    }

    #[test]
    fn a_summary_has_the_sum_and_each_container() {
        let told = summed(&pod("web"), Some(used()));
        assert_eq!(told["cpu"]["usageCoreNanoSeconds"], 2_000_000_000_u64);
        assert_eq!(told["memory"]["workingSetBytes"], 1025);
        assert_eq!(told["containers"][0]["cpu"]["usageNanoCores"], 250_000_000);
        let told = summed(&pod("new"), None);
        assert!(told["cpu"].is_null() && told["containers"][1]["memory"].is_null());
        assert_eq!(told["containers"][1]["name"], "b");
        assert_eq!(told["podRef"]["uid"], "uid-new");
    }
}
