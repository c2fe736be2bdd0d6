//! What containers use, as far as Azure Monitor has told.
//!
//! In: the pods of nodes, whenever somebody asks for numbers. Out: a [`Counter`] for each container that is
//! measured. Nothing is read while nobody asks. Who asks waits a moment for what is read because of it; what
//! takes longer is there for the next. A pod of which Azure says nothing costs the others nothing.

mod counter;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::tasks::Tasks;
use crate::aci::client::Minutes;
use crate::aci::pace::Pace;
use crate::node::pods::{Context, Hosted};
pub use counter::Counter;

/// How often a pod's numbers are read at most: there are new ones each minute.
const AGAIN: Duration = Duration::from_secs(20);
/// How long what is counted takes: before, there is nothing new.
const MINUTE: SignedDuration = SignedDuration::from_mins(1);
/// How far back the first look goes. Numbers come late.
const FIRST_LOOK: SignedDuration = SignedDuration::from_hours(1);
/// For how long numbers are told that do not change any more.
const GOOD_FOR: Duration = Duration::from_secs(600);
/// How long whoever asks waits for news.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many pods are read at once, and a second: a sixth of what ARM allows, in a thousand pods' time four
/// minutes.
const AT_ONCE: usize = 8;
const PER_SECOND: f64 = 4.0;
const BURST: f64 = 64.0;

/// For how long the counter of a node is kept that nobody asks for.
const KEPT_FOR: SignedDuration = SignedDuration::from_hours(1);

/// What is known of pods.
pub struct Usage {
    pods: Mutex<HashMap<String, Known>>,
    /// What was told of nodes, by their names.
    nodes: Mutex<HashMap<String, Counter>>,
    pace: Pace,
}

/// What is known of a pod.
struct Known {
    asked: Instant,
    is_being_read: bool,
    /// When there was something new.
    heard: Instant,
    containers: BTreeMap<String, Counter>,
}

impl Default for Usage {
    fn default() -> Self {
        Self {
            pods: Mutex::default(),
            nodes: Mutex::default(),
            pace: Pace::new(PER_SECOND, BURST),
        }
    }
}

impl Usage {
    /// Of each container of a pod that runs, what it uses; nothing unless that is known of all of them: an
    /// autoscaler would take the sum of some for the sum of all.
    pub fn of(&self, pod: &Hosted) -> Option<Vec<(String, Counter)>> {
        let pods = self.lock();
        let known = pods.get(&pod.uid)?;
        if known.heard.elapsed() > GOOD_FOR {
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

    /// What all pods of a node use that are known; nothing if none of those that run is.
    pub fn total(&self, node: &Context) -> Option<Counter> {
        let running: Vec<_> = node
            .all_hosted()
            .into_iter()
            .filter(|pod| runs(pod))
            .collect();
        let known: Vec<_> = running.iter().filter_map(|pod| self.of(pod)).collect();
        if known.is_empty() && !running.is_empty() {
            return None;
        }
        let known: Vec<Counter> = known
            .into_iter()
            .flatten()
            .map(|(_, counter)| counter)
            .collect();
        let now = Timestamp::now();
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|_, told| now.duration_since(told.at) < KEPT_FOR);
        let name = &node.owner.node;
        let counter = Counter::passed(nodes.get(name).copied(), &known, now);
        nodes.insert(name.clone(), counter);
        Some(counter)
    }

    /// Reads what may be new of the nodes' pods, and waits a moment for it.
    pub async fn refresh(self: &Arc<Self>, nodes: &[Arc<Context>], tasks: &Tasks) {
        let due = self.due(nodes);
        if due.is_empty() {
            return;
        }
        let (done, news) = oneshot::channel::<()>();
        let usage = self.clone();
        tasks.spawn(async move {
            let due = futures::stream::iter(due);
            due.for_each_concurrent(AT_ONCE, |(node, pod)| usage.read(node, pod))
                .await;
            drop(done);
        });
        // What is not there by then is there for the next.
        let _ = tokio::time::timeout(PATIENCE, news).await;
    }

    /// The pods to read now; those that are gone are forgotten.
    fn due(&self, nodes: &[Arc<Context>]) -> Vec<(Arc<Context>, Arc<Hosted>)> {
        let all = nodes.iter().flat_map(|node| {
            let pods = node.all_hosted().into_iter();
            pods.map(|pod| (node.clone(), pod))
        });
        let running: Vec<_> = all.filter(|(_, pod)| runs(pod)).collect();
        let mut pods = self.lock();
        let now = Instant::now();
        pods.retain(|_, known| known.is_being_read || known.asked.elapsed() < GOOD_FOR);
        let mut due = Vec::new();
        for (node, pod) in running {
            if let Some(known) = pods.get_mut(&pod.uid) {
                if known.is_being_read || known.asked.elapsed() < AGAIN {
                    continue;
                }
                (known.is_being_read, known.asked) = (true, now);
            } else {
                let known = Known {
                    asked: now,
                    is_being_read: true,
                    heard: now,
                    containers: BTreeMap::new(),
                };
                pods.insert(pod.uid.clone(), known);
            }
            due.push((node, pod));
        }
        due
    }

    async fn read(&self, node: Arc<Context>, pod: Arc<Hosted>) {
        self.pace.turn().await;
        node.pace.turn().await;
        let until = Timestamp::now();
        let since = self.since(&pod, until);
        let read = if until.duration_since(since) < MINUTE {
            Ok(Minutes::new())
        } else {
            let (group, span) = (pod.group.as_str(), (since, until));
            node.azure.usage(&node.scope, group, span).await
        };
        let minutes = read.unwrap_or_else(|error| {
            tracing::debug!(
                pod = pod.name,
                error = error.story(),
                "reading what a pod uses"
            );
            Minutes::new()
        });
        self.learn(&pod, &minutes);
    }

    fn learn(&self, pod: &Hosted, minutes: &Minutes) {
        let mut pods = self.lock();
        let Some(known) = pods.get_mut(&pod.uid) else {
            return;
        };
        known.is_being_read = false;
        for container in &pod.containers {
            let (Some(started), Some(minutes)) =
                (container.running_since, minutes.get(&container.name))
            else {
                continue;
            };
            let before = known.containers.get(&container.name).copied();
            if let Some(counter) = Counter::grown(before, started, minutes)
                && before != Some(counter)
            {
                known.containers.insert(container.name.clone(), counter);
                known.heard = Instant::now();
            }
        }
    }

    /// From when on there may be something new.
    fn since(&self, pod: &Hosted, now: Timestamp) -> Timestamp {
        let first = now.saturating_sub(FIRST_LOOK).unwrap_or(now);
        let pods = self.lock();
        let known = pods.get(&pod.uid).map(|known| &known.containers);
        let known = known.filter(|known| known.len() == pod.containers.len());
        let oldest = known.and_then(|known| known.values().map(|counter| counter.at).min());
        oldest.map_or(first, |at| at.clamp(first, now))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn runs(pod: &Hosted) -> bool {
    let mut containers = pod.containers.iter();
    containers.any(|container| container.running_since.is_some())
}
