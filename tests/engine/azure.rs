//! A minimal client of the emulator, and emulators that are stopped even if the test fails.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use burstpool::emulator::{Emulator, EmulatorOptions, EngineSocket};
use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::engine_host::{Host, IMAGE};

/// The timeout of every wait, for a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
const GROUPS: &str =
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerInstance/containerGroups";
const VERSION: &str = "api-version=2023-05-01";

pub type Socket =
    tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

/// Runs `body` against an emulator in this process whose clock runs `speed` times as fast. Stops the
/// emulator however `body` ends, and then checks that no container is left.
pub async fn with_emulator<F: Future<Output = ()>>(
    speed: f64,
    body: impl FnOnce(Azure, Arc<Host>) -> F,
) {
    let Some(host) = Host::get().await else {
        return;
    };
    let emulator = emulator(&host, speed).await;
    let azure = Azure::new(emulator.url());
    let mark = azure.mark.clone();
    let outcome = AssertUnwindSafe(body(azure, host.clone()))
        .catch_unwind()
        .await;
    emulator.stop().await;
    let left = host.containers(&mark).await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
    assert!(left.is_empty(), "left behind: {:?}", left.keys());
}

/// Starts an emulator in this process.
pub async fn emulator(host: &Host, speed: f64) -> Emulator {
    let options = EmulatorOptions {
        speed,
        containers: Some(EngineSocket::At(host.socket.clone())),
        ..EmulatorOptions::default()
    };
    Emulator::start(options).await.expect("the emulator starts")
}

/// A client of one emulator.
#[derive(Clone)]
pub struct Azure {
    url: String,
    http: reqwest::Client,
    /// A unique part of all group names of this client.
    pub mark: String,
}

impl Azure {
    pub fn new(url: &str) -> Self {
        let mark = format!("t{}", &uuid::Uuid::new_v4().simple().to_string()[..10]);
        Self {
            url: url.to_owned(),
            http: reqwest::Client::new(),
            mark,
        }
    }

    /// The full name of a group.
    pub fn name(&self, short: &str) -> String {
        format!("{short}-{}", self.mark)
    }

    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> (StatusCode, Value) {
        let joint = if path.contains('?') { '&' } else { '?' };
        let mut request = self
            .http
            .request(
                method,
                format!("{}{GROUPS}/{path}{joint}{VERSION}", self.url),
            )
            .bearer_auth("x");
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.expect("the emulator answers");
        let status = answer.status();
        (status, answer.json().await.unwrap_or_default())
    }

    /// Sends a request to the emulator's admin interface.
    pub async fn admin(&self, method: Method, path: &str, body: &Value) {
        let url = format!("{}/_emulator/{path}", self.url);
        let answer = self.http.request(method, url).json(body).send().await;
        assert!(answer.expect("the emulator answers").status().is_success());
    }

    /// Creates or updates a group.
    pub async fn put(&self, group: &str, body: &Value) {
        let (status, answer) = self.call(Method::PUT, group, Some(body)).await;
        assert!(status.is_success(), "{status}: {answer}");
    }

    /// Sends `stop`, `start` or `restart` for a group.
    pub async fn post(&self, group: &str, verb: &str) {
        let (status, answer) = self
            .call(Method::POST, &format!("{group}/{verb}"), None)
            .await;
        assert!(status.is_success(), "{status}: {answer}");
    }

    /// Deletes a group and waits until it is gone.
    pub async fn delete(&self, group: &str) {
        let (status, _) = self.call(Method::DELETE, group, None).await;
        assert_eq!(status, StatusCode::ACCEPTED);
        self.until(group, "gone", |answer| {
            answer["error"]["code"] == "ResourceNotFound"
        })
        .await;
    }

