//! Readiness of pods in a subnet: the virtual node sends their probes to the apps that the emulated Azure runs at
//! the groups' addresses.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use burstpool::emulator::{Emulator, EmulatorOptions, SubnetAddresses};
use k8s_openapi::api::core::v1::{Event, Pod, PodCondition, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, PostParams};
use kube::runtime::watcher;
use serde_json::{Value, json};

use crate::node_in_process::{Burst, Setup, container, environment, phase};
use crate::support::monitoring::free_port;

use crate::support::{objects, skipped, wait};

const REACH: &str = "burstpool.io/ProbesReach";

/// A node in a subnet, where the emulator's apps answer.
async fn started(hint: &str) -> Burst {
    started_at(hint, SubnetAddresses::Loopback).await
}

async fn started_at(hint: &str, subnet_addresses: SubnetAddresses) -> Burst {
    let options = EmulatorOptions {
        speed: 20.0,
        subnet_addresses,
        ..EmulatorOptions::default()
    };
    let azure = Emulator::start(options).await.expect("the emulator starts");
    let setup = Setup {
        azure: Some(Arc::new(azure)),
        in_subnet: true,
        ..Setup::default()
    };
    Burst::with(hint, setup).await
}

/// A pod with this readiness probe of an app that answers with this status at port 8080.
fn app(probe: &Value, status: &str) -> Value {
    let script = [
        ("ACI_EMULATOR_SERVE", "8080"),
        ("ACI_EMULATOR_SERVE_STATUS", status),
    ];
    let mut probe = probe.clone();
    probe["periodSeconds"] = json!(1);
    let mut container = json!({"name": "main", "readinessProbe": probe});
    container["env"] = environment(&script)["spec"]["containers"][0]["env"].clone();
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}})
}

fn get() -> Value {
    json!({"httpGet": {"port": 8080, "path": "/ready"}})
}

impl Burst {
    /// Changes what the app in the only group answers.
    async fn answer(&self, change: Value) {
        let mut script = json!({"serve": 8080});
        for (field, value) in change.as_object().expect("an object") {
            script[field] = value.clone();
        }
        let group = &self.groups()[0].name;
        let body = json!({"group": group, "container": "main", "script": script});
        self.admin("scripts", &body).await;
    }

    /// Waits until an Event about the pod has this text.
    async fn until_event(&self, text: &str) {
        let told = |events: &[Event]| {
            let mut messages = events.iter().filter_map(|event| event.message.as_deref());
            messages.any(|message| message.contains(text))
        };
        let events = self.tenant.api::<Event>();
        wait::until_all(events, watcher::Config::default(), text, told)
            .await
            .expect("the Event");
    }
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

fn is_ready(pod: Option<&Pod>) -> bool {
    pod.is_some_and(objects::is_pod_ready)
}

fn runs_and_is_not_ready(pod: Option<&Pod>) -> bool {
    pod.is_some_and(|pod| phase(pod) == "Running" && !objects::is_pod_ready(pod))
}

#[tokio::test]
async fn a_pod_is_ready_only_while_its_probe_succeeds() {
    let burst = started("probes-serve").await;
    burst.create("web", &app(&get(), "503")).await;
    burst
        .until(
            "web",
            "the pod to run and not to be ready",
            runs_and_is_not_ready,
        )
        .await;
    burst
        .until_event("Readiness probe failed: HTTP probe failed with statuscode: 503")
        .await;
    let pod = burst.read("web").await;
    assert!(runs_and_is_not_ready(Some(&pod)));
    assert_eq!(container(&pod).started, Some(true));
    // ACI gets no readiness probe: it would cut the container off.
    let bodies = serde_json::to_value(burst.bodies()).expect("JSON");
    assert!(!bodies.to_string().contains("readinessProbe"), "{bodies}");

    burst.answer(json!({})).await;
    burst.until("web", "the pod to be ready", is_ready).await;

    burst.answer(json!({"serveHang": true})).await;
    burst
        .until("web", "the pod not to be ready", runs_and_is_not_ready)
        .await;
    let pod = burst.read("web").await;
    assert_eq!(
        condition(&pod, REACH),
        None,
        "the app is at fault, not the path"
    );
}

/// An address of this machine other than loopback, which Kubernetes accepts for no endpoint.
fn own_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Chooses the route and sends nothing; the address is one for documents (RFC 5737).
    socket.connect((Ipv4Addr::new(198, 51, 100, 1), 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) if !address.is_loopback() => Some(address),
        _ => None,
    }
}

