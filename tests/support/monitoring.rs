//! Prometheus, a load that it measures, and Alertmanager's webhook bodies, on loopback, for tests of
//! triggers.
//!
//! In: a load. Out: addresses for queries. Each server is a process or task of the test and ends with
//! it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path as Segment, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::{secure, skipped, wait};

/// A free loopback port, below the range from which the kernel chooses ports.
pub fn free_port() -> u16 {
    let ports = (0..100).map(|_| rand::random_range(12_000..32_000));
    let mut free = ports.filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
    free.next().expect("one of a hundred ports is free")
}

/// A program in PATH or in /usr/bin, where Debian installs it.
pub(super) fn found(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/bin")]);
    let mut files = folders.map(|folder| folder.join(name));
    files.find(|file| file.is_file())
}

fn program() -> PathBuf {
    found("prometheus").unwrap_or_else(|| {
        unreachable!("prometheus is missing: `make monitoring` installs it or says how to")
    })
}

/// Waits until a URL answers with a success.
pub(super) async fn until_ready(url: &str) {
    wait::by_and_by(url, async || {
        let answer = reqwest::get(url).await;
        answer.is_ok_and(|answer| answer.status().is_success())
    })
    .await;
}

/// A load to measure, with a server that plays Prometheus for tests that a real one does not suit.
#[derive(Clone)]
pub struct Load {
    port: u16,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    load: f64,
    /// For each path, the header that a request must have.
    wanted: BTreeMap<String, (String, String)>,
}

impl Load {
    /// A load of 0, served on `/metrics`.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a port");
        let load = Self {
            port: listener.local_addr().expect("an address").port(),
            seen: Arc::default(),
        };
        let router = router(load.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        load
    }

    /// Serves the same over TLS, too. Returns the URL, and the certificate to trust.
    pub async fn secure(&self) -> (String, String) {
        let (address, ca) = secure::serve(router(self.clone())).await;
        (format!("https://{address}"), ca)
    }

    pub fn set(&self, load: f64) {
        self.seen.lock().load = load;
    }

    /// The address of a simulated Prometheus: `ok` answers with the load, `hangs` never answers,
    /// `warns` adds a warning, others require a header.
    pub fn address(&self, kind: &str) -> String {
        format!("http://127.0.0.1:{}/{kind}", self.port)
    }

    /// Requires this header for `kind`.
    pub fn want(&self, kind: &str, header: &str, value: &str) {
        let mut seen = self.seen.lock();
        let header = (header.to_owned(), value.to_owned());
        seen.wanted.insert(kind.to_owned(), header);
    }
}

fn router(load: Load) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/{kind}/api/v1/query", post(answer))
        .with_state(load)
}

async fn metrics(State(load): State<Load>) -> String {
    let load = load.seen.lock().load;
    format!("# TYPE load gauge\nload{{app=\"web\"}} {load}\n")
}

async fn answer(
    State(load): State<Load>,
    Segment(kind): Segment<String>,
    headers: HeaderMap,
) -> Response {
    if kind == "hangs" {
        return std::future::pending().await;
    }
    let seen = load.seen.lock();
    if let Some((name, value)) = seen.wanted.get(&kind) {
        let shown = headers.get(name).and_then(|shown| shown.to_str().ok());
        if shown != Some(value) {
            return (StatusCode::UNAUTHORIZED, "no").into_response();
        }
    }
    let mut body = json!({"status": "success", "data": {"resultType": "vector",
        "result": [{"metric": {}, "value": [1.0, seen.load.to_string()]}]}});
    if kind == "warns" {
        body["warnings"] = json!(["a store is away"]);
    }
    body.to_string().into_response()
}

/// A real Prometheus that scrapes a load every second.
pub struct Prometheus {
    child: Child,
    port: u16,
    files: tempfile::TempDir,
    has_web: bool,
}

impl Prometheus {
    /// Whether Prometheus is installed.
    pub fn is_installed() -> bool {
        found("prometheus").is_some()
    }

    /// Whether Prometheus is installed. If not, reports the test as skipped.
    pub fn is_found() -> bool {
        let is_installed = Self::is_installed();
        if !is_installed {
            skipped("Prometheus", "`make monitoring` installs it or says how to");
        }
        is_installed
    }

    /// Starts a Prometheus that scrapes `load`.
    pub async fn start(load: &Load) -> Self {
        let prometheus = Self::with_web(load, None);
        until_ready(&format!("{}/-/ready", prometheus.address())).await;
        prometheus
    }

    /// The same with a web configuration file. Does not wait until it is ready.
    pub fn with_web(load: &Load, web: Option<&str>) -> Self {
        let target = format!("127.0.0.1:{}", load.port);
        let job = json!({"job_name": "load", "static_configs": [{"targets": [target]}]});
        Self::with(&json!([job]), web)
    }

    /// Starts a Prometheus with these scrape jobs.
    pub async fn of(jobs: &Value) -> Self {
        let prometheus = Self::with(jobs, None);
        until_ready(&format!("{}/-/ready", prometheus.address())).await;
        prometheus
    }

    fn with(jobs: &Value, web: Option<&str>) -> Self {
        let files = tempfile::tempdir().expect("a directory");
        // JSON is valid YAML.
        let config = json!({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs});
        let config = config.to_string();
        std::fs::write(files.path().join("prometheus.yml"), config).expect("it is written");
        if let Some(web) = web {
            std::fs::write(files.path().join("web.yml"), web).expect("it is written");
        }
        let port = free_port();
        let child = run(files.path(), port, web.is_some());
        Self {
            child,
            port,
            files,
            has_web: web.is_some(),
        }
    }

    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills it.
    pub async fn stop(&mut self) {
        self.child.kill().await.expect("SIGKILL");
    }

    /// Starts it again with its old data.
    pub async fn again(&mut self) {
        self.child = run(self.files.path(), self.port, self.has_web);
        until_ready(&format!("{}/-/ready", self.address())).await;
    }
}

fn run(files: &Path, port: u16, has_web: bool) -> Child {
    let at = |name: &str| files.join(name).display().to_string();
    let mut command = Command::new(program());
    command
        .arg(format!("--config.file={}", at("prometheus.yml")))
        .arg(format!("--storage.tsdb.path={}", at("data")))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"));
    if has_web {
        command.arg(format!("--web.config.file={}", at("web.yml")));
    }
    quietly(&mut command)
}

pub(super) fn quietly(command: &mut Command) -> Child {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command.spawn().expect("it starts")
}

/// The body of Alertmanager's webhook (version 4) for one alert, from its documentation and source
/// code.
pub fn alerts(status: &str, name: &str) -> Value {
    let labels = json!({"alertname": name, "severity": "page", "instance": "web-0"});
    json!({
        "receiver": "burstpool",
        "status": status,
        "alerts": [{
            "status": status,
            "labels": labels,
            "annotations": {"summary": "web is saturated"},
            "startsAt": "2026-11-24T10:00:00.000Z",
            "endsAt": if status == "firing" { "0001-01-01T00:00:00Z" } else { "2026-11-24T10:05:00.000Z" },
            "generatorURL": "http://prometheus.example/graph?g0.expr=up",
            "fingerprint": format!("f-{name}"),
        }],
        "groupLabels": {"alertname": name},
        "commonLabels": labels,
        "commonAnnotations": {"summary": "web is saturated"},
        "externalURL": "http://alertmanager.example:9093",
        "version": "4",
        "groupKey": format!("{{}}:{{alertname=\"{name}\"}}"),
        "truncatedAlerts": 0,
    })
}
