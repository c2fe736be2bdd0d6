//! Which probes run when. Time is the runtime's and stands still unless every task waits; a stub answers the probes.

use std::sync::atomic::{AtomicUsize, Ordering};

use k8s_openapi::api::core::v1::Container as Spec;
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};

use super::super::pod::ProbedPodState;
use super::super::probed::{ProbeSeed, ProbeSpecs, ProbedContainer};
use super::super::prober::MAX_STARTING_PROBES;
use super::super::verdict::ProbeReport;
use super::*;

fn specs() -> ProbeSpecs {
    let spec = json!({"name": "web", "readinessProbe": {"tcpSocket": {"port": 80}}});
    let spec: Spec = serde_json::from_value(spec).expect("a container");
    ProbeSpecs::decoded(&spec).expect("it has probes")
}

fn pod(uid: &str, seed: Option<bool>) -> ProbedPod {
    let seed = seed.map(|ready| ProbeSeed {
        id: Some("1".to_owned()),
        started: true,
        ready,
    });
    ProbedPod {
        uid: uid.to_owned(),
        containers: vec![("web".to_owned(), specs(), seed)],
        beacon: None,
    }
}

fn running() -> ProbedPodState {
    let container = ProbedContainer::Running {
        id: Some("1".to_owned()),
        started_at: None,
    };
    ProbedPodState {
        address: Some([10, 0, 0, 4].into()),
        is_deleting: false,
        containers: vec![("web".to_owned(), container)],
    }
}

fn success() -> ProbeAnswer {
    ProbeAnswer::from_pod(ProbeOutcome::Success { warning: None })
}

fn manager() -> ProbeManager {
    ProbeManager::new(Timestamp::UNIX_EPOCH)
}

fn start_permits() -> Arc<Semaphore> {
    Prober::new("1.37").start_permits()
}

/// Runs the manager with probes that are answered at once, and returns each probe's number of milliseconds.
fn answered(
    manager: &ProbeManager,
    answer: impl Fn(usize) -> ProbeAnswer + Clone + Send + Sync + 'static,
) -> mpsc::UnboundedReceiver<i64> {
    let (sent, received) = mpsc::unbounded_channel();
    let (manager, count) = (manager.clone(), Arc::new(AtomicUsize::new(0)));
    tokio::spawn(async move {
        let send = |call: ProbeCall| {
            let _ = sent.send(call.request.sent.as_millisecond());
            let (answer, count) = (answer.clone(), count.clone());
            async move { answer(count.fetch_add(1, Ordering::SeqCst)) }
        };
        manager.drive(send, &start_permits()).await;
    });
    received
}

fn is_ready(report: &ProbeReport) -> bool {
    report["web"].ready
}

