//! The CPU and memory that containers use.
//!
//! In: the pods of nodes, each time a client requests metrics. Out: a [`CpuCounter`] for each container that Azure
//! measures: from the group's realtime-metrics extension if the group is in a subnet and the extension answers,
//! else from Azure Monitor. Nothing is read without a request. A request waits up to 2 s for the reads that it
//! starts; later results are for the next request. A pod without metrics does not affect other pods.

mod counter;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::tasks::ListenerTasks;
use crate::aci::client::MinuteUsages;
use crate::aci::rate_limiter::RateLimiter;
use crate::aci::realtime_metrics::{self, ContainerUsages};
use crate::node::pods::{ContainerInfo, PodInfo, PodsContext};
pub use counter::CpuCounter;

/// The shortest interval between two reads of a pod in Azure Monitor, which has new values each minute.
const MONITOR_READ_INTERVAL: Duration = Duration::from_secs(20);
/// The same for the realtime-metrics extension, which has new values on each read.
const REALTIME_READ_INTERVAL: Duration = Duration::from_secs(5);
/// The pause before a group that did not answer is read again. The group may be starting, so the first pause is
/// short; the pause doubles up to the maximum, because the operator may have no route to the group's network.
const MIN_REALTIME_BACKOFF: Duration = Duration::from_secs(15);
const MAX_REALTIME_BACKOFF: Duration = Duration::from_hours(1);
/// The interval of Azure Monitor's averages: less than a minute after the last value there is no new one.
const MINUTE: SignedDuration = SignedDuration::from_mins(1);
/// How far back the first read goes: Azure Monitor's values arrive late.
const INITIAL_LOOKBACK: SignedDuration = SignedDuration::from_hours(1);
/// For how long values are reported after they last changed.
const USAGE_TTL: Duration = Duration::from_secs(600);
/// How long a request waits for new values.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(2);
/// How many pods are read at once, and how many per second from Azure Monitor: 4 per second is a sixth of what ARM
/// allows, and takes four minutes for a thousand pods.
const MAX_CONCURRENT_READS: usize = 8;
const READS_PER_SECOND: f64 = 4.0;
const READ_BURST: f64 = 64.0;

/// For how long the counter of a node is kept without a request.
const NODE_COUNTER_TTL: SignedDuration = SignedDuration::from_hours(1);

/// The use of each running container of a pod, by name; `None` if it is not known for all of them.
pub type PodUsage = Option<Vec<(String, CpuCounter)>>;

/// The use of all pods, cached.
pub struct UsageCache {
    pods: Mutex<HashMap<String, CachedPodUsage>>,
    /// The last reported counter of each node, by name.
    nodes: Mutex<HashMap<String, CpuCounter>>,
    rate_limiter: RateLimiter,
}

/// What is known of a pod.
struct CachedPodUsage {
    requested_at: Instant,
    is_being_read: bool,
    /// When a value last changed.
    changed_at: Instant,
    containers: BTreeMap<String, CpuCounter>,
    /// The last readings of the realtime-metrics extension, while it answers.
    last_readings: ContainerUsages,
    /// Until when its group is not read, and how long that pause is.
    realtime_backoff: Option<(Instant, Duration)>,
}

impl CachedPodUsage {
    /// How soon there may be new values.
    fn read_interval(&self) -> Duration {
        if self.last_readings.is_empty() {
            MONITOR_READ_INTERVAL
        } else {
            REALTIME_READ_INTERVAL
        }
    }

    fn is_backing_off(&self) -> bool {
        self.realtime_backoff
            .is_some_and(|(until, _)| Instant::now() < until)
    }

    /// Records that the pod's group did not answer.
    fn back_off(&mut self) {
        let pause = self
            .realtime_backoff
            .map_or(MIN_REALTIME_BACKOFF, |(_, pause)| pause * 2);
        let pause = pause.min(MAX_REALTIME_BACKOFF);
        self.realtime_backoff = Some((Instant::now() + pause, pause));
    }

    fn update_counter(&mut self, container: &str, counter: CpuCounter) {
        let before = self.containers.insert(container.to_owned(), counter);
        if before != Some(counter) {
            self.changed_at = Instant::now();
        }
    }
}

impl Default for UsageCache {
    fn default() -> Self {
        Self {
            pods: Mutex::default(),
            nodes: Mutex::default(),
            rate_limiter: RateLimiter::new(READS_PER_SECOND, READ_BURST),
        }
    }
}

