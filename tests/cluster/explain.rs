//! `burstpool explain`: the plan's own words, from a running cluster.

use std::path::Path;
use std::process::Command;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::own_nodes::{pod, selected, target};
use crate::support::wait::by_and_by;
use crate::world::World;

/// Whether the command succeeded, and its output.
fn explain(world: &World, arguments: &[&str]) -> (bool, String) {
    explain_as(&world.cluster.kubeconfig(), arguments)
}

/// The same with another user's kubeconfig.
fn explain_as(kubeconfig: &Path, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_burstpool"))
        .arg("explain")
        .args(arguments)
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .env("RUST_BACKTRACE", "1")
        .output()
        .expect("burstpool runs");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// The output for a pod in the tests' namespace.
fn said(world: &World, name: &str) -> String {
    let (done, said) = explain(world, &["shop", "--namespace", "default", name]);
    assert!(done, "{said}");
    said
}

fn with_host_path(app: &str, name: &str) -> Value {
    let volumes = json!([{"name": "host", "hostPath": {"path": "/data"}}]);
    let mut one = pod(app, name, &json!({}));
    one["spec"]["volumes"] = volumes;
    one
}

#[tokio::test]
async fn a_pod_is_explained_in_the_plans_words_wherever_it_is() {
    let world = Box::pin(World::with_home(&json!({
        "spill": {"after": "1s", "maxReplicas": 1},
        "workloads": [target("web", "web"), selected("db")],
    })))
    .await;
    for n in 0..4 {
        let name = format!("filler-{n}");
        world.make::<Pod>(pod("filler", &name, &json!({}))).await;
    }
    world.until_spread_of("filler", 4, 0, 0).await;
    world.deploy(2).await;
    let pods = world.until_spread(0, 1, 1).await;
    world.make::<Pod>(with_host_path("db", "db-0")).await;
    world.until_refused("db-0").await;

    let on_aci = pods
        .iter()
        .find(|pod| crate::support::objects::node_of(pod).is_some());
    let on_aci = said(&world, &on_aci.expect("one").name_any());
    assert!(on_aci.contains("workload: web of pool shop"), "{on_aci}");
    assert!(
        on_aci.contains("runs on ACI in placement weu: it was granted at "),
        "{on_aci}"
    );
    let waits = pods
        .iter()
        .find(|pod| crate::support::objects::node_of(pod).is_none());
    let waits = waits.expect("one").name_any();
    let limited = said(&world, &waits);
    assert!(
        limited.contains("PoolLimitReached: it waits: "),
        "{limited}"
    );
    let refused = said(&world, "db-0");
    assert!(
        refused.contains("CannotSpill: ") && refused.contains("hostPath"),
        "{refused}"
    );
    let other = said(&world, "filler-0");
    assert!(other.contains("none of pool shop has this pod"), "{other}");
    assert!(other.contains("no burst is needed for it"), "{other}");

    let (done, all) = explain(&world, &["shop"]);
    assert!(done, "{all}");
    assert!(all.contains("web: can run on ACI"), "{all}");
    assert!(
        all.contains("db: cannot run on ACI: spec.volumes[0].hostPath"),
        "{all}"
    );

    assert_eq!(
        explain(&world, &["none"]),
        (
            false,
            "Error: there is no BurstPool none: kubectl get burstpools lists the existing ones\n"
                .to_owned()
        )
    );
    let (done, nobody) = explain(&world, &["shop", "--namespace", "default", "nobody"]);
    assert!(
        !done && nobody.contains("there is no pod default/nobody"),
        "{nobody}"
    );
    explain_without_rights(&world, &waits).await;
    world.end().await;
}

/// For a user without rights, the command names the missing ones at once. With those that the message
/// asks for, it names what else it could not read, and says nothing wrong about it.
async fn explain_without_rights(world: &World, waits: &str) {
    let token = world
        .cluster
        .ask(&["create", "token", "default", "-n", "default"]);
    let user = json!({"token": token.expect("a token").trim()});
    let kubeconfig = world.cluster.kubeconfig_of("developer", &user);
    let kubeconfig = kubeconfig.expect("a file");
    let (done, refused) = explain_as(&kubeconfig, &["shop"]);
    assert!(!done, "{refused}");
    for what in ["BurstPools", "pending pods", "virtual nodes", "namespaces"] {
        assert!(refused.contains(&format!("  {what}: ")), "{refused}");
    }
    assert!(
        refused.contains("default:default\" cannot list resource \"nodes\""),
        "{refused}"
    );
    let remedies = refused
        .lines()
        .find_map(|line| line.split_once("the rights: "));
    for remedy in remedies.expect("a remedy").1.split("; ") {
        let remedy = remedy.replace("--user=NAME", "--serviceaccount=default:default");
        let words: Vec<&str> = remedy.split_whitespace().skip(1).collect();
        world.cluster.ask(&words).expect("the remedy can be typed");
    }
    by_and_by("the rights to hold", async || {
        explain_as(&kubeconfig, &["shop"]).0
    })
    .await;
    let (done, all) = explain_as(&kubeconfig, &["shop"]);
    assert!(done && all.contains("db: cannot run on ACI: "), "{all}");
    assert!(
        all.contains("web: its pods cannot be determined: ") && all.contains("is forbidden"),
        "{all}"
    );
    let (done, one) = explain_as(&kubeconfig, &["shop", "--namespace", "default", waits]);
    let unread = "not known: the scale of workload web, which may have this pod: ";
    assert!(done && one.contains(unread), "{one}");
}
