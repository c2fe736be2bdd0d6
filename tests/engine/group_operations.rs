//! Operations on whole groups: stop, start, restart, delete, and waiting for capacity.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::azure::{Azure, LIVE, container, emulator, group, none, view, with_emulator};
use crate::engine_host::Host;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_and_deleting_leave_no_container_and_starting_makes_new_ones() {
    with_emulator(1.0, |azure, host| async move {
        let name = azure.name("life");
        let (script, space) = (
            "cat /data/seen || echo fresh; touch /data/seen; trap 'exit 5' TERM; while :; do sleep 0.1; done",
            json!({"volumeMounts": [{"name": "space", "mountPath": "/data"}]}),
        );
        let more = json!({"volumes": [{"name": "space", "emptyDir": {}}]});
        azure.put(&name, &group(&[container("main", script, &space)], &more)).await;
        azure.until_logged(&name, "main", "fresh").await;
        assert_eq!(host.containers(&azure.mark).await.len(), 2);

        azure.post(&name, "stop").await;
        let seen = azure.until_state(&name, "Stopped").await;
        assert_eq!(host.containers(&azure.mark).await.len(), 0);
        assert_eq!(view(&seen, 0)["currentState"]["exitCode"], 5);
        assert!(azure.logs(&name, "main", "").await.contains("fresh"));

        azure.post(&name, "start").await;
        azure.until_state(&name, "Running").await;
        azure.until_logged(&name, "main", "fresh").await;
        assert_eq!(host.containers(&azure.mark).await.len(), 2);

        azure.delete(&name).await;
        assert_eq!(host.containers(&azure.mark).await.len(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_is_in_place_with_the_same_volumes_and_address() {
    with_emulator(1.0, |azure, _| async move {
        let name = azure.name("again");
        let space = json!({"volumeMounts": [{"name": "space", "mountPath": "/data"}]});
        let script = format!("cat /data/seen || echo fresh; echo kept > /data/seen; {LIVE}");
        let more = json!({
            "volumes": [{"name": "space", "emptyDir": {}}],
            "ipAddress": {"type": "Public", "ports": [{"port": 8080}]},
        });
        azure
            .put(&name, &group(&[container("main", &script, &space)], &more))
            .await;
        let before = azure.until_state(&name, "Running").await;
        azure.until_logged(&name, "main", "fresh").await;
        azure.post(&name, "restart").await;
        let after = azure
            .until(&name, "restarted", |seen| {
                view(seen, 0)["restartCount"] == 1
            })
            .await;
        azure.until_logged(&name, "main", "kept").await;
        assert_eq!(
            before["properties"]["ipAddress"]["ip"],
            after["properties"]["ipAddress"]["ip"]
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_is_deleted_while_it_is_deployed_leaves_nothing() {
    with_emulator(1.0, |azure, host| async move {
        let name = azure.name("brief");
        let containers = [
            container("one", LIVE, &none()),
            container("two", LIVE, &none()),
        ];
        for wait in [0, 60, 150, 300] {
            azure.put(&name, &group(&containers, &none())).await;
            // This does not wait for anything: each round deletes at another moment of the deployment.
            tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
            azure.delete(&name).await;
            assert_eq!(host.containers(&azure.mark).await.len(), 0);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_waits_for_capacity_is_deployed_once_there_is_some() {
    with_emulator(200.0, |azure, host| async move {
        let name = azure.name("late");
        azure
            .admin(
                Method::PUT,
                "capacity/westeurope",
                &json!({"failure": "async"}),
            )
            .await;
        azure
            .put(&name, &group(&[container("main", LIVE, &none())], &none()))
            .await;
        let failed = |seen: &Value| seen["properties"]["provisioningState"] == "Failed";
        azure.until(&name, "failed", failed).await;
        assert!(host.containers(&azure.mark).await.is_empty());
        azure
            .admin(Method::DELETE, "capacity/westeurope", &none())
            .await;
        azure.until_state(&name, "Running").await;
        assert_eq!(host.containers(&azure.mark).await.len(), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emulator_that_is_dropped_leaves_nothing_either() {
    let Some(host) = Host::get().await else {
        return;
    };
    let emulator = emulator(&host, 1.0).await;
    let azure = Azure::new(emulator.url());
    let name = azure.name("dropped");
    azure
        .put(&name, &group(&[container("main", LIVE, &none())], &none()))
        .await;
    azure.until_state(&name, "Running").await;
    drop(emulator);
    let gone = async {
        while !host.containers(&azure.mark).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone)
        .await
        .expect("nothing is left");
}
