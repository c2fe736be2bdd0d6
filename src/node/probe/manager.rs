//! Runs the probes of all pods of a node.
//!
//! In: pods, from their workers. Out: to each pod worker, a [`ProbeReport`] that changes and Events. One task waits
//! for the next probe that is due and starts it as a task of its own, at most [`MOST_PROBES_AT_ONCE`] at once. A pod
//! whose probe is due while as many run waits, in the order of the due times.
//!
//! A leader that takes over finds all its pods running. Their first probes are spread over one period by a hash of
//! the pod's UID and the container's name, as a kubelet that has just started delays its probes by a random part of
//! the period. A container that starts later is probed at once.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use jiff::Timestamp;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::container::{ContainerProbes, ProbeRequest};
use super::event::{ProbeEvent, ProbeEventSeries};
use super::outcome::{ProbeAnswer, ProbeContact, ProbeOutcome};
use super::path::{ProbePath, ProbePathTracker};
use super::pod::{PodProbes, ProbedPod, ProbedPodState};
use super::probed::ProbeSpecs;
use super::prober::Prober;
use super::queue::ProbeQueue;
use super::verdict::ProbeReport;
use crate::k8s::time::later;

/// How many probes run at once. With timeouts of one second, 256 pods that do not answer delay the others by one
/// second.
pub const MOST_PROBES_AT_ONCE: usize = 256;
/// A probe that is later than this is logged: the node is overloaded, or very many pods do not answer.
const LATE: Duration = Duration::from_secs(1);
/// How many Events of a pod wait to be taken; the oldest are dropped first.
const MOST_EVENTS: usize = 64;

/// The probes of one node.
#[derive(Clone, Debug)]
pub struct ProbeManager {
    state: Arc<ProbeManagerState>,
}

/// What pod workers and the task of the manager share.
#[derive(Debug)]
pub(super) struct ProbeManagerState {
    /// Maps the runtime's clock to time stamps.
    began: Instant,
    origin: Timestamp,
    parts: Mutex<Parts>,
    /// Notified when a probe may be due earlier than before.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Parts {
    pods: HashMap<u64, Pod>,
    last_id: u64,
    queue: ProbeQueue<Key>,
    path: ProbePathTracker,
}

/// The pod, and the place of the container in it.
type Key = (u64, usize);

#[derive(Debug)]
struct Pod {
    address: Option<IpAddr>,
    beacon: Option<u16>,
    containers: Vec<Container>,
    events: VecDeque<(String, ProbeEvent)>,
    report: watch::Sender<ProbeReport>,
}

#[derive(Debug)]
struct Container {
    name: String,
    probes: ContainerProbes,
    series: ProbeEventSeries,
}

/// A probe to send.
#[derive(Clone, Debug)]
pub(super) struct ProbeCall {
    key: Key,
    /// The pod's address.
    pub address: IpAddr,
    /// A port that proves the path.
    pub beacon: Option<u16>,
    /// The probe.
    pub request: ProbeRequest,
    /// How late the probe is.
    pub late: Duration,
}

impl ProbeManager {
    /// A manager without pods. `now` is the API server's time.
    pub fn new(now: Timestamp) -> Self {
        let state = ProbeManagerState {
            began: Instant::now(),
            origin: now,
            parts: Mutex::default(),
            changed: Notify::new(),
        };
        Self {
            state: Arc::new(state),
        }
    }

    /// Adds a pod. Nothing is probed before the first [`PodProbes::update`].
    pub fn add(&self, pod: ProbedPod) -> PodProbes {
        let (report, receiver) = watch::channel(ProbeReport::new());
        let containers = pod.containers.into_iter().map(|(name, specs, seed)| {
            let jitter = jitter(&pod.uid, &name, &specs);
            Container {
                name,
                probes: ContainerProbes::new(specs, seed, jitter),
                series: ProbeEventSeries::default(),
            }
        });
        let pod = Pod {
            address: None,
            beacon: pod.beacon,
            containers: containers.collect(),
            events: VecDeque::new(),
            report,
        };
        let mut parts = self.state.parts.lock();
        parts.last_id += 1;
        let id = parts.last_id;
        parts.pods.insert(id, pod);
        PodProbes {
            id,
            manager: self.state.clone(),
            report: receiver,
        }
    }

