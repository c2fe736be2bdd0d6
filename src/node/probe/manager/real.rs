//! The manager with real probes of a server on loopback.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU16, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use k8s_openapi::api::core::v1::Container as Spec;
use serde_json::json;

use super::super::probed::{ProbeSeed, ProbeSpecs, ProbedContainer};
use super::*;

const POD: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn specs(port: u16, period: u32) -> ProbeSpecs {
    let get = json!({"port": port, "path": "/ready"});
    let spec = json!({"name": "web",
        "startupProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1, "failureThreshold": 1000},
        "readinessProbe": {"httpGet": get, "periodSeconds": period, "timeoutSeconds": 5,
            "failureThreshold": 1}});
    let spec: Spec = serde_json::from_value(spec).expect("a container");
    ProbeSpecs::decoded(&spec).expect("it has probes")
}

fn running(names: &[&str]) -> ProbedPodState {
    let container = ProbedContainer::Running {
        id: Some("1".to_owned()),
        started_at: None,
    };
    let containers = names
        .iter()
        .map(|name| ((*name).to_owned(), container.clone()));
    ProbedPodState {
        address: Some(POD),
        is_deleting: false,
        containers: containers.collect(),
    }
}

fn free_port() -> u16 {
    let reserved = std::net::TcpListener::bind((POD, 0)).expect("a port");
    reserved.local_addr().expect("it is bound").port()
}

/// An app whose readiness is the status that is returned, at first 503.
async fn serve(port: u16) -> Arc<AtomicU16> {
    let status = Arc::new(AtomicU16::new(503));
    let answers = status.clone();
    let app = get(move || async move {
        StatusCode::from_u16(answers.load(Ordering::SeqCst)).unwrap_or_default()
    });
    let listener = tokio::net::TcpListener::bind((POD, port)).await;
    let app = Router::new().route("/ready", app);
    tokio::spawn(axum::serve(listener.expect("the port"), app).into_future());
    status
}

/// Waits until the container is started and ready as wanted.
async fn until(probes: &mut PodProbes, wanted: (bool, bool)) {
    loop {
        let report = probes.report();
        let verdict = &report["web"];
        if (verdict.started, verdict.ready) == wanted {
            return;
        }
        probes.changed().await;
    }
}

#[tokio::test]
async fn an_app_that_listens_late_and_then_fails_is_followed() {
    let port = free_port();
    let (manager, cancel) = (
        ProbeManager::new(Timestamp::now()),
        CancellationToken::new(),
    );
    let run = {
        let (manager, cancel) = (manager.clone(), cancel.clone());
        tokio::spawn(async move { manager.run(Prober::new("1.37"), cancel).await })
    };
    let mut probes = manager.add(ProbedPod {
        uid: "a".to_owned(),
        containers: vec![("web".to_owned(), specs(port, 1), None)],
        beacon: None,
    });
    probes.update(&running(&["web"]));
    // It does not listen yet.
    let message = loop {
        probes.changed().await;
        if let Some((_, event)) = probes.take_events().pop() {
            break event.message;
        }
    };
    let wanted =
        format!("Startup probe failed: dial tcp 127.0.0.1:{port}: connect: connection refused");
    assert_eq!(message, wanted);
    assert!(!probes.report()["web"].started);

    let status = serve(port).await;
    until(&mut probes, (true, false)).await;
    status.store(200, Ordering::SeqCst);
    until(&mut probes, (true, true)).await;
    assert_eq!(manager.path(), Some(ProbePath::Proven));
    probes.take_events();
    status.store(500, Ordering::SeqCst);
    until(&mut probes, (true, false)).await;
    let events = probes.take_events();
    let wanted = "Readiness probe failed: HTTP probe failed with statuscode: 500";
    assert_eq!(events.last().expect("an Event").1.message, wanted);
    cancel.cancel();
    run.await.expect("it ends");
}

/// CPU time of this process so far, in seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let after = stat.rsplit_once(')').expect("a name").1;
    let fields: Vec<f64> = after
        .split_whitespace()
        .skip(11)
        .take(2)
        .flat_map(str::parse)
        .collect();
    fields.iter().sum::<f64>() / 100.0
}

/// A thousand pods of two containers, which an earlier leader has probed.
fn thousand_pods(manager: &ProbeManager, port: u16) -> Vec<PodProbes> {
    let seed = ProbeSeed {
        id: Some("1".to_owned()),
        started: true,
        ready: true,
    };
    let mut pods = Vec::new();
    for n in 0..1000 {
        let container = |name: &str| (name.to_owned(), specs(port, 10), Some(seed.clone()));
        let probes = manager.add(ProbedPod {
            uid: format!("uid-{n}"),
            containers: vec![container("web"), container("log")],
            beacon: None,
        });
        probes.update(&running(&["web", "log"]));
        pods.push(probes);
    }
    pods
}

/// `cargo test --release --lib probes_of_a_thousand_pods -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; it takes half a minute"]
async fn probes_of_a_thousand_pods_with_two_containers_each() {
    let port = free_port();
    serve(port).await.store(200, Ordering::SeqCst);
    let manager = ProbeManager::new(Timestamp::now());
    let mut pods = thousand_pods(&manager, port);
    let late: Arc<Mutex<Vec<Duration>>> = Arc::default();
    let prober = Prober::new("1.37");
    let (noted, driven) = (late.clone(), manager.clone());
    let before = cpu_seconds();
    let run = async {
        let send = |call: ProbeCall| {
            noted.lock().push(call.late);
            let prober = prober.clone();
            async move { sent(&prober, &call).await }
        };
        driven.drive(send).await;
    };
    let seconds = Duration::from_secs(30);
    let _ = tokio::time::timeout(seconds, run).await;
    let cpu = cpu_seconds() - before;
    let mut late = std::mem::take(&mut *late.lock());
    late.sort();
    let part = |percent: usize| late[(late.len() - 1) * percent / 100];
    eprintln!(
        "{} probes, late: p50 {:?}, p99 {:?}, most {:?}; {:.1} % of a CPU with the server",
        late.len(),
        part(50),
        part(99),
        part(100),
        100.0 * cpu / seconds.as_secs_f64()
    );
    assert!(pods.iter_mut().all(|probes| probes.report()["web"].ready));
}
