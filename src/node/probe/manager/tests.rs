//! Which probes run when. Time is the runtime's and stands still unless every task waits; a stub answers the probes.

mod limits;
mod path;

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
