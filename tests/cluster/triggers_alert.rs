//! Alerts in Alertmanager's format start a burst and end it.

use std::time::Duration;

use burstpool::emulator::EmulatorOptions as AzureOptions;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::monitoring::{alerts, free_port};
use crate::support::{Options, wait};
use crate::triggers_prometheus::{scaled, until_replicas, until_trigger};
use crate::world::World;

/// Sends a body with the token until the operator accepts it. A new leader first answers that it is not
/// ready.
async fn send(receiver: &str, body: &Value) {
    let client = reqwest::Client::new();
    let sending = async {
        let mut again = tokio::time::interval(Duration::from_millis(200));
        loop {
            again.tick().await;
            let request = client
                .post(receiver)
                .bearer_auth("SECRET-ALERTS")
                .json(body);
            match request.send().await.map(|answer| answer.status()) {
                Ok(StatusCode::OK) => return,
                Ok(StatusCode::SERVICE_UNAVAILABLE) | Err(_) => {}
                Ok(other) => unreachable!("{other}"),
            }
        }
    };
    let sent = tokio::time::timeout(wait::DEADLINE, sending).await;
    sent.expect("it is taken");
}

#[tokio::test]
async fn an_alert_scales_and_spills_until_it_is_resolved_also_across_a_restart() {
    let files = tempfile::tempdir().expect("a directory");
    let token = files.path().join("token");
    std::fs::write(&token, "SECRET-ALERTS\n").expect("it is written");
    let azure = AzureOptions {
        speed: 20.0,
        ..AzureOptions::default()
    };
    let mut world = World::without_operator(Options::default(), azure).await;
    let listen = format!("127.0.0.1:{}", free_port());
    let flags = ["--alerts-listen", &listen, "--alerts-token-file"];
    world.arguments = flags.map(str::to_owned).to_vec();
    world.arguments.push(token.display().to_string());
    world.run();
    world
        .furnish(&json!({
            "spill": {"after": "10m", "maxReplicas": 10},
            "workloads": [scaled(&["pager"], 1, 8)],
            "triggers": [{"name": "pager", "alert": {"matchLabels": {"alertname": "WebSaturated"}, "replicas": 5}}],
        }))
        .await;
    world.deploy(1).await;
    let receiver = format!("http://{listen}/alerts");
    send(&receiver, &alerts("firing", "Another")).await;
    send(&receiver, &alerts("firing", "WebSaturated")).await;
    until_trigger(&world, "pager", "active", |one| {
        one.active && one.message == "1 alert fires"
    })
    .await;
    world.until_spread(4, 1, 0).await;
    world
        .until_told("web", "Scaled", "trigger pager of pool shop asks for 5")
        .await;

    let sent = reqwest::Client::new()
        .post(&receiver)
        .body("{}")
        .send()
        .await;
    assert_eq!(sent.expect("an answer").status(), 401);
    world.kill_and_forget().await;
    world.run();
    // The status keeps the alert. The new leader shows that it read it when the alert is over.
    send(&receiver, &alerts("resolved", "WebSaturated")).await;
    until_trigger(&world, "pager", "over", |one| {
        !one.active && one.alerts.is_empty()
    })
    .await;
    until_replicas(&world, 1).await;
    world.until_spread(1, 0, 0).await;
    let log = std::fs::read_to_string(world.log()).expect("a log");
    assert!(!log.contains("SECRET-ALERTS"));
}
