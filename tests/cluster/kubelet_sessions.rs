//! Sessions end with their pod, and the operator completes its answers before it ends.

use std::net::IpAddr;
use std::process::{ExitStatus, Stdio};

use burstpool::emulator::{EmulatorOptions as AzureOptions, SubnetAddresses};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Preconditions};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::support::{Options, wait};
use crate::world::{World, is_running};

const SUBNET: &str =
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/n";
/// The port at which the pod serves. The test serves there in its place.
const PORT: u16 = 8080;

/// Clients that have a session with the pod `web`.
struct Clients {
    forward: Child,
    exec: Child,
    logs: Child,
    /// A connection through the port-forward.
    connection: TcpStream,
    /// The local port of the port-forward.
    port: u16,
}

impl Clients {
    /// Opens the sessions, and checks that each of them works.
    async fn open(world: &World) -> Self {
        let start = |arguments: &[&str]| {
            let mut command = tokio::process::Command::from(world.cluster.kubectl());
            command.args(arguments).kill_on_drop(true);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            command.spawn().expect("kubectl")
        };
        let mut forward = start(&["port-forward", "pod/web", &format!(":{PORT}")]);
        let mut exec = start(&["exec", "-i", "web", "--", "sh"]);
        let mut logs = start(&["logs", "-f", "web"]);
        let said = first(&mut forward, b'\n').await;
        let listens = said.split_once("127.0.0.1:").expect("an address").1;
        let port = listens.split(' ').next().expect("a port");
        let port = port.parse().expect("a port");
        assert_eq!(first(&mut logs, b'\n').await, "begin\n");
        first(&mut exec, b'#').await;
        let connection = TcpStream::connect(("127.0.0.1", port)).await;
        let mut connection = connection.expect("a connection");
        connection.write_all(b"ping").await.expect("it is written");
        let mut echoed = [0; 4];
        let read = tokio::time::timeout(wait::DEADLINE, connection.read_exact(&mut echoed)).await;
        read.expect("an answer in time").expect("an answer");
        assert_eq!(&echoed, b"ping");
        Self {
            forward,
            exec,
            logs,
            connection,
            port,
        }
    }

    /// Waits until all clients have ended.
    async fn ended(mut self, world: &World) {
        let mut rest = Vec::new();
        let closed = self.connection.read_to_end(&mut rest);
        let closed = tokio::time::timeout(wait::DEADLINE, closed).await;
        assert!(closed.is_ok(), "the connection: {}", world.tail());
        let forwarded = ended("port-forward", self.forward, world).await;
        assert!(!forwarded.success(), "it has lost its connection");
        let ran = ended("exec", self.exec, world).await;
        assert!(!ran.success(), "the command did not end by itself");
        ended("logs -f", self.logs, world).await;
        let again = TcpStream::connect(("127.0.0.1", self.port)).await;
        assert!(again.is_err(), "the port is still forwarded");
    }
}

/// The output of a client up to the byte `end`.
async fn first(client: &mut Child, end: u8) -> String {
    let mut said = Vec::new();
    let mut out = BufReader::with_capacity(1, client.stdout.as_mut().expect("piped"));
    let read = tokio::time::timeout(wait::DEADLINE, out.read_until(end, &mut said)).await;
    read.expect("a word in time").expect("a word");
    String::from_utf8_lossy(&said).into_owned()
}

async fn ended(what: &str, mut client: Child, world: &World) -> ExitStatus {
    let ended = tokio::time::timeout(wait::DEADLINE, client.wait()).await;
    let Ok(ended) = ended else {
        unreachable!("{what} goes on:\n{}", world.tail());
    };
    ended.expect("it is a child of ours")
}

/// Creates the pod, waits until it runs, and echoes at its address what a client sends.
async fn web(world: &World) -> (Pod, AbortOnDropHandle<()>) {
    world.create_pod("web", "shop", &script()).await;
    let serves = |pod: Option<&Pod>| is_running(pod) && address(pod).is_some();
    world.until_pod("web", "the pod to run", serves).await;
    let pod = world.pods().get("web").await.expect("the pod");
    let address = address(Some(&pod)).expect("an address");
    let listener = TcpListener::bind((address, PORT)).await.expect("its port");
    let echoes = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (mut read, mut write) = stream.split();
            // The client ends the connection.
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    });
    (pod, AbortOnDropHandle::new(echoes))
}

