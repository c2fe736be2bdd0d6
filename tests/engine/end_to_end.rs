//! End to end: a manifest for virtual nodes, a real control plane, the operator, real containers.

use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::process::Stdio;

use burstpool::emulator::{EmulatorOptions, EngineSocket};
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher;

use crate::engine_host::Host;
use crate::support::wait;
use crate::world::{World, is_running};

/// A replacement for nginx, whose image is not available without a network.
const IMAGE: &str = "localhost/burstpool-test/nginx:1";
const COMMAND: &str = r#"["sh", "-c", "mkdir /www; echo Welcome to $HOSTNAME > /www/index.html; exec httpd -f -p 80 -h /www"]"#;
/// A part of the names of all containers of the manifest's pods.
const MARK: &str = "default-nginx-";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pages_of_the_samples_three_replicas_can_be_fetched_at_their_addresses() {
    let Some(host) = Host::get().await else {
        return;
    };
    host.import(IMAGE, Some(COMMAND)).await.expect("an image");
    let options = EmulatorOptions {
        containers: Some(EngineSocket::At(host.socket.clone())),
        ..EmulatorOptions::default()
    };
    let world = World::with(options).await;
    let outcome = AssertUnwindSafe(pages(&world)).catch_unwind().await;
    world.end().await;
    let left = host.containers(MARK).await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
    assert!(left.is_empty(), "left behind: {:?}", left.keys());
}

async fn pages(world: &World) {
    apply(world, "burstpool.yaml", |manifest| manifest);
    apply(world, "virtual-node-nginx.yaml", |manifest| {
        assert!(manifest.contains("image: nginx\n"), "{manifest}");
        // Without a subnet, a pod has an address only if it has ports.
        let image = format!("image: {IMAGE}\n        ports:\n        - containerPort: 80\n");
        manifest.replace("image: nginx\n", &image)
    });
    let config = watcher::Config::default().labels("app=nginx");
    let three_run = |pods: &[Pod]| pods.len() == 3 && pods.iter().all(|pod| is_running(Some(pod)));
    let pods = wait::until_all(world.pods(), config, "three pods to run", three_run).await;
    for pod in pods.expect("they run") {
        let address = pod
            .status
            .and_then(|status| status.pod_ip)
            .expect("an address");
        // A container is running when its process has started. The process listens a little later.
        let asking = async {
            loop {
                match reqwest::get(format!("http://{address}/")).await {
                    Ok(page) if page.status().is_success() => return page.text().await,
                    _ => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
                }
            }
        };
        let page = tokio::time::timeout(wait::DEADLINE, asking).await;
        let page = page.expect("it is served").expect("a text");
        assert!(page.starts_with("Welcome to "), "{page}");
    }
}

/// Applies a changed sample with kubectl.
fn apply(world: &World, sample: &str, change: impl Fn(String) -> String) {
    let file = format!("{}/config/samples/{sample}", env!("CARGO_MANIFEST_DIR"));
    let manifest = change(std::fs::read_to_string(file).expect("the sample"));
    let mut kubectl = world
        .cluster
        .kubectl()
        .args(["apply", "-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("kubectl");
    let mut input = kubectl.stdin.take().expect("it is piped");
    input.write_all(manifest.as_bytes()).expect("it reads");
    drop(input);
    assert!(kubectl.wait().expect("it ends").success());
}
