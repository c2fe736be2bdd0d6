//! The manifests that install the operator, on a real API server, and the operator with exactly the
//! rights that they give it.
//!
//! The tests show: the API server accepts every manifest; a whole burst, from the creation of the pool
//! to its removal, needs nothing that is forbidden, uses every rule, and writes no pod more often than
//! necessary. `admission` shows what the admission policies deny beyond that.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burstpool::emulator::EmulatorOptions as AzureOptions;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::own_nodes::deployment;
use crate::support::{Cluster, OPERATOR, Options};
use crate::world::{World, is_running};

/// The account that the manifests create for the operator.
const ACCOUNT: &str = "system:serviceaccount:burstpool:burstpool";
/// Rights that a burst needs, but this one does not use: the operator reads a pod by name before it
/// deletes a group that seems to be left over, after two minutes; it increases the count of a repeated
/// Event; the first apply of an Event needs the right to create, but the audit log records a patch; it
/// reads a class if a claim is not bound yet; it reads a pool by name if the pool's status was written
/// while a reservation was in flight; it reads a Job if one of its pods never starts; and an instance
/// that leads at once never watches the lease. The first entry is not a right to do something:
/// admission policies check for it.
const RARE: [(&str, &str, &str); 8] = [
    ("burstpool.io", "admission", "narrow"),
    ("burstpool.io", "burstpools", "get"),
    ("coordination.k8s.io", "leases", "watch"),
    ("storage.k8s.io", "storageclasses", "get"),
    ("", "pods", "get"),
    ("batch", "jobs", "get"),
    ("events.k8s.io", "events", "patch"),
    ("", "events", "create"),
];
/// The node with which the operator probes whether the admission policies apply to it.
const CHECKED: &str = "burstpool-admission-check";
/// The API server writes its audit log to standard output.
const AUDITED: Options = Options {
    metrics_server: false,
    api_server: &[
        concat!(
            "--audit-policy-file=",
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/audit.yaml"
        ),
        "--audit-log-path=-",
    ],
    controller_manager: &[],
};

#[tokio::test]
async fn every_manifest_is_accepted_by_the_api_server() {
    let cluster = Cluster::start(Options::default()).await.expect("a cluster");
    let kinds = cluster
        .install_kinds(&[OPERATOR, "argocd", "elsewhere"])
        .await;
    kinds.expect("the resources are served");
    let dry = ["--dry-run=server"];
    for directory in [
        "default",
        "elsewhere",
        "namespace",
        "cluster-wide",
        "admission",
        "kube-proxy",
        "argocd",
        "scaling",
        "prometheus",
    ] {
        cluster.apply(directory, &dry).expect("it is accepted");
    }
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/samples");
    for sample in std::fs::read_dir(samples).expect("samples") {
        let path = sample.expect("a sample").path();
        let path = path.to_str().expect("a plain path");
        let applied = cluster.ask(&["apply", "--dry-run=server", "-f", path]);
        applied.expect("it is accepted");
    }
    every_workload_of_the_coverage_page_is_accepted(&cluster);
}

/// The API server knows every field of the workloads that `src/docs/coverage.md` judges. It does not admit a bare pod
/// before its service account exists.
fn every_workload_of_the_coverage_page_is_accepted(cluster: &Cluster) {
    for account in ["analytics", "pipeline", "workflows"] {
        let created = cluster.ask(&["create", "serviceaccount", account]);
        created.expect("an account");
    }
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/coverage");
    for file in std::fs::read_dir(files).expect("workloads") {
        let path = file.expect("a file").path();
        let path = path.to_str().expect("a plain path");
        let strict = [
            "create",
            "--dry-run=server",
            "--validate=strict",
            "-f",
            path,
        ];
        cluster.ask(&strict).expect("it is accepted");
    }
}

/// A world in which the operator has exactly the rights of the manifests.
pub async fn installed() -> World {
    let azure = AzureOptions {
        speed: 20.0,
        ..AzureOptions::default()
    };
    let mut world = World::without_rights(AUDITED, azure).await;
    let operator = world.cluster.install_rights().expect("its rights");
    world.run_as(&operator);
    world
}