#[tokio::test(start_paused = true)]
async fn a_pod_worker_learns_each_change_and_takes_the_events() {
    let manager = manager();
    let failed = ProbeAnswer::from_pod(ProbeOutcome::Failure("no".to_owned()));
    let mut sent = answered(&manager, move |n| match n {
        0..2 => success(),
        _ => failed.clone(),
    });
    let mut probes = manager.add(pod("a", None));
    assert!(probes.report().is_empty());
    probes.update(&running());
    assert!(!is_ready(&probes.report()));
    probes.changed().await;
    assert!(is_ready(&probes.report()) && probes.take_events().is_empty());
    for count in 1..=3 {
        probes.changed().await;
        assert_eq!(is_ready(&probes.report()), count < 3);
        let events = probes.take_events();
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].0.as_str(), events[0].1.count), ("web", count));
        assert_eq!(events[0].1.message, "Readiness probe failed: no");
    }
    for wanted in [0, 10_000, 20_000, 30_000, 40_000] {
        assert_eq!(sent.recv().await, Some(wanted));
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_probed_only_while_it_has_an_address_and_a_handle() {
    let manager = manager();
    let mut sent = answered(&manager, |_| success());
    let mut probes = manager.add(pod("a", Some(true)));
    let mut state = running();
    state.address = None;
    probes.update(&state);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(sent.try_recv().is_err());
    assert!(is_ready(&probes.report()), "the verdict stays");
    probes.update(&running());
    assert!(sent.recv().await.is_some_and(|at| at >= 100_000));
    drop(probes);
    while sent.try_recv().is_ok() {}
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(sent.try_recv().is_err());
    assert_eq!(manager.state.queued(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_probes_of_pods_that_were_taken_over_are_spread_over_a_period_and_stay_so() {
    let manager = manager();
    let mut sent = answered(&manager, |_| success());
    let add = |n: usize| {
        let probes = manager.add(pod(&format!("uid-{n}"), Some(true)));
        probes.update(&running());
        probes
    };
    let kept: Vec<PodProbes> = (0..1000).map(add).collect();
    for period in 0..3 {
        let mut seconds = [0; 10];
        for _ in 0..1000 {
            let at = sent.recv().await.expect("a probe") - period * 10_000;
            seconds[usize::try_from(at / 1000).expect("in this period")] += 1;
        }
        assert!(
            seconds.iter().all(|count| (60..140).contains(count)),
            "{seconds:?}"
        );
    }
    drop(kept);
}

#[tokio::test(start_paused = true)]
async fn at_most_256_probes_of_all_nodes_start_at_once_and_the_others_follow() {
    let (nodes, start_permits) = ([manager(), manager()], start_permits());
    let (running_now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (gate, done) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    for node in &nodes {
        let (driven, permits) = (node.clone(), start_permits.clone());
        let (seen, peak) = (running_now.clone(), most.clone());
        let (opened, ended) = (gate.clone(), done.clone());
        tokio::spawn(async move {
            let send = |_| {
                let (seen, peak) = (seen.clone(), peak.clone());
                let (opened, ended) = (opened.clone(), ended.clone());
                async move {
                    peak.fetch_max(seen.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    opened.acquire().await.expect("it is open").forget();
                    seen.fetch_sub(1, Ordering::SeqCst);
                    ended.fetch_add(1, Ordering::SeqCst);
                    success()
                }
            };
            driven.drive(send, &permits).await;
        });
    }
    let mut kept: Vec<PodProbes> = (0..1000)
        .map(|n| {
            let probes = nodes[n % 2].add(pod(&n.to_string(), None));
            probes.update(&running());
            probes
        })
        .collect();
    // Long enough for every task to wait; time moves only then.
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(running_now.load(Ordering::SeqCst), MAX_STARTING_PROBES);
    gate.add_permits(1000);
    for probes in &mut kept {
        while !probes
            .report()
            .get("web")
            .is_some_and(|verdict| verdict.ready)
        {
            probes.changed().await;
        }
    }
    assert_eq!(most.load(Ordering::SeqCst), MAX_STARTING_PROBES);
    assert_eq!(done.load(Ordering::SeqCst), 1000);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_is_an_error_of_that_probe_only() {
    let manager = manager();
    let mut sent = answered(&manager, |n| {
        assert!(n != 0, "a defect of the prober");
        success()
    });
    let mut probes = manager.add(pod("a", None));
    probes.update(&running());
    while !probes
        .report()
        .get("web")
        .is_some_and(|verdict| verdict.ready)
    {
        probes.changed().await;
    }
    let events = probes.take_events();
    assert!(events[0].1.message.contains("errored"), "{events:?}");
    assert_eq!(sent.recv().await, Some(0));
    assert_eq!(sent.recv().await, Some(10_000));
}

fn unreachable() -> ProbeAnswer {
    let why = ProbeUnreachable::Timeout("i/o timeout".to_owned());
    ProbeAnswer::without_contact(ProbeOutcome::Unreachable(why))
}

#[tokio::test(start_paused = true)]
async fn a_path_that_breaks_for_all_pods_is_reported_and_their_verdicts_hold_for_a_minute() {
    let manager = manager();
    assert_eq!(manager.path(), None);
    let _sent = answered(&manager, |n| if n < 3 { success() } else { unreachable() });
    let mut pods: Vec<PodProbes> = (0..3)
        .map(|n| manager.add(pod(&n.to_string(), None)))
        .collect();
    for probes in &pods {
        probes.update(&running());
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(manager.path(), Some(ProbePath::Proven));
    // Each is probed at 10 s, and from then on without an answer.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(matches!(manager.path(), Some(ProbePath::Broken { .. })));
    for probes in &mut pods {
        let report = probes.report();
        assert!(is_ready(&report) && report["web"].blocked.is_some());
        assert!(probes.take_events().is_empty(), "no Event blames the app");
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    for probes in &mut pods {
        assert!(!is_ready(&probes.report()));
    }
    pods.clear();
    assert_eq!(manager.path(), None, "no pod is left");
}

#[tokio::test(start_paused = true)]
async fn one_app_that_does_not_answer_is_blamed_if_its_beacon_does() {
    let manager = manager();
    let mut beacon = unreachable();
    beacon.witness = Some(18899);
    let _sent = answered(
        &manager,
        move |n| if n == 0 { success() } else { beacon.clone() },
    );
    let mut probes = manager.add(pod("a", None));
    probes.update(&running());
    let mut message = Vec::new();
    while message.len() < 3 {
        probes.changed().await;
        message.extend(probes.take_events());
    }
    assert!(
        message
            .iter()
            .all(|(_, event)| event.message == "Readiness probe failed: i/o timeout")
    );
    assert!(!is_ready(&probes.report()));
    assert_eq!(manager.path(), Some(ProbePath::Proven));
}

/// Counts the probes that run.
#[derive(Clone, Default)]
struct Running(Arc<AtomicUsize>);

impl Running {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// A probe that never ends.
    async fn hang(self) -> ProbeAnswer {
        struct Guard(Arc<AtomicUsize>);
        impl Drop for Guard {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.0.fetch_add(1, Ordering::SeqCst);
        let _guard = Guard(self.0.clone());
        std::future::pending().await
    }
}

/// Runs the manager with probes that never end; returns those that run, and every call.
fn hanging(manager: &ProbeManager) -> (Running, mpsc::UnboundedReceiver<ProbeCall>) {
    let (sent, received) = mpsc::unbounded_channel();
    let (running, driven) = (Running::default(), manager.clone());
    let counted = running.clone();
    tokio::spawn(async move {
        let send = |call: ProbeCall| {
            let _ = sent.send(call);
            counted.clone().hang()
        };
        driven.drive(send, &start_permits()).await;
    });
    (running, received)
}

/// Long enough for every task to wait; time moves only then.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn probes_that_hang_leave_their_places_to_others_after_a_second() {
    let manager = manager();
    let (running_now, mut calls) = hanging(&manager);
    let mut kept = Vec::new();
    for n in 0..MAX_RUNNING_PROBES + 100 {
        let probes = manager.add(pod(&n.to_string(), None));
        probes.update(&running());
        kept.push(probes);
    }
    settle().await;
    assert_eq!(running_now.count(), MAX_STARTING_PROBES);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(running_now.count(), 2 * MAX_STARTING_PROBES);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(running_now.count(), MAX_RUNNING_PROBES);
    // Each group of probes waited until the one before it had run for a second.
    let late = std::iter::from_fn(|| calls.try_recv().ok()).map(|call| call.late.as_secs());
    let groups = (0..).flat_map(|second| [second; MAX_STARTING_PROBES]);
    assert!(late.eq(groups.take(MAX_RUNNING_PROBES)));
}

/// A pod of 60 containers.
fn large_pod() -> (ProbedPod, ProbedPodState) {
    let (mut pod, mut state) = (pod("large", None), running());
    let names: Vec<String> = (0..60).map(|n| n.to_string()).collect();
    let containers = names.iter().map(|name| (name.clone(), specs(), None));
    pod.containers = containers.collect();
    let seen = &state.containers[0].1;
    let containers = names.iter().map(|name| (name.clone(), seen.clone()));
    state.containers = containers.collect();
    (pod, state)
}

#[tokio::test(start_paused = true)]
async fn one_pod_runs_few_probes_at_once_and_a_probe_ends_with_its_reason() {
    let manager = manager();
    let (running_now, mut calls) = hanging(&manager);
    let (large, mut state) = large_pod();
    let probes = manager.add(large);
    probes.update(&state);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(running_now.count(), MAX_PROBES_PER_POD);
    // The containers whose probes run restart: their probes end, and others begin.
    let mut probed = Vec::new();
    while let Ok(call) = calls.try_recv() {
        probed.push(call.key.1);
    }
    assert_eq!(probed.len(), MAX_PROBES_PER_POD);
    for place in probed {
        state.containers[place].1 = ProbedContainer::NotRunning;
    }
    probes.update(&state);
    settle().await;
    assert_eq!(running_now.count(), MAX_PROBES_PER_POD);
    assert_eq!(calls.len(), MAX_PROBES_PER_POD);
    // The pod gets another address: probes go there.
    state.address = Some([10, 0, 0, 5].into());
    while calls.try_recv().is_ok() {}
    probes.update(&state);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(running_now.count(), MAX_PROBES_PER_POD);
    assert!(
        calls
            .try_recv()
            .is_ok_and(|call| Some(call.address) == state.address)
    );
    state.address = None;
    probes.update(&state);
    settle().await;
    assert_eq!(running_now.count(), 0);
    state.address = Some([10, 0, 0, 5].into());
    probes.update(&state);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(running_now.count(), MAX_PROBES_PER_POD);
    drop(probes);
    settle().await;
    assert_eq!(running_now.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_events_of_a_pod_are_limited_whatever_number_of_containers_it_has() {
    let manager = manager();
    let failed = ProbeAnswer::from_pod(ProbeOutcome::Failure("no".to_owned()));
    let _sent = answered(&manager, move |_| failed.clone());
    let (large, state) = large_pod();
    let probes = manager.add(large);
    probes.update(&state);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(probes.take_events().len(), 25);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(probes.take_events().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_deleted_has_started_even_if_the_update_names_no_container() {
    let manager = manager();
    let (_running, _calls) = hanging(&manager);
    let spec = json!({"name": "web", "startupProbe": {"tcpSocket": {"port": 80}}});
    let spec: Spec = serde_json::from_value(spec).expect("a container");
    let startup = ProbeSpecs::decoded(&spec);
    let mut deleted = pod("a", None);
    deleted.containers[0].1 = startup.expect("it has probes");
    let mut probes = manager.add(deleted);
    probes.update(&running());
    assert!(!probes.report()["web"].started);
    let (containers, is_deleting) = (Vec::new(), true);
    probes.update(&ProbedPodState {
        is_deleting,
        containers,
        ..running()
    });
    assert!(probes.report()["web"].started);
}

#[tokio::test(start_paused = true)]
async fn another_pod_that_answered_before_is_the_witness_of_the_path() {
    let manager = manager();
    let (sent, mut calls) = mpsc::unbounded_channel();
    let driven = manager.clone();
    tokio::spawn(async move {
        let send = |call: ProbeCall| {
            let _ = sent.send(call);
            async { success() }
        };
        driven.drive(send, &start_permits()).await;
    });
    let mut kept = Vec::new();
    for n in 1..=2 {
        let probes = manager.add(pod(&n.to_string(), None));
        let address = Some([10, 0, 0, n].into());
        probes.update(&ProbedPodState {
            address,
            ..running()
        });
        settle().await;
        kept.push(probes);
    }
    let witness = |n| Some(SocketAddr::from(([10, 0, 0, n], 80)));
    let mut seen = Vec::new();
    for _ in 0..4 {
        let call = calls.recv().await.expect("a probe");
        seen.push((call.address, call.witness));
    }
    let (one, two) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    assert_eq!(
        seen,
        [
            (one, None),
            (two, witness(1)),
            (one, witness(2)),
            (two, witness(1))
        ]
    );
    kept.remove(0);
    while let Ok(_late) = calls.try_recv() {}
    let call = calls.recv().await.expect("a probe");
    assert_eq!(
        (call.address, call.witness),
        (two, None),
        "its pod was removed"
    );
}
