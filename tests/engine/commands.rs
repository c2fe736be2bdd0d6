//! Commands in real containers, with kubectl through the API server: exit codes, streams, files, ports.

mod kube_rs;
mod kubectl;
mod ports;
mod streams;
mod terminals;

use std::panic::AssertUnwindSafe;

use burstpool::emulator::{EmulatorOptions, EngineSocket};
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher;
use kubectl::Client;
use serde_json::json;

use crate::engine_host::Host;
use crate::support::{Options as ClusterOptions, wait};
use crate::world::{World, is_running};

const IMAGE: &str = "localhost/burstpool-test/busybox:1";
/// A script that serves a page, and ends on SIGTERM.
const SERVE: &str =
    "mkdir -p /www; echo Welcome to $HOSTNAME > /www/index.html; exec httpd -f -p 80 -h /www";
/// A script that writes a line that is longer than a runtime's buffer, and then a line every second.
const TALK: &str = "head -c 20000 /dev/zero | tr '\\0' x; echo; n=0; while true; do n=$((n+1)); echo tick $n; sleep 1; done";
/// A part of the names of all containers of the pods.
const MARK: &str = "default-cmd-";
/// How many bytes the tests copy in both directions.
const SIZE: usize = 50 << 20;

/// The API server forwards websockets to nodes that declare support for them, and forwards SPDY
/// unchanged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_in_containers_are_what_kubectl_expects() {
    with_pods(ClusterOptions::default(), async |world| {
        let (websockets, spdy) = (Client::own(world, "true"), Client::own(world, "false"));
        for client in [&websockets, &spdy] {
            streams::codes_and_streams(client);
            terminals::terminals(client);
            ports::ports(client).await;
            streams::left(client).await;
            streams::attached(client);
            streams::logs(client);
        }
        streams::unseen(&websockets);
        streams::long_lines(&websockets);
        // All data passes through a terminal in Azure, which is slow: only one protocol copies the full size.
        streams::files(&websockets, SIZE);
        streams::files(&spdy, SIZE / 10);
        let silent = streams::silence(world);
        kube_rs::another_client(world).await;
        older(world).await;
        streams::awake(silent);
    })
    .await;
}

/// An API server without the feature translates a client's websocket to SPDY.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_in_containers_are_the_same_where_the_api_server_translates() {
    let cluster = ClusterOptions {
        api_server: &["--feature-gates=ExtendWebSocketsToKubelet=false"],
        ..ClusterOptions::default()
    };
    with_pods(cluster, async |world| {
        let client = Client::own(world, "true");
        streams::codes_and_streams(&client);
        terminals::terminals(&client);
        ports::ports(&client).await;
        streams::attached(&client);
        streams::files(&client, SIZE / 10);
    })
    .await;
}

/// Older kubectl versions that are still in use: without websockets, and with their first
/// implementation.
async fn older(world: &World) {
    for (minor, program) in &kubectl::others() {
        let websockets = if *minor < 30 { "false" } else { "true" };
        let client = Client::other(world, program, websockets);
        streams::codes_and_streams(&client);
        terminals::terminals(&client);
        ports::ports(&client).await;
        streams::attached(&client);
        streams::logs(&client);
        streams::files(&client, SIZE / 50);
    }
}

/// These tests use the same pod and container names, so they run one after the other.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A world with four pods in real containers: three serve pages, one writes a log.
async fn with_pods(cluster: ClusterOptions, work: impl AsyncFnOnce(&World)) {
    let Some(host) = Host::get().await else {
        return;
    };
    let _turn = TURN.lock().await;
    let options = EmulatorOptions {
        containers: Some(EngineSocket::At(host.socket.clone())),
        ..EmulatorOptions::default()
    };
    let mut world = World::without_operator(cluster, options).await;
    world.run();
    let outcome = AssertUnwindSafe(async {
        pods(&world).await;
        work(&world).await;
    });
    let outcome = outcome.catch_unwind().await;
    world.end().await;
    let left = host.containers(MARK).await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
    assert!(left.is_empty(), "left behind: {:?}", left.keys());
}

async fn pods(world: &World) {
    world.create_pool("shop").await;
    for (name, script) in [
        ("cmd-0", SERVE),
        ("cmd-1", SERVE),
        ("cmd-2", SERVE),
        ("cmd-talks", TALK),
    ] {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "cmd"}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "tolerations": [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}],
                "nodeSelector": {"burstpool.io/pool": "shop"},
                "containers": [{
                    "name": "main", "image": IMAGE, "command": ["sh", "-c", script],
                    "ports": [{"containerPort": 80}],
                    "env": [{"name": "N", "value": "5"}, {"name": "s", "value": "small"},
                        {"name": "IFS", "value": ":"}, {"name": "PWD", "value": "/nowhere"}],
                    "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
                }],
            },
        });
        world.create(pod).await;
    }
    let config = watcher::Config::default().labels("app=cmd");
    let runs = |pod: &Pod| {
        let status = pod.status.as_ref();
        is_running(Some(pod)) && status.is_some_and(|status| status.pod_ip.is_some())
    };
    let all_run = |pods: &[Pod]| pods.len() == 4 && pods.iter().all(runs);
    let pods = wait::until_all(world.pods(), config, "the pods to run", all_run).await;
    let mut pods = pods.expect("they run");
    pods.retain(|pod| pod.metadata.name.as_deref() != Some("cmd-talks"));
    pods.sort_by_key(|pod| pod.metadata.name.clone());
    pages(world, &pods).await;
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The first sample: a command changes the page of each pod, and the test fetches it.
async fn pages(world: &World, pods: &[Pod]) {
    for (number, pod) in pods.iter().enumerate() {
        let name = pod.metadata.name.as_deref().expect("a name");
        let change = format!("echo page {number} > /www/index.html");
        world.kubectl(&["exec", name, "--", "sh", "-c", &change]);
    }
    for (number, pod) in pods.iter().enumerate() {
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
        let page = reqwest::get(format!("http://{}/", address.expect("an address"))).await;
        let page = page.expect("an answer").text().await.expect("a text");
        assert_eq!(page, format!("page {number}\n"));
    }
}
