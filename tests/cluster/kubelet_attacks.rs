//! Attacks on the kubelet API.

use std::sync::Arc;
use std::time::Duration;

use burstpool::emulator::EmulatorOptions as AzureOptions;
use http::StatusCode;
use reqwest::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use reqwest::{Body, Client, Method};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{Options, wait};
use crate::world::{World, is_running};

const EXEC: &str = "/exec/default/web/main?command=id&output=1";

async fn world_with_a_pod() -> (World, String) {
    let world = World::start().await;
    world.create_pool("shop").await;
    world.create_pod("web", "shop", &json!({})).await;
    world.until_pod("web", "the pod to run", is_running).await;
    let base = world.kubelet("burst-shop-weu").await;
    (world, base)
}

fn client() -> Client {
    let client = Client::builder()
        .danger_accept_invalid_certs(true)
        .http1_only();
    client.build().expect("a client")
}

/// How many commands the operator requested in Azure.
fn commands(world: &World) -> usize {
    let text = world.azure.shared().counters.text();
    let lines = text
        .lines()
        .filter(|line| line.contains("Containers_ExecuteCommand"));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
        .sum()
}

/// The headers of a request that upgrades to a stream.
fn upgrading(kind: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(kind));
    let fixed = [
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", "v4.channel.k8s.io"),
        ("x-stream-protocol-version", "v4.channel.k8s.io"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
}

/// In azure-aci, anyone could run commands in every pod unless a rarely used flag was set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unauthenticated_client_never_runs_a_command() {
    let (world, base) = world_with_a_pod().await;
    let ask = async |method: Method, kind, token: Option<&str>| {
        let mut asked = client().request(method, format!("{base}{EXEC}"));
        asked = asked.headers(upgrading(kind));
        if let Some(token) = token {
            asked = asked.bearer_auth(token);
        }
        asked.send().await.expect("an answer")
    };
    for (method, kind) in [
        (Method::POST, "SPDY/3.1"),
        (Method::GET, "SPDY/3.1"),
        (Method::GET, "websocket"),
        (Method::POST, "nonsense"),
    ] {
        for token in [None, Some("wrong")] {
            let refused = ask(method.clone(), kind, token).await;
            assert_eq!(
                refused.status(),
                StatusCode::UNAUTHORIZED,
                "{method} {kind} {token:?}"
            );
        }
    }
    assert_eq!(commands(&world), 0);
    // The same request by an authorized user.
    let served = ask(Method::GET, "websocket", Some(world.cluster.token())).await;
    assert_eq!(served.status(), StatusCode::SWITCHING_PROTOCOLS);
    let asked = async {
        while commands(&world) == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(wait::DEADLINE, asked)
        .await
        .expect("it is run");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_and_bodies_without_end_are_refused_and_cost_little_memory() {
    let (world, base) = world_with_a_pod().await;
    let client = client();
    let before = world.memory();
    for _ in 0..50 {
        let bomb = client
            .get(format!("{base}/pods"))
            .header("x", "a".repeat(4 << 20));
        // The server may answer and close before it has read everything; then the client may not see
        // the answer.
        let refused = bomb.send().await.map(|answer| answer.status());
        assert!(
            refused
                .as_ref()
                .map_or(true, |s| *s == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            "{refused:?}"
        );
        let mut many = client.get(format!("{base}/pods"));
        for n in 0..200 {
            many = many.header(format!("x-{n}"), "a");
        }
        let refused = many.send().await.expect("an answer").status();
        assert_eq!(refused, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        let long = client.post(format!("{base}/pods")).body(vec![0; 1 << 20]);
        let refused = long.send().await.map(|answer| answer.status());
        assert!(
            refused
                .as_ref()
                .map_or(true, |s| *s == StatusCode::PAYLOAD_TOO_LARGE),
            "{refused:?}"
        );
    }
    let parts = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![0; 64 << 10]));
    let endless = client
        .post(format!("{base}/pods"))
        .body(Body::wrap_stream(parts));
    let endless = tokio::time::timeout(wait::DEADLINE, endless.send()).await;
    let refused = endless.expect("it ends").map(|answer| answer.status());
    assert!(
        refused
            .as_ref()
            .map_or(true, |status| *status == StatusCode::UNAUTHORIZED),
        "{refused:?}"
    );
    still_served(&world, &base).await;
    let grown = world.memory().saturating_sub(before);
    assert!(grown < 64 << 20, "it has {grown} bytes more");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_nothing_are_limited_and_closed() {
    let (world, base) = world_with_a_pod().await;
    let address = base.strip_prefix("https://").expect("it is one").to_owned();
    let before = world.memory();
    let mut silent = Vec::new();
    for number in 0..800 {
        let Ok(mut stream) = TcpStream::connect(&address).await else {
            unreachable!("connection {number}")
        };
        if number % 2 == 0 {
            // Half of a TLS greeting. The listener may have closed already.
            let _ = stream.write_all(b"\x16\x03\x01\x02\x00\x01").await;
        }
        silent.push(stream);
    }
    let grown = world.memory().saturating_sub(before);
    assert!(grown < 64 << 20, "it has {grown} bytes more");
    let closed = async {
        for stream in &mut silent {
            let mut rest = Vec::new();
            // Closed or reset: both are correct.
            let _ = stream.read_to_end(&mut rest).await;
        }
    };
    tokio::time::timeout(wait::DEADLINE, closed)
        .await
        .expect("all are closed");
    still_served(&world, &base).await;
    world.end().await;
}

/// A client that sends a byte a second keeps its connection busy, and would occupy it for hours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_trickles_in_is_not_waited_for() {
    let mut world = World::without_operator(Options::default(), AzureOptions::default()).await;
    for (flag, kind) in [
        ("--kubelet-cert-file", "crt"),
        ("--kubelet-key-file", "key"),
    ] {
        let file = world.cluster.directory().join(format!("serving.{kind}"));
        let arguments = [flag.to_owned(), file.display().to_string()];
        world.arguments.extend(arguments);
    }
    world.run();
    world.create_pool("shop").await;
    let base = world.kubelet("burst-shop-weu").await;
    for before in ["", "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut stream = connected(&world, &base).await;
        if !before.is_empty() {
            stream
                .write_all(before.as_bytes())
                .await
                .expect("it is read");
            let mut answer = [0; 4096];
            let read = stream.read(&mut answer).await.expect("an answer");
            assert!(answer[..read].starts_with(b"HTTP/1.1 401"));
        }
        let trickling = async {
            let head = b"GET /pods HTTP/1.1\r\nHost: a\r\nX-Slow: ";
            let mut sent = stream.write_all(head).await;
            let mut every = tokio::time::interval(Duration::from_secs(1));
            while sent.is_ok() {
                every.tick().await;
                let read = stream.read_u8();
                // Ignore any answer: the server must close the connection.
                if let Ok(Err(_)) = tokio::time::timeout(Duration::from_millis(10), read).await {
                    return;
                }
                sent = stream.write_all(b"a").await;
            }
        };
        let closed = tokio::time::timeout(wait::DEADLINE, trickling).await;
        closed.expect("the connection is closed");
    }
    still_served(&world, &base).await;
    world.end().await;
}

/// A TLS connection to the kubelet API that verifies the server by the cluster's CA.
async fn connected(world: &World, base: &str) -> TlsStream<TcpStream> {
    let authority = std::fs::read(world.cluster.certificate_authority()).expect("a certificate");
    let authority = CertificateDer::from_pem_slice(&authority).expect("PEM");
    let mut roots = RootCertStore::empty();
    roots.add(authority).expect("an authority");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let address = base.strip_prefix("https://").expect("it is one");
    let stream = TcpStream::connect(address).await.expect("a connection");
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.expect("TLS")
}

/// A client that sends no valid SPDY, or disconnects in the middle, ends its connection and no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rubbish_on_a_stream_ends_that_stream() {
    let (world, base) = world_with_a_pod().await;
    for rubbish in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 4096],
        b"\x80\x03\x00\x01\x00\xff\xff\xff",
    ] {
        for kind in ["SPDY/3.1", "websocket"] {
            let asked = client()
                .get(format!("{base}{EXEC}"))
                .headers(upgrading(kind));
            let answer = asked.bearer_auth(world.cluster.token()).send().await;
            let answer = answer.expect("an answer");
            assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
            let mut io = answer.upgrade().await.expect("a connection");
            // The server may close before everything is written.
            let _ = io.write_all(rubbish).await;
            let mut rest = Vec::new();
            let ended = tokio::time::timeout(wait::DEADLINE, io.read_to_end(&mut rest)).await;
            assert!(ended.is_ok(), "{kind}: it is open still");
        }
    }
    still_served(&world, &base).await;
    world.end().await;
}

async fn still_served(world: &World, base: &str) {
    let asked = client().get(format!("{base}/healthz"));
    let answer = asked.bearer_auth(world.cluster.token()).send().await;
    assert_eq!(answer.expect("an answer").status(), StatusCode::OK);
}
