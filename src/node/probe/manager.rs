//! Runs the probes of all pods of a node.
//!
//! In: pods, from their workers. Out: to each pod worker, a [`ProbeReport`] that changes and Events. One task waits
//! for the next probe that is due and starts it as a task of its own. A probe that is due while too many run waits,
//! in the order of the due times.
//!
//! Pods that do not answer must not delay the probes of those that do. At most [`MAX_STARTING_PROBES`] probes are in
//! their first second at once; one that takes longer leaves its place to the next, and at most
//! [`MAX_RUNNING_PROBES`] run in all, [`MAX_PROBES_PER_POD`] of them of one pod. A probe ends with what it asks about:
//! when the pod is removed, gets another address, or its container ends.
//!
//! A leader that takes over finds all its pods running. Their first probes are spread over one period by a hash of
//! the pod's UID and the container's name, as a kubelet that has just started delays its probes by a random part of
//! the period. A container that starts later is probed at once.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use jiff::Timestamp;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::container::{ContainerProbes, ProbeRequest};
use super::event::{ProbeEvent, ProbeEventBudget, ProbeEventSeries};
use super::outcome::{ProbeAnswer, ProbeContact, ProbeOutcome, ProbeUnreachable};
use super::pod::{PodProbes, ProbedPod, ProbedPodState};
use super::prober::Prober;
use super::queue::ProbeQueue;
use super::reachability::{ProbePath, ProbePathTracker};
use super::verdict::ProbeReport;
use crate::k8s::time::later;

/// How many probes may be in their first second at once. A pod that answers does so within that second.
pub const MAX_STARTING_PROBES: usize = 256;
/// How long a probe counts as starting.
const STARTING: Duration = Duration::from_secs(1);
/// How many probes may run at once: a probe may have a timeout of hours.
pub const MAX_RUNNING_PROBES: usize = 4096;
/// How many probes of one pod may run at once; a container group has up to 60 containers.
pub const MAX_PROBES_PER_POD: usize = 8;
/// How long a connection may take that only finds out whether the path works.
const CONTACT_TIMEOUT: Duration = Duration::from_secs(5);
/// A probe that is later than this is logged: the node is overloaded.
const LATE: Duration = Duration::from_secs(1);
/// How many Events of a pod wait to be taken; the oldest are dropped first.
const MAX_EVENTS: usize = 64;
/// How many pods that answered are remembered: the last, and one other for the probes of the last.
const MAX_WITNESSES: usize = 2;

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
    last_call: u64,
    /// When the next probe of each container is due.
    queue: ProbeQueue<Key>,
    /// When the verdict of a container no longer holds.
    holds: ProbeQueue<Key>,
    path: ProbePathTracker,
    /// The pods that answered last, latest first, and the addresses at which they did.
    witnesses: VecDeque<(u64, SocketAddr)>,
}

/// The pod, and the place of the container in it.
type Key = (u64, usize);

#[derive(Debug)]
struct Pod {
    address: Option<IpAddr>,
    beacon: Option<u16>,
    containers: Vec<Container>,
    events: VecDeque<(String, ProbeEvent)>,
    budget: ProbeEventBudget,
    report: watch::Sender<ProbeReport>,
}

#[derive(Debug)]
struct Container {
    name: String,
    probes: ContainerProbes,
    series: ProbeEventSeries,
    running: Option<RunningProbe>,
}

/// A probe that runs.
#[derive(Debug)]
struct RunningProbe {
    /// The number of the call.
    number: u64,
    /// Ends the task, once there is one.
    task: Option<AbortHandle>,
}

/// A probe to send.
#[derive(Clone, Debug)]
pub(super) struct ProbeCall {
    key: Key,
    number: u64,
    /// The pod's address.
    pub address: IpAddr,
    /// A port of the pod that proves the path.
    pub beacon: Option<u16>,
    /// The address of another pod of the placement, which answered a probe before.
    pub witness: Option<SocketAddr>,
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
            let jitter = jitter(&pod.uid, &name);
            Container {
                name,
                probes: ContainerProbes::new(specs, seed, jitter),
                series: ProbeEventSeries::default(),
                running: None,
            }
        });
        let pod = Pod {
            address: None,
            beacon: pod.beacon,
            containers: containers.collect(),
            events: VecDeque::new(),
            budget: ProbeEventBudget::default(),
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

    /// The state of the path from the node to its pods; `None` before a pod has answered or has failed to answer.
    pub fn path(&self) -> Option<ProbePath> {
        self.state.parts.lock().path.path(self.state.now())
    }

    /// How long the probe has been due that waits longest: the node is overloaded if it grows.
    pub fn lateness(&self) -> Duration {
        let now = self.state.now();
        let due = self.state.parts.lock().queue.next();
        let late = due.map(|due| now.duration_since(due));
        late.and_then(|late| Duration::try_from(late).ok())
            .unwrap_or_default()
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
        let starting = Arc::new(Semaphore::new(MAX_STARTING_PROBES));
        // Dropping the set ends the probes.
        let mut running = JoinSet::new();
        loop {
            state.end_holds();
            while running.len() < MAX_RUNNING_PROBES {
                let Ok(permit) = starting.clone().try_acquire_owned() else {
                    break;
                };
                let Some(call) = state.start() else { break };
                if call.late > LATE {
                    tracing::debug!(late = ?call.late, "the node's probes are late");
                }
                let answer = answered(send(call.clone()));
                let sent = with_place(answer, permit, state.clone());
                let (key, number) = (call.key, call.number);
                let task = running.spawn(async move { (call, sent.await) });
                state.set_task(key, number, task);
            }
            let has_place = running.len() < MAX_RUNNING_PROBES && starting.available_permits() > 0;
            let next = state.next(has_place);
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(ended) = running.join_next() => {
                    // A probe that was aborted has no answer.
                    if let Ok((call, answer)) = ended {
                        state.record(&call, answer);
                    }
                }
                () = due => {}
                () = state.changed.notified() => {}
            }
        }
    }
}

