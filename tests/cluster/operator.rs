//! The operator as a process, on a cluster and an Azure of its own: what a user sees of a pool.

use std::process::Stdio;
use std::time::Duration;

use burstpool::api::BurstPool;
use burstpool::emulator::{Emulator, Options as AzureOptions};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::support::{Cluster, Options, objects, wait};

/// A cluster, an Azure, and an operator between them.
struct World {
    cluster: Cluster,
    client: Client,
    azure: Emulator,
    files: tempfile::TempDir,
    operator: Option<Child>,
}

impl World {
    async fn start() -> Self {
        let cluster = Cluster::start(Options::default()).await.expect("a cluster");
        let client = cluster.client().expect("a client");
        let options = AzureOptions {
            speed: 20.0,
            ..AzureOptions::default()
        };
        let azure = Emulator::start(options).await.expect("the emulator starts");
        let files = tempfile::tempdir().expect("a directory");
        std::fs::write(files.path().join("token"), "SECRET-TOKEN").expect("it is written");
        cluster
            .install_crds()
            .await
            .expect("the resource is served");
        let mut world = Self {
            cluster,
            client,
            azure,
            files,
            operator: None,
        };
        world.run();
        world
    }

    /// Starts the operator; its log goes to a file.
    fn run(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_burstpool"))
            .arg("run")
            .arg("--kubeconfig")
            .arg(self.cluster.kubeconfig())
            .args(["--arm-endpoint", self.azure.url(), "--arm-token-file"])
            .arg(self.files.path().join("token"))
            .args(["--subscription-id", "00000000-0000-0000-0000-000000000000"])
            .args([
                "--resource-group",
                "rg",
                "--node-address",
                "127.0.0.1",
                "--namespace",
                "default",
            ])
            .env("RUST_LOG", "trace")
            .stderr(Stdio::from(log))
            .kill_on_drop(true)
            .spawn()
            .expect("the operator starts");
        self.operator = Some(child);
    }

    async fn kill(&mut self) {
        let mut child = self.operator.take().expect("it runs");
        child.kill().await.expect("SIGKILL");
    }

    fn log(&self) -> std::path::PathBuf {
        self.files.path().join("log")
    }

    async fn create_pool(&self, name: &str) {
        let pool = json!({
            "apiVersion": "burstpool.io/v1alpha1", "kind": "BurstPool", "metadata": {"name": name},
            "spec": {"azure": {}, "placements": [{"name": "weu", "region": "westeurope"}]},
        });
        let pool: BurstPool = serde_json::from_value(pool).expect("a pool");
        self.pools()
            .create(&PostParams::default(), &pool)
            .await
            .expect("a pool");
        self.until_pool(name, "the pool to be open", |pool| {
            pool.is_some_and(|pool| {
                said(pool, "Ready").0 == "True" && said(pool, "NodesReady").0 == "True"
            })
        })
        .await;
        let usable = |node: Option<&Node>| {
            node.is_some_and(|node| objects::is_ready(node) && !is_closed(node))
        };
        self.until_node(
            &format!("burst-{name}-weu"),
            "the node to take pods",
            usable,
        )
        .await;
    }

    fn pools(&self) -> Api<BurstPool> {
        Api::all(self.client.clone())
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn create_pod(&self, name: &str, pool: &str, changes: &Value) {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "tolerations": [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}],
                "nodeSelector": {"burstpool.io/pool": pool},
                "containers": [{"name": "main", "image": "nginx", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}],
            },
        });
        if let Some(changes) = changes.as_object() {
            for (key, value) in changes {
                pod["spec"]["containers"][0][key] = value.clone();
            }
        }
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        self.pods()
            .create(&PostParams::default(), &pod)
            .await
            .expect("a pod");
    }

    async fn until_pool(
        &self,
        name: &str,
        what: &str,
        wanted: impl Fn(Option<&BurstPool>) -> bool,
    ) {
        let waited = wait::until(self.pools(), name, what, wanted).await;
        if let Err(error) = waited {
            unreachable!("{error}\n{}", self.tail());
        }
    }

    async fn until_node(&self, name: &str, what: &str, wanted: impl Fn(Option<&Node>) -> bool) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let waited = wait::until(nodes, name, what, wanted).await;
        if let Err(error) = waited {
            unreachable!("{error}\n{}", self.tail());
        }
    }

    async fn until_pod(&self, name: &str, what: &str, wanted: impl Fn(Option<&Pod>) -> bool) {
        let waited = wait::until(self.pods(), name, what, wanted).await;
        if let Err(error) = waited {
            unreachable!("{error}\n{}", self.tail());
        }
    }

    /// The last of the operator's own words, without its libraries'.
    fn tail(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let own: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("burstpool::"))
            .collect();
        own[own.len().saturating_sub(40)..].join("\n")
    }

    /// UIDs of pods by the tags of the groups that there are in Azure.
    fn groups(&self) -> Vec<String> {
        let now = self.azure.shared().clock.now();
        let mut store = self.azure.shared().store();
        store.settle_all(now);
        let tags = store
            .groups
            .values()
            .filter_map(|group| group.body.tags.as_ref());
        tags.filter_map(|tags| tags.get("burstpool-pod-uid").cloned())
            .collect()
    }

    async fn admin(&self, path: &str, body: &Value) {
        let url = format!("{}/_emulator/{path}", self.azure.url());
        let sent = reqwest::Client::new()
            .post(url)
            .json(body)
            .send()
            .await
            .expect("an answer");
        assert!(sent.status().is_success());
    }

    async fn no_faults(&self) {
        let url = format!("{}/_emulator/faults", self.azure.url());
        reqwest::Client::new()
            .delete(url)
            .send()
            .await
            .expect("an answer");
    }
}

