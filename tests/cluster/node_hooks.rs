//! The `preStop` hooks of pods on a virtual node, within one grace period and under another leader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use burstpool::emulator::{Emulator, EmulatorOptions, SubnetAddresses};
use k8s_openapi::api::core::v1::{Event, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, PostParams};
use kube::runtime::watcher;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::node_in_process::{Burst, Setup, is_running, told};
use crate::support::wait;

/// The grace period of the pods, in seconds: much longer than any test.
const GRACE: u32 = 3600;

/// A pod with a container for each of these hooks.
fn hooked(hooks: &[(&str, Value)]) -> Value {
    let containers = hooks.iter().map(|(name, hook)| {
        json!({"name": name, "image": "registry.example/main:1", "ports": [{"containerPort": 80}],
            "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
            "lifecycle": {"preStop": hook}})
    });
    let mut containers: Vec<Value> = containers.collect();
    for container in &mut containers[1..] {
        // The containers of a group share its ports.
        container["ports"] = json!([]);
    }
    json!({"metadata": {"labels": {"app": "web"}},
        "spec": {"terminationGracePeriodSeconds": GRACE, "containers": containers}})
}

fn sleep(seconds: u32) -> Value {
    json!({"sleep": {"seconds": seconds}})
}

/// A node in a subnet whose addresses are this machine's, so that a test can listen at a pod's.
async fn in_subnet(hint: &str) -> Burst {
    let options = EmulatorOptions {
        speed: 20.0,
        subnet_addresses: SubnetAddresses::Loopback,
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

/// Listens at the pod's address, as the app in its container would.
async fn app(burst: &Burst, port: u16) -> TcpListener {
    let status = burst.read("web").await.status;
    let address = status.and_then(|status| status.pod_ip).expect("an address");
    let listener = TcpListener::bind((address, port)).await;
    listener.expect("it listens")
}

/// The next connection to the app, and the head of its request.
async fn request(app: &TcpListener) -> (TcpStream, String) {
    let connected = tokio::time::timeout(wait::DEADLINE, app.accept()).await;
    let (mut stream, _) = connected.expect("a request").expect("a connection");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("the head of a request"));
    }
    (stream, String::from_utf8(head).expect("text"))
}

async fn answer(mut stream: TcpStream, status: u16) {
    let head = format!("HTTP/1.1 {status} It\r\ncontent-length: 0\r\n\r\n");
    let written = stream.write_all(head.as_bytes()).await;
    written.expect("it is written");
}

/// The containers with running hooks, by the pod's condition.
fn hooks(pod: Option<&Pod>) -> Option<&str> {
    let conditions = pod?.status.as_ref()?.conditions.as_ref()?;
    let hooks = conditions
        .iter()
        .find(|condition| condition.type_ == "burstpool.io/PreStop")?;
    hooks
        .message
        .as_deref()?
        .split_once(": ")
        .map(|(_, names)| names)
}

impl Burst {
    async fn until_hooks(&self, names: &str) {
        let what = format!("the hooks of {names} to run");
        self.until("web", &what, |pod| hooks(pod) == Some(names))
            .await;
    }

    /// Asserts that Azure has been asked to delete nothing.
    fn assert_not_deleted(&self) {
        let timeline = self.timeline();
        let mut deletes = timeline.iter().map(|entry| entry.delete_received);
        assert!(deletes.all(|at| at.is_none()), "{timeline:?}");
    }

    async fn events(&self, reason: &str) -> usize {
        let events = self.tenant.api::<Event>();
        let of_reason = ListParams::default().fields(&format!("reason={reason}"));
        events.list(&of_reason).await.expect("Events").items.len()
    }
}