/// The answer of a probe, also if the prober panics.
async fn answered(sent: impl Future<Output = ProbeAnswer>) -> ProbeAnswer {
    let panicked = |_| {
        let why = "the probe panicked".to_owned();
        ProbeAnswer::without_contact(ProbeOutcome::Errored(why))
    };
    let answer = AssertUnwindSafe(sent).catch_unwind().await;
    answer.unwrap_or_else(panicked)
}

/// Waits for an answer, and gives the place of the probe away after its first second.
async fn with_place(
    answer: impl Future<Output = ProbeAnswer>,
    permit: OwnedSemaphorePermit,
    state: Arc<ProbeManagerState>,
) -> ProbeAnswer {
    tokio::pin!(answer);
    if let Ok(answer) = tokio::time::timeout(STARTING, &mut answer).await {
        return answer;
    }
    drop(permit);
    state.changed.notify_one();
    answer.await
}

/// Sends a probe. If the pod does not answer it, connects to the beacon and to another pod, to find out whether the
/// path is at fault.
async fn sent(prober: &Prober, call: &ProbeCall) -> ProbeAnswer {
    let spec = &call.request.spec;
    let mut answer = prober.probe(call.address, spec).await;
    let is_unreachable = matches!(
        answer.outcome,
        ProbeOutcome::Unreachable(ProbeUnreachable::Timeout(_) | ProbeUnreachable::NoRoute(_))
    );
    if is_unreachable {
        let beacon = call.beacon.map(|port| SocketAddr::new(call.address, port));
        let timeout = spec.timeout.min(CONTACT_TIMEOUT);
        let proof = async |address: Option<SocketAddr>| {
            let address = address?;
            let is_answered = prober.is_answered(address, timeout).await;
            is_answered.then(|| address.port())
        };
        let (of_pod, of_other) = tokio::join!(proof(beacon), proof(call.witness));
        answer.witness = of_other.or(of_pod);
    }
    answer
}