impl UsageCache {
    /// The use of each running container of the pod; `None` unless it is known for all of them, since an autoscaler
    /// would take a partial sum for the whole.
    pub fn pod_usage(&self, pod: &PodInfo) -> PodUsage {
        let pods = self.pods.lock();
        let known = pods.get(&pod.uid)?;
        if known.changed_at.elapsed() > USAGE_TTL {
            return None;
        }
        let running = pod
            .containers
            .iter()
            .filter_map(|container| Some((container, container.running_since?)));
        let counters = running.map(|(container, since)| {
            let counter = known.containers.get(&container.name)?;
            (counter.at > since).then(|| (container.name.clone(), *counter))
        });
        let counters: Vec<_> = counters.collect::<Option<_>>()?;
        (!counters.is_empty()).then_some(counters)
    }

    /// The use of each pod of a node.
    pub fn pods_of_node(&self, node: &PodsContext) -> Vec<(PodUsage, Arc<PodInfo>)> {
        let pods = node.all_pods().into_iter();
        pods.map(|pod| (self.pod_usage(&pod), pod)).collect()
    }

    /// The use of each pod of these nodes, and the sum of the nodes' counters.
    pub fn pods_of_nodes(
        &self,
        nodes: &[Arc<PodsContext>],
    ) -> (Vec<(PodUsage, Arc<PodInfo>)>, Option<CpuCounter>) {
        let (mut usages, mut total) = (Vec::new(), None::<CpuCounter>);
        for node in nodes {
            let pods = self.pods_of_node(node);
            if let Some(counter) = self.node_total(&node.owner.node, &pods) {
                total = Some(total.map_or(counter, |total| total.plus(counter)));
            }
            usages.extend(pods);
        }
        (usages, total)
    }

    /// The node's counter, advanced by what its known pods use; `None` if pods run and none of them is known.
    fn node_total(&self, name: &str, pods: &[(PodUsage, Arc<PodInfo>)]) -> Option<CpuCounter> {
        let is_known = pods.iter().any(|(used, _)| used.is_some());
        if !is_known && pods.iter().any(|(_, pod)| is_running(pod)) {
            return None;
        }
        let used = pods.iter().filter_map(|(used, _)| used.as_ref());
        let known: Vec<CpuCounter> = used.flatten().map(|(_, counter)| *counter).collect();
        let now = Timestamp::now();
        let mut nodes = self.nodes.lock();
        nodes.retain(|_, counter| now.duration_since(counter.at) < NODE_COUNTER_TTL);
        let counter = CpuCounter::node_total(nodes.get(name).copied(), &known, now);
        nodes.insert(name.to_owned(), counter);
        Some(counter)
    }

    /// Reads the pods that may have new values, and waits up to 2 s for the results.
    pub async fn refresh(self: &Arc<Self>, nodes: &[Arc<PodsContext>], tasks: &ListenerTasks) {
        let due = self.pods_to_read(nodes);
        if due.is_empty() {
            return;
        }
        let (done, completed) = oneshot::channel::<()>();
        let usage = self.clone();
        tasks.spawn(async move {
            let due = futures::stream::iter(due);
            due.for_each_concurrent(MAX_CONCURRENT_READS, |(node, pod)| {
                usage.read_pod(node, pod)
            })
            .await;
            drop(done);
        });
        // Later results are for the next request.
        let _ = tokio::time::timeout(REFRESH_TIMEOUT, completed).await;
    }

    /// The pods to read now. Forgets pods that were not read for 10 minutes.
    fn pods_to_read(&self, nodes: &[Arc<PodsContext>]) -> Vec<(Arc<PodsContext>, Arc<PodInfo>)> {
        let pods = nodes.iter().flat_map(|node| {
            let pods = node.all_pods().into_iter();
            pods.map(|pod| (node.clone(), pod))
        });
        let running: Vec<_> = pods.filter(|(_, pod)| is_running(pod)).collect();
        let mut pods = self.pods.lock();
        let now = Instant::now();
        pods.retain(|_, known| known.is_being_read || known.requested_at.elapsed() < USAGE_TTL);
        let mut due = Vec::new();
        for (node, pod) in running {
            if let Some(known) = pods.get_mut(&pod.uid) {
                if known.is_being_read || known.requested_at.elapsed() < known.read_interval() {
                    continue;
                }
                (known.is_being_read, known.requested_at) = (true, now);
            } else {
                let known = CachedPodUsage {
                    requested_at: now,
                    is_being_read: true,
                    changed_at: now,
                    containers: BTreeMap::new(),
                    last_readings: ContainerUsages::new(),
                    realtime_backoff: None,
                };
                pods.insert(pod.uid.clone(), known);
            }
            due.push((node, pod));
        }
        due
    }

