//! Stored pools that the operator cannot read: written by a newer version, or accepted by an older
//! definition.

use burstpool::emulator::EmulatorOptions as AzureOptions;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::support::Options;
use crate::support::wait::{self, by_and_by};
use crate::telemetry::{address, until_measured};
use crate::world::{World, is_closed, is_running, said};

const NODE: &str = "burst-shop-weu";

impl World {
    /// Changes the definition as a newer and an older version have it: another mode, and amounts that
    /// may be null.
    async fn widen_definition(&self) {
        let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
        let cpu = "placements/items/properties/capacity/properties/cpu/nullable";
        let wider = json!([
            {"op": "add", "path": format!("{spec}/mode/enum/-"), "value": "Paused"},
            {"op": "add", "path": format!("{spec}/{cpu}"), "value": true},
        ]);
        let (definition, wider) = ("crd/burstpools.burstpool.io", wider.to_string());
        self.kubectl(&["patch", definition, "--type=json", "--patch", &wider]);
        by_and_by("the other mode to be accepted", async || {
            let patch = r#"{"spec": {"mode": "Paused"}}"#;
            let patch = [
                "patch",
                "bp/shop",
                "--type=merge",
                "--dry-run=server",
                "--patch",
                patch,
            ];
            self.cluster.ask(&patch).is_ok()
        })
        .await;
    }

    /// Sets the pool's mode, also to one that the operator does not know.
    fn set_mode(&self, mode: &str) {
        let patch = json!({"spec": {"mode": mode}}).to_string();
        self.kubectl(&["patch", "bp/shop", "--type=merge", "--patch", &patch]);
    }

    /// The pool as the API server stores it.
    fn stored(&self) -> Value {
        let stored = self.kubectl(&["get", "bp/shop", "-o", "json"]);
        serde_json::from_str(&stored).expect("JSON")
    }

    /// Waits until the node's lease is renewed later than `at`.
    async fn until_shop_is_kept_after(&self, at: Timestamp) {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "kube-node-lease");
        let renewed = |lease: Option<&Lease>| {
            let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref());
            renewed.is_some_and(|renewed| renewed.0 > at)
        };
        let kept = wait::until(leases, NODE, "the node to be kept", renewed).await;
        assert!(kept.is_ok(), "{kept:?}\n{}", self.tail());
    }

    async fn assert_web_runs_on(&self) {
        let pod = self.pods().get("web").await.expect("the pod");
        assert!(is_running(Some(&pod)) && pod.metadata.deletion_timestamp.is_none());
        assert_eq!(self.groups(), [pod.uid().expect("a UID")]);
        self.until_node(NODE, "the node to take pods", |node| {
            node.is_some_and(|node| !is_closed(node))
        })
        .await;
    }
}

/// Status and message of a condition of a stored pool.
fn stored_says(pool: &Value, kind: &str) -> Option<(String, String)> {
    let conditions = pool["status"]["conditions"].as_array()?;
    let one = conditions.iter().find(|one| one["type"] == kind)?;
    let text = |field: &str| one[field].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("message")))
}

fn create_pool_with_unset_value(world: &World) {
    let mut unset = crate::custom_resource::pool("unset");
    unset["spec"]["azure"] = json!({});
    unset["spec"]["placements"][0]["capacity"] = json!({"cpu": null});
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), unset.to_string()).expect("it is written");
    world.kubectl(&["create", "-f", file.path().to_str().expect("a plain name")]);
}

/// One Event says that the pool cannot be read.
fn assert_told_once(world: &World) {
    let events = world.kubectl(&["get", "events", "-o", "json"]);
    let events: Value = serde_json::from_str(&events).expect("JSON");
    let events = events["items"].as_array().expect("a list");
    let told = events
        .iter()
        .filter(|event| event["reason"] == "Unreadable");
    assert_eq!(told.count(), 1, "once");
}

#[tokio::test]
async fn a_pool_that_cannot_be_read_is_named_runs_on_and_stops_no_other() {
    let mut world = World::without_operator(
        Options::default(),
        AzureOptions {
            speed: 20.0,
            ..AzureOptions::default()
        },
    )
    .await;
    world.run();
    world.create_pool("shop").await;
    world.create_pod("web", "shop", &json!({})).await;
    world.until_pod("web", "the pod to run", is_running).await;
    world.widen_definition().await;

    world.set_mode("Paused");
    by_and_by("the pool to say what cannot be read", async || {
        let stalled = stored_says(&world.stored(), "Stalled");
        stalled.is_some_and(|(is, why)| is == "True" && why.starts_with("spec.mode: "))
    })
    .await;
    let ready = stored_says(&world.stored(), "Ready");
    assert_eq!(ready.map(|(is, _)| is).as_deref(), Some("False"));
    world.assert_web_runs_on().await;

    // The next leader has never read the pool. An unset value must not make a pool unreadable.
    world.kill_and_forget().await;
    let at = Timestamp::now();
    create_pool_with_unset_value(&world);
    world.run();
    world.until_shop_is_kept_after(at).await;
    world
        .until_pool("unset", "the other pool to be open", |pool| {
            pool.is_some_and(|pool| {
                said(pool, "Ready").0 == "True" && said(pool, "NodesReady").0 == "True"
            })
        })
        .await;
    let url = address(&world).await;
    until_measured(&url, &["burstpool_pool_unreadable{pool=\"shop\"} 1"]).await;
    let ready = reqwest::get(format!("{url}/readyz"))
        .await
        .expect("an answer");
    assert_eq!(ready.status().as_u16(), 200);
    world.assert_web_runs_on().await;
    assert_told_once(&world);

    world.set_mode("Active");
    world
        .until_pool("shop", "the pool to be well", |pool| {
            pool.is_some_and(|pool| {
                said(pool, "Ready").0 == "True" && said(pool, "Stalled").0.is_empty()
            })
        })
        .await;
    world.assert_web_runs_on().await;
    world.delete_pool("shop").await;
    world.until_no_pool("shop").await;
    world.end().await;
}