    /// The state of the path from the node to its pods.
    pub fn path(&self) -> ProbePath {
        self.state.parts.lock().path.path(self.state.now())
    }

    /// Records that a pod of the node answered a connection that is not a probe: the path is proven.
    pub fn pod_answered(&self) {
        let now = self.state.now();
        self.state.parts.lock().path.answered(now);
    }

    /// Runs probes until `cancel`.
    pub async fn run(&self, prober: Prober, cancel: CancellationToken) {
        let send = move |call: ProbeCall| {
            let prober = prober.clone();
            async move { sent(&prober, &call).await }
        };
        cancel.run_until_cancelled(self.drive(send)).await;
    }

    /// Runs probes with `send`.
    pub(super) async fn drive<F>(&self, send: impl Fn(ProbeCall) -> F)
    where
        F: Future<Output = ProbeAnswer> + Send + 'static,
    {
        let state = &self.state;
        // Dropping the set ends the probes.
        let mut running = JoinSet::new();
        loop {
            while running.len() < MOST_PROBES_AT_ONCE {
                let Some(call) = state.start() else { break };
                if call.late > LATE {
                    tracing::debug!(late = ?call.late, "the node's probes are late");
                }
                let sent = AssertUnwindSafe(send(call.clone())).catch_unwind();
                running.spawn(async move {
                    let panicked = "the probe panicked".to_owned();
                    let panicked = ProbeAnswer::without_contact(ProbeOutcome::Errored(panicked));
                    (call, sent.await.unwrap_or(panicked))
                });
            }
            let next = state.next().filter(|_| running.len() < MOST_PROBES_AT_ONCE);
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(Ok((call, answer))) = running.join_next() => state.record(&call, answer),
                () = due => {}
                () = state.changed.notified() => {}
            }
        }
    }
}

/// Sends a probe. If the pod does not answer it, connects to the beacon to find out whether the path is at fault.
async fn sent(prober: &Prober, call: &ProbeCall) -> ProbeAnswer {
    let spec = &call.request.spec;
    let mut answer = prober.probe(call.address, spec).await;
    if let (ProbeOutcome::Unreachable(_), Some(port)) = (&answer.outcome, call.beacon) {
        answer.contact = prober.contact(call.address, port, spec.timeout).await;
    }
    answer
}

/// A part of the period, the same for the same container: it spreads the probes of a node.
fn jitter(uid: &str, container: &str, specs: &ProbeSpecs) -> Duration {
    let spec = specs.readiness.as_ref().or(specs.startup.as_ref());
    let period = spec.map_or(Duration::ZERO, |spec| spec.period);
    let digest = Sha256::digest(format!("{uid}/{container}"));
    let part = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    period.mul_f64(f64::from(part) / (f64::from(u32::MAX) + 1.0))
}

impl ProbeManagerState {
    fn now(&self) -> Timestamp {
        later(self.origin, self.began.elapsed())
    }

    fn instant(&self, at: Timestamp) -> Instant {
        let after = at.duration_since(self.origin);
        self.began + Duration::try_from(after).unwrap_or_default()
    }

    pub(super) fn update(&self, id: u64, state: &ProbedPodState) {
        let now = self.now();
        let mut parts = self.parts.lock();
        let Some(pod) = parts.pods.get_mut(&id) else {
            return;
        };
        pod.address = state.address;
        for (name, seen) in &state.containers {
            let mut all = pod.containers.iter_mut();
            let Some(container) = all.find(|container| container.name == *name) else {
                continue;
            };
            container.probes.observe(seen.clone(), now);
            if state.is_deleting {
                container.probes.delete(now);
            }
        }
        pod.publish();
        parts.schedule(id);
        drop(parts);
        self.changed.notify_one();
    }

