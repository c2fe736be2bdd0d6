//! `preStop` commands in real containers.

use std::panic::AssertUnwindSafe;

use burstpool::emulator::{EmulatorOptions, EngineSocket};
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;

use crate::engine_host::{Host, IMAGE};
use crate::support::wait;
use crate::world::{World, is_running};

/// A part of the names of all containers of the pods.
const MARK: &str = "default-hook-";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_runs_in_its_container_before_the_group_is_deleted_and_its_exit_code_counts() {
    let Some(host) = Host::get().await else {
        return;
    };
    let options = EmulatorOptions {
        containers: Some(EngineSocket::At(host.socket.clone())),
        ..EmulatorOptions::default()
    };
    let world = World::with(options).await;
    let outcome = AssertUnwindSafe(commands(&world)).catch_unwind().await;
    world.end().await;
    let left = host.containers(MARK).await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
    assert!(left.is_empty(), "left behind: {:?}", left.keys());
}

/// Whether kubectl succeeds with these arguments.
fn succeeds(world: &World, arguments: &[&str]) -> bool {
    let done = world.cluster.kubectl().args(arguments).output();
    done.expect("kubectl").status.success()
}

async fn commands(world: &World) {
    let pods = [("hook-well", 0), ("hook-ill", 3)];
    world.create_pool("shop").await;
    for (name, code) in pods {
        // The hook waits for the test.
        let script =
            format!("echo >/tmp/begun; until [ -e /tmp/go ]; do sleep 0.1; done; exit {code}");
        let resources = json!({"requests": {"cpu": "1", "memory": "1Gi"}});
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "terminationGracePeriodSeconds": 3600,
                "tolerations": [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}],
                "nodeSelector": {"burstpool.io/pool": "shop"},
                "containers": [{
                    "name": "main", "image": IMAGE, "resources": resources,
                    "command": ["sh", "-c", "while :; do sleep 0.1; done"],
                    "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", script]}}},
                }],
            },
        });
        world.create(pod).await;
    }
    for (name, _) in pods {
        world.until_pod(name, "the pod to run", is_running).await;
        world.delete_pod(name).await;
    }
    for (name, _) in pods {
        wait::by_and_by("the hook to begin", async || {
            succeeds(world, &["exec", name, "--", "test", "-e", "/tmp/begun"])
        })
        .await;
    }
    assert_eq!(world.groups().len(), 2, "the groups wait for the hooks");
    for (name, _) in pods {
        assert!(succeeds(world, &["exec", name, "--", "touch", "/tmp/go"]));
        world
            .until_pod(name, "the pod to be gone", |pod| pod.is_none())
            .await;
    }
    let events: Api<Event> = Api::namespaced(world.client.clone(), "default");
    let failed = ListParams::default().fields("reason=FailedPreStopHook");
    let failed = events.list(&failed).await.expect("Events").items;
    let failed = failed
        .into_iter()
        .map(|event| (event.involved_object.name, event.message));
    let failed: Vec<_> = failed.collect();
    let wanted = (
        Some("hook-ill".to_owned()),
        Some("PreStopHook failed".to_owned()),
    );
    assert_eq!(failed, [wanted]);
}
