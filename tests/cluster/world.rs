//! A world for the operator as a process: its own cluster and Azure, and functions to use them.

#[path = "world/azure.rs"]
pub mod azure;
#[path = "world/process.rs"]
pub mod process;

use std::path::PathBuf;

use burstpool::api::BurstPool;
use burstpool::emulator::{Emulator, EmulatorOptions as AzureOptions};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::process::Child;

use crate::support::{Cluster, Options, objects, wait};

/// The API server's words when an account lacks a right. A policy's denial has other words.
const REFUSED: &str = "is forbidden: User ";

/// A cluster, an Azure, and an operator that uses both.
pub struct World {
    pub cluster: Cluster,
    pub client: Client,
    pub azure: Emulator,
    /// Additional arguments of the operator.
    pub arguments: Vec<String>,
    files: tempfile::TempDir,
    operator: Option<Child>,
    /// The operator's kubeconfig, and the namespace of its lease.
    account: (PathBuf, String),
    /// Whether the operator has all rights of the manifests, so that none of its requests may be
    /// forbidden.
    may_all: bool,
}

impl World {
    pub async fn start() -> Self {
        Self::on(Options::default()).await
    }

    /// The same on a cluster with these options.
    pub async fn on(cluster: Options) -> Self {
        let azure = AzureOptions {
            speed: 20.0,
            ..AzureOptions::default()
        };
        Self::of(cluster, azure).await
    }

    /// The same with an Azure with these options.
    pub async fn with(azure: AzureOptions) -> Self {
        Self::of(Options::default(), azure).await
    }

    async fn of(cluster: Options, options: AzureOptions) -> Self {
        let mut world = Self::without_operator(cluster, options).await;
        world.run();
        world
    }

    /// A cluster and an Azure without an operator. An operator started later has all rights of the
    /// manifests.
    pub async fn without_operator(cluster: Options, options: AzureOptions) -> Self {
        let mut world = Self::without_rights(cluster, options).await;
        let operator = world.cluster.install_all_rights().expect("its rights");
        world.run_as(&operator);
        world.may_all = true;
        world
    }

    /// The same, but an operator started later is the administrator.
    pub async fn without_rights(cluster: Options, options: AzureOptions) -> Self {
        let cluster = Box::pin(Cluster::start(cluster)).await.expect("a cluster");
        let client = cluster.client().expect("a client");
        let azure = Box::pin(Emulator::start(options))
            .await
            .expect("the emulator starts");
        let files = tempfile::tempdir().expect("a directory");
        std::fs::write(files.path().join("token"), "SECRET-TOKEN").expect("it is written");
        cluster
            .install_crds()
            .await
            .expect("the resource is served");
        let account = (cluster.kubeconfig(), "default".to_owned());
        Self {
            cluster,
            client,
            account,
            may_all: false,
            azure,
            arguments: Vec::new(),
            files,
            operator: None,
        }
    }

    /// The URL of the kubelet API of a pool's node.
    pub async fn kubelet(&self, node: &str) -> String {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let status = nodes.get(node).await.expect("the node").status;
        let endpoints = status.and_then(|status| status.daemon_endpoints);
        let endpoint = endpoints.and_then(|endpoints| endpoints.kubelet_endpoint);
        format!("https://127.0.0.1:{}", endpoint.expect("a port").port)
    }

    /// Ends the operator and the Azure, and waits until both have ended.
    pub async fn end(mut self) {
        if self.operator.is_some() {
            self.kill().await;
        }
        if self.may_all {
            self.assert_nothing_forbidden();
        }
        self.azure.stop().await;
    }

    /// Permits forbidden requests: a restarted API server refuses everything until it has read the
    /// roles.
    pub fn may_be_refused(&mut self) {
        self.may_all = false;
    }

    /// Asserts that no instance of the operator met a forbidden request.
    fn assert_nothing_forbidden(&self) {
        let files = std::fs::read_dir(self.files.path()).expect("its logs");
        for file in files {
            let log = std::fs::read_to_string(file.expect("a file").path()).expect("text");
            let refused = log.lines().find(|line| line.contains(REFUSED));
            assert_eq!(refused, None, "its role lacks a right");
        }
    }

    /// The file with the operator's token for Azure.
    pub fn token(&self) -> PathBuf {
        self.files.path().join("token")
    }

    pub fn log(&self) -> std::path::PathBuf {
        self.files.path().join("log")
    }

    pub async fn create_pool(&self, name: &str) {
        self.create_pool_in(name, &json!({}), &[("weu", "westeurope")])
            .await;
    }