    pub(super) fn remove(&self, id: u64) {
        let mut parts = self.parts.lock();
        if let Some(pod) = parts.pods.remove(&id) {
            for place in 0..pod.containers.len() {
                parts.queue.set((id, place), None);
            }
        }
    }

    pub(super) fn take_events(&self, id: u64) -> Vec<(String, ProbeEvent)> {
        let mut parts = self.parts.lock();
        let pod = parts.pods.get_mut(&id);
        pod.map(|pod| pod.events.drain(..).collect())
            .unwrap_or_default()
    }

    /// When the next probe is due.
    fn next(&self) -> Option<Instant> {
        let at = self.parts.lock().queue.next()?;
        Some(self.instant(at))
    }

    /// The next probe to send now.
    fn start(&self) -> Option<ProbeCall> {
        let now = self.now();
        let mut parts = self.parts.lock();
        loop {
            let (due, key) = parts.queue.pop(now)?;
            let (id, place) = key;
            let Some(pod) = parts.pods.get_mut(&id) else {
                continue;
            };
            let (address, beacon) = (pod.address, pod.beacon);
            let Some(container) = pod.containers.get_mut(place) else {
                continue;
            };
            container.probes.advance(now);
            let request = address.and_then(|_| container.probes.start(now));
            pod.publish();
            parts.schedule(id);
            if let (Some(address), Some(request)) = (address, request) {
                let late = now.duration_since(due);
                return Some(ProbeCall {
                    key,
                    address,
                    beacon,
                    request,
                    late: Duration::try_from(late).unwrap_or_default(),
                });
            }
        }
    }

    fn record(&self, call: &ProbeCall, answer: ProbeAnswer) {
        let now = self.now();
        let mut parts = self.parts.lock();
        let parts = &mut *parts;
        let sent = call.request.sent;
        if answer.contact == ProbeContact::Pod {
            parts.path.answered(now);
        } else if matches!(answer.outcome, ProbeOutcome::Unreachable(_)) {
            parts.path.unanswered(sent);
        }
        let path = parts.path.judge(sent);
        let (id, place) = call.key;
        let Some(pod) = parts.pods.get_mut(&id) else {
            return;
        };
        if let Some(container) = pod.containers.get_mut(place) {
            let event = container.probes.record(&call.request, answer, path, now);
            let written = event.and_then(|event| container.series.add(event));
            let name = container.name.clone();
            pod.notify(written.map(|event| (name, event)));
        }
        parts.schedule(id);
    }
}

impl Parts {
    /// Sets when the containers of a pod are due. Without an address, they are not.
    fn schedule(&mut self, id: u64) {
        let Some(pod) = self.pods.get(&id) else {
            return;
        };
        for (place, container) in pod.containers.iter().enumerate() {
            let due = container.probes.due().filter(|_| pod.address.is_some());
            self.queue.set((id, place), due);
        }
    }
}

impl Pod {
    fn verdicts(&self) -> ProbeReport {
        let verdicts = self.containers.iter();
        let verdicts =
            verdicts.map(|container| (container.name.clone(), container.probes.verdict()));
        verdicts.collect::<BTreeMap<_, _>>()
    }

    /// Reports the verdicts if they have changed.
    fn publish(&mut self) {
        self.notify(None);
    }

    /// Reports the verdicts if they have changed, or if there is an Event.
    fn notify(&mut self, event: Option<(String, ProbeEvent)>) {
        let is_event = event.is_some();
        if let Some(event) = event {
            if self.events.len() == MOST_EVENTS {
                self.events.pop_front();
            }
            self.events.push_back(event);
        }
        let verdicts = self.verdicts();
        self.report.send_if_modified(|report| {
            let is_change = is_event || *report != verdicts;
            *report = verdicts;
            is_change
        });
    }
}

#[cfg(test)]
mod real;
#[cfg(test)]
mod tests;
