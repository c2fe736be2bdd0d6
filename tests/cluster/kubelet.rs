//! The kubelet API: kubectl through the API server, and callers without rights.

use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use rcgen::{CertificateParams, DnType, KeyPair};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::support::wait;
use crate::world::{World, is_running};

/// A pod whose simulated container follows this script.
async fn scripted(world: &World, name: &str, policy: &str, script: &Value) {
    let env: Vec<Value> = script
        .as_object()
        .expect("variables")
        .iter()
        .map(|(key, value)| json!({"name": format!("ACI_EMULATOR_{key}"), "value": value}))
        .collect();
    world
        .create(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "restartPolicy": policy,
                "terminationGracePeriodSeconds": 1,
                "tolerations": [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}],
                "nodeSelector": {"burstpool.io/pool": "shop"},
                "containers": [{
                    "name": "main", "image": "nginx", "env": env,
                    "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
                }],
            },
        }))
        .await;
}

fn has_ended(pod: Option<&Pod>) -> bool {
    let phase = pod.and_then(|pod| pod.status.as_ref()?.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// The error output of a kubectl command that fails.
fn refused(world: &World, arguments: &[&str]) -> String {
    let done = world.cluster.kubectl().args(arguments).output();
    let done = done.expect("kubectl");
    assert!(!done.status.success(), "kubectl {arguments:?} succeeds");
    String::from_utf8_lossy(&done.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_logs_shows_what_is_asked_for_of_running_and_of_finished_pods() {
    let world = World::start().await;
    world.create_pool("shop").await;
    let script = json!({"LOG": "one\ntwo\nthree", "EXIT_AFTER": "5s"});
    scripted(&world, "done", "Never", &script).await;
    world.until_pod("done", "the pod to end", has_ended).await;
    let logs = |more: &[&str]| {
        let arguments: Vec<&str> = ["logs", "done"].iter().chain(more).copied().collect();
        world.kubectl(&arguments)
    };
    assert_eq!(logs(&[]), "one\ntwo\nthree\n");
    assert_eq!(logs(&["--tail=2"]), "two\nthree\n");
    assert_eq!(logs(&["--tail=0"]), "");
    assert_eq!(logs(&["--limit-bytes=6"]), "one\ntw");
    assert_eq!(logs(&["-f"]), "one\ntwo\nthree\n", "a pod that has ended");
    assert_eq!(
        logs(&["--since-time=2000-01-01T00:00:00Z"]),
        "one\ntwo\nthree\n"
    );
    assert_eq!(logs(&["--since-time=2100-01-01T00:00:00Z"]), "");
    let timed = logs(&["--timestamps", "--tail=1"]);
    let (time, line) = timed.split_once(' ').expect("a time and a line");
    assert!(
        time.parse::<jiff::Timestamp>().is_ok() && line == "three\n",
        "{timed}"
    );
    let previous = refused(&world, &["logs", "done", "--previous"]);
    assert!(previous.contains("the last run only"), "{previous}");

    let script = json!({"NEVER_START": "true"});
    scripted(&world, "slow", "Never", &script).await;
    let asking = async {
        // Until the node's cache has the pod, the answer is another one.
        loop {
            let said = refused(&world, &["logs", "slow"]);
            if said.contains("is waiting to start") {
                return said;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let said = tokio::time::timeout(wait::DEADLINE, asking).await;
    assert!(said.is_ok_and(|said| said.contains("BadRequest")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_followed_log_loses_no_line_when_its_placement_changes_and_ends_with_the_run() {
    let world = World::start().await;
    world.create_pool("shop").await;
    let script = json!({"LOG": "begin", "LOG_EVERY": "4s", "EXIT_AFTER": "300s"});
    scripted(&world, "web", "Never", &script).await;
    world.until_pod("web", "the pod to run", is_running).await;
    let following = tokio::process::Command::from(world.cluster.kubectl())
        .args(["logs", "-f", "web"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let following = tokio::spawn(tokio::time::timeout(wait::DEADLINE, following));
    edit_placement(&world).await;
    let pod = world.pods().get("web").await.expect("the pod");
    assert!(is_running(Some(&pod)), "it runs on while all is edited");
    let followed = following.await.expect("no panic");
    let followed = followed.expect("it ends").expect("kubectl");
    let followed = String::from_utf8_lossy(&followed.stdout).into_owned();
    world.until_pod("web", "the pod to end", has_ended).await;
    assert_eq!(world.puts(), 1, "its group is created once");
    assert_eq!(followed, world.kubectl(&["logs", "web"]));
    assert!(followed.lines().count() > 50, "{followed}");
}

/// Changes everything in the placement that can change while pods run, and waits until the node shows
/// it.
async fn edit_placement(world: &World) {
    let edited = json!({"spec": {
        "azure": {"tags": {"team": "x"}}, "scaleIn": {"deletionCost": -7},
        "placements": [{
            "name": "weu", "region": "westeurope", "capacity": {"pods": 3}, "labels": {"team": "x"},
        }],
    }});
    let (edited, manager) = (Patch::Merge(edited), PatchParams::default());
    let edited = world.pools().patch("shop", &manager, &edited).await;
    edited.expect("the pool takes it");
    let has_edit = |node: Option<&Node>| {
        node.is_some_and(|node| {
            let status = node.status.as_ref();
            let amounts = status.and_then(|status| status.allocatable.as_ref());
            let pods = amounts.and_then(|amounts| amounts.get("pods"));
            pods.is_some_and(|pods| pods.0 == "3")
                && node.labels().get("team").is_some_and(|team| team == "x")
        })
    };
    let node = "burst-shop-weu";
    let what = "the node to be as the placement is now";
    world.until_node(node, what, has_edit).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_a_log_stops_within_a_second_after_its_client_disconnects() {
    let world = World::start().await;
    world.create_pool("shop").await;
    scripted(
        &world,
        "web",
        "Never",
        &json!({"LOG": "begin", "LOG_EVERY": "1s"}),
    )
    .await;
    world.until_pod("web", "the pod to run", is_running).await;
    let mut kubectl = tokio::process::Command::from(world.cluster.kubectl())
        .args(["logs", "-f", "web"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("kubectl");
    let mut lines = BufReader::new(kubectl.stdout.take().expect("piped")).lines();
    for _ in 0..30 {
        let line = tokio::time::timeout(wait::DEADLINE, lines.next_line()).await;
        line.expect("a line in time")
            .expect("it is read")
            .expect("a line");
    }
    kubectl.kill().await.expect("it ends");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = reads(&world);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(reads(&world), before, "{}", world.tail());
}

/// The emulator's simulated containers have no shell, like images without one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_in_an_image_without_a_shell_fails_with_the_reason() {
    let world = World::start().await;
    world.create_pool("shop").await;
    scripted(&world, "web", "Never", &json!({"LOG": "begin"})).await;
    world.until_pod("web", "the pod to run", is_running).await;
    let done = world
        .cluster
        .kubectl()
        .args(["exec", "web", "--", "hostname", "-f"])
        .output();
    let done = done.expect("kubectl");
    let errors = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(
        String::from_utf8_lossy(&done.stdout),
        "hostname -f: simulated\n",
        "{errors}"
    );
    assert!(errors.contains("has no /bin/sh"), "{errors}");
    let said = refused(&world, &["exec", "web", "--", "sh", "-c", "echo a b"]);
    assert!(
        said.contains("accepts no argument that contains blanks: \"echo a b\""),
        "{said}"
    );
    let said = refused(&world, &["attach", "-i", "web"]);
    assert!(said.contains("attach without -i"), "{said}");
}

/// How many times the operator read logs from Azure.
fn reads(world: &World) -> usize {
    let text = world.azure.shared().counters.text();
    let lines = text
        .lines()
        .filter(|line| line.contains("Containers_ListLogs"));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
        .sum()
}

/// A certificate for a cluster's administrator that the cluster did not sign.
fn forged_identity() -> reqwest::Identity {
    let mut named = CertificateParams::default();
    named.distinguished_name.push(DnType::CommonName, "admin");
    named
        .distinguished_name
        .push(DnType::OrganizationName, "system:masters");
    let key = KeyPair::generate().expect("a key");
    let certificate = named.self_signed(&key).expect("a certificate");
    let forged = format!("{}{}", certificate.pem(), key.serialize_pem());
    reqwest::Identity::from_pem(forged.as_bytes()).expect("an identity")
}

/// The certificate of a component of the cluster.
fn own_identity(world: &World, name: &str) -> reqwest::Identity {
    let read = |kind: &str| {
        let file = world.cluster.directory().join(format!("{name}.{kind}"));
        std::fs::read_to_string(file).expect("a file of the cluster")
    };
    let both = format!("{}{}", read("crt"), read("key"));
    reqwest::Identity::from_pem(both.as_bytes()).expect("an identity")
}

async fn token_without_rights(world: &World) -> String {
    let accounts: Api<ServiceAccount> = Api::namespaced(world.client.clone(), "default");
    let asked = accounts
        .create_token_request("default", &PostParams::default(), &TokenRequest::default())
        .await
        .expect("a token");
    let token = asked.status.and_then(|status| status.token);
    token.expect("a token")
}

/// Sends a request to each path, and asserts the status, and that only status 200 comes with content.
async fn assert_answers(
    base: &str,
    client_name: &str,
    client: &reqwest::Client,
    token: Option<&str>,
    wanted: StatusCode,
) {
    for path in [
        "/containerLogs/default/web/main",
        "/healthz",
        "/pods",
        "/runningpods",
        "/stats/summary",
        "/metrics/resource",
        "/metrics",
    ] {
        let mut request = client.get(format!("{base}{path}"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), wanted, "{client_name}: {path}");
        let text = answer.text().await.expect("a body");
        let is_told = text.contains("begin") || text.contains("web");
        let is_about = wanted == StatusCode::OK && !["/healthz", "/metrics"].contains(&path);
        assert_eq!(is_told, is_about, "{client_name}: {path}: {text}");
    }
}

/// The URL of the kubelet API, from the node's status.
async fn node_url(world: &World) -> String {
    let nodes: Api<Node> = Api::all(world.client.clone());
    let node = nodes.get("burst-shop-weu").await.expect("the node");
    let status = node.status.expect("a status");
    assert_eq!(
        status.declared_features.as_deref(),
        Some(&["ExtendWebSocketsToKubelet".to_owned()][..])
    );
    let endpoint = status.daemon_endpoints.and_then(|e| e.kubelet_endpoint);
    format!("https://127.0.0.1:{}", endpoint.expect("a port").port)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_each_with_the_right_status() {
    let world = World::start().await;
    world.create_pool("shop").await;
    scripted(&world, "web", "Never", &json!({"LOG": "begin"})).await;
    world.until_pod("web", "the pod to run", is_running).await;
    let base = node_url(&world).await;

    let plain = || reqwest::Client::builder().danger_accept_invalid_certs(true);
    let token = token_without_rights(&world).await;

    let clients = [
        ("anonymous", plain().build(), None, StatusCode::UNAUTHORIZED),
        (
            "forged",
            plain().identity(forged_identity()).build(),
            None,
            StatusCode::UNAUTHORIZED,
        ),
        (
            "wrong token",
            plain().build(),
            Some("no".to_owned()),
            StatusCode::UNAUTHORIZED,
        ),
        (
            "no right",
            plain().build(),
            Some(token),
            StatusCode::FORBIDDEN,
        ),
        (
            "scheduler",
            plain().identity(own_identity(&world, "scheduler")).build(),
            None,
            StatusCode::FORBIDDEN,
        ),
        (
            "admin's token",
            plain().build(),
            Some(world.cluster.token().to_owned()),
            StatusCode::OK,
        ),
        (
            "API server",
            plain()
                .identity(own_identity(&world, "kubelet-client"))
                .build(),
            None,
            StatusCode::OK,
        ),
    ];
    for (name, client, token, wanted) in clients {
        let client = client.expect("a client");
        assert_answers(&base, name, &client, token.as_deref(), wanted).await;
    }
}
