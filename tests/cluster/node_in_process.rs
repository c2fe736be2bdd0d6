//! A virtual node that runs in this process like in the operator, on a real cluster and an emulated
//! Azure.
//!
//! In: differences from the defaults ([`Setup`]). Out: functions to create pods and wait for them, to
//! look at the groups in Azure, and to inject faults. Drop ends everything.

#[path = "node_in_process/azure.rs"]
mod azure;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use burstpool::aci::client::{
    AciClient as AzureClient, ClientSettings, CloudEndpoints, Credential, GroupScope, http_client,
};
use burstpool::aci::image::{ImageReader, ImageReaderSettings};
use burstpool::aci::names::GroupOwner;
use burstpool::aci::rate_limiter::RateLimiter;
use burstpool::aci::translate::IdentityNamespaces;
use burstpool::api::{Placement, ScaleIn};
use burstpool::emulator::Emulator;
use burstpool::node::node_controller;
use burstpool::node::node_object;
use burstpool::node::pods::{self, PodsConfig, PodsContext};
use burstpool::node::probe::Prober;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Node, Pod, Toleration};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use kube::runtime::watcher;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{Cluster, Tenant, objects, wait};
pub use azure::azure;

/// The token that the operator sends to Azure.
pub const ARM_TOKEN: &str = "SECRET-ARM-TOKEN";

const SUBNET: &str =
    "/subscriptions/sub/resourceGroups/rg/providers/Microsoft.Network/virtualNetworks/v/subnets/n";

/// The settings of a test.
pub struct Setup {
    /// The cluster UID in the groups' tags, which marks their owner.
    pub cluster_uid: &'static str,
    /// The pool's name. Default: the namespace's name.
    pub pool: Option<String>,
    /// A shared Azure. Default: one of its own.
    pub azure: Option<Arc<Emulator>>,
    /// Another URL for Azure Resource Manager. Default: the emulator's.
    pub arm: Option<String>,
    /// Whether the groups are in a subnet.
    pub in_subnet: bool,
    /// How often the operator lists groups.
    pub sweep_every: Duration,
    /// How long the operator leaves groups without a pod alone.
    pub orphan_grace: Duration,
    /// Reads the configurations of images. Default: from registries on the Internet.
    pub images: Option<ImageReader>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            cluster_uid: "test-cluster",
            pool: None,
            azure: None,
            arm: None,
            in_subnet: false,
            sweep_every: Duration::from_secs(2),
            orphan_grace: pods::ORPHAN_GRACE,
            images: None,
        }
    }
}