#[tokio::test]
async fn a_pod_with_a_sleep_leaves_its_service_at_once_and_keeps_its_group_until_the_sleep_is_over()
{
    let burst = Burst::start("hooks-sleep").await;
    let service = json!({"metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    let service: Service = serde_json::from_value(service).expect("a Service");
    let services = burst.tenant.api::<Service>();
    let made = services.create(&PostParams::default(), &service).await;
    made.expect("the Service");
    let until_ready = async |is_ready: bool| {
        let found = |slices: &[EndpointSlice]| {
            let endpoints = slices
                .iter()
                .flat_map(|slice| slice.endpoints.iter().flatten());
            let ready = endpoints.filter_map(|endpoint| endpoint.conditions.as_ref()?.ready);
            ready.eq([is_ready])
        };
        let (slices, config) = (
            burst.tenant.api::<EndpointSlice>(),
            watcher::Config::default(),
        );
        let what = format!("an endpoint with ready: {is_ready}");
        let waited = wait::until_all(slices, config, &what, found).await;
        waited.expect("the endpoint");
    };
    burst
        .create("web", &hooked(&[("main", sleep(GRACE))]))
        .await;
    until_ready(true).await;
    burst.delete("web", None).await;
    until_ready(false).await;
    burst.until_hooks("[main]").await;
    burst.assert_not_deleted();
    // A deletion by force ends the hook.
    burst.delete("web", Some(0)).await;
    burst
        .eventually("no group", |burst| burst.groups().is_empty())
        .await;

    burst.create("web", &hooked(&[("main", sleep(5))])).await;
    burst.until("web", "the pod to run", is_running).await;
    let began = Instant::now();
    burst.delete("web", None).await;
    burst.until_gone("web").await;
    assert!(
        began.elapsed() >= Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert!(burst.groups().is_empty());
    assert_eq!(burst.events("FailedPreStopHook").await, 0);
}

#[tokio::test]
async fn a_deletion_by_force_and_a_grace_period_that_ends_skip_the_hook() {
    let burst = Burst::start("hooks-force").await;
    let pod = hooked(&[("main", sleep(GRACE))]);
    for grace in [0, 1] {
        burst.create("web", &pod).await;
        burst.until("web", "the pod to run", is_running).await;
        burst.delete("web", Some(grace)).await;
        burst.until_gone("web").await;
        burst
            .eventually("no group", |burst| burst.groups().is_empty())
            .await;
    }
}

#[tokio::test]
async fn the_request_of_a_hook_reaches_the_container_before_its_group_is_deleted() {
    let burst = in_subnet("hooks-request").await;
    let drain = json!({"httpGet": {"port": 8080, "path": "/drain"}});
    burst.create("web", &hooked(&[("main", drain)])).await;
    burst.until("web", "the pod to run", is_running).await;
    let app = app(&burst, 8080).await;
    burst.delete("web", None).await;
    let (stream, head) = request(&app).await;
    assert!(head.starts_with("GET /drain HTTP/1.1\r\n"), "{head}");
    assert!(
        head.to_lowercase().contains("user-agent: kube-lifecycle/"),
        "{head}"
    );
    burst.assert_not_deleted();
    // Any status is success.
    answer(stream, 500).await;
    burst.until_gone("web").await;
    assert!(burst.groups().is_empty());
    assert_eq!(burst.events("FailedPreStopHook").await, 0);
}

#[tokio::test]
async fn a_hook_that_fails_is_told_and_the_pod_ends() {
    let burst = in_subnet("hooks-fail").await;
    let drain = json!({"httpGet": {"port": 8081, "path": "/drain"}});
    burst.create("web", &hooked(&[("main", drain)])).await;
    burst.until("web", "the pod to run", is_running).await;
    burst.delete("web", None).await;
    let messages = told(&burst, "web", "FailedPreStopHook").await;
    assert_eq!(messages, ["PreStopHook failed"]);
    burst.until_gone("web").await;
    assert!(burst.groups().is_empty());
}

/// One hook has ended when the leader changes, the other has not.
#[tokio::test]
async fn another_leader_runs_only_the_hooks_that_have_not_ended() {
    let mut burst = in_subnet("hooks-leader").await;
    let get = |path: &str| json!({"httpGet": {"port": 8080, "path": path}});
    let pod = hooked(&[("main", get("/drain")), ("log", get("/flush"))]);
    burst.create("web", &pod).await;
    burst.until("web", "the pod to run", is_running).await;
    let app = app(&burst, 8080).await;
    burst.delete("web", None).await;
    let mut asked = BTreeMap::new();
    let mut unanswered = Vec::new();
    for _ in 0..2 {
        let (stream, head) = request(&app).await;
        let path = head.split(' ').nth(1).expect("a path").to_owned();
        if path == "/drain" {
            answer(stream, 200).await;
        } else {
            unanswered.push(stream);
        }
        *asked.entry(path).or_insert(0) += 1;
    }
    burst.until_hooks("[log]").await;
    burst.stop().await;
    burst.assert_not_deleted();
    burst.run().await;
    let (stream, head) = request(&app).await;
    assert!(head.starts_with("GET /flush "), "{head}");
    answer(stream, 200).await;
    burst.until_gone("web").await;
    assert!(asked.values().eq(&[1, 1]), "{asked:?}");
    let more = tokio::time::timeout(Duration::ZERO, app.accept()).await;
    assert!(more.is_err(), "no other request");
    assert!(burst.groups().is_empty());
}

/// The emulator's simulated containers have no real shell.
#[tokio::test]
async fn a_command_that_finds_no_shell_is_told_and_the_pod_ends() {
    let burst = Burst::start("hooks-exec").await;
    let exec = json!({"exec": {"command": ["bye", "now"]}});
    burst.create("web", &hooked(&[("main", exec)])).await;
    burst.until("web", "the pod to run", is_running).await;
    burst.delete("web", None).await;
    let messages = told(&burst, "web", "FailedPreStopHook").await;
    assert!(
        messages[0].contains("the image has no /bin/sh"),
        "{messages:?}"
    );
    burst.until_gone("web").await;
    assert!(burst.groups().is_empty());
}

#[tokio::test]
async fn a_command_that_hangs_is_left_behind_when_the_grace_period_is_over() {
    let burst = Burst::start("hooks-hang").await;
    let exec = json!({"exec": {"command": ["bye"]}});
    let mut pod = hooked(&[("main", exec)]);
    pod["spec"]["containers"][0]["env"] =
        json!([{"name": "ACI_EMULATOR_EXEC_HANG", "value": "true"}]);
    burst.create("web", &pod).await;
    burst.until("web", "the pod to run", is_running).await;
    let began = Instant::now();
    burst.delete("web", Some(4)).await;
    burst.until_hooks("[main]").await;
    burst.until_gone("web").await;
    assert!(
        began.elapsed() >= Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    assert!(burst.groups().is_empty());
}
