//! The metrics that Prometheus and metrics-server scrape from a kubelet.
//!
//! In: nodes, and the [`UsageCache`] of their pods. Out: metrics in Prometheus' text format. A pod whose use is not
//! completely known has no values, and does not affect other pods. Monitoring that is configured for kubelets
//! scrapes five paths of every node: each path is answered, even if there are no metrics for it.

use std::fmt::{Display, Write as _};
use std::sync::Arc;

use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use jiff::Timestamp;

use super::response;
use super::route::ScrapeEndpoint;
use super::usage::{CpuCounter, PodUsage, UsageCache};
use crate::node::pods::{ContainerInfo, PodInfo, PodsContext};

/// The resource metrics of pods and nodes (`/metrics/resource`).
pub fn resource_metrics(nodes: &[Arc<PodsContext>], usage: &UsageCache) -> Response<Body> {
    let (pods, total) = usage.pods_of_nodes(nodes);
    metrics_response(resource_metrics_text(&pods, total))
}

/// The metrics of the other endpoints.
pub fn endpoint_metrics(
    endpoint: ScrapeEndpoint,
    nodes: &[Arc<PodsContext>],
    usage: &UsageCache,
) -> Response<Body> {
    metrics_response(match endpoint {
        ScrapeEndpoint::Kubelet => {
            let names: Vec<&str> = nodes.iter().map(|node| &*node.owner.node).collect();
            let pods: Vec<_> = nodes.iter().flat_map(|node| node.all_pods()).collect();
            kubelet_metrics(&names, &pods)
        }
        ScrapeEndpoint::Cadvisor => {
            let pods: Vec<_> = nodes
                .iter()
                .flat_map(|node| usage.pods_of_node(node))
                .collect();
            cadvisor_metrics(&pods)
        }
        ScrapeEndpoint::Probes => {
            "# Azure runs the probes and reports no metrics of them.\n".to_owned()
        }
        ScrapeEndpoint::Slis => sli_metrics(),
    })
}

