//! Probes of real servers on loopback. The messages are those of Kubernetes 1.37 against the same servers.

mod grpc;
mod hook;
mod http;
mod server;

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Container;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::aci::probe::ProbeKind;
use crate::node::probe::outcome::{ProbeContact, ProbeUnreachable};
use server::free_port;

/// The pod.
const POD: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A probe with this handler. Its timeout is long: only tests of what hangs make it shorter.
fn spec(handler: &Value) -> ProbeSpec {
    let mut probe = handler.clone();
    probe["timeoutSeconds"] = json!(60);
    let container = json!({"name": "web", "readinessProbe": probe});
    let container: Container = serde_json::from_value(container).expect("a container");
    let spec = ProbeSpec::of(ProbeKind::Readiness, &container, "c").expect("a valid probe");
    spec.expect("it has a probe")
}

async fn probed(handler: &Value) -> ProbeAnswer {
    Prober::new("1.37").probe(POD, &spec(handler)).await
}

async fn probed_shortly(handler: &Value) -> ProbeAnswer {
    let mut spec = spec(handler);
    spec.timeout = Duration::from_millis(200);
    Prober::new("1.37").probe(POD, &spec).await
}

fn success() -> ProbeAnswer {
    ProbeAnswer::from_pod(ProbeOutcome::Success { warning: None })
}

fn warning(text: &str) -> ProbeAnswer {
    let warning = Some(text.to_owned());
    ProbeAnswer::from_pod(ProbeOutcome::Success { warning })
}

fn failure(message: impl Into<String>) -> ProbeAnswer {
    ProbeAnswer::from_pod(ProbeOutcome::Failure(message.into()))
}

/// A port where connections are not answered: its queue of connections is full, so the kernel drops the next one.
/// The sockets must be kept.
async fn silent_port() -> (u16, Vec<TcpStream>, Socket) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let address: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    listener.bind(&address.into()).expect("a port");
    listener.listen(0).expect("it listens");
    let address = listener.local_addr().expect("it is bound");
    let address = address.as_socket().expect("an address");
    let mut kept = Vec::new();
    let patience = Duration::from_millis(200);
    while let Ok(connected) = tokio::time::timeout(patience, TcpStream::connect(address)).await {
        kept.push(connected.expect("a connection"));
    }
    (address.port(), kept, listener)
}

#[tokio::test]
async fn a_tcp_probe_succeeds_once_the_app_listens_and_fails_in_the_kubelets_words_before() {
    let port = free_port();
    let handler = json!({"tcpSocket": {"port": port}});
    let why = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
    assert_eq!(probed(&handler).await, failure(why));
    let listener = TcpListener::bind((POD, port)).await.expect("the port");
    assert_eq!(probed(&handler).await, success());
    // The app sees a connection that ends without data.
    let (mut stream, _) = listener.accept().await.expect("a connection");
    let mut buffer = [0; 8];
    let read = tokio::io::AsyncReadExt::read(&mut stream, &mut buffer).await;
    assert_eq!(read.expect("no reset"), 0);
}

#[tokio::test]
async fn a_connection_that_is_not_answered_says_so_and_a_beacon_proves_the_path() {
    let (port, _kept, _listener) = silent_port().await;
    let timeout = format!("dial tcp 127.0.0.1:{port}: i/o timeout");
    let unreachable = |why: String| {
        let why = ProbeUnreachable::Timeout(why);
        ProbeAnswer::without_contact(ProbeOutcome::Unreachable(why))
    };
    let answer = probed_shortly(&json!({"tcpSocket": {"port": port}})).await;
    assert_eq!(answer, unreachable(timeout.clone()));
    let answer = probed_shortly(&json!({"httpGet": {"port": port, "path": "/x"}})).await;
    let why = format!(
        "Get \"http://127.0.0.1:{port}/x\": {timeout} (Client.Timeout exceeded while awaiting headers)"
    );
    assert_eq!(answer, unreachable(why));
    let answer = probed_shortly(&json!({"grpc": {"port": port}})).await;
    let ProbeOutcome::Unreachable(ProbeUnreachable::Timeout(why)) = answer.outcome else {
        unreachable!("{answer:?}");
    };
    let wanted = format!("timeout: failed to connect service \"127.0.0.1:{port}\" within ");
    assert!(why.starts_with(&wanted), "{why}");
    let prober = Prober::new("1.37");
    let shortly = Duration::from_millis(200);
    assert!(!prober.is_answered((POD, port).into(), shortly).await);
    // A port that refuses is an answer, too.
    let refused = (POD, free_port()).into();
    assert!(prober.is_answered(refused, shortly).await);
}

#[tokio::test]
async fn a_pod_whose_address_is_reserved_is_not_probed() {
    let prober = Prober::new("1.37");
    let port = free_port();
    for address in [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "168.63.129.16",
        "0.0.0.0",
    ] {
        let address: IpAddr = address.parse().expect("an address");
        for handler in ["tcpSocket", "httpGet", "grpc"] {
            let handler = json!({handler: {"port": port}});
            let answer = prober.probe(address, &spec(&handler)).await;
            let ProbeOutcome::Unreachable(ProbeUnreachable::Local(why)) = &answer.outcome else {
                unreachable!("{address}: {answer:?}");
            };
            assert!(why.contains("the address is reserved"), "{why}");
        }
        let beacon = SocketAddr::new(address, port);
        assert!(!prober.is_answered(beacon, Duration::from_secs(60)).await);
    }
}
