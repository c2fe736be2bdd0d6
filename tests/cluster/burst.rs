//! A virtual node in this process, kept as the operator keeps it, on a real cluster and an emulated Azure.
//!
//! In: a hint for its name. Out: pods made and waited for, the groups that there
//! are in Azure, faults. Everything ends with the value.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use burstpool::aci::client::{Client as AzureClient, Cloud, Credential, Scope, Settings, http};
use burstpool::aci::names::Owner;
use burstpool::aci::pace::Pace;
use burstpool::api::Placement;
use burstpool::emulator::group::id::GroupKey;
use burstpool::emulator::{Emulator, Options};
use burstpool::node::object;
use burstpool::node::pods::{self, Context, Parts};
use burstpool::node::register;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Node, Pod, Toleration};
use kube::Api;
use kube::api::PostParams;
use kube::runtime::watcher;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::support::{Cluster, Tenant, objects, wait};

/// One test's own Azure, and a virtual node on it.
pub struct Burst {
    pub tenant: Tenant,
    pub emulator: Emulator,
    pool: String,
    token: tempfile::NamedTempFile,
    pub cancel: CancellationToken,
}

impl Drop for Burst {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Burst {
    pub async fn start(hint: &str) -> Self {
        let tenant = Cluster::shared()
            .await
            .tenant(hint)
            .await
            .expect("a tenant");
        let options = Options {
            speed: 20.0,
            ..Options::default()
        };
        let emulator = Emulator::start(options).await.expect("the emulator starts");
        let token = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(token.path(), "any").expect("it is written");
        let pool = tenant.namespace.clone();
        let mut burst = Self {
            tenant,
            emulator,
            pool,
            token,
            cancel: CancellationToken::new(),
        };
        burst.run().await;
        burst
    }

    /// Starts what keeps the node and its pods, as the operator does when it begins.
    pub async fn run(&mut self) {
        self.cancel = CancellationToken::new();
        let client = self.tenant.client.clone();
        let facts = crate::node::facts(&self.pool);
        let (name, (sender, changes)) = (facts.name(), watch::channel(facts));
        let cancel = self.cancel.clone();
        let nodes: Api<Node> = Api::all(client.clone());
        tokio::spawn({
            let client = client.clone();
            async move {
                register::keep(client, changes, cancel).await;
                drop(sender);
            }
        });
        tokio::spawn(pods::keep(Arc::new(self.context()), self.cancel.clone()));
        let ready = |node: Option<&Node>| node.is_some_and(objects::is_ready);
        wait::until(nodes, &name, "the virtual node", ready)
            .await
            .expect("it is ready");
    }

    fn context(&self) -> Context {
        let cloud = Cloud::default().with_arm(self.emulator.url().parse().expect("a URL"));
        let http = http(&Settings {
            cloud: cloud.clone(),
            extra_ca: Vec::new(),
        })
        .expect("a client");
        let credential = Credential::File(self.token.path().to_owned());
        Context::new(Parts {
            client: self.tenant.client.clone(),
            azure: AzureClient::new(&cloud, credential, http),
            scope: Scope {
                subscription: "sub".to_owned(),
                resource_group: "rg".to_owned(),
            },
            owner: Owner {
                cluster: "test-cluster".to_owned(),
                pool: self.pool.clone(),
                node: object::name(&self.pool, "weu"),
            },
            placement: Placement {
                name: "weu".to_owned(),
                region: "westeurope".to_owned(),
                ..Placement::default()
            },
            tags: BTreeMap::new(),
            address: "127.0.0.1".to_owned(),
            pace: Arc::new(Pace::default()),
            trouble: Arc::new(Notify::new()),
            sweep_every: Duration::from_secs(2),
        })
    }

    /// A pod that only this node takes, changed as `changes` says (a JSON merge).
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

    pub async fn read(&self, name: &str) -> Pod {
        self.tenant.api::<Pod>().get(name).await.expect("the pod")
    }

    /// The keys of the groups that there are in Azure.
    pub fn groups(&self) -> Vec<GroupKey> {
        let now = self.emulator.shared().clock.now();
        let mut store = self.emulator.shared().store();
        store.settle_all(now);
        store.groups.keys().cloned().collect()
    }

    /// How often groups were created.
    pub fn puts(&self) -> usize {
        let text = self.emulator.shared().counters.text();
        let lines = text
            .lines()
            .filter(|line| line.contains("ContainerGroups_CreateOrUpdate"));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
            .sum()
    }

    pub async fn admin(&self, path: &str, body: &Value) {
        let url = format!("{}/_emulator/{path}", self.emulator.url());
        let sent = reqwest::Client::new().put(url).json(body).send().await;
        assert!(sent.expect("an answer").status().is_success());
    }

    pub async fn fault(&self, rule: Value) {
        let url = format!("{}/_emulator/faults", self.emulator.url());
        let sent = reqwest::Client::new()
            .post(url)
            .json(&rule)
            .send()
            .await
            .expect("an answer");
        assert!(sent.status().is_success());
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
    pod.is_some_and(|pod| phase(pod) == "Running" && condition(pod, "Ready") == Some("True"))
}

pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a str> {
    let all = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    all.into_iter()
        .find(|c| c.type_ == kind)
        .map(|c| c.status.as_str())
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

/// The Events of that reason about a pod, once there is one.
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
