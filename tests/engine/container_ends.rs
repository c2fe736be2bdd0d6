//! The ends of containers and their consequences: exit codes, restarts, init containers, probes.

use serde_json::{Value, json};

use crate::azure::{LIVE, container, group, has_event, none, view, with_emulator};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exit_code_is_reported_and_the_restart_policy_decides() {
    with_emulator(20.0, |azure, _| async move {
        let (never, again) = (azure.name("never"), azure.name("again"));
        let fails = [container("main", "echo failing; exit 3", &none())];
        azure
            .put(&never, &group(&fails, &json!({"restartPolicy": "Never"})))
            .await;
        azure
            .put(
                &again,
                &group(&fails, &json!({"restartPolicy": "OnFailure"})),
            )
            .await;

        let seen = azure.until_state(&never, "Failed").await;
        assert_eq!(view(&seen, 0)["currentState"]["state"], "Terminated");
        assert_eq!(view(&seen, 0)["currentState"]["exitCode"], 3);
        assert_eq!(view(&seen, 0)["restartCount"], 0);
        assert_eq!(azure.logs(&never, "main", "").await, "failing\n");

        let restarted = |seen: &Value| view(seen, 0)["restartCount"].as_i64() >= Some(2);
        let seen = azure.until(&again, "restarted", restarted).await;
        assert_eq!(view(&seen, 0)["previousState"]["exitCode"], 3);
        // The log is that of the current run alone.
        assert_eq!(
            azure.until_logged(&again, "main", "failing").await,
            "failing\n"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_not_in_the_image_is_the_containers_failure() {
    with_emulator(1.0, |azure, _| async move {
        let name = azure.name("typo");
        let command = json!({"command": ["no-such-program"]});
        let containers = [container("main", "", &command)];
        azure
            .put(
                &name,
                &group(&containers, &json!({"restartPolicy": "Never"})),
            )
            .await;
        let seen = azure.until_state(&name, "Failed").await;
        assert_eq!(view(&seen, 0)["currentState"]["exitCode"], 127);
        assert!(
            has_event(&seen, 0, "Failed", "Error: starting container"),
            "{seen:#}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_init_container_that_fails_for_good_fails_the_group() {
    with_emulator(1.0, |azure, host| async move {
        let name = azure.name("broken");
        let more = json!({"restartPolicy": "Never", "initContainers": [container("first", "exit 4", &none())]});
        azure.put(&name, &group(&[container("main", LIVE, &none())], &more)).await;
        let seen = azure.until_state(&name, "Failed").await;
        let first = &seen["properties"]["initContainers"][0]["properties"]["instanceView"];
        assert_eq!(first["currentState"]["exitCode"], 4);
        azure.delete(&name).await;
        assert!(host.containers(&azure.mark).await.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_is_not_healthy_is_killed_and_started_again() {
    with_emulator(10.0, |azure, _| async move {
        let name = azure.name("probes");
        let probe = |what: Value| {
            let mut probe = json!({"periodSeconds": 2, "failureThreshold": 2, "timeoutSeconds": 5});
            for (field, value) in what.as_object().into_iter().flatten() {
                probe[field] = value.clone();
            }
            probe
        };
        let sick = json!({"livenessProbe": probe(json!({"exec": {"command": ["cat", "/missing"]}}))});
        let well = json!({
            "livenessProbe": probe(json!({"initialDelaySeconds": 20, "httpGet": {"port": 8080, "path": "/"}})),
            "readinessProbe": probe(json!({"httpGet": {"port": 8080, "path": "/missing"}})),
        });
        let serve = "mkdir /www; echo hello > /www/index.html; exec httpd -f -p 8080 -h /www";
        let containers = [container("sick", LIVE, &sick), container("well", serve, &well)];
        azure.put(&name, &group(&containers, &none())).await;
        let restarted = |seen: &Value| view(seen, 0)["restartCount"].as_i64() >= Some(1);
        let seen = azure.until(&name, "restarted", restarted).await;
        assert_eq!(view(&seen, 0)["previousState"]["exitCode"], 137);
        assert!(has_event(&seen, 0, "Unhealthy", "Liveness probe failed: cat: "), "{seen:#}");
        assert!(has_event(&seen, 0, "Killing", ""), "{seen:#}");
        let unready = |seen: &Value| has_event(seen, 1, "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 404");
        let seen = azure.until(&name, "unready", unready).await;
        assert_eq!(view(&seen, 1)["restartCount"], 0);
        assert!(!has_event(&seen, 1, "Unhealthy", "Liveness"), "{seen:#}");
    })
    .await;
}