/// A container that writes a log.
fn script() -> Value {
    json!({"env": [
        {"name": "ACI_EMULATOR_LOG", "value": "begin"},
        {"name": "ACI_EMULATOR_LOG_EVERY", "value": "10s"},
    ]})
}

fn address(pod: Option<&Pod>) -> Option<IpAddr> {
    let address = pod?.status.as_ref()?.pod_ip.as_ref()?;
    address.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_end_with_their_pod_and_answers_are_completed_when_the_operator_ends() {
    let azure = AzureOptions {
        speed: 20.0,
        subnet_addresses: SubnetAddresses::Loopback,
        ..AzureOptions::default()
    };
    let mut world = World::without_operator(Options::default(), azure).await;
    world.run();
    let placement = json!({"name": "weu", "region": "westeurope", "subnetId": SUBNET});
    world.add_pool(&json!({"placements": [placement]})).await;

    // The pod is deleted.
    let (_, serves) = web(&world).await;
    let clients = Clients::open(&world).await;
    world.delete_pod("web").await;
    clients.ended(&world).await;
    world
        .until_pod("web", "the pod to go", |pod| pod.is_none())
        .await;
    drop(serves);

    // Another pod takes its name at once. The old pod's address still answers.
    let (pod, _serves) = web(&world).await;
    let clients = Clients::open(&world).await;
    let now = DeleteParams {
        preconditions: Some(Preconditions {
            uid: pod.metadata.uid,
            ..Preconditions::default()
        }),
        ..DeleteParams::default().grace_period(0)
    };
    world.pods().delete("web", &now).await.expect("deleted");
    let (_, _serves_too) = web(&world).await;
    clients.ended(&world).await;

    world.create_pod("slow", "shop", &script()).await;
    world.until_pod("slow", "the pod to run", is_running).await;
    completed(&mut world).await;
    world.end().await;
}

/// The operator ends while one client reads a log and another follows one.
async fn completed(world: &mut World) {
    let base = world.kubelet("burst-shop-weu").await;
    let client = reqwest::Client::builder().danger_accept_invalid_certs(true);
    let client = client.build().expect("a client");
    let logs = |of: &str| {
        let url = format!("{base}/containerLogs/default/{of}");
        client.get(url).bearer_auth(world.cluster.token()).send()
    };
    let mut followed = logs("web/main?follow=true").await.expect("an answer");
    let begin = followed.chunk().await.expect("it is read");
    assert!(begin.is_some_and(|begin| begin.starts_with(b"begin\n")));
    let slow = json!({
        "operation": "Containers_ListLogs", "group": "default-slow", "count": 1, "fault": {"delay": "6s"},
    });
    world.admin("faults", &slow).await;
    let reading = tokio::spawn(logs("slow/main"));
    let is_under_way = async || world.azure.shared().store().faults.rules().is_empty();
    wait::by_and_by("the log to be read", is_under_way).await;

    let address = base.trim_start_matches("https://").to_owned();
    let is_refused = async || TcpStream::connect(&address).await.is_err();
    let refused = async {
        wait::by_and_by("new connections to be refused", is_refused).await;
        Instant::now()
    };
    let answered = tokio::spawn(async move {
        let answer = reading.await.expect("no panic").expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["connection"], "close");
        let text = answer.text().await.expect("all of it");
        assert!(text.starts_with("begin\n"), "{text}");
        Instant::now()
    });
    let (ended, refused) = tokio::join!(world.terminate(), refused);
    assert!(ended.success(), "{ended}");
    let answered = answered.await.expect("it is");
    assert!(refused < answered, "new connections waited for old answers");
    let rest = loop {
        match followed.chunk().await {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert!(rest.is_err(), "a log that goes on looks complete");

    // The next operator writes its address to the node and answers there.
    world.run();
    let is_answered = async || {
        let done = world.cluster.kubectl().args(["logs", "slow"]).output();
        done.is_ok_and(|done| done.status.success() && done.stdout.starts_with(b"begin\n"))
    };
    wait::by_and_by("the next operator to answer", is_answered).await;
}
