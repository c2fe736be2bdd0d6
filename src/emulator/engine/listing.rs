//! Lists and inspects containers, tolerating unknown values.
//!
//! In: a query. Out: the few fields that the emulator needs. bollard has these calls, but knows only
//! Docker's states: podman (seen with 4.3.1) calls a container `stopped` between its end and its
//! clean-up, and one such container makes bollard reject the whole list.

use std::collections::HashMap;
use std::path::Path;

use axum::body::Body;
use bollard::errors::Error as Cause;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::UnixStream;

/// The largest response that is read, in bytes: enough for some thousand containers.
const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// A container in a list.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListedContainer {
    /// The container's id.
    pub id: String,
    #[serde(default)]
    labels: Option<HashMap<String, String>>,
}

impl ListedContainer {
    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.as_ref()?.get(name).map(String::as_str)
    }
}

/// An inspected container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct InspectedContainer {
    /// Whether it runs, and its exit code.
    pub state: EngineState,
    network_settings: EngineNetworks,
}

/// A container's state.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EngineState {
    /// Whether it runs.
    pub running: bool,
    /// Its exit code after it has ended.
    pub exit_code: i32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct EngineNetworks {
    networks: Option<HashMap<String, NetworkEndpoint>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NetworkEndpoint {
    #[serde(rename = "IPAddress")]
    address: Option<String>,
}

impl InspectedContainer {
    /// Its IPv4 address. `None` if it has no address of its own.
    pub fn address(&self) -> Option<std::net::Ipv4Addr> {
        let mut networks = self.network_settings.networks.iter().flatten();
        networks.find_map(|(_, network)| network.address.as_ref()?.parse().ok())
    }
}

/// All containers that carry all of `labels` (`name` or `name=value`), running or not.
pub async fn list(socket: &Path, labels: &[String]) -> Result<Vec<ListedContainer>, Cause> {
    let filters = json!({"label": labels}).to_string();
    let query = serde_urlencoded::to_string([("all", "true"), ("filters", &filters)]);
    get(
        socket,
        &format!("/containers/json?{}", query.unwrap_or_default()),
    )
    .await
}

/// Inspects a container.
pub async fn inspect(socket: &Path, name: &str) -> Result<InspectedContainer, Cause> {
    get(socket, &format!("/containers/{name}/json")).await
}

async fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, Cause> {
    let stream = UnixStream::connect(socket).await?;
    let request = Request::get(path)
        .header(header::HOST, "localhost")
        .header(header::CONNECTION, "close")
        .body(Body::empty())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let call = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = axum::body::to_bytes(Body::new(response.into_body()), MAX_RESPONSE_BYTES).await;
        body.map(|body| (status, body))
            .map_err(|error| Cause::from(std::io::Error::other(error)))
    };
    // Poll the connection together with its only request. The response shows how the connection ended.
    let (response, _) = tokio::join!(call, connection);
    let (status, body) = response?;
    if status == StatusCode::OK {
        Ok(serde_json::from_slice(&body)?)
    } else {
        Err(Cause::DockerResponseServerError {
            status_code: status.as_u16(),
            message: error_message(&body),
        })
    }
}

/// The message of an error response.
fn error_message(body: &Bytes) -> String {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let message = json
        .as_ref()
        .and_then(|json| json["message"].as_str())
        .map(str::to_owned);
    message.unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_of_an_engines_response_are_ignored() {
        let inspected: InspectedContainer = serde_json::from_value(json!({
            "State": {"Status": "stopped", "Running": false, "ExitCode": 3},
            "NetworkSettings": {"Networks": {"n": {"IPAddress": ""}, "podman": {"IPAddress": "10.88.0.2"}}},
        }))
        .expect("it is read");
        assert_eq!(
            (inspected.state.running, inspected.state.exit_code),
            (false, 3)
        );
        assert_eq!(inspected.address(), Some([10, 88, 0, 2].into()));
        let listed: ListedContainer =
            serde_json::from_value(json!({"Id": "i", "Labels": null, "State": "stopped"}))
                .expect("it is read");
        assert_eq!(listed.label("any"), None);
    }
}