/// Whether the Service's only endpoint is ready; `None` if there are no or several endpoints.
fn ready_endpoint(slices: &[EndpointSlice]) -> Option<bool> {
    let mut endpoints = slices
        .iter()
        .flat_map(|slice| slice.endpoints.iter().flatten());
    let endpoint = endpoints.next()?;
    let is_ready = endpoint.conditions.as_ref()?.ready?;
    endpoints.next().is_none().then_some(is_ready)
}

#[tokio::test]
async fn the_endpoint_of_a_pod_follows_its_readiness_probe() {
    let Some(address) = own_address() else {
        skipped(
            "an IPv4 address other than loopback",
            "connect the machine to a network",
        );
        return;
    };
    let burst = started_at("probes-endpoint", SubnetAddresses::Only(address)).await;
    let port = free_port();
    let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": port}]}});
    let service: Service = serde_json::from_value(service).expect("a Service");
    let services = burst.tenant.api::<Service>();
    services
        .create(&PostParams::default(), &service)
        .await
        .expect("the Service");
    let mut pod = app(&json!({"httpGet": {"port": port}}), "200");
    pod["spec"]["containers"][0]["env"][0]["value"] = json!(port.to_string());
    burst.create("web", &pod).await;
    let until = async |is_ready: bool, what: &str| {
        let slices = burst.tenant.api::<EndpointSlice>();
        let found = |slices: &[EndpointSlice]| ready_endpoint(slices) == Some(is_ready);
        wait::until_all(slices, watcher::Config::default(), what, found)
            .await
            .expect("the endpoint");
    };
    until(true, "the endpoint to be ready").await;
    let began = Instant::now();
    burst
        .answer(json!({"serve": port, "serveStatus": 500}))
        .await;
    until(false, "the endpoint not to be ready").await;
    // Its period is one second, and its threshold three.
    eprintln!("the endpoint was not ready after {:?}", began.elapsed());
    burst.answer(json!({"serve": port})).await;
    until(true, "the endpoint to be ready again").await;
}

#[tokio::test]
async fn tcp_and_grpc_probes_and_a_startup_probe_run_in_a_subnet() {
    let burst = started("probes-kinds").await;
    burst
        .create("tcp", &app(&json!({"tcpSocket": {"port": 8080}}), "200"))
        .await;
    burst
        .create("grpc", &app(&json!({"grpc": {"port": 8080}}), "200"))
        .await;
    burst
        .create("not-serving", &app(&json!({"grpc": {"port": 8080}}), "500"))
        .await;
    let mut late = app(&get(), "200");
    let live = json!({"httpGet": {"port": 8080, "path": "/live"}, "periodSeconds": 1, "failureThreshold": 600});
    late["spec"]["containers"][0]["livenessProbe"] = live.clone();
    late["spec"]["containers"][0]["startupProbe"] = live;
    // A minute and a half at twenty times the speed.
    let after = json!({"name": "ACI_EMULATOR_SERVE_AFTER", "value": "90s"});
    late["spec"]["containers"][0]["env"]
        .as_array_mut()
        .expect("a list")
        .push(after);
    burst.create("late", &late).await;
    for name in ["tcp", "grpc"] {
        burst.until(name, "the pod to be ready", is_ready).await;
    }
    burst
        .until_event("Readiness probe failed: service unhealthy (responded with \"NOT_SERVING\")")
        .await;
    assert!(runs_and_is_not_ready(Some(
        &burst.read("not-serving").await
    )));
    let has_not_started = |pod: Option<&Pod>| {
        pod.is_some_and(|pod| phase(pod) == "Running" && container(pod).started == Some(false))
    };
    burst
        .until(
            "late",
            "the container to run and not to have started",
            has_not_started,
        )
        .await;
    burst.until_event("Startup probe failed: ").await;
    burst.until("late", "the pod to be ready", is_ready).await;
    let bodies = serde_json::to_value(burst.bodies()).expect("JSON");
    assert!(
        bodies.to_string().contains("\"initialDelaySeconds\":600"),
        "{bodies}"
    );
}

