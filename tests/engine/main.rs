//! Container groups of the emulator as real containers: what a client of the service sees of them.

#![allow(missing_docs, reason = "tests say what they do by their names")]

mod azure;
mod crash;
mod host;

use azure::{Azure, container, group, has_event, view, with_emulator};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use serde_json::{Value, json};

/// Runs until it is killed, and ends at once when it is asked to.
const LIVE: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

fn none() -> Value {
    json!({})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_of_a_group_share_an_address_that_the_host_reaches() {
    with_emulator(1.0, |azure, _| async move {
        let name = azure.name("pair");
        let serve = "mkdir /www; echo hello > /www/index.html; exec httpd -f -p 8080 -h /www";
        let ask = "until wget -qO- http://127.0.0.1:8080/; do sleep 0.1; done; sleep 1000";
        let address = json!({"ipAddress": {"type": "Public", "ports": [{"port": 8080}]}});
        let containers = [
            container("web", serve, &none()),
            container("client", ask, &none()),
        ];
        azure.put(&name, &group(&containers, &address)).await;
        let seen = azure.until_state(&name, "Running").await;
        azure.until_logged(&name, "client", "hello").await;
        let ip = seen["properties"]["ipAddress"]["ip"]
            .as_str()
            .expect("an address");
        let page = reqwest::get(format!("http://{ip}:8080/"))
            .await
            .expect("the page is served");
        assert_eq!(page.text().await.expect("a text"), "hello\n");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_has_its_size_carries_every_byte_and_its_command_ends_when_the_client_leaves() {
    with_emulator(1.0, |azure, _| async move {
        let name = azure.name("exec");
        let containers = [container("main", LIVE, &none())];
        azure.put(&name, &group(&containers, &none())).await;
        azure.until_state(&name, "Running").await;

        let mut shell = azure.exec(&name, "main", "sh").await;
        shell.until_shown("#").await;
        shell.type_in("stty size\n").await;
        shell.until_shown("33 101").await;
        shell
            .type_in("echo chan''ged > /state; echo do''ne\n")
            .await;
        shell.until_shown("done").await;
        shell.type_in("exit\n").await;
        shell.to_the_end().await;

        let shown = azure
            .exec(&name, "main", "cat /state")
            .await
            .to_the_end()
            .await;
        assert_eq!(String::from_utf8_lossy(&shown), "changed\r\n");
        let shown = azure
            .exec(&name, "main", "printf \\001\\002\\377abc")
            .await
            .to_the_end()
            .await;
        assert_eq!(shown, b"\x01\x02\xffabc");

        let mut left = azure.exec(&name, "main", "sh").await;
        left.until_shown("#").await;
        left.type_in("echo $$ > /left; exec sleep 7777\n").await;
        until_shows(&azure, &name, "ps", |shown| shown.contains("sleep 7777")).await;
        drop(left);
        until_shows(&azure, &name, "ps", |shown| !shown.contains("sleep 7777")).await;
    })
    .await;
}

/// Runs a command again and again until it shows what is wanted.
async fn until_shows(azure: &Azure, group: &str, command: &str, wanted: impl Fn(&str) -> bool) {
    let look = async {
        loop {
            let shown = azure.exec(group, "main", command).await.to_the_end().await;
            if wanted(&String::from_utf8_lossy(&shown)) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let patience = std::time::Duration::from_secs(60);
    tokio::time::timeout(patience, look)
        .await
        .expect("the command shows what is wanted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attached_client_sees_what_is_written_from_then_on_until_the_end() {
    with_emulator(1.0, |azure, _| async move {
        let name = azure.name("attach");
        let script = "echo before; until [ -e /go ]; do sleep 0.1; done; echo after >&2; exit 0";
        let containers = [container("main", script, &none())];
        azure
            .put(
                &name,
                &group(&containers, &json!({"restartPolicy": "Never"})),
            )
            .await;
        azure.until_logged(&name, "main", "before").await;
        let attached = azure.attach(&name, "main").await;
        azure
            .exec(&name, "main", "touch /go")
            .await
            .to_the_end()
            .await;
        let shown = attached.to_the_end().await;
        assert_eq!(String::from_utf8_lossy(&shown), "after\n");
        azure.until_state(&name, "Succeeded").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exit_code_is_told_and_the_restart_policy_decides() {
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
        // The log is that of the present run alone.
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
async fn init_containers_run_in_order_and_volumes_are_shared() {
    with_emulator(20.0, |azure, _| async move {
        let name = azure.name("init");
        let work = json!({"volumeMounts": [{"name": "space", "mountPath": "/work"}]});
        let steps = [
            container("first", "sleep 0.3; echo first >> /work/order", &work),
            container("second", "[ -e /work/tried ] || { touch /work/tried; exit 1; }; echo second >> /work/order", &work),
        ];
        let mounts = json!({
            "volumeMounts": [
                {"name": "space", "mountPath": "/work"},
                {"name": "keys-here", "mountPath": "/keys"},
            ],
            "environmentVariables": [{"name": "HIDDEN", "secureValue": "in the dark"}],
        });
        let script = "cat /work/order /keys/token; echo x > /keys/token || echo kept; echo $HIDDEN; sleep 1000";
        let more = json!({
            "initContainers": steps,
            "volumes": [
                {"name": "space", "emptyDir": {}},
                {"name": "keys-here", "secret": {"token": STANDARD.encode("hush\n")}},
            ],
        });
        azure.put(&name, &group(&[container("main", script, &mounts)], &more)).await;
        let log = azure.until_logged(&name, "main", "dark").await;
        let lines: Vec<&str> = log.lines().filter(|line| !line.starts_with("sh:")).collect();
        assert_eq!(lines, ["first", "second", "hush", "kept", "in the dark"]);
        let seen = azure.until_state(&name, "Running").await;
        let second = &seen["properties"]["initContainers"][1]["properties"]["instanceView"];
        assert_eq!((&second["restartCount"], &second["currentState"]["exitCode"]), (&json!(1), &json!(0)));
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
async fn a_share_is_seen_by_every_group_that_mounts_it() {
    with_emulator(1.0, |azure, _| async move {
        let (writer, reader) = (azure.name("writer"), azure.name("reader"));
        let files = |read_only: bool| {
            json!({"restartPolicy": "Never", "volumes": [{"name": "share", "azureFile": {
                "shareName": "../up", "storageAccountName": "acct", "storageAccountKey": "k", "readOnly": read_only,
            }}]})
        };
        let mount = json!({"volumeMounts": [{"name": "share", "mountPath": "/share"}]});
        let write = [container("main", "echo shared > /share/file", &mount)];
        azure.put(&writer, &group(&write, &files(false))).await;
        azure.until_state(&writer, "Succeeded").await;
        let read = [container("main", "cat /share/file; echo x > /share/file", &mount)];
        azure.put(&reader, &group(&read, &files(true))).await;
        azure.until_state(&reader, "Failed").await;
        assert!(azure.logs(&reader, "main", "").await.starts_with("shared\n"));
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_and_deleting_leave_no_container_and_starting_makes_new_ones() {
    with_emulator(1.0, |azure, host| async move {
        let name = azure.name("life");
        let (script, space) = (
            "cat /work/seen || echo fresh; touch /work/seen; trap 'exit 5' TERM; while :; do sleep 0.1; done",
            json!({"volumeMounts": [{"name": "space", "mountPath": "/work"}]}),
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
        let space = json!({"volumeMounts": [{"name": "space", "mountPath": "/work"}]});
        let script = format!("cat /work/seen || echo fresh; echo kept > /work/seen; {LIVE}");
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
            // Not a wait for anything: each round deletes at another moment of the deployment.
            tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
            azure.delete(&name).await;
            assert_eq!(host.containers(&azure.mark).await.len(), 0);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_cannot_be_had_is_refused_at_once() {
    with_emulator(1.0, |azure, _| async move {
        let name = azure.name("image");
        let image = json!({"image": "registry.invalid/nothing:1"});
        let body = group(&[container("main", LIVE, &image)], &none());
        let (status, answer) = azure.call(Method::PUT, &name, Some(&body)).await;
        assert_eq!(
            (status, &answer["error"]["code"]),
            (StatusCode::BAD_REQUEST, &json!("InaccessibleImage"))
        );
        let message = format!(
            "The image 'registry.invalid/nothing:1' in container group '{name}' is not accessible. \
             Please check the image and registry credential."
        );
        assert_eq!(answer["error"]["message"], message);
        let (status, _) = azure.call(Method::GET, &name, None).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_cut_to_its_tail_and_has_times_when_asked() {
    with_emulator(1.0, |azure, _| async move {
        let name = azure.name("logs");
        let script = "for i in 1 2 3; do echo line $i; done; echo error >&2; exit 0";
        azure
            .put(
                &name,
                &group(
                    &[container("main", script, &none())],
                    &json!({"restartPolicy": "Never"}),
                ),
            )
            .await;
        azure.until_state(&name, "Succeeded").await;
        assert_eq!(azure.logs(&name, "main", "tail=2").await, "line 3\nerror\n");
        let timed = azure.logs(&name, "main", "timestamps=true").await;
        let times: Vec<_> = timed
            .lines()
            .filter_map(|line| line.split_once(' '))
            .collect();
        assert_eq!(times.len(), 4, "{timed}");
        for (time, _) in times {
            time.parse::<jiff::Timestamp>()
                .expect("a time in front of each line");
        }
    })
    .await;
}