/// The operator's requests in the API server's audit log so far.
pub fn audited(world: &World) -> Vec<Value> {
    let log = world.cluster.directory().join("logs/kube-apiserver.log");
    let log = std::fs::read_to_string(log).expect("the API server's log");
    // The last line may be incomplete.
    let (whole, _) = log.rsplit_once('\n').unwrap_or_default();
    let events = whole
        .lines()
        .filter(|line| line.starts_with("{\"kind\":\"Event\""));
    let events = events.map(|line| serde_json::from_str(line).expect("an audit event"));
    events.collect()
}

/// API group, resource and verb.
pub type Right = (String, String, String);

/// The rights that the operator used, and the requests that the API server refused.
pub fn asked(events: &[Value]) -> (BTreeSet<Right>, Vec<String>) {
    let mut refused = Vec::new();
    let mut all = BTreeSet::new();
    for event in events {
        assert_eq!(event["user"]["username"], ACCOUNT);
        let (object, verb) = (&event["objectRef"], event["verb"].as_str());
        let word = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
        if event["responseStatus"]["code"] == 403 {
            refused.push(event["requestURI"].to_string());
        }
        let resource = match word("subresource").as_str() {
            "" => word("resource"),
            sub => format!("{}/{sub}", word("resource")),
        };
        all.insert((
            word("apiGroup"),
            resource,
            verb.unwrap_or_default().to_owned(),
        ));
    }
    (all, refused)
}

/// Every right of the operator's roles whose names begin with `prefix`.
pub fn granted(cluster: &Cluster, prefix: &str) -> BTreeSet<Right> {
    let all = cluster.ask(&["get", "clusterroles,roles", "-A", "-o", "json"]);
    let all: Value = serde_json::from_str(&all.expect("roles")).expect("JSON");
    let words = |list: &Value| -> Vec<String> {
        let list = list.as_array().into_iter().flatten();
        list.filter_map(|one| Some(one.as_str()?.to_owned()))
            .collect()
    };
    let mut granted = BTreeSet::new();
    for role in all["items"].as_array().expect("roles") {
        let name = role["metadata"]["name"].as_str().unwrap_or_default();
        if !name.starts_with(prefix) {
            continue;
        }
        for rule in role["rules"].as_array().into_iter().flatten() {
            for group in words(&rule["apiGroups"]) {
                for resource in words(&rule["resources"]) {
                    for verb in words(&rule["verbs"]) {
                        granted.insert((group.clone(), resource.clone(), verb));
                    }
                }
            }
        }
    }
    granted
}

/// Creates pods that need everything in the namespace's role, from each kind of target.
fn workloads(world: &World) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/workloads.yaml");
    world.kubectl(&["apply", "-f", path]);
}

/// The kubelet API authenticates its callers: the API server by its certificate, others by their
/// tokens.
async fn kubelet_api(world: &World) {
    let logs = world.cluster.ask(&["logs", "deployment/web"]);
    assert!(logs.is_ok(), "{logs:?}{}", world.tail());
    let client = reqwest::Client::builder().danger_accept_invalid_certs(true);
    let url = format!("{}/healthz", world.kubelet("burst-shop-weu").await);
    let asked = client.build().expect("a client").get(url);
    let answer = asked.bearer_auth(world.cluster.token()).send().await;
    assert_eq!(answer.expect("an answer").status().as_u16(), 200);
}