/// The Azure of one test, and a virtual node on it.
pub struct Burst {
    pub tenant: Tenant,
    pub emulator: Arc<Emulator>,
    pub pool: String,
    setup: Setup,
    token: tempfile::NamedTempFile,
    cancel: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Burst {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Burst {
    pub async fn start(hint: &str) -> Self {
        Self::with(hint, Setup::default()).await
    }

    pub async fn with(hint: &str, setup: Setup) -> Self {
        Self::on(Cluster::shared().await, hint, setup).await
    }

    pub async fn on(cluster: &Cluster, hint: &str, setup: Setup) -> Self {
        let tenant = cluster.tenant(hint).await.expect("a tenant");
        let emulator = match &setup.azure {
            Some(azure) => azure.clone(),
            None => azure().await,
        };
        let token = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(token.path(), ARM_TOKEN).expect("it is written");
        let pool = setup
            .pool
            .clone()
            .unwrap_or_else(|| tenant.namespace.clone());
        let mut burst = Self {
            tenant,
            emulator,
            pool,
            setup,
            token,
            cancel: CancellationToken::new(),
            tasks: Vec::new(),
        };
        burst.run().await;
        burst
    }

    /// Starts the tasks for the node and its pods, like the operator at its start.
    pub async fn run(&mut self) {
        self.cancel = CancellationToken::new();
        let client = self.tenant.client.clone();
        let facts = crate::node::facts(&self.pool);
        let (name, (sender, changes)) = (facts.name(), watch::channel(facts));
        let cancel = self.cancel.clone();
        let nodes: Api<Node> = Api::all(client.clone());
        let registered = async move {
            node_controller::run(client, changes, cancel).await;
            drop(sender);
        };
        let context = Arc::new(self.context());
        let (services, cancel) = (context.services.clone(), self.cancel.clone());
        let client = context.client.clone();
        let watched = async move {
            cancel.run_until_cancelled(services.watch(client)).await;
        };
        let kept = pods::run(context, self.cancel.clone());
        self.tasks = vec![
            tokio::spawn(registered),
            tokio::spawn(watched),
            tokio::spawn(kept),
        ];
        let ready = |node: Option<&Node>| node.is_some_and(objects::is_ready);
        wait::until(nodes, &name, "the virtual node", ready)
            .await
            .expect("it is ready");
    }

    /// Stops these tasks, like an operator that ends, and waits for their end.
    pub async fn stop(&mut self) {
        self.cancel.cancel();
        for task in self.tasks.drain(..) {
            task.await.expect("it ends, and does not panic");
        }
    }

    /// Whether these tasks are running.
    pub fn is_alive(&self) -> bool {
        !self.tasks.is_empty() && self.tasks.iter().all(|task| !task.is_finished())
    }

    fn context(&self) -> PodsContext {
        let arm = self.setup.arm.as_deref().unwrap_or(self.emulator.url());
        let cloud = CloudEndpoints::default().with_arm(arm.parse().expect("a URL"));
        let http = http_client(&ClientSettings {
            cloud: cloud.clone(),
            extra_ca: Vec::new(),
        })
        .expect("a client");
        let credential = Credential::File(self.token.path().to_owned());
        PodsContext::new(PodsConfig {
            client: self.tenant.client.clone(),
            azure: AzureClient::new(&cloud, credential, http),
            scope: GroupScope {
                subscription: "sub".to_owned(),
                resource_group: "rg".to_owned(),
            },
            owner: self.owner(),
            settings: pods::PodSettings {
                placement: Placement {
                    name: "weu".to_owned(),
                    region: "westeurope".to_owned(),
                    subnet_id: self.setup.in_subnet.then(|| SUBNET.to_owned()),
                    ..Placement::default()
                },
                tags: BTreeMap::new(),
                kube_proxy: None,
                deletion_cost: ScaleIn::default().deletion_cost,
            },
            address: "127.0.0.1".to_owned(),
            services: Arc::default(),
            rate_limiter: Arc::new(RateLimiter::default()),
            azure_failed: Arc::new(Notify::new()),
            quota: Arc::default(),
            pods_changed: Arc::new(Notify::new()),
            list_interval: self.setup.sweep_every,
            orphan_grace: self.setup.orphan_grace,
            identities: IdentityNamespaces::default(),
            images: self.setup.images.clone().unwrap_or_else(|| {
                ImageReader::new(ImageReaderSettings::without_identity()).expect("a client")
            }),
            prober: Prober::new("1.37"),
        })
    }

    /// The owner of this node's groups.
    pub fn owner(&self) -> GroupOwner {
        GroupOwner {
            cluster: self.setup.cluster_uid.to_owned(),
            pool: self.pool.clone(),
            node: node_object::name(&self.pool, "weu"),
        }
    }

    /// A pod that only this node can run, with `changes` merged into it (JSON merge).
    pub fn pod(&self, name: &str, changes: &Value) -> Pod {
        let toleration = Toleration {
            key: Some("virtual-kubelet.io/provider".to_owned()),
            operator: Some("Equal".to_owned()),
            value: Some(self.pool.clone()),
            effect: Some("NoSchedule".to_owned()),
            ..Toleration::default()
        };
        let mut pod =
            serde_json::to_value(objects::pod(name, "1", "1Gi", &[toleration])).expect("JSON");
        let own = json!({"spec": { "nodeSelector": {"burstpool.io/pool": self.pool}}});
        for change in [&own, changes] {
            merge(&mut pod, change);
        }
        serde_json::from_value(pod).expect("a pod")
    }

    pub async fn create(&self, name: &str, changes: &Value) {
        let pods = self.tenant.api::<Pod>();
        pods.create(&PostParams::default(), &self.pod(name, changes))
            .await
            .expect("a pod");
    }

    pub async fn until(&self, name: &str, what: &str, wanted: impl Fn(Option<&Pod>) -> bool) {
        wait::until(self.tenant.api::<Pod>(), name, what, wanted)
            .await
            .expect("it comes to be so");
    }

    /// Deletes the pod, with a grace period in seconds if given.
    pub async fn delete(&self, name: &str, grace: Option<u32>) {
        let delete = DeleteParams {
            grace_period_seconds: grace,
            ..DeleteParams::default()
        };
        let pods = self.tenant.api::<Pod>();
        pods.delete(name, &delete).await.expect("deleted");
    }

    pub async fn until_gone(&self, name: &str) {
        self.until(name, "the pod to be gone", |pod| pod.is_none())
            .await;
    }

    pub async fn read(&self, name: &str) -> Pod {
        self.tenant.api::<Pod>().get(name).await.expect("the pod")
    }
}

pub fn merge(into: &mut Value, change: &Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(change)) if into.len() == change.len() => {
            into.iter_mut()
                .zip(change)
                .for_each(|(into, change)| merge(into, change));
        }
        (into, change) => *into = change.clone(),
    }
}

pub fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

pub fn is_running(pod: Option<&Pod>) -> bool {
    pod.is_some_and(|pod| phase(pod) == "Running" && objects::is_pod_ready(pod))
}

pub fn container(pod: &Pod) -> &ContainerStatus {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_deref());
    &statuses.expect("container statuses")[0]
}

pub fn environment(variables: &[(&str, &str)]) -> Value {
    let variables: Vec<Value> = variables
        .iter()
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    json!({"spec": {"containers": [{"env": variables}]}})
}

/// The messages of the Events with this reason about a pod, once there is one.
pub async fn told(burst: &Burst, pod: &str, reason: &str) -> Vec<String> {
    let events: Api<Event> = burst.tenant.api();
    let about = format!("involvedObject.name={pod},reason={reason}");
    let config = watcher::Config::default().fields(&about);
    let any = |events: &[Event]| !events.is_empty();
    let events = wait::until_all(events, config, "an Event", any)
        .await
        .expect("it is told");
    events
        .into_iter()
        .filter_map(|event| event.message)
        .collect()
}
