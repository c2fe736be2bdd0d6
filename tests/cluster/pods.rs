//! Pods on a virtual node: real API server, real scheduler, the emulator as Azure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use burstpool::aci::client::{Client as AzureClient, Cloud, Credential, Scope, Settings, http};
use burstpool::aci::names::Owner;
use burstpool::aci::pace::Pace;
use burstpool::api::Placement;
use burstpool::emulator::group::id::GroupKey;
use burstpool::emulator::{Emulator, Options};
use burstpool::node::binding::DELETION_COST;
use burstpool::node::object;
use burstpool::node::pods::{self, Context, Parts};
use burstpool::node::register;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Node, Pod, Toleration};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::watcher;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::support::{Cluster, Tenant, objects, wait};

/// One test's own Azure, and a virtual node on it.
struct Burst {
    tenant: Tenant,
    emulator: Emulator,
    pool: String,
    token: tempfile::NamedTempFile,
    cancel: CancellationToken,
}

impl Drop for Burst {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Burst {
    async fn start(hint: &str) -> Self {
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
    async fn run(&mut self) {
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
            kube_proxy: None,
            deletion_cost: DELETION_COST,
        })
    }

    /// A pod that only this node takes, changed as `changes` says (a JSON merge).
    fn pod(&self, name: &str, changes: &Value) -> Pod {
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

    async fn create(&self, name: &str, changes: &Value) {
        let pods = self.tenant.api::<Pod>();
        pods.create(&PostParams::default(), &self.pod(name, changes))
            .await
            .expect("a pod");
    }

    async fn until(&self, name: &str, what: &str, wanted: impl Fn(Option<&Pod>) -> bool) {
        wait::until(self.tenant.api::<Pod>(), name, what, wanted)
            .await
            .expect("it comes to be so");
    }

    async fn read(&self, name: &str) -> Pod {
        self.tenant.api::<Pod>().get(name).await.expect("the pod")
    }

    /// The keys of the groups that there are in Azure.
    fn groups(&self) -> Vec<GroupKey> {
        let now = self.emulator.shared().clock.now();
        let mut store = self.emulator.shared().store();
        store.settle_all(now);
        store.groups.keys().cloned().collect()
    }

    /// How often groups were created.
    fn puts(&self) -> usize {
        let text = self.emulator.shared().counters.text();
        let lines = text
            .lines()
            .filter(|line| line.contains("ContainerGroups_CreateOrUpdate"));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
            .sum()
    }

    async fn admin(&self, path: &str, body: &Value) {
        let url = format!("{}/_emulator/{path}", self.emulator.url());
        let sent = reqwest::Client::new().put(url).json(body).send().await;
        assert!(sent.expect("an answer").status().is_success());
    }

    async fn fault(&self, rule: Value) {
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

fn merge(into: &mut Value, change: &Value) {
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

fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

fn is_running(pod: Option<&Pod>) -> bool {
    pod.is_some_and(|pod| phase(pod) == "Running" && condition(pod, "Ready") == Some("True"))
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a str> {
    let all = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    all.into_iter()
        .find(|c| c.type_ == kind)
        .map(|c| c.status.as_str())
}

fn container(pod: &Pod) -> &ContainerStatus {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_deref());
    &statuses.expect("container statuses")[0]
}

fn environment(variables: &[(&str, &str)]) -> Value {
    let variables: Vec<Value> = variables
        .iter()
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    json!({"spec": {"containers": [{"env": variables}]}})
}

#[tokio::test]
async fn a_pod_runs_as_a_container_group_and_leaves_nothing_behind() {
    let burst = Burst::start("life").await;
    burst.create("web", &json!({})).await;
    burst.until("web", "the pod to run", is_running).await;
    let pod = burst.read("web").await;
    let [group] = burst.groups().try_into().expect("one group");
    assert!(group.name.contains("web"), "{}", group.name);
    let status = pod.status.as_ref().expect("a status");
    assert_eq!(status.host_ip.as_deref(), Some("127.0.0.1"));
    assert!(
        container(&pod).ready
            && container(&pod)
                .state
                .as_ref()
                .is_some_and(|s| s.running.is_some())
    );
    assert!(
        container(&pod).image_id.contains("@sha256:"),
        "{}",
        container(&pod).image_id
    );
    for kind in ["Initialized", "ContainersReady", "PodScheduled"] {
        assert_eq!(condition(&pod, kind), Some("True"), "{kind}");
    }
    assert_eq!(burst.puts(), 1);

    burst
        .tenant
        .api::<Pod>()
        .delete("web", &DeleteParams::default())
        .await
        .expect("deleted");
    burst
        .until("web", "the pod to be gone", |pod| pod.is_none())
        .await;
    assert_eq!(burst.groups(), []);
}

#[tokio::test]
async fn an_exit_code_is_told_truly_and_a_finished_pod_stays_so() {
    let burst = Burst::start("exit").await;
    let fails = [
        ("ACI_EMULATOR_EXIT_AFTER", "1s"),
        ("ACI_EMULATOR_EXIT_CODE", "3"),
    ];
    let mut job = environment(&fails);
    job["spec"]["restartPolicy"] = "Never".into();
    burst.create("job", &job).await;
    burst
        .until("job", "the pod to fail", |pod| {
            pod.is_some_and(|pod| phase(pod) == "Failed")
        })
        .await;
    let pod = burst.read("job").await;
    let ended = container(&pod)
        .state
        .as_ref()
        .and_then(|state| state.terminated.clone())
        .expect("it ended");
    assert_eq!(
        (ended.exit_code, ended.reason.as_deref()),
        (3, Some("Error"))
    );
    let events = told(&burst, "job", "Started").await;
    assert_eq!(events.len(), 1, "{events:?}");
}

#[tokio::test]
async fn a_group_that_vanishes_fails_its_pod_by_name() {
    let burst = Burst::start("vanish").await;
    burst.create("web", &json!({})).await;
    burst.until("web", "the pod to run", is_running).await;
    let [key] = burst.groups().try_into().expect("one group");
    let now = burst.emulator.shared().clock.now();
    burst.emulator.shared().store().remove(&key, now);
    let failed = |pod: Option<&Pod>| pod.is_some_and(|pod| phase(pod) == "Failed");
    burst.until("web", "the pod to fail", failed).await;
    let pod = burst.read("web").await;
    assert_eq!(
        pod.status.and_then(|status| status.reason).as_deref(),
        Some("NotFound")
    );
}

#[tokio::test]
async fn pods_outlive_the_operator_and_are_not_created_twice() {
    let mut burst = Burst::start("restart").await;
    for name in ["a", "b", "c"] {
        burst.create(name, &json!({})).await;
    }
    for name in ["a", "b", "c"] {
        burst.until(name, "the pod to run", is_running).await;
    }
    burst.cancel.cancel();
    burst.create("d", &json!({})).await;
    burst
        .tenant
        .api::<Pod>()
        .delete("a", &DeleteParams::default())
        .await
        .expect("deleted");
    burst.run().await;
    burst
        .until("a", "the deleted pod to be gone", |pod| pod.is_none())
        .await;
    burst.until("d", "the new pod to run", is_running).await;
    for name in ["b", "c"] {
        assert!(is_running(Some(&burst.read(name).await)), "{name}");
    }
    assert_eq!((burst.puts(), burst.groups().len()), (4, 3));
}

#[tokio::test]
async fn what_aci_cannot_run_is_said_by_field_and_not_tried() {
    let burst = Burst::start("refused").await;
    let host = json!({"spec": {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]}});
    burst.create("web", &host).await;
    let refused = |pod: Option<&Pod>| {
        let state = pod.and_then(|pod| {
            pod.status
                .as_ref()?
                .container_statuses
                .as_ref()?
                .first()?
                .state
                .clone()
        });
        let message = state
            .and_then(|state| state.waiting?.message)
            .unwrap_or_default();
        message.contains("spec.volumes[0].hostPath")
    };
    burst.until("web", "the field to be named", refused).await;
    assert_eq!(burst.puts(), 0);
    assert_eq!(told(&burst, "web", "Unsupported").await.len(), 1);
    burst
        .tenant
        .api::<Pod>()
        .delete("web", &DeleteParams::default())
        .await
        .expect("deleted");
    burst
        .until("web", "the pod to be gone", |pod| pod.is_none())
        .await;
}

#[tokio::test]
async fn a_lost_answer_does_not_create_twice_and_a_throttled_pod_waits_and_runs() {
    let burst = Burst::start("faults").await;
    burst.fault(json!({"operation": "ContainerGroups_CreateOrUpdate", "count": 1, "fault": "loseAnswer"})).await;
    burst.create("lost", &json!({})).await;
    burst.until("lost", "the pod to run", is_running).await;
    assert_eq!((burst.puts(), burst.groups().len()), (1, 1));
    let throttle = json!({"error": {"status": 429, "retryAfter": 1}});
    burst
        .fault(
            json!({"operation": "ContainerGroups_CreateOrUpdate", "count": 1, "fault": throttle}),
        )
        .await;
    burst.create("throttled", &json!({})).await;
    burst.until("throttled", "the pod to run", is_running).await;
    assert_eq!(burst.groups().len(), 2);
}

#[tokio::test]
async fn a_lack_of_capacity_that_shows_late_is_told_and_tried_again() {
    let burst = Burst::start("capacity").await;
    burst
        .admin(
            "capacity/westeurope",
            &json!({"failure": "async", "count": 1}),
        )
        .await;
    burst.create("web", &json!({})).await;
    let told = |pod: Option<&Pod>| {
        let text = pod.map(|pod| serde_json::to_string(&pod.status).expect("JSON"));
        text.is_some_and(|text| text.contains("The requested resource is not available"))
    };
    burst.until("web", "the pod to say why", told).await;
    assert_eq!(phase(&burst.read("web").await), "Pending");
    burst.until("web", "the pod to run", is_running).await;
    assert_eq!((burst.puts(), burst.groups().len()), (2, 1));
}

#[tokio::test]
async fn while_azure_fails_now_and_then_every_pod_runs_once_or_is_gone() {
    let burst = Burst::start("storm").await;
    for (rate, fault) in [
        (0.05, json!({"error": {"status": 503}})),
        (0.05, json!({"error": {"status": 429, "retryAfter": 1}})),
        (0.02, json!("loseAnswer")),
        (0.02, json!("drop")),
    ] {
        burst.fault(json!({"rate": rate, "fault": fault})).await;
    }
    let names: Vec<String> = (0..20).map(|n| format!("pod-{n}")).collect();
    for name in &names {
        burst.create(name, &json!({})).await;
    }
    for name in &names {
        burst.until(name, "the pod to run", is_running).await;
    }
    assert_eq!(burst.groups().len(), 20);
    for name in &names[..10] {
        burst
            .tenant
            .api::<Pod>()
            .delete(name, &DeleteParams::default())
            .await
            .expect("deleted");
    }
    for name in &names[..10] {
        burst
            .until(name, "the pod to be gone", |pod| pod.is_none())
            .await;
    }
    assert_eq!(burst.groups().len(), 10);
    let pods = burst.tenant.api::<Pod>();
    for pod in pods
        .list(&ListParams::default())
        .await
        .expect("a list")
        .items
    {
        assert!(is_running(Some(&pod)), "{:?}", pod.status);
    }
}

/// The Events of that reason about a pod, once there is one.
async fn told(burst: &Burst, pod: &str, reason: &str) -> Vec<String> {
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
