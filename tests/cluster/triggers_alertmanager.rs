//! A real Alertmanager starts and ends a burst. It repeats lost notifications: to an operator that
//! comes back, and to the leader of two operators.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burstpool::emulator::EmulatorOptions as AzureOptions;
use kube::api::{Patch, PatchParams};
use serde::Deserialize as _;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::support::alertmanager::Alertmanager;
use crate::support::monitoring::free_port;
use crate::support::{Cluster, Options};
use crate::triggers_prometheus::until_trigger;
use crate::world::World;

/// A file with a token, in a directory that ends with the test.
fn token() -> (tempfile::TempDir, PathBuf) {
    let files = tempfile::tempdir().expect("a directory");
    let token = files.path().join("token");
    std::fs::write(&token, "SECRET-ALERTS\n").expect("it is written");
    (files, token)
}

fn receives(port: u16, token: &Path) -> Vec<String> {
    let listen = format!("127.0.0.1:{port}");
    let token = token.display().to_string();
    ["--alerts-listen", &listen, "--alerts-token-file", &token]
        .map(str::to_owned)
        .to_vec()
}

async fn world() -> World {
    let azure = AzureOptions {
        speed: 20.0,
        ..AzureOptions::default()
    };
    World::without_operator(Options::default(), azure).await
}

/// A pool with a hold of zero while its alert fires, and of ten minutes otherwise.
fn paged() -> Value {
    json!({
        "spill": {"after": "10m", "afterWhenTriggered": "0s", "maxReplicas": 10},
        "triggers": [{"name": "pager", "alert": {"matchLabels": {"alertname": "WebSaturated"}}}],
    })
}

async fn until_fires(world: &World) {
    until_trigger(world, "pager", "active", |one| {
        one.active && one.message == "1 alert fires"
    })
    .await;
}

async fn until_quiet(world: &World) {
    until_trigger(world, "pager", "quiet", |one| {
        !one.active && one.alerts.is_empty() && one.since.is_some()
    })
    .await;
}

/// Removes the triggers from the pool's status.
async fn forget_triggers(world: &World) {
    let patch = Patch::Merge(json!({"status": {"triggers": null}}));
    let pools = world.pools();
    let parameters = PatchParams::default();
    let patched = pools.patch_status("shop", &parameters, &patch).await;
    let status = patched.expect("it is patched").status;
    assert!(status.expect("a status").triggers.is_empty());
}

#[tokio::test]
async fn an_alert_of_a_real_alertmanager_spills_without_hold_and_repeats_restore_it() {
    let ((_files, token), port) = (token(), free_port());
    let webhook = format!("http://127.0.0.1:{port}/alerts");
    let Some(alertmanager) = Alertmanager::start(&webhook, &token).await else {
        return;
    };
    alertmanager.fire("WebSaturated").await;
    alertmanager.fire("Another").await;
    alertmanager.until_failed(0).await;
    let mut world = world().await;
    world.arguments = receives(port, &token);
    world.run();
    world.furnish(&paged()).await;
    until_fires(&world).await;
    world.deploy(6).await;
    world.until_spread(4, 2, 0).await;

    alertmanager.resolve("WebSaturated").await;
    until_quiet(&world).await;
    world.scale(7).await;
    world.until_spread(4, 2, 1).await;
    world.until_counted("web", (1, 0, 2, 0)).await;
    alertmanager.fire("WebSaturated").await;
    world.until_spread(4, 3, 0).await;
    until_fires(&world).await;

    // Only Alertmanager's next notification can restore the alert.
    world.kill_and_forget().await;
    forget_triggers(&world).await;
    world.run();
    until_fires(&world).await;

    // No operator ran when Alertmanager reported the end of the alert.
    world.kill_and_forget().await;
    let before = alertmanager.failures().await;
    alertmanager.resolve("WebSaturated").await;
    alertmanager.until_failed(before).await;
    world.run();
    until_quiet(&world).await;
    let log = std::fs::read_to_string(world.log()).expect("a log");
    assert!(!log.contains("SECRET-ALERTS"));
    world.end().await;
}

/// One address that forwards to two ports in turn, similar to a Service.
struct Balancer {
    port: u16,
    refused: Arc<AtomicUsize>,
}