/// Status and message of a pool's condition.
fn said(pool: &BurstPool, kind: &str) -> (String, String) {
    let conditions = pool.status.iter().flat_map(|status| &status.conditions);
    let mut found = conditions.filter(|condition| condition.type_ == kind);
    found
        .next()
        .map(|c| (c.status.clone(), c.message.clone()))
        .unwrap_or_default()
}

fn is_closed(node: &Node) -> bool {
    let taints = node
        .spec
        .iter()
        .flat_map(|spec| spec.taints.iter().flatten());
    taints
        .into_iter()
        .any(|taint| taint.key == "burstpool.io/closed")
}

fn is_running(pod: Option<&Pod>) -> bool {
    let phase = pod.and_then(|pod| pod.status.as_ref()?.phase.as_deref());
    phase == Some("Running")
}

#[tokio::test]
async fn applying_a_pool_registers_a_node_that_runs_pods_and_deleting_it_drains_it() {
    let world = World::start().await;
    world.create_pool("shop").await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "SECRET-VALUE"}});
    let secret: Secret = serde_json::from_value(secret).expect("a secret");
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), "default");
    secrets
        .create(&PostParams::default(), &secret)
        .await
        .expect("a secret");
    let from_secret = json!({"env": [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]});
    world.create_pod("web", "shop", &from_secret).await;
    world.until_pod("web", "the pod to run", is_running).await;
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    });
    let budget: PodDisruptionBudget = serde_json::from_value(budget).expect("a budget");
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(world.client.clone(), "default");
    budgets
        .create(&PostParams::default(), &budget)
        .await
        .expect("a budget");
    let counted = |budget: Option<&PodDisruptionBudget>| {
        budget
            .and_then(|budget| budget.status.as_ref())
            .is_some_and(|status| status.current_healthy == Some(1))
    };
    wait::until(budgets.clone(), "web", "the budget to count", counted)
        .await
        .expect("it counts");

    world
        .pools()
        .delete("shop", &DeleteParams::default())
        .await
        .expect("deleted");
    world
        .until_pool("shop", "the pool to say what holds it", |pool| {
            pool.is_some_and(|pool| said(pool, "Ready").1.contains("default/web"))
        })
        .await;
    assert!(is_running(Some(
        &world.pods().get("web").await.expect("the pod")
    )));
    budgets
        .delete("web", &DeleteParams::default())
        .await
        .expect("deleted");
    world
        .until_pool("shop", "the pool to be gone", |pool| pool.is_none())
        .await;
    world
        .until_node("burst-shop-weu", "the node to be gone", |node| {
            node.is_none()
        })
        .await;
    world
        .until_pod("web", "the pod to be gone", |pod| pod.is_none())
        .await;
    assert_eq!(world.groups(), Vec::<String>::new());

    let log = std::fs::read_to_string(world.log()).expect("a log");
    assert!(log.contains("TRACE"), "everything is logged");
    assert!(
        !log.contains("SECRET-TOKEN") && !log.contains("SECRET-VALUE"),
        "and no secret"
    );
}