    /// Waits until a group is as wanted.
    pub async fn until(&self, group: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (_, seen) = self.call(Method::GET, group, None).await;
            if wanted(&seen) {
                return seen;
            }
            assert!(Instant::now() < deadline, "never {what}: {seen:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the group is in `state`.
    pub async fn until_state(&self, group: &str, state: &str) -> Value {
        self.until(group, state, |seen| {
            seen["properties"]["instanceView"]["state"] == state
        })
        .await
    }

    /// A container's log. `query` is, for example, `tail=2`.
    pub async fn logs(&self, group: &str, container: &str, query: &str) -> String {
        let path = format!("{group}/containers/{container}/logs?{query}");
        let (_, answer) = self.call(Method::GET, &path, None).await;
        answer["content"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until a container's log contains `text`.
    pub async fn until_logged(&self, group: &str, container: &str, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = self.logs(group, container, "").await;
            if log.contains(text) {
                return log;
            }
            assert!(Instant::now() < deadline, "'{text}' is never logged: {log}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Runs a command in a terminal in a container.
    pub async fn exec(&self, group: &str, container: &str, command: &str) -> Terminal {
        let body = json!({"command": command, "terminalSize": {"rows": 33, "cols": 101}});
        self.open(&format!("{group}/containers/{container}/exec"), Some(&body))
            .await
    }

    /// Attaches to a container's output.
    pub async fn attach(&self, group: &str, container: &str) -> Terminal {
        self.open(&format!("{group}/containers/{container}/attach"), None)
            .await
    }

    async fn open(&self, path: &str, body: Option<&Value>) -> Terminal {
        let (status, answer) = self.call(Method::POST, path, body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let uri = answer["webSocketUri"].as_str().expect("an address");
        let (mut socket, _) = tokio_tungstenite::connect_async(uri)
            .await
            .expect("a websocket");
        let password = answer["password"].as_str().expect("a password");
        socket
            .send(Message::text(password))
            .await
            .expect("the password is sent");
        Terminal {
            socket,
            shown: Vec::new(),
        }
    }
}

/// A websocket to a container, and its output so far.
pub struct Terminal {
    socket: Socket,
    pub shown: Vec<u8>,
}

impl Terminal {
    pub async fn type_in(&mut self, text: &str) {
        let bytes = text.as_bytes().to_vec();
        self.socket
            .send(Message::binary(bytes))
            .await
            .expect("input is sent");
    }

    /// Reads until the output contains `text`.
    pub async fn until_shown(&mut self, text: &str) {
        let seen = |shown: &[u8]| String::from_utf8_lossy(shown).contains(text);
        while !seen(&self.shown) {
            let more = self.more().await;
            assert!(
                more,
                "'{text}' is never shown: {}",
                String::from_utf8_lossy(&self.shown)
            );
        }
    }

    /// Reads until the server closes the session. Returns the whole output.
    pub async fn until_closed(mut self) -> Vec<u8> {
        while self.more().await {}
        self.shown
    }

    async fn more(&mut self) -> bool {
        let frame = tokio::time::timeout(PATIENCE, self.socket.next())
            .await
            .expect("a frame in time");
        match frame {
            Some(Ok(Message::Binary(bytes))) => self.shown.extend(bytes),
            Some(Ok(Message::Text(text))) => self.shown.extend(text.as_bytes()),
            Some(Ok(Message::Close(_)) | Err(_)) | None => return false,
            Some(Ok(_)) => {}
        }
        true
    }
}

/// A script that runs until it is killed, and ends at once on SIGTERM.
pub const LIVE: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

/// Nothing to merge.
pub fn none() -> Value {
    json!({})
}

/// A container with the test image. `more` is merged into its properties.
pub fn container(name: &str, script: &str, more: &Value) -> Value {
    let mut properties = json!({
        "image": IMAGE,
        "command": ["sh", "-c", script],
        "resources": {"requests": {"cpu": 1, "memoryInGB": 1}},
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        properties[field] = value.clone();
    }
    json!({"name": name, "properties": properties})
}

/// A group of `containers`; `more` is merged into its properties.
pub fn group(containers: &[Value], more: &Value) -> Value {
    let mut properties = json!({"osType": "Linux", "containers": containers});
    for (field, value) in more.as_object().into_iter().flatten() {
        properties[field] = value.clone();
    }
    json!({"location": "westeurope", "properties": properties})
}

/// The instance view of a group's container.
pub fn view(seen: &Value, index: usize) -> &Value {
    &seen["properties"]["containers"][index]["properties"]["instanceView"]
}

/// Whether a container has an event of this name whose message begins with `begin`.
pub fn has_event(seen: &Value, index: usize, name: &str, begin: &str) -> bool {
    let events = view(seen, index)["events"].as_array();
    events.is_some_and(|events| {
        events.iter().any(|e| {
            e["name"] == name && e["message"].as_str().is_some_and(|m| m.starts_with(begin))
        })
    })
}