    /// Creates a pool with these placements, by name and region. Returns when all of them take pods.
    pub async fn create_pool_in(&self, name: &str, azure: &Value, placements: &[(&str, &str)]) {
        let placed = placements
            .iter()
            .map(|(name, region)| json!({"name": name, "region": region}));
        let pool = json!({
            "apiVersion": "burstpool.io/v1alpha1", "kind": "BurstPool", "metadata": {"name": name},
            "spec": {"azure": azure, "placements": placed.collect::<Vec<_>>()},
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
        for (placement, _) in placements {
            let node = format!("burst-{name}-{placement}");
            self.until_node(&node, "the node to take pods", usable)
                .await;
        }
    }

    pub fn pools(&self) -> Api<BurstPool> {
        Api::all(self.client.clone())
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    pub async fn create_pod(&self, name: &str, pool: &str, changes: &Value) {
        let selector = json!({"burstpool.io/pool": pool});
        self.create_pod_where(name, &selector, changes).await;
    }

    /// Creates a pod with this node selector.
    pub async fn create_pod_where(&self, name: &str, selector: &Value, changes: &Value) {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "tolerations": [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}],
                "nodeSelector": selector,
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

    pub async fn delete_pod(&self, name: &str) {
        let deleted = self.pods().delete(name, &DeleteParams::default()).await;
        deleted.expect("deleted");
    }

    /// Deletes the pool, which has one placement `weu`.
    pub async fn delete_pool(&self, name: &str) {
        let deleted = self.pools().delete(name, &DeleteParams::default()).await;
        deleted.expect("deleted");
    }

    /// Waits until the pool and its node are gone.
    pub async fn until_no_pool(&self, name: &str) {
        self.until_pool(name, "the pool to be gone", |pool| pool.is_none())
            .await;
        let node = format!("burst-{name}-weu");
        self.until_node(&node, "the node to be gone", |node| node.is_none())
            .await;
    }

    pub async fn until_pool(
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

    pub async fn until_node(&self, name: &str, what: &str, wanted: impl Fn(Option<&Node>) -> bool) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let waited = wait::until(nodes, name, what, wanted).await;
        if let Err(error) = waited {
            unreachable!("{error}\n{}", self.tail());
        }
    }

    pub async fn until_pod(&self, name: &str, what: &str, wanted: impl Fn(Option<&Pod>) -> bool) {
        let waited = wait::until(self.pods(), name, what, wanted).await;
        if let Err(error) = waited {
            unreachable!("{error}\n{}", self.tail());
        }
    }

    /// The operator's last log lines, without those of libraries.
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let own: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("burstpool::"))
            .collect();
        own[own.len().saturating_sub(40)..].join("\n")
    }

    /// Creates a home node and waits until it is ready.
    pub async fn home_node(&self, name: &str) {
        home_node(&self.client, name).await;
    }

    /// Creates a pod from its manifest.
    pub async fn create(&self, pod: Value) -> Pod {
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let created = self.pods().create(&PostParams::default(), &pod).await;
        created.expect("a pod")
    }

    /// Runs kubectl, asserts that it succeeds, and returns its output.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let done = self.cluster.kubectl().args(arguments).output();
        let done = done.expect("kubectl");
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "kubectl {arguments:?}: {told}");
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// Applies the sample `virtual-node-nginx.yaml` with a port added: without a subnet, a pod has an
    /// address only if it has ports.
    pub fn apply_nginx(&self) {
        let sample = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/config/samples/virtual-node-nginx.yaml"
        );
        let sample = std::fs::read_to_string(sample).expect("the sample");
        let image = "        image: nginx\n";
        assert!(sample.contains(image), "{sample}");
        let ports = format!("{image}        ports:\n        - containerPort: 80\n");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), sample.replace(image, &ports)).expect("it is written");
        self.kubectl(&["apply", "-f", &file.path().to_string_lossy()]);
    }
}

/// Creates a home node and waits until it is ready.
pub async fn home_node(client: &Client, name: &str) {
    let nodes: Api<Node> = Api::all(client.clone());
    let node = objects::kwok_node(name, "4", "8Gi", &[]);
    nodes
        .create(&PostParams::default(), &node)
        .await
        .expect("a home node");
    let ready = |node: Option<&Node>| node.is_some_and(objects::is_ready);
    wait::until(nodes, name, "a home node", ready)
        .await
        .expect("it is ready");
}

/// Status and message of a pool's condition.
pub fn said(pool: &BurstPool, kind: &str) -> (String, String) {
    let conditions = pool.status.iter().flat_map(|status| &status.conditions);
    let mut found = conditions.filter(|condition| condition.type_ == kind);
    found
        .next()
        .map(|c| (c.status.clone(), c.message.clone()))
        .unwrap_or_default()
}

pub fn is_closed(node: &Node) -> bool {
    let taints = node
        .spec
        .iter()
        .flat_map(|spec| spec.taints.iter().flatten());
    taints
        .into_iter()
        .any(|taint| taint.key == "burstpool.io/closed")
}

pub fn is_running(pod: Option<&Pod>) -> bool {
    let phase = pod.and_then(|pod| pod.status.as_ref()?.phase.as_deref());
    phase == Some("Running")
}