    async fn read_pod(&self, node: Arc<PodsContext>, pod: Arc<PodInfo>) {
        let update = match self.read_realtime(&node, &pod).await {
            Some(readings) => UsageUpdate::Readings(readings),
            None => UsageUpdate::Minutes(self.read_minutes(&node, &pod).await),
        };
        self.apply_update(&pod, &update);
    }

    /// Reads the group's realtime-metrics extension; `None` if there is none or it does not answer.
    async fn read_realtime(&self, node: &PodsContext, pod: &PodInfo) -> Option<ContainerUsages> {
        let is_in_subnet = node.settings().placement.subnet_id.is_some();
        let address = pod.address.filter(|_| is_in_subnet)?;
        if self.pods.lock().get(&pod.uid)?.is_backing_off() {
            return None;
        }
        let mut running = pod.containers.iter().filter(|c| c.running_since.is_some());
        let read = realtime_metrics::read_usage(address)
            .await
            .and_then(|mut readings| {
                readings.retain(|name, _| pod.container(name).is_some());
                let is_read = |container: &ContainerInfo| readings.contains_key(&container.name);
                let is_complete = running.all(is_read);
                is_complete
                    .then_some(readings)
                    .ok_or(realtime_metrics::Error::Incomplete)
            });
        if let Err(error) = &read {
            tracing::debug!(pod = pod.name, ?error, "reading a group's realtime metrics");
            self.pods.lock().get_mut(&pod.uid)?.back_off();
        }
        read.ok()
    }

    /// Reads Azure Monitor; empty if there is nothing new or the read fails.
    async fn read_minutes(&self, node: &PodsContext, pod: &PodInfo) -> MinuteUsages {
        self.rate_limiter.acquire().await;
        node.rate_limiter.acquire().await;
        let until = Timestamp::now();
        let since = self.unread_since(pod, until);
        if until.duration_since(since) < MINUTE {
            return MinuteUsages::new();
        }
        let (group, span) = (pod.group.as_str(), (since, until));
        let read = node.azure.container_usage(&node.scope, group, span).await;
        read.unwrap_or_else(|error| {
            let (pod, error) = (&pod.name, error.error_chain());
            tracing::debug!(pod, error, "reading a pod's metrics");
            MinuteUsages::new()
        })
    }

    fn apply_update(&self, pod: &PodInfo, update: &UsageUpdate) {
        let mut pods = self.pods.lock();
        let Some(known) = pods.get_mut(&pod.uid) else {
            return;
        };
        known.is_being_read = false;
        let last = std::mem::take(&mut known.last_readings);
        if let UsageUpdate::Readings(readings) = update {
            known.last_readings.clone_from(readings);
            known.realtime_backoff = None;
        }
        for container in &pod.containers {
            let (name, Some(started)) = (&container.name, container.running_since) else {
                continue;
            };
            let before = known.containers.get(name).copied();
            let counter = match update {
                UsageUpdate::Readings(now) => now.get(name).and_then(|now| {
                    CpuCounter::after_reading(before, last.get(name).copied(), started, *now)
                }),
                UsageUpdate::Minutes(minutes) => minutes
                    .get(name)
                    .and_then(|minutes| CpuCounter::after_minutes(before, started, minutes)),
            };
            if let Some(counter) = counter {
                known.update_counter(name, counter);
            }
        }
    }

    /// From when to read Azure Monitor: the oldest last value of the pod's containers, or [`INITIAL_LOOKBACK`]
    /// ago if a container has none or it is older.
    fn unread_since(&self, pod: &PodInfo, now: Timestamp) -> Timestamp {
        let first = now.saturating_sub(INITIAL_LOOKBACK).unwrap_or(now);
        let pods = self.pods.lock();
        let known = pods.get(&pod.uid).map(|known| &known.containers);
        let known = known.filter(|known| known.len() == pod.containers.len());
        let oldest = known.and_then(|known| known.values().map(|counter| counter.at).min());
        oldest.map_or(first, |at| at.clamp(first, now))
    }
}

/// The result of one read.
enum UsageUpdate {
    Readings(ContainerUsages),
    Minutes(MinuteUsages),
}

fn is_running(pod: &PodInfo) -> bool {
    let mut containers = pod.containers.iter();
    containers.any(|container| container.running_since.is_some())
}
