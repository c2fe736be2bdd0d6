//! Metrics in valid Prometheus format, and readiness.

use std::io::{ErrorKind, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::runtime::watcher;
use serde_json::{Value, json};

use crate::own_nodes::{pod, selected};
use crate::support::wait::by_and_by;
use crate::support::{Options, skipped, wait};
use crate::world::World;

/// The URL of the metrics, from the operator's log. The log is JSON, because its output is not a
/// terminal.
pub async fn address(world: &World) -> String {
    let found = || {
        let log = std::fs::read_to_string(world.log()).unwrap_or_default();
        let mut lines = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        // The last instance logs it last.
        let line = lines.rfind(|line| line["message"] == "serving metrics")?;
        Some(format!("http://{}", line["address"].as_str()?))
    };
    by_and_by("the operator to serve metrics", async || found().is_some()).await;
    found().expect("it was there")
}

pub async fn get(url: &str) -> (u16, String) {
    let answer = reqwest::get(url).await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("text"))
}

#[tokio::test]
async fn metrics_say_what_a_peak_came_to_and_forget_a_pool_that_is_gone() {
    let world = Box::pin(World::with_full_home(&json!({"spill": {"maxReplicas": 7}}))).await;
    let url = address(&world).await;
    assert_eq!(get(&format!("{url}/healthz")).await.0, 200);
    assert_eq!(
        get(&format!("{url}/readyz")).await,
        (200, "ok\n".to_owned())
    );

    world.deploy(2).await;
    world.until_spread(0, 2, 0).await;
    let lines = [
        "burstpool_leader 1",
        "burstpool_pods{pool=\"shop\",state=\"running\"} 2",
        "burstpool_pods{pool=\"shop\",state=\"spilled\"} 2",
        "burstpool_pods_max{pool=\"shop\"} 7",
        "burstpool_placement_open{placement=\"weu\",pool=\"shop\"} 1",
        "burstpool_grants_total{outcome=\"granted\",pool=\"shop\"} 2",
        "burstpool_azure_requests_total{class=\"creates\",outcome=\"done\"} 2",
        "burstpool_azure_request_duration_seconds_count{class=\"creates\"} 2",
    ];
    until_measured(&url, &lines).await;
    assert_lines_name_pool_placement_and_pod(&world);
    let text = get(&format!("{url}/metrics")).await.1;
    for metric in [
        "burstpool_build_info{version=",
        "process_resident_memory_bytes ",
        // The operator reads this from Azure once a minute.
        "burstpool_container_groups{placement=\"weu\",pool=\"shop\"} ",
    ] {
        assert!(text.contains(metric), "{text}");
    }
    assert_well_formed(&text);

    world.scale(0).await;
    world.delete_pool("shop").await;
    world.until_no_pool("shop").await;
    by_and_by("the pool to be forgotten", async || {
        !get(&format!("{url}/metrics")).await.1.contains("shop")
    })
    .await;
    world.end().await;
}

/// Each line of the log names what it is about by its spans.
fn assert_lines_name_pool_placement_and_pod(world: &World) {
    let log = std::fs::read_to_string(world.log()).expect("the operator's log");
    let spans = |message: &str| {
        let mut lines = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let line = lines.find(|line| line["message"] == message);
        line.unwrap_or_else(|| unreachable!("no line {message:?} in: {log}"))["spans"].clone()
    };
    let node = "burst-shop-weu";
    let placement = json!({"name": "placement", "pool": "shop", "placement": "weu", "node": node});
    assert_eq!(spans("registering the node"), json!([placement]));
    let creating = spans("creating a container group");
    assert_eq!(creating[0], placement, "{creating}");
    assert_eq!(creating[1]["name"], "pod", "{creating}");
    for (field, start) in [("pod", "default/web-"), ("group", "default-web-")] {
        let value = creating[1][field].as_str().unwrap_or_default();
        assert!(value.starts_with(start), "{field}: {creating}");
    }
    let grants = json!([{"name": "grants", "pool": "shop"}]);
    assert_eq!(spans("sent a grant"), grants);
}

/// Waits until the metrics contain these lines.
pub async fn until_measured(url: &str, lines: &[&str]) {
    let mut again = tokio::time::interval(Duration::from_millis(100));
    let mut missing = Vec::new();
    let asking = async {
        loop {
            again.tick().await;
            let text = get(&format!("{url}/metrics")).await.1;
            let there = |line: &&&str| text.lines().any(|one| one == **line);
            missing = lines.iter().filter(|line| !there(line)).collect();
            if missing.is_empty() {
                return;
            }
        }
    };
    let asked = tokio::time::timeout(wait::DEADLINE, asking).await;
    assert!(asked.is_ok(), "{missing:?}");
}