/// A part of the period, the same for the same container: it spreads the probes of a node.
fn jitter(uid: &str, container: &str) -> f64 {
    let digest = Sha256::digest(format!("{uid}/{container}"));
    let part = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    f64::from(part) / (f64::from(u32::MAX) + 1.0)
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
        let is_moved = pod.address.is_some() && pod.address != state.address;
        pod.address = state.address;
        for (name, seen) in &state.containers {
            let mut all = pod.containers.iter_mut();
            if let Some(container) = all.find(|container| container.name == *name) {
                container.probes.observe(seen.clone(), now);
            }
        }
        for container in &mut pod.containers {
            if state.is_deleting {
                container.probes.delete(now);
            }
            if is_moved {
                container.probes.abandon();
            }
            if !container.probes.is_in_flight() {
                container.end_probe();
            }
        }
        pod.publish();
        if is_moved {
            parts.forget_witness(id);
        }
        parts.schedule(id);
        drop(parts);
        self.changed.notify_one();
    }

    pub(super) fn remove(&self, id: u64) {
        let mut parts = self.parts.lock();
        if let Some(pod) = parts.pods.remove(&id) {
            for (place, mut container) in pod.containers.into_iter().enumerate() {
                parts.queue.set((id, place), None);
                parts.holds.set((id, place), None);
                container.end_probe();
            }
            parts.forget_witness(id);
            if parts.pods.is_empty() {
                // Nothing is left to say whether the path works again.
                parts.path = ProbePathTracker::default();
            }
        }
    }

    pub(super) fn take_events(&self, id: u64) -> Vec<(String, ProbeEvent)> {
        let mut parts = self.parts.lock();
        let pod = parts.pods.get_mut(&id);
        pod.map(|pod| pod.events.drain(..).collect())
            .unwrap_or_default()
    }

    /// When there is something to do next: a verdict no longer holds, or, if there is a place for it, a probe is due.
    fn next(&self, has_place: bool) -> Option<Instant> {
        let mut parts = self.parts.lock();
        let probe = parts.queue.next().filter(|_| has_place);
        let at = [probe, parts.holds.next()].into_iter().flatten().min()?;
        Some(self.instant(at))
    }

    /// Ends the verdicts that have been held for too long.
    fn end_holds(&self) {
        let now = self.now();
        let mut parts = self.parts.lock();
        while let Some((_, (id, place))) = parts.holds.pop(now) {
            let Some(pod) = parts.pods.get_mut(&id) else {
                continue;
            };
            if let Some(container) = pod.containers.get_mut(place) {
                container.probes.advance(now);
            }
            pod.publish();
            parts.schedule(id);
        }
    }

    /// The next probe to send now.
    fn start(&self) -> Option<ProbeCall> {
        let now = self.now();
        let mut parts = self.parts.lock();
        let parts = &mut *parts;
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
            let request = address.and_then(|_| container.probes.start(now));
            let (Some(address), Some(request)) = (address, request) else {
                parts.schedule(id);
                continue;
            };
            parts.last_call += 1;
            let number = parts.last_call;
            container.running = Some(RunningProbe { number, task: None });
            parts.schedule(id);
            let others = parts.witnesses.iter().filter(|(other, _)| *other != id);
            let late = now.duration_since(due);
            return Some(ProbeCall {
                key,
                number,
                address,
                beacon,
                witness: others.map(|(_, address)| *address).next(),
                request,
                late: Duration::try_from(late).unwrap_or_default(),
            });
        }
    }

    /// Remembers the task of a call, so that it can be aborted. It ends at once if its answer no longer matters.
    fn set_task(&self, (id, place): Key, number: u64, task: AbortHandle) {
        let mut parts = self.parts.lock();
        let pod = parts.pods.get_mut(&id);
        let container = pod.and_then(|pod| pod.containers.get_mut(place));
        let running = container.and_then(|container| container.running.as_mut());
        match running.filter(|running| running.number == number) {
            Some(running) => running.task = Some(task),
            None => task.abort(),
        }
    }

    fn record(&self, call: &ProbeCall, answer: ProbeAnswer) {
        let now = self.now();
        let mut parts = self.parts.lock();
        let parts = &mut *parts;
        let sent = call.request.sent;
        let port = call.request.spec.handler.port();
        let (id, place) = call.key;
        let pod = parts.pods.get_mut(&id);
        let Some(pod) = pod.filter(|pod| pod.address == Some(call.address)) else {
            return;
        };
        match (answer.contact, answer.witness, &answer.outcome) {
            (ProbeContact::Pod, ..) => {
                parts.path.answered(port, now);
                parts.witnesses.retain(|(witness, _)| *witness != id);
                let address = SocketAddr::new(call.address, port);
                parts.witnesses.push_front((id, address));
                parts.witnesses.truncate(MAX_WITNESSES);
            }
            (_, Some(port), _) => parts.path.answered(port, now),
            (_, None, ProbeOutcome::Unreachable(ProbeUnreachable::Local(_))) => {}
            (_, None, ProbeOutcome::Unreachable(_)) => parts.path.unanswered(sent),
            _ => {}
        }
        let path = parts.path.judge(port, sent);
        if let Some(container) = pod.containers.get_mut(place)
            && container.running.as_ref().map(|running| running.number) == Some(call.number)
        {
            container.running = None;
            let event = container.probes.record(&call.request, answer, path, now);
            let event = event.map(|event| container.series.count(event));
            let name = container.name.clone();
            let written = event.filter(|event| pod.budget.take(event.last));
            pod.notify(written.map(|event| (name, event)));
        }
        parts.schedule(id);
    }
}

impl Parts {
    /// Sets when the containers of a pod are due. Without an address they are not, and not while enough probes of the
    /// pod run.
    fn schedule(&mut self, id: u64) {
        let Some(pod) = self.pods.get(&id) else {
            return;
        };
        let all = pod.containers.iter();
        let running = all.filter(|container| container.running.is_some()).count();
        let may_probe = pod.address.is_some() && running < MAX_PROBES_PER_POD;
        for (place, container) in pod.containers.iter().enumerate() {
            let due = container.probes.probe_due().filter(|_| may_probe);
            self.queue.set((id, place), due);
            self.holds.set((id, place), container.probes.hold_ends());
        }
    }

    fn forget_witness(&mut self, id: u64) {
        self.witnesses.retain(|(witness, _)| *witness != id);
    }
}

impl Container {
    /// Ends the probe that runs.
    fn end_probe(&mut self) {
        let task = self.running.take().and_then(|running| running.task);
        if let Some(task) = task {
            task.abort();
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
            if self.events.len() == MAX_EVENTS {
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
