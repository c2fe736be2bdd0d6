//! The environment of containers: network, volumes, variables, images.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use serde_json::json;

use crate::azure::{LIVE, container, group, none, with_emulator};

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
async fn init_containers_run_in_order_and_volumes_are_shared() {
    with_emulator(20.0, |azure, _| async move {
        let name = azure.name("init");
        let work = json!({"volumeMounts": [{"name": "space", "mountPath": "/data"}]});
        let steps = [
            container("first", "sleep 0.3; echo first >> /data/order", &work),
            container("second", "[ -e /data/tried ] || { touch /data/tried; exit 1; }; echo second >> /data/order", &work),
        ];
        let mounts = json!({
            "volumeMounts": [
                {"name": "space", "mountPath": "/data"},
                {"name": "keys-here", "mountPath": "/keys"},
            ],
            "environmentVariables": [{"name": "HIDDEN", "secureValue": "in the dark"}],
        });
        let script = "cat /data/order /keys/token; (echo x > /keys/token) 2>/dev/null || echo kept; echo $HIDDEN; sleep 1000";
        let more = json!({
            "initContainers": steps,
            "volumes": [
                {"name": "space", "emptyDir": {}},
                {"name": "keys-here", "secret": {"token": STANDARD.encode("hush\n")}},
            ],
        });
        azure.put(&name, &group(&[container("main", script, &mounts)], &more)).await;
        let log = azure.until_logged(&name, "main", "dark").await;
        let lines: Vec<&str> = log.lines().collect();
        assert_eq!(lines, ["first", "second", "hush", "kept", "in the dark"]);
        let seen = azure.until_state(&name, "Running").await;
        let second = &seen["properties"]["initContainers"][1]["properties"]["instanceView"];
        assert_eq!((&second["restartCount"], &second["currentState"]["exitCode"]), (&json!(1), &json!(0)));
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
async fn a_group_has_its_name_servers_and_fails_with_the_engines_message_if_refused() {
    with_emulator(1.0, |azure, host| async move {
        let (good, bad) = (azure.name("names"), azure.name("refused"));
        let main = [container("main", "cat /etc/resolv.conf; sleep 1000", &none())];
        let names = json!({"dnsConfig": {
            "nameServers": ["192.0.2.1"], "searchDomains": "a.example b.example", "options": "ndots:2",
        }});
        let odd = json!({"securityContext": {"capabilities": {"add": ["NO_SUCH_THING"]}}});
        azure.put(&good, &group(&main, &names)).await;
        azure.put(&bad, &group(&[container("main", LIVE, &odd)], &none())).await;
        let log = azure.until_logged(&good, "main", "ndots:2").await;
        assert!(log.contains("nameserver 192.0.2.1") && log.contains("search a.example b.example"), "{log}");

        let seen = azure.until_state(&bad, "Failed").await;
        let event = &seen["properties"]["instanceView"]["events"][0];
        assert_eq!((&event["name"], &event["type"]), (&json!("Failed"), &json!("Warning")));
        assert!(event["message"].to_string().contains("NO_SUCH_THING"), "{event}");
        azure.delete(&bad).await;
        assert!(host.containers(&bad).await.is_empty());
    })
    .await;
}