#[tokio::test]
async fn a_path_that_is_cut_keeps_the_verdict_and_says_so() {
    let burst = started("probes-cut").await;
    burst.create("web", &app(&get(), "200")).await;
    burst.until("web", "the pod to be ready", is_ready).await;
    burst.admin("path", &json!({"cut": true})).await;
    let is_blocked = |pod: Option<&Pod>| pod.is_some_and(|pod| condition(pod, REACH).is_some());
    burst
        .until("web", "the condition of the path", is_blocked)
        .await;
    let pod = burst.read("web").await;
    assert!(is_ready(Some(&pod)), "the verdict holds");
    let reach = condition(&pod, REACH).expect("the condition");
    assert_eq!(
        (reach.status.as_str(), reach.reason.as_deref()),
        ("False", Some("PathBroken"))
    );
    let message = reach.message.as_deref().unwrap_or_default();
    for part in ["8080", "network security group"] {
        assert!(message.contains(part), "{message}");
    }
    burst.admin("path", &json!({"cut": false})).await;
    let is_open = |pod: Option<&Pod>| is_ready(pod) && !is_blocked(pod);
    burst
        .until("web", "the path to be open again", is_open)
        .await;
    let events = burst
        .tenant
        .api::<Event>()
        .list(&ListParams::default())
        .await
        .expect("Events");
    let blamed = events
        .items
        .iter()
        .filter_map(|event| event.message.as_deref());
    let blamed: Vec<&str> = blamed
        .filter(|message| message.contains("i/o timeout"))
        .collect();
    assert!(blamed.is_empty(), "no Event blames the app: {blamed:?}");
}

/// ACI runs the probe, and reports only its failures. They last for ten seconds at twenty times the speed.
#[tokio::test]
async fn a_pod_whose_probe_aci_runs_is_ready_only_after_the_probe_no_longer_fails() {
    let setup = Setup::default();
    let burst = Burst::with("probes-azure", setup).await;
    let probe = json!({"exec": {"command": ["true"]}, "periodSeconds": 1});
    let script = [("ACI_EMULATOR_READINESS_FAILS_FOR", "200s")];
    let mut container = json!({"name": "main", "readinessProbe": probe});
    container["env"] = environment(&script)["spec"]["containers"][0]["env"].clone();
    burst
        .create("web", &json!({"spec": {"containers": [container]}}))
        .await;
    burst
        .until(
            "web",
            "the pod to run and not to be ready",
            runs_and_is_not_ready,
        )
        .await;
    burst.until_event("Readiness probe failed: ").await;
    assert!(runs_and_is_not_ready(Some(&burst.read("web").await)));
    burst.until("web", "the pod to be ready", is_ready).await;
}

/// The same pod under another leader.
#[tokio::test]
async fn another_leader_keeps_a_pod_ready_until_it_has_seen_enough_failures_itself() {
    let mut burst = started("probes-leader").await;
    burst.create("web", &app(&get(), "200")).await;
    burst.until("web", "the pod to be ready", is_ready).await;
    let since = |pod: &Pod| {
        condition(pod, "Ready")
            .expect("the condition")
            .last_transition_time
            .clone()
    };
    let before = since(&burst.read("web").await);
    burst.stop().await;
    burst.run().await;
    // The second change of the app's answers shows that the new leader probes.
    burst.answer(json!({"serveStatus": 302})).await;
    burst
        .until_event("Readiness probe warning: Probe terminated redirects")
        .await;
    let pod = burst.read("web").await;
    assert!(is_ready(Some(&pod)));
    assert_eq!(since(&pod), before, "it never lost its traffic");
    burst.answer(json!({"serveStatus": 500})).await;
    burst
        .until("web", "the pod not to be ready", runs_and_is_not_ready)
        .await;
    tokio::time::timeout(Duration::from_secs(60), burst.stop())
        .await
        .expect("it ends");
}
