//! What containers use, as far as Azure has told.
//!
//! In: the pods of nodes, whenever somebody asks for numbers. Out: a [`Counter`] for each container that is
//! measured: in a subnet by the group's realtime-metrics extension, where that answers, else by Azure
//! Monitor. Nothing is read while nobody asks. Who asks waits a moment for what is read because of it; what
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
use crate::aci::realtime::{self, Readings};
use crate::node::pods::{Context, Hosted, HostedContainer};
pub use counter::Counter;

/// How often a pod's numbers are read at most: there are new ones each minute.
const AGAIN: Duration = Duration::from_secs(20);
/// The same of numbers that are new whenever they are read.
const REALTIME_AGAIN: Duration = Duration::from_secs(5);
/// For how long a group is not asked that did not answer: at first it may be starting; in the end there is
/// no way to its network.
const DEAF_FOR: Duration = Duration::from_secs(15);
const DEAF_AT_MOST: Duration = Duration::from_hours(1);
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

/// Of each container of a pod that runs, by its name, what it uses; nothing where not all is known.
pub type Used = Option<Vec<(String, Counter)>>;

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
    /// The last look at what its runs have used, while its group answers.
    readings: Readings,
    /// Until when its group is not asked, and how long that was.
    deaf: Option<(Instant, Duration)>,
}

impl Known {
    /// How soon there may be something new.
    fn again(&self) -> Duration {
        if self.readings.is_empty() {
            AGAIN
        } else {
            REALTIME_AGAIN
        }
    }

    fn is_deaf(&self) -> bool {
        self.deaf.is_some_and(|(until, _)| Instant::now() < until)
    }

    /// Its group was asked in vain.
    fn unheard(&mut self) {
        let pause = self.deaf.map_or(DEAF_FOR, |(_, pause)| pause * 2);
        let pause = pause.min(DEAF_AT_MOST);
        self.deaf = Some((Instant::now() + pause, pause));
    }

    fn learn(&mut self, container: &str, counter: Counter) {
        let before = self.containers.insert(container.to_owned(), counter);
        if before != Some(counter) {
            self.heard = Instant::now();
        }
    }
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
    pub fn of(&self, pod: &Hosted) -> Used {
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

    /// What each of a node's pods uses.
    pub fn of_node(&self, node: &Context) -> Vec<(Used, Arc<Hosted>)> {
        let hosted = node.all_hosted().into_iter();
        hosted.map(|pod| (self.of(&pod), pod)).collect()
    }

    /// What all pods of these nodes use, and what the nodes do together: the sums of what is told of the
    /// pods.
    pub fn all(&self, nodes: &[Arc<Context>]) -> (Vec<(Used, Arc<Hosted>)>, Option<Counter>) {
        let (mut all, mut total) = (Vec::new(), None::<Counter>);
        for node in nodes {
            let pods = self.of_node(node);
            if let Some(counter) = self.total(&node.owner.node, &pods) {
                total = Some(total.map_or(counter, |total| total.and(counter)));
            }
            all.extend(pods);
        }
        (all, total)
    }

    /// What all pods of a node use that are known; nothing if none of those that run is.
    fn total(&self, name: &str, pods: &[(Used, Arc<Hosted>)]) -> Option<Counter> {
        let is_known = pods.iter().any(|(used, _)| used.is_some());
        if !is_known && pods.iter().any(|(_, pod)| runs(pod)) {
            return None;
        }
        let used = pods.iter().filter_map(|(used, _)| used.as_ref());
        let known: Vec<Counter> = used.flatten().map(|(_, counter)| *counter).collect();
        let now = Timestamp::now();
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|_, told| now.duration_since(told.at) < KEPT_FOR);
        let counter = Counter::passed(nodes.get(name).copied(), &known, now);
        nodes.insert(name.to_owned(), counter);
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
                if known.is_being_read || known.asked.elapsed() < known.again() {
                    continue;
                }
                (known.is_being_read, known.asked) = (true, now);
            } else {
                let known = Known {
                    asked: now,
                    is_being_read: true,
                    heard: now,
                    containers: BTreeMap::new(),
                    readings: Readings::new(),
                    deaf: None,
                };
                pods.insert(pod.uid.clone(), known);
            }
            due.push((node, pod));
        }
        due
    }

    async fn read(&self, node: Arc<Context>, pod: Arc<Hosted>) {
        let news = match self.realtime(&node, &pod).await {
            Some(readings) => News::Readings(readings),
            None => News::Minutes(self.minutes(&node, &pod).await),
        };
        self.learn(&pod, &news);
    }

    /// What the group's extension says; nothing where there is none, or where it does not answer.
    async fn realtime(&self, node: &Context, pod: &Hosted) -> Option<Readings> {
        let is_in_subnet = node.settings().placement.subnet_id.is_some();
        let address = pod.address.filter(|_| is_in_subnet)?;
        if self.lock().get(&pod.uid)?.is_deaf() {
            return None;
        }
        let mut running = pod.containers.iter().filter(|c| c.running_since.is_some());
        let read = realtime::read(address).await.and_then(|mut readings| {
            readings.retain(|name, _| pod.container(name).is_some());
            let is_told = |container: &HostedContainer| readings.contains_key(&container.name);
            let is_told = running.all(is_told);
            is_told.then_some(readings).ok_or(realtime::Error::Silent)
        });
        if let Err(error) = &read {
            tracing::debug!(pod = pod.name, ?error, "asking a group what it uses");
            self.lock().get_mut(&pod.uid)?.unheard();
        }
        read.ok()
    }

    /// What Azure Monitor says.
    async fn minutes(&self, node: &Context, pod: &Hosted) -> Minutes {
        self.pace.turn().await;
        node.pace.turn().await;
        let until = Timestamp::now();
        let since = self.since(pod, until);
        if until.duration_since(since) < MINUTE {
            return Minutes::new();
        }
        let (group, span) = (pod.group.as_str(), (since, until));
        let read = node.azure.usage(&node.scope, group, span).await;
        read.unwrap_or_else(|error| {
            let (pod, error) = (&pod.name, error.story());
            tracing::debug!(pod, error, "reading what a pod uses");
            Minutes::new()
        })
    }

    fn learn(&self, pod: &Hosted, news: &News) {
        let mut pods = self.lock();
        let Some(known) = pods.get_mut(&pod.uid) else {
            return;
        };
        known.is_being_read = false;
        let last = std::mem::take(&mut known.readings);
        if let News::Readings(readings) = news {
            known.readings.clone_from(readings);
            known.deaf = None;
        }
        for container in &pod.containers {
            let (name, Some(started)) = (&container.name, container.running_since) else {
                continue;
            };
            let before = known.containers.get(name).copied();
            let counter = match news {
                News::Readings(now) => now
                    .get(name)
                    .and_then(|now| Counter::seen(before, last.get(name).copied(), started, *now)),
                News::Minutes(minutes) => minutes
                    .get(name)
                    .and_then(|minutes| Counter::grown(before, started, minutes)),
            };
            if let Some(counter) = counter {
                known.learn(name, counter);
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

/// What was read.
enum News {
    Readings(Readings),
    Minutes(Minutes),
}

fn runs(pod: &Hosted) -> bool {
    let mut containers = pod.containers.iter();
    containers.any(|container| container.running_since.is_some())
}