impl Balancer {
    async fn start(behind: [u16; 2]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a port");
        let balancer = Self {
            port: listener.local_addr().expect("an address").port(),
            refused: Arc::default(),
        };
        let refused = balancer.refused.clone();
        tokio::spawn(async move {
            for port in behind.into_iter().cycle() {
                let (mut client, _) = listener.accept().await.expect("it listens");
                let refused = refused.clone();
                tokio::spawn(async move {
                    match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                        // Errors on one side end the other one.
                        Ok(mut server) => {
                            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                        }
                        Err(_) => drop(refused.fetch_add(1, Ordering::Relaxed)),
                    }
                });
            }
        });
        balancer
    }

    fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn of_two_operators_behind_one_address_the_one_that_leads_gets_every_alert() {
    let ((_files, token), ports) = (token(), [free_port(), free_port()]);
    // The balancer tries the follower first.
    let balancer = Balancer::start([ports[1], ports[0]]).await;
    let webhook = format!("http://127.0.0.1:{}/alerts", balancer.port);
    let Some(alertmanager) = Alertmanager::start(&webhook, &token).await else {
        return;
    };
    let mut world = world().await;
    world.arguments = receives(ports[0], &token);
    let mut leader = world.instance("leader");
    world.furnish(&paged()).await;
    world.arguments = receives(ports[1], &token);
    let _follower = world.instance("follower");
    alertmanager.fire("WebSaturated").await;
    until_fires(&world).await;
    assert!(balancer.refused() > 0, "the follower does not listen");

    // Without a leader, no operator accepts the end of the alert.
    leader.signal("TERM").await;
    alertmanager.resolve("WebSaturated").await;
    assert!(leader.ended().await.success());
    until_quiet(&world).await;
    alertmanager.fire("WebSaturated").await;
    until_fires(&world).await;
}

/// The manifests of an installation by kind, as kustomize builds them.
fn manifests(cluster: &Cluster) -> Vec<Value> {
    let path = format!("{}/config/default", env!("CARGO_MANIFEST_DIR"));
    let all = cluster.ask(&["kustomize", &path]).expect("manifests");
    let documents = serde_yaml::Deserializer::from_str(&all);
    let documents = documents.map(|one| Value::deserialize(one).expect("YAML"));
    documents.collect()
}

/// The element of a list whose `field` has this value.
fn with<'a>(list: &'a Value, field: &str, value: &str) -> &'a Value {
    let mut list = list.as_array().into_iter().flatten();
    let found = list.find(|one| one[field] == value);
    found.expect("there is one")
}

#[tokio::test]
async fn the_manifests_open_a_port_for_alerts_and_its_token_may_come_later() {
    let all = manifests(Cluster::shared().await);
    let of = |kind: &str| {
        let mut all = all.iter().filter(|one| one["kind"] == kind);
        all.next().expect("there is one")
    };
    let pod = &of("Deployment")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_burstpool"));
    let help = { help }.args(["run", "--help"]).output().expect("its help");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let set = |name: &str| {
        assert!(help.contains(&format!("[env: {name}=")), "{name}: {help}");
        with(&container["env"], "name", name)["value"]
            .as_str()
            .expect("a value")
    };
    let port = &with(&container["ports"], "name", "alerts")["containerPort"];
    assert_eq!(set("BURSTPOOL_ALERTS_LISTEN"), format!("0.0.0.0:{port}"));
    // The Service is headless and includes instances that are not ready. Only the leader accepts
    // connections.
    let service = &of("Service")["spec"];
    assert_eq!(service["clusterIP"], "None");
    assert_eq!(service["publishNotReadyAddresses"], true);
    let reached = with(&service["ports"], "name", "alerts");
    assert_eq!(
        (&reached["port"], &reached["targetPort"]),
        (port, &json!("alerts"))
    );
    let file = Path::new(set("BURSTPOOL_ALERTS_TOKEN_FILE"));
    let directory = file.parent().and_then(Path::to_str).expect("a directory");
    let mount = with(&container["volumeMounts"], "mountPath", directory);
    let volume = mount["name"].as_str().expect("a name");
    assert_eq!(mount["readOnly"], true);
    let secret = &with(&pod["volumes"], "name", volume)["secret"];
    assert_eq!(secret["secretName"], "burstpool-alerts");
    assert_eq!(secret["optional"], true, "the operator starts without");
}
