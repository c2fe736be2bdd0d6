//! Current CPU and memory usage of a group's containers, from ACI's realtime-metrics extension.
//!
//! In: the address of a group in a subnet. Out: a [`ContainerUsage`] for each of its containers. It is seconds old;
//! Azure Monitor's numbers are minutes old. Microsoft documents only how a group enables the extension
//! (`ContainerGroupExtensions.json` of the specification). The port, the path and the format of the answer are
//! taken from Microsoft's virtual kubelet for ACI, and were not tested against the service. If the extension does
//! not answer, or its answer cannot be parsed, only these numbers are missing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;
use tokio::net::TcpStream;

/// The port of the extension at the group's address.
pub const EXTENSION_PORT: u16 = 18899;
/// The path of the request.
const STATS_PATH: &str = "/v1/stats";
/// Timeout of a request. It is short because the answer comes from the same network.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest answer that is read, in bytes. A group has at most 60 containers with a few numbers each.
const MAX_RESPONSE_BYTES: usize = 256 << 10;

/// The usage of one run of a container.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ContainerUsage {
    /// The time of the measurement.
    pub at: Timestamp,
    /// CPU time since the start of the run, in seconds.
    pub cpu_seconds: f64,
    /// Memory, in bytes.
    pub memory_bytes: f64,
}

/// The usage by container name. It includes containers that Azure adds to the group.
pub type ContainerUsages = BTreeMap<String, ContainerUsage>;

/// Why there are no readings.
#[derive(Debug, Error)]
pub enum Error {
    /// The connection failed: there is no route to the subnet, or the group has no extension.
    #[error("connecting to the group's address")]
    Connect(#[source] std::io::Error),
    /// The answer did not arrive in time.
    #[error("no answer within {} s", CALL_TIMEOUT.as_secs())]
    Timeout,
    /// The answer is not HTTP.
    #[error("requesting the usage")]
    Http(#[from] hyper::Error),
    /// The body is longer than the limit, or ends early.
    #[error("reading the answer")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The status is not 200.
    #[error("the answer has the status {0}")]
    Refused(StatusCode),
    /// The answer has another format.
    #[error("parsing the answer")]
    Unreadable(#[from] serde_json::Error),
    /// The answer lacks a running container, or the time of the measurement.
    #[error("the answer lacks a running container or the time of the measurement")]
    Incomplete,
}

/// Reads the usage from the extension of the group at `address`.
pub async fn read_usage(address: IpAddr) -> Result<ContainerUsages, Error> {
    let answer = tokio::time::timeout(CALL_TIMEOUT, fetch_stats(address)).await;
    parse_stats(&answer.map_err(|_| Error::Timeout)??)
}

async fn fetch_stats(address: IpAddr) -> Result<Bytes, Error> {
    let stream = TcpStream::connect((address, EXTENSION_PORT)).await;
    let stream = TokioIo::new(stream.map_err(Error::Connect)?);
    let (mut sender, connection) = http1::handshake(stream).await?;
    let request = Request::get(STATS_PATH)
        .header(HOST, address.to_string())
        .body(Empty::<Bytes>::new())
        .expect("a path and an address are well-formed");
    let exchange = async {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(Error::Refused(response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES)
            .collect()
            .await;
        Ok(body.map_err(Error::Body)?.to_bytes())
    };
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => return answer,
        // The connection may close together with the answer. An error shows up in the answer.
        _ = connection => {}
    }
    exchange.await
}

/// The parts of the answer that are used here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RealtimeStats {
    /// Nanoseconds since the Unix epoch.
    #[serde(default)]
    timestamp: i128,
    /// Each container is parsed separately: a waiting container may have no numbers, or incomplete ones.
    #[serde(default)]
    containers: Vec<Value>,
}

#[derive(Deserialize)]
struct ContainerStats {
    name: String,
    cpu: CpuStats,
    memory: MemoryStats,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CpuStats {
    usage_core_nano_seconds: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MemoryStats {
    working_set_bytes: u64,
}

fn parse_stats(answer: &[u8]) -> Result<ContainerUsages, Error> {
    let stats: RealtimeStats = serde_json::from_slice(answer)?;
    let at = Timestamp::from_nanosecond(stats.timestamp);
    let at = at.ok().filter(|at| *at > Timestamp::UNIX_EPOCH);
    let at = at.ok_or(Error::Incomplete)?;
    #[allow(
        clippy::cast_precision_loss,
        reason = "CPU time needs no precision of nanoseconds"
    )]
    let containers = stats.containers.into_iter().filter_map(|container| {
        let container: ContainerStats = serde_json::from_value(container).ok()?;
        let reading = ContainerUsage {
            at,
            cpu_seconds: container.cpu.usage_core_nano_seconds as f64 / 1e9,
            memory_bytes: container.memory.working_set_bytes as f64,
        };
        Some((container.name, reading))
    });
    Ok(containers.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_has_the_usage_of_each_container_and_the_time() {
        let usage = |cpu: u64, memory: u64| {
            json!({
                "cpu": {"usageCoreNanoSeconds": cpu},
                "memory": {"usageBytes": memory * 2, "workingSetBytes": memory, "rssBytes": 1},
            })
        };
        let mut stats = usage(3_000_000_000, 3072);
        stats["timestamp"] = json!(1_795_514_400_000_000_000_u64);
        stats["network"] = json!({"name": "eth0", "rxBytes": 1, "interfaces": []});
        let mut web = usage(1_500_000_000, 1024);
        web["name"] = json!("web");
        let mut infra = usage(1, 2);
        infra["name"] = json!("infra");
        // A container that waits to be restarted.
        let waits = json!({"name": "log", "cpu": null, "memory": {}});
        stats["containers"] = json!([web, waits, infra]);
        let known = parse_stats(stats.to_string().as_bytes()).expect("readings");
        let reading = ContainerUsage {
            at: "2026-11-24T10:00:00Z".parse().expect("a time"),
            cpu_seconds: 1.5,
            memory_bytes: 1024.0,
        };
        assert_eq!(known["web"], reading);
        assert_eq!(known.len(), 2);
    }

    #[test]
    fn an_answer_without_usage_is_an_error() {
        for answer in ["", "[]x", "null", "{\"containers\": [{\"name\": 1}]}", "{}"] {
            assert!(parse_stats(answer.as_bytes()).is_err(), "{answer}");
        }
        let absurd = json!({"timestamp": u64::MAX, "containers": []}).to_string();
        // Any time is accepted, however far in the future: it is only compared with others.
        assert!(parse_stats(absurd.as_bytes()).is_ok_and(|known| known.is_empty()));
    }
}
