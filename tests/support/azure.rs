//! The emulated Azure, in process, and a plain HTTP client for it.
//!
//! In: requests to ARM. Out: status, headers and body, unchanged. The clock is paused unless a test
//! starts it otherwise, so nothing happens that the test did not cause.

use std::time::Duration;

use burstpool::emulator::{Emulator, EmulatorOptions};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

/// The subscription of the tests.
pub const SUBSCRIPTION: &str = "00000000-0000-0000-0000-000000000000";
/// The resource group of the tests.
pub const RESOURCE_GROUP: &str = "rg-test";
/// The API version that requests use by default.
pub const VERSION: &str = "2023-05-01";

/// The emulator of one test.
pub struct Azure {
    /// The emulator.
    pub emulator: Emulator,
    http: Client,
}

/// A response, unchanged.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The body; null if it is missing or not JSON.
    pub body: Value,
}

impl Answer {
    /// The value of a header; empty if it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// Status and `error.code`.
    pub fn error(&self) -> (u16, &str) {
        (
            self.status.as_u16(),
            self.body["error"]["code"].as_str().unwrap_or_default(),
        )
    }
}

impl Azure {
    /// Starts an emulator with a paused clock.
    pub async fn start() -> Self {
        let azure = Self::with(EmulatorOptions::default()).await;
        azure.emulator.shared().clock.pause();
        azure
    }

    /// Starts an emulator with these options.
    pub async fn with(options: EmulatorOptions) -> Self {
        let emulator = Emulator::start(options).await.expect("the emulator starts");
        Self {
            emulator,
            http: Client::new(),
        }
    }

    /// Advances the clock.
    pub fn advance(&self, seconds: f64) {
        self.emulator
            .shared()
            .clock
            .advance(Duration::from_secs_f64(seconds));
    }

    /// Sends a request with a credential. `path` may be a whole URL.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.try_call(method, path, body)
            .await
            .expect("the emulator answers")
    }

    /// The same for requests whose connection the emulator may drop.
    pub async fn try_call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, reqwest::Error> {
        let base = if path.starts_with("http") {
            ""
        } else {
            self.emulator.url()
        };
        let mut request = self
            .http
            .request(method, format!("{base}{path}"))
            .bearer_auth("any");
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = serde_json::from_slice(&response.bytes().await?).unwrap_or_default();
        Ok(Answer {
            status,
            headers,
            body,
        })
    }

    /// Sends a GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    /// Sends a PUT of a container group.
    pub async fn put(&self, name: &str, body: &Value) -> Answer {
        self.call(Method::PUT, &group(name), Some(body)).await
    }

    /// Creates a container group, asserts that Azure accepts it, and advances the clock until it runs.
    pub async fn running(&self, name: &str, body: &Value) -> Value {
        let answer = self.put(name, body).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        self.advance(60.0);
        self.get(&group(name)).await.body
    }

    /// Sends a request to the emulator's admin interface.
    pub async fn admin(&self, method: Method, path: &str, body: Value) -> Value {
        let answer = self
            .call(method, &format!("/_emulator/{path}"), Some(&body))
            .await;
        assert!(
            answer.status.is_success(),
            "{path}: {} {}",
            answer.status,
            answer.body
        );
        answer.body
    }
}

/// The path of a container group, with the default API version.
pub fn group(name: &str) -> String {
    within(name, "", VERSION)
}

/// The path of a resource below a container group.
pub fn within(name: &str, rest: &str, version: &str) -> String {
    format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/{RESOURCE_GROUP}/providers/\
         Microsoft.ContainerInstance/containerGroups/{name}{rest}?api-version={version}"
    )
}

/// The path of one of a region's lists.
pub fn location(list: &str) -> String {
    format!(
        "/subscriptions/{SUBSCRIPTION}/providers/Microsoft.ContainerInstance/locations/westus/\
         {list}?api-version={VERSION}"
    )
}

/// A group of one container with 1 CPU and 1 GB, and these environment variables.
pub fn body(environment: &[(&str, &str)]) -> Value {
    let variables: Vec<Value> = environment
        .iter()
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    json!({
        "location": "westus",
        "properties": {
            "osType": "Linux",
            "restartPolicy": "Always",
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

/// The same with a restart policy.
pub fn body_with(policy: &str, environment: &[(&str, &str)]) -> Value {
    let mut body = body(environment);
    body["properties"]["restartPolicy"] = policy.into();
    body
}