fn metrics_response(text: String) -> Response<Body> {
    let mut response = response::text_response(StatusCode::OK, text);
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// A metric that containers, pods and nodes have.
struct MetricFamily {
    name: &'static str,
    kind: &'static str,
    /// The kubelet's help text, before and after the kind of object.
    help: [&'static str; 2],
    value: fn(&CpuCounter) -> f64,
}

const FAMILIES: [MetricFamily; 2] = [
    MetricFamily {
        name: "cpu_usage_seconds_total",
        kind: "counter",
        help: ["Cumulative cpu time consumed by the", "in core-seconds"],
        value: |counter| counter.cpu_seconds,
    },
    MetricFamily {
        name: "memory_working_set_bytes",
        kind: "gauge",
        help: ["Current working set of the", "in bytes"],
        value: |counter| counter.memory_bytes,
    },
];

impl MetricFamily {
    fn write(&self, text: &mut String, of: &str, counters: &[(String, CpuCounter)]) {
        let (name, [before, after]) = (format!("{of}_{}", self.name), self.help);
        let help = format!("[STABLE] {before} {of} {after}");
        write_header(text, &name, self.kind, &help);
        for (labels, counter) in counters {
            let number = (self.value)(counter);
            write_sample(text, &name, labels, number, Some(counter.at));
        }
    }
}

fn resource_metrics_text(pods: &[(PodUsage, Arc<PodInfo>)], total: Option<CpuCounter>) -> String {
    let (mut of_containers, mut of_pods) = (Vec::new(), Vec::new());
    for (used, pod) in pods {
        for (container, counter) in used.iter().flatten() {
            of_containers.push((container_labels(pod, container), *counter));
        }
        let counters = used.iter().flatten().map(|(_, counter)| *counter);
        let sum = counters.reduce(CpuCounter::plus);
        of_pods.extend(sum.map(|counter| (pod_labels(pod), counter)));
    }
    let of_node = total.map(|counter| (String::new(), counter));
    let of_node = Vec::from_iter(of_node);
    let mut text = String::new();
    write_start_times(&mut text, pods);
    let objects = [
        ("container", &of_containers),
        ("pod", &of_pods),
        ("node", &of_node),
    ];
    for (of, counters) in objects {
        for family in &FAMILIES {
            family.write(&mut text, of, counters);
        }
    }
    let help = "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise";
    write_header(&mut text, "resource_scrape_error", "gauge", help);
    write_sample(&mut text, "resource_scrape_error", "", 0, None);
    text
}

fn write_start_times(text: &mut String, pods: &[(PodUsage, Arc<PodInfo>)]) {
    let name = "container_start_time_seconds";
    let help = "[STABLE] Start time of the container since unix epoch in seconds";
    write_header(text, name, "gauge", help);
    for (_, pod) in pods {
        for container in &pod.containers {
            if let Some(since) = container.running_since {
                let labels = container_labels(pod, &container.name);
                write_sample(text, name, &labels, since.as_second(), None);
            }
        }
    }
}

/// The kubelet's own metrics that common alert rules use.
fn kubelet_metrics(names: &[&str], pods: &[Arc<PodInfo>]) -> String {
    let running = |container: &&ContainerInfo| container.running_since.is_some();
    let of_pods = pods.iter().map(|pod| {
        let containers = pod.containers.iter();
        containers.filter(running).count()
    });
    let running: Vec<usize> = of_pods.filter(|containers| *containers > 0).collect();
    let mut text = String::new();
    // Rules join on this metric and expect one node; if several nodes share the listener, there is no such node.
    if let [name] = names {
        let family = "kubelet_node_name";
        write_header(
            &mut text,
            family,
            "gauge",
            "The node's name. The count is always 1.",
        );
        write_sample(&mut text, family, &format!("node=\"{name}\""), 1, None);
    }
    let family = "kubelet_running_pods";
    write_header(
        &mut text,
        family,
        "gauge",
        "Number of pods that have a running container",
    );
    write_sample(&mut text, family, "", running.len(), None);
    let family = "kubelet_running_containers";
    write_header(
        &mut text,
        family,
        "gauge",
        "Number of containers currently running",
    );
    let state = "container_state=\"running\"";
    write_sample(
        &mut text,
        family,
        state,
        running.iter().sum::<usize>(),
        None,
    );
    text
}

/// Container metrics with the labels by which dashboards select cAdvisor's series.
fn cadvisor_metrics(pods: &[(PodUsage, Arc<PodInfo>)]) -> String {
    let mut lines = Vec::new();
    for (used, pod) in pods {
        for (name, counter) in used.iter().flatten() {
            let image = pod.container(name).map_or("", |container| &container.image);
            let labels = format!(
                "{},image=\"{}\"",
                container_labels(pod, name),
                escape_label(image)
            );
            lines.push((labels, counter));
        }
    }
    let mut text = String::new();
    let name = "container_cpu_usage_seconds_total";
    write_header(
        &mut text,
        name,
        "counter",
        "Cumulative cpu time consumed in seconds.",
    );
    for (labels, counter) in &lines {
        let labels = format!("{labels},cpu=\"total\"");
        write_sample(
            &mut text,
            name,
            &labels,
            counter.cpu_seconds,
            Some(counter.at),
        );
    }
    let name = "container_memory_working_set_bytes";
    write_header(&mut text, name, "gauge", "Current working set in bytes.");
    for (labels, counter) in &lines {
        write_sample(
            &mut text,
            name,
            labels,
            counter.memory_bytes,
            Some(counter.at),
        );
    }
    text
}

fn sli_metrics() -> String {
    let (mut text, name) = (String::new(), "kubernetes_healthcheck");
    write_header(
        &mut text,
        name,
        "gauge",
        "[STABLE] The result of the healthcheck.",
    );
    write_sample(&mut text, name, "name=\"ping\",type=\"healthz\"", 1, None);
    text
}

fn write_header(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn write_sample(
    text: &mut String,
    name: &str,
    labels: &str,
    number: impl Display,
    at: Option<Timestamp>,
) {
    text.push_str(name);
    if !labels.is_empty() {
        let _ = write!(text, "{{{labels}}}");
    }
    let _ = write!(text, " {number}");
    if let Some(at) = at {
        let _ = write!(text, " {}", at.as_millisecond());
    }
    text.push('\n');
}

fn container_labels(pod: &PodInfo, container: &str) -> String {
    format!("container=\"{container}\",{}", pod_labels(pod))
}

fn pod_labels(pod: &PodInfo) -> String {
    format!("namespace=\"{}\",pod=\"{}\"", pod.namespace, pod.name)
}

/// Escapes a label's value. Only images need it: Kubernetes accepts any text as an image.
fn escape_label(value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    value.replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{at, counters, pod};
    use super::*;

    fn assert_lines(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|l| l == *line), "{line}: {text}");
        }
    }

    #[test]
    fn a_pod_without_values_does_not_affect_other_pods() {
        let total = CpuCounter {
            at: at(200),
            ..counters()[0].1
        };
        let pods = [(None, pod("new")), (Some(counters()), pod("web"))];
        let text = resource_metrics_text(&pods, Some(total));
        assert_lines(
            &text,
            &[
                "container_start_time_seconds{container=\"a\",namespace=\"shop\",pod=\"new\"} 60",
                "container_cpu_usage_seconds_total{container=\"a\",namespace=\"shop\",pod=\"web\"} 1.5 180000",
                "container_memory_working_set_bytes{container=\"b\",namespace=\"shop\",pod=\"web\"} 1 120000",
                "pod_cpu_usage_seconds_total{namespace=\"shop\",pod=\"web\"} 2 120000",
                "pod_memory_working_set_bytes{namespace=\"shop\",pod=\"web\"} 1025 120000",
                "node_cpu_usage_seconds_total 1.5 200000",
                "node_memory_working_set_bytes 1024 200000",
            ],
        );
        let of_new = text.lines().filter(|line| line.contains("pod=\"new\""));
        assert_eq!(of_new.count(), 2, "{text}");
        let unknown = resource_metrics_text(&pods, None);
        let of_node = unknown.lines().filter(|line| line.starts_with("node_"));
        assert_eq!(of_node.count(), 0, "{unknown}");
    }

    #[test]
    fn an_address_of_several_nodes_has_no_node_name() {
        let (node, pods) = ("burst-shop-weu", [pod("web"), pod("new")]);
        assert_lines(
            &kubelet_metrics(&[node], &pods),
            &[
                "kubelet_node_name{node=\"burst-shop-weu\"} 1",
                "kubelet_running_pods 2",
                "kubelet_running_containers{container_state=\"running\"} 4",
            ],
        );
        assert!(!kubelet_metrics(&[node, "burst-shop-neu"], &pods).contains("kubelet_node_name"));
    }

    #[test]
    fn containers_have_any_image_as_an_escaped_label() {
        let mut odd = PodInfo::clone(&pod("web"));
        odd.containers[0].image = "a\"b\\c\nd".to_owned();
        let text = cadvisor_metrics(&[(Some(counters()), Arc::new(odd)), (None, pod("new"))]);
        assert_lines(
            &text,
            &[
                "container_cpu_usage_seconds_total{container=\"a\",namespace=\"shop\",pod=\"web\",image=\"a\\\"b\\\\c\\nd\",cpu=\"total\"} 1.5 180000",
                "container_memory_working_set_bytes{container=\"b\",namespace=\"shop\",pod=\"web\",image=\"image-of-b\"} 1 120000",
            ],
        );
        assert!(!text.contains("pod=\"new\""));
    }
}
