//! The pods that a node probes, and which probe is due next.
//!
//! In: changes of pods from their workers, and the answers of probes. Out: the next probe to send, and a report to each
//! pod worker. Nothing here waits; one lock guards all pods of the node.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::ProbeCall;
use crate::k8s::time::later;
use crate::node::probe::container::ContainerProbes;
use crate::node::probe::event::{ProbeEvent, ProbeEventBudget, ProbeEventSeries};
use crate::node::probe::outcome::{ProbeAnswer, ProbeContact, ProbeOutcome, ProbeUnreachable};
use crate::node::probe::pod::{ProbedPod, ProbedPodState};
use crate::node::probe::queue::ProbeQueue;
use crate::node::probe::reachability::{ProbePath, ProbePathTracker};
use crate::node::probe::verdict::ProbeReport;

/// How many probes of one pod may run at once; a container group has up to 60 containers.
pub const MAX_PROBES_PER_POD: usize = 8;
/// How many Events of a pod wait to be taken; the oldest are dropped first.
const MAX_EVENTS: usize = 64;
/// How many pods that answered are remembered: the last, and one other for the probes of the last.
const MAX_WITNESSES: usize = 2;

/// What pod workers and the task of the manager share.
#[derive(Debug)]
pub(in super::super) struct ProbeManagerState {
    /// Maps the runtime's clock to time stamps.
    began: Instant,
    origin: Timestamp,
    parts: Mutex<Parts>,
    /// Notified when a probe may be due earlier than before.
    pub(super) changed: Notify,
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
pub(super) type Key = (u64, usize);

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

impl ProbeManagerState {
    /// No pods. `now` is the API server's time.
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            began: Instant::now(),
            origin: now,
            parts: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Adds a pod. Returns its number, and the channel of its reports.
    pub(super) fn add(&self, pod: ProbedPod) -> (u64, watch::Receiver<ProbeReport>) {
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
        let mut parts = self.parts.lock();
        parts.last_id += 1;
        let id = parts.last_id;
        parts.pods.insert(id, pod);
        (id, receiver)
    }

    /// How many containers have a probe that is due at some time.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.parts.lock().queue.len()
    }

    /// The state of the path from the node to its pods.
    pub(super) fn path(&self) -> Option<ProbePath> {
        self.parts.lock().path.path(self.now())
    }

    fn now(&self) -> Timestamp {
        later(self.origin, self.began.elapsed())
    }

    fn instant(&self, at: Timestamp) -> Instant {
        let after = at.duration_since(self.origin);
        self.began + Duration::try_from(after).unwrap_or_default()
    }

    pub(in super::super) fn update(&self, id: u64, state: &ProbedPodState) {
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

    pub(in super::super) fn remove(&self, id: u64) {
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

    pub(in super::super) fn take_events(&self, id: u64) -> Vec<(String, ProbeEvent)> {
        let mut parts = self.parts.lock();
        let pod = parts.pods.get_mut(&id);
        pod.map(|pod| pod.events.drain(..).collect())
            .unwrap_or_default()
    }

    /// When the next probe is due.
    pub(super) fn next_probe(&self) -> Option<Instant> {
        let due = self.parts.lock().queue.next()?;
        Some(self.instant(due))
    }

    /// When the next verdict no longer holds.
    pub(super) fn next_hold_end(&self) -> Option<Instant> {
        let end = self.parts.lock().holds.next()?;
        Some(self.instant(end))
    }

    /// Ends the verdicts that have been held for too long.
    pub(super) fn end_holds(&self) {
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
    pub(super) fn start(&self) -> Option<ProbeCall> {
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
    pub(super) fn set_task(&self, (id, place): Key, number: u64, task: AbortHandle) {
        let mut parts = self.parts.lock();
        let pod = parts.pods.get_mut(&id);
        let container = pod.and_then(|pod| pod.containers.get_mut(place));
        let running = container.and_then(|container| container.running.as_mut());
        match running.filter(|running| running.number == number) {
            Some(running) => running.task = Some(task),
            None => task.abort(),
        }
    }

    pub(super) fn record(&self, call: &ProbeCall, answer: ProbeAnswer) {
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

/// A part of the period, the same for the same container: it spreads the probes of a node.
fn jitter(uid: &str, container: &str) -> f64 {
    let digest = Sha256::digest(format!("{uid}/{container}"));
    let part = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    f64::from(part) / (f64::from(u32::MAX) + 1.0)
}
