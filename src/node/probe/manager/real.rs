//! The manager with real probes of a server on loopback.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU16, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use k8s_openapi::api::core::v1::Container as Spec;
use serde_json::json;

use super::super::pod::ProbedPodState;
use super::super::probed::{ProbeSpecs, ProbedContainer};
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