/// Checks the metrics with promtool. Skips this check if it is not installed.
pub fn assert_well_formed(metrics: &str) {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match promtool {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return skipped("promtool", "`make monitoring` installs it or says how to");
        }
        started => started.expect("promtool starts"),
    };
    let mut pipe = promtool.stdin.take().expect("a pipe");
    pipe.write_all(metrics.as_bytes()).expect("it reads");
    drop(pipe);
    let output = promtool.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    let of_others = |line: &&str| !line.starts_with("process_");
    let complaints: Vec<&str> = said.lines().filter(of_others).collect();
    assert!(complaints.is_empty(), "{said}");
}

#[tokio::test]
async fn an_operator_that_cannot_see_everything_says_what_is_missing() {
    let mut world = World::without_operator(
        Options::default(),
        burstpool::emulator::EmulatorOptions::default(),
    )
    .await;
    let definition = "customresourcedefinition/burstpools.burstpool.io";
    world.kubectl(&["delete", definition]);
    world.run();
    let url = address(&world).await;
    by_and_by("all but the pools to be listed", async || {
        let (code, missing) = get(&format!("{url}/readyz")).await;
        let mut missing = missing.lines();
        let says_why = "BurstPools have not been listed yet: ";
        code == 503
            && missing
                .next()
                .is_some_and(|line| line.starts_with(says_why))
            && missing.next().is_none()
    })
    .await;
    let metrics = get(&format!("{url}/metrics")).await.1;
    let fails = "burstpool_watch_failures_total{watch=\"BurstPools\"} ";
    assert!(metrics.contains(fails), "{metrics}");
    let log = std::fs::read_to_string(world.log()).expect("a log");
    let is_warned = |line: &&str| {
        let words = ["\"level\":\"WARN\"", "a watch fails", "\"BurstPools\""];
        words.iter().all(|word| line.contains(word))
    };
    assert_eq!(log.lines().filter(is_warned).count(), 1, "once");
    let alive = get(&format!("{url}/healthz")).await;
    assert_eq!(alive, (200, "ok\n".to_owned()));
    world
        .cluster
        .install_crds()
        .await
        .expect("the resource is served");
    by_and_by("it to be ready", async || {
        get(&format!("{url}/readyz")).await.0 == 200
    })
    .await;
    world.end().await;
}

/// Waits for an Event about the pool with this reason.
async fn until_told(world: &World, reason: &str) {
    let events: Api<Event> = Api::namespaced(world.client.clone(), "default");
    let told = |events: &[Event]| {
        let mut of_pool = events.iter().filter(|event| {
            let about = event.regarding.as_ref();
            about.is_some_and(|about| about.kind.as_deref() == Some("BurstPool"))
        });
        of_pool.any(|event| event.reason.as_deref() == Some(reason))
    };
    let waited = wait::until_all(events, watcher::Config::default(), reason, told).await;
    assert!(waited.is_ok(), "{reason}: {}", world.tail());
}

#[tokio::test]
async fn a_pool_has_an_event_when_a_peak_begins_and_ends_and_when_a_limit_is_reached() {
    let limits = json!({"spill": {"maxReplicas": 1}, "scaleIn": {"cooldown": "1s"}});
    let world = Box::pin(World::with_full_home(&limits)).await;
    world.deploy(2).await;
    world.until_spread(0, 1, 1).await;
    until_told(&world, "PeakBegan").await;
    until_told(&world, "LimitReached").await;
    world.scale(0).await;
    until_told(&world, "PeakEnded").await;
    world.end().await;
}

/// Events with one reason about one object form a series, which keeps only the first message. The
/// operator must not lose later messages that way.
#[tokio::test]
async fn an_event_says_what_is_so_now_also_after_another_of_its_reason() {
    let world = World::with_full_home(&json!({
        "spill": {"after": "1s", "maxReplicas": 1},
        "workloads": [selected("web")],
    }))
    .await;
    world.create(pod("web", "first", &json!({}))).await;
    world.until_away("first").await;
    for name in ["second", "third"] {
        world.create(pod("web", name, &json!({}))).await;
        world
            .until_told(
                name,
                "PoolLimitReached",
                "spec.spill.maxReplicas lets it: 1",
            )
            .await;
    }
    world
        .change_pool(&json!({"spill": {"maxReplicas": 2}}))
        .await;
    world.until_away("second").await;
    world
        .until_told(
            "third",
            "PoolLimitReached",
            "spec.spill.maxReplicas lets it: 2",
        )
        .await;
    world.end().await;
}
