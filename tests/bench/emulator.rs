//! The emulator as a process on loopback. The benchmark creates 2,000 container groups, then sends 200
//! requests a second for 20 s (open loop: each request is sent when it is due, whether or not earlier
//! ones are answered), then as many as 32 clients can send in 5 s. It prints times, rates and the
//! resident memory.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

/// Number of container groups.
const GROUPS: usize = 2000;
/// Requests per second in the open loop.
const RATE: u32 = 200;
/// Duration of the open loop in seconds.
const OPEN_LOOP: u32 = 20;
/// Number of clients in the closed loop.
const CLIENTS: usize = 32;

/// The emulator's process. Drop kills it.
pub struct Emulator {
    child: Child,
    /// The URL at which it listens.
    pub url: String,
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // Ignore errors: it may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Emulator {
    /// Starts the emulator with these arguments.
    pub fn start(arguments: &[&str]) -> Self {
        let program = super::built("aci-emulator");
        let mut child = Command::new(&program)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("its output is piped"));
        output
            .read_line(&mut line)
            .expect("it says where it listens");
        let said: Value = serde_json::from_str(&line).expect("one JSON line");
        Self {
            child,
            url: said["url"].as_str().expect("a URL").to_owned(),
        }
    }

    fn memory(&self) -> u64 {
        super::memory(self.child.id())
    }

    fn group(&self, n: usize) -> String {
        format!(
            "{}/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerInstance/containerGroups/\
             bench-{n}?api-version=2023-05-01",
            self.url
        )
    }
}

fn body(n: usize) -> Value {
    let variables: Vec<Value> = (0..10)
        .map(|v| json!({"name": format!("VARIABLE_{v}"), "value": "x".repeat(50)}))
        .collect();
    json!({
        "location": "westeurope",
        "tags": {"pod": format!("bench-{n}")},
        "properties": {
            "osType": "Linux",
            "containers": [{
                "name": "web",
                "properties": {
                    "image": "nginx",
                    "environmentVariables": variables,
                    "resources": {"requests": {"cpu": 1.0, "memoryInGB": 1.0}},
                },
            }],
        },
    })
}

/// The quantile `share` (0 to 1) of sorted times.
pub fn quantile(sorted: &[Duration], share: f64) -> Duration {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let index = ((sorted.len() - 1) as f64 * share).round() as usize;
    sorted[index]
}

fn report(what: &str, mut times: Vec<Duration>, took: Duration) {
    times.sort_unstable();
    #[allow(clippy::cast_precision_loss, reason = "a count of requests is small")]
    let rate = times.len() as f64 / took.as_secs_f64();
    println!(
        "{what}: {} in {:.1} s ({rate:.0}/s), p50 {:.1?}, p99 {:.1?}, max {:.1?}",
        times.len(),
        took.as_secs_f64(),
        quantile(&times, 0.5),
        quantile(&times, 0.99),
        times[times.len() - 1],
    );
}

async fn timed(request: reqwest::RequestBuilder, expected: StatusCode) -> Duration {
    let began = Instant::now();
    let response = request.bearer_auth("x").send().await.expect("an answer");
    assert_eq!(response.status(), expected);
    response.bytes().await.expect("a body");
    began.elapsed()
}

async fn create(client: &Client, emulator: &Emulator) {
    let began = Instant::now();
    let times = futures::stream::iter(0..GROUPS)
        .map(|n| {
            timed(
                client.put(emulator.group(n)).json(&body(n)),
                StatusCode::CREATED,
            )
        })
        .buffer_unordered(CLIENTS)
        .collect()
        .await;
    report("creates", times, began.elapsed());
}

async fn open_loop(client: &Client, emulator: &Arc<Emulator>) {
    let began = Instant::now();
    let mut due = tokio::time::interval(Duration::from_secs(1) / RATE);
    let mut sent = Vec::new();
    for n in 0..usize::try_from(RATE * OPEN_LOOP).expect("a small number") {
        due.tick().await;
        let request = client.get(emulator.group(n % GROUPS));
        sent.push(tokio::spawn(timed(request, StatusCode::OK)));
    }
    let times = futures::future::join_all(sent).await;
    let times = times
        .into_iter()
        .map(|time| time.expect("no panic"))
        .collect();
    report("open loop, GET", times, began.elapsed());
}

async fn closed_loop(client: &Client, emulator: &Arc<Emulator>) {
    let began = Instant::now();
    let clients = (0..CLIENTS).map(|number| async move {
        let mut times = Vec::new();
        while began.elapsed() < Duration::from_secs(5) {
            let request = client.get(emulator.group((number * 61 + times.len()) % GROUPS));
            times.push(timed(request, StatusCode::OK).await);
        }
        times
    });
    let times = futures::future::join_all(clients).await.concat();
    report("closed loop, GET", times, began.elapsed());
}

/// Measures and prints.
pub async fn run() {
    let quotas = [
        "--quota",
        "ContainerGroups=5000",
        "--quota",
        "StandardCores=5000",
    ];
    let emulator =
        Emulator::start(&[&["--no-limits", "--start-latency", "3s"][..], &quotas].concat());
    let (client, emulator) = (Client::new(), Arc::new(emulator));
    println!("memory at start: {} MiB", emulator.memory());
    create(&client, &emulator).await;
    println!("memory with {GROUPS} groups: {} MiB", emulator.memory());
    open_loop(&client, &emulator).await;
    closed_loop(&client, &emulator).await;
    let list = format!(
        "{}/subscriptions/s/providers/Microsoft.ContainerInstance/containerGroups?api-version=2023-05-01",
        emulator.url
    );
    let mut times = Vec::new();
    let began = Instant::now();
    for _ in 0..20 {
        times.push(timed(client.get(&list), StatusCode::OK).await);
    }
    report("LIST, pages of 1,000", times, began.elapsed());
    println!("memory at the end: {} MiB", emulator.memory());
}
