//! Tests of the registry, without a Kubernetes API server.
//!
//! | module | what it tests |
//! | --- | --- |
//! | `drains` | placements that drain |
//! | `specs` | invalid specs, other scopes and nodes of other owners |
//! | `tasks` | no pool waits for another's nodes or for an Azure that does not answer, and no task of a node continues after its end |

mod drains;
mod specs;
mod tasks;

use std::ops::Index;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::controller::fixtures;
use crate::node::node_object;

/// A generous timeout for something that happens immediately.
const SOON: Duration = Duration::from_secs(1);

impl Index<&PlacementId> for RunningPlacements {
    type Output = PlacementTask;

    fn index(&self, id: &PlacementId) -> &PlacementTask {
        self.get(id).expect("its tasks run")
    }
}

/// The placement of [`pool`].
fn weu() -> PlacementId {
    PlacementId::new("shop", "weu")
}

/// The registry of an operator with this Azure endpoint.
fn registry(arm: &str) -> PlacementRegistry {
    PlacementRegistry::new(fixtures::placement_parts(arm, Arc::default()))
}

/// An Azure that accepts connections and never answers, and its URL.
async fn silent_azure() -> (TcpListener, String) {
    let silent_azure = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let arm = format!("http://{}", silent_azure.local_addr().expect("an address"));
    (silent_azure, arm)
}

/// The connection on which the operator asks the silent Azure for a region's usages.
async fn usages_connection(silent_azure: &TcpListener) -> TcpStream {
    let mut others = Vec::new();
    let usages_request = async {
        loop {
            let (mut connection, _) = silent_azure.accept().await.expect("a connection");
            let mut request = [0; 4096];
            let read = connection.read(&mut request).await.expect("a request");
            if String::from_utf8_lossy(&request[..read]).contains("/usages") {
                return connection;
            }
            others.push(connection);
        }
    };
    timeout(10 * SOON, usages_request)
        .await
        .expect("a request for usages")
}

/// A pool of one placement, with this value of the tag `team`.
fn pool(team: &str) -> BurstPool {
    let pool = json!({
        "apiVersion": "burstpool.io/v1alpha1", "kind": "BurstPool",
        "metadata": {"name": "shop", "uid": "u"},
        "spec": {
            "azure": {"subscriptionId": "s", "resourceGroup": "rg", "tags": {"team": team}},
            "placements": [{"name": "weu", "region": "westeurope"}],
        },
    });
    serde_json::from_value(pool).expect("a pool")
}

/// The pool as if it had been deleted and created again: it has another UID, so its nodes are different ones.
fn recreated() -> BurstPool {
    let mut recreated = pool("b");
    recreated.metadata.uid = Some("another".to_owned());
    recreated
}

/// The node of the placement of [`pool`], registered with its container groups in this resource group.
fn registered(pool: &BurstPool, resource_group: &str, registry: &PlacementRegistry) -> Node {
    let scope = GroupScope {
        subscription: "s".to_owned(),
        resource_group: resource_group.to_owned(),
    };
    let wanted = PlacementSpec::from_pool(pool, &pool.spec.placements[0], &scope);
    node_object::node(
        &task::node_config(&wanted, None, &registry.context.parts),
        Timestamp::now(),
    )
}

/// An Azure that answers every request with this status and body, and its URL.
async fn answering(status: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let arm = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 8192];
                while connection
                    .read(&mut request)
                    .await
                    .is_ok_and(|read| read > 0)
                {
                    let length = body.len();
                    let answer = format!(
                        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
                    );
                    if connection.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    arm
}

/// A client of an API server that has no pods and answers every other request with an error.
fn without_pods() -> kube::Client {
    let service = tower::service_fn(|request: http::Request<kube::client::Body>| {
        let (code, body) = if request.uri().path().ends_with("/pods") {
            (
                200,
                json!({"metadata": {"resourceVersion": "1"}, "items": []}),
            )
        } else {
            (
                500,
                json!({"kind": "Status", "status": "Failure", "code": 500}),
            )
        };
        let answer = http::Response::builder().status(code);
        let body = kube::client::Body::from(body.to_string().into_bytes());
        std::future::ready(answer.body(body))
    });
    kube::Client::new(service, "default")
}