#[tokio::test]
async fn the_samples_reach_three_running_replicas_behind_their_service() {
    let world = World::start().await;
    for sample in ["burstpool.yaml", "virtual-node-nginx.yaml"] {
        let file = format!("{}/config/samples/{sample}", env!("CARGO_MANIFEST_DIR"));
        let applied = world
            .cluster
            .kubectl()
            .args(["apply", "-f", &file])
            .output()
            .expect("kubectl");
        assert!(
            applied.status.success(),
            "{}",
            String::from_utf8_lossy(&applied.stderr)
        );
    }
    let deployments: Api<Deployment> = Api::namespaced(world.client.clone(), "default");
    let available = |deployment: Option<&Deployment>| {
        let status = deployment.and_then(|deployment| deployment.status.as_ref());
        status.and_then(|status| status.available_replicas) == Some(3)
    };
    wait::until(deployments, "nginx", "three replicas", available)
        .await
        .expect("they run");
    let slices: Api<EndpointSlice> = Api::namespaced(world.client.clone(), "default");
    let ours = watcher::Config::default().labels("kubernetes.io/service-name=nginx");
    let three = |slices: &[EndpointSlice]| {
        let endpoints = slices
            .iter()
            .flat_map(|slice| slice.endpoints.iter().flatten());
        let ready = endpoints.filter(|endpoint| {
            endpoint
                .conditions
                .as_ref()
                .is_some_and(|c| c.ready == Some(true))
        });
        ready.count() == 3
    };
    wait::until_all(slices, ours, "three endpoints", three)
        .await
        .expect("they are behind it");
    let said = world
        .cluster
        .kubectl()
        .args(["get", "bp", "-o", "wide"])
        .output()
        .expect("kubectl");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(
        said.contains("True") && said.contains("burst-shop-weu"),
        "{said}"
    );
}

#[tokio::test]
async fn an_azure_that_fails_closes_the_node_in_its_words_and_recovery_opens_it() {
    let world = World::start().await;
    world.create_pool("shop").await;
    let refusal = json!({"error": {"status": 403, "code": "AuthorizationFailed", "message": "You shall not pass."}});
    world.admin("faults", &json!({"fault": refusal})).await;
    world
        .until_node("burst-shop-weu", "the node to be closed", |node| {
            node.is_some_and(|node| is_closed(node) && objects::is_ready(node))
        })
        .await;
    world
        .until_pool("shop", "the pool to say why", |pool| {
            pool.is_some_and(|pool| {
                said(pool, "NodesReady").1.contains("You shall not pass.")
                    && said(pool, "Ready").0 == "True"
            })
        })
        .await;
    world.no_faults().await;
    world
        .until_node("burst-shop-weu", "the node to be open", |node| {
            node.is_some_and(|node| !is_closed(node))
        })
        .await;
}

#[tokio::test]
async fn killed_at_any_moment_it_neither_loses_nor_doubles_nor_leaks_anything() {
    let mut world = World::start().await;
    world.create_pool("shop").await;
    let names: Vec<String> = (0..30).map(|n| format!("pod-{n}")).collect();
    for (round, pause) in [0, 40, 150, 400, 900].into_iter().enumerate() {
        for name in &names[round * 6..round * 6 + 6] {
            world.create_pod(name, "shop", &json!({})).await;
        }
        if round > 0 {
            for name in &names[round * 6 - 6..round * 6 - 3] {
                world
                    .pods()
                    .delete(name, &DeleteParams::default())
                    .await
                    .expect("deleted");
            }
        }
        // The moment at which it is killed is what varies; nothing is waited for.
        tokio::time::sleep(Duration::from_millis(pause)).await;
        world.kill().await;
        world.run();
    }
    let stays = |n: usize| n % 6 >= 3 || n >= 24;
    for (n, name) in names.iter().enumerate() {
        if stays(n) {
            world.until_pod(name, "the pod to run", is_running).await;
        } else {
            world
                .until_pod(name, "the pod to be gone", |pod| pod.is_none())
                .await;
        }
    }
    let pods = world
        .pods()
        .list(&ListParams::default())
        .await
        .expect("a list")
        .items;
    let mut expected: Vec<String> = pods.iter().filter_map(ResourceExt::uid).collect();
    expected.sort();
    let mut groups = world.groups();
    groups.sort();
    assert_eq!(
        groups, expected,
        "every pod has one group and every group a pod"
    );
    let log = std::fs::read_to_string(world.log()).expect("a log");
    let writes = log.matches("setting the node's taints").count();
    assert!(
        writes < 20,
        "the node was written {writes} times: {}",
        world.tail()
    );
    let restarted = |pod: &Pod| {
        let statuses = pod
            .status
            .iter()
            .flat_map(|status| status.container_statuses.iter().flatten());
        statuses.map(|status| status.restart_count).sum::<i32>()
    };
    assert_eq!(
        pods.iter().map(restarted).sum::<i32>(),
        0,
        "a second PUT would have restarted it"
    );
}