/// The operator patches each pod on ACI twice, at the grant and after binding, and not again after a
/// restart. If it did, it would do so before it patches a later pod.
async fn patched_twice(world: &mut World) {
    let is_settled = |pods: &[Pod]| {
        let cost = "controller.kubernetes.io/pod-deletion-cost";
        pods.iter().all(|pod| pod.annotations().contains_key(cost))
    };
    for app in ["web", "db", "bare"] {
        world.until_pods(app, "a deletion cost", is_settled).await;
    }
    world.kill_and_forget().await;
    world.run();
    world.scale_this("web", 2).await;
    world.until_spread_of("web", 0, 2, 0).await;
    world.until_pods("web", "both costs", is_settled).await;

    let mut patches: BTreeMap<String, usize> = BTreeMap::new();
    for event in audited(world) {
        let (object, code) = (&event["objectRef"], &event["responseStatus"]["code"]);
        // The operator repeats a grant that meets a conflict (409).
        let counts = object["resource"] == "pods" && event["verb"] == "patch" && *code != 409;
        if counts && object["subresource"].is_null() {
            let name = object["name"].as_str().unwrap_or_default();
            *patches.entry(name.to_owned()).or_default() += 1;
        }
    }
    assert_eq!(patches.len(), 4, "{patches:?}");
    assert!(patches.values().all(|n| *n == 2), "{patches:?}");
}

// Multi-threaded: Azure must answer while the test blocks on kubectl.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_burst_needs_nothing_that_is_forbidden_and_uses_every_rule() {
    let mut world = Box::pin(installed()).await;
    for name in ["home-a", "home-b"] {
        world.home_node(name).await;
    }
    world.run();
    let target = |kind: &str, name: &str| {
        json!({"name": name, "target":
            {"apiVersion": "apps/v1", "kind": kind, "namespace": "default", "name": name}})
    };
    let pool = json!({"workloads": [
        target("Deployment", "web"), target("StatefulSet", "db"), target("ReplicaSet", "bare"),
    ]});
    world.add_pool(&pool).await;
    world.deploy_this(&deployment("filler", 4)).await;
    world.until_spread_of("filler", 4, 0, 0).await;
    workloads(&world);
    for app in ["web", "db", "bare"] {
        world.until_spread_of(app, 0, 1, 0).await;
    }

    kubelet_api(&world).await;
    patched_twice(&mut world).await;
    world.scale_this("web", 0).await;
    world.until_pods("web", "none", <[Pod]>::is_empty).await;
    world.delete_pool("shop").await;
    world.until_no_pool("shop").await;
    assert_eq!(world.groups(), Vec::<String>::new());

    let (asked, refused) = asked(&audited(&world));
    assert_eq!(refused, Vec::<String>::new(), "it may do all that it tries");
    let mut granted = granted(&world.cluster, "burstpool");
    for (group, resource, verb) in RARE {
        let rare = (group.to_owned(), resource.to_owned(), verb.to_owned());
        assert!(granted.remove(&rare), "{rare:?} is not granted any more");
    }
    let unused: Vec<_> = granted.difference(&asked).collect();
    assert!(unused.is_empty(), "rights that nothing needs: {unused:?}");
    let log = std::fs::read_to_string(world.log()).expect("a log");
    // Ignore the probe for the admission policies: it is meant to be denied.
    let refused =
        |line: &&str| line.to_lowercase().contains("forbidden") && !line.contains(CHECKED);
    let refused = log.lines().find(refused);
    assert_eq!(refused, None, "{}", world.tail());
    world.end().await;
}

/// An administrator deleted everything at once, as `kubectl delete -k config/default` does, while pools
/// existed.
// Multi-threaded: Azure must answer while the test blocks on kubectl.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_operator_cleans_up_after_the_definition_of_pools_was_deleted() {
    let mut world = Box::pin(World::start()).await;
    world.create_pool("shop").await;
    world.create_pod("web", "shop", &json!({})).await;
    world.until_pod("web", "the pod to run", is_running).await;
    world.kill_and_forget().await;
    let definition = "crd/burstpools.burstpool.io";
    world.kubectl(&["delete", definition, "--wait=false"]);

    // The same as applying everything again.
    let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/crds/burstpools.yaml");
    world.kubectl(&["apply", "--server-side", "-f", crds]);
    world.run();

    let is_gone = |node: Option<&Node>| node.is_none();
    let node = "burst-shop-weu";
    world.until_node(node, "the node to be gone", is_gone).await;
    assert_eq!(world.groups(), Vec::<String>::new());
    world.kubectl(&["wait", "--for=delete", definition, "--timeout=60s"]);
    world.end().await;
}
