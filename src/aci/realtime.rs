//! What the containers of a group use, now: ACI's realtime-metrics extension.
//!
//! In: the address of a group in a subnet. Out: a [`Reading`] of each of its containers, seconds old where
//! Azure Monitor's numbers are minutes old. Microsoft documents of the extension how a group asks for it
//! (`ContainerGroupExtensions.json` of the specification); where it answers and with what is known from
//! Microsoft's own virtual kubelet for ACI, which reads it, and was not tried against the service. So an
//! answer that is not understood, or none, is an error that costs nothing but these numbers.

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

/// Where the extension answers, in the group's network.
pub const PORT: u16 = 18899;
/// What it is asked for.
const PATH: &str = "/v1/stats";
/// How long an answer may take: it comes from the same network.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it may be. 60 containers are in a group at most, each with a handful of numbers.
const MOST: usize = 256 << 10;

/// What a run of a container has used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// When this was so.
    pub at: Timestamp,
    /// CPU time since the run began, in seconds.
    pub cpu_seconds: f64,
    /// Memory, in bytes.
    pub bytes: f64,
}

/// By container, what it has used. Azure's own containers are among them.
pub type Readings = BTreeMap<String, Reading>;

/// Why there are no readings.
#[derive(Debug, Error)]
pub enum Error {
    /// Nobody is reached: there is no way to the subnet, or no extension in the group.
    #[error("connecting to the group's address")]
    Connect(#[source] std::io::Error),
    /// The answer does not come.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Slow,
    /// It is no HTTP.
    #[error("asking")]
    Http(#[from] hyper::Error),
    /// It does not end, or ends early.
    #[error("reading the answer")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It is a refusal.
    #[error("answered {0}")]
    Refused(StatusCode),
    /// It says something else.
    #[error("understanding the answer")]
    Unreadable(#[from] serde_json::Error),
    /// It says nothing of a container that runs, or not when it was so.
    #[error("nothing is told of what runs")]
    Silent,
}

/// Asks the extension of the group at `address`.
pub async fn read(address: IpAddr) -> Result<Readings, Error> {
    let asked = tokio::time::timeout(PATIENCE, asked(address)).await;
    readings(&asked.map_err(|_| Error::Slow)??)
}

async fn asked(address: IpAddr) -> Result<Bytes, Error> {
    let stream = TcpStream::connect((address, PORT)).await;
    let stream = TokioIo::new(stream.map_err(Error::Connect)?);
    let (mut sender, connection) = http1::handshake(stream).await?;
    let request = Request::get(PATH)
        .header(HOST, address.to_string())
        .body(Empty::<Bytes>::new())
        .expect("a path and an address are well-formed");
    let answered = async {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(Error::Refused(response.status()));
        }
        let body = Limited::new(response.into_body(), MOST).collect().await;
        Ok(body.map_err(Error::Body)?.to_bytes())
    };
    let mut answered = std::pin::pin!(answered);
    tokio::select! {
        answer = &mut answered => return answer,
        // It may end with the answer: what came of it is told there.
        _ = connection => {}
    }
    answered.await
}

/// The answer, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    /// In nanoseconds.
    #[serde(default)]
    timestamp: i128,
    /// Each by itself: of one that waits there may be no numbers, or none yet.
    #[serde(default)]
    containers: Vec<Value>,
}

#[derive(Deserialize)]
struct Container {
    name: String,
    cpu: Cpu,
    memory: Memory,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cpu {
    usage_core_nano_seconds: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    working_set_bytes: u64,
}

fn readings(answer: &[u8]) -> Result<Readings, Error> {
    let stats: Stats = serde_json::from_slice(answer)?;
    let at = Timestamp::from_nanosecond(stats.timestamp);
    let at = at.ok().filter(|at| *at > Timestamp::UNIX_EPOCH);
    let at = at.ok_or(Error::Silent)?;
    #[allow(
        clippy::cast_precision_loss,
        reason = "nobody tells days of CPU time by the nanosecond"
    )]
    let containers = stats.containers.into_iter().filter_map(|container| {
        let container: Container = serde_json::from_value(container).ok()?;
        let reading = Reading {
            at,
            cpu_seconds: container.cpu.usage_core_nano_seconds as f64 / 1e9,
            bytes: container.memory.working_set_bytes as f64,
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
    fn an_answer_tells_each_container_and_when() {
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
        // One that waits to be started again.
        let waits = json!({"name": "log", "cpu": null, "memory": {}});
        stats["containers"] = json!([web, waits, infra]);
        let known = readings(stats.to_string().as_bytes()).expect("readings");
        let reading = Reading {
            at: "2026-11-24T10:00:00Z".parse().expect("a time"),
            cpu_seconds: 1.5,
            bytes: 1024.0,
        };
        assert_eq!(known["web"], reading);
        assert_eq!(known.len(), 2);
    }

    #[test]
    fn what_says_nothing_is_an_error() {
        for answer in ["", "[]x", "null", "{\"containers\": [{\"name\": 1}]}", "{}"] {
            assert!(readings(answer.as_bytes()).is_err(), "{answer}");
        }
        let absurd = json!({"timestamp": u64::MAX, "containers": []}).to_string();
        // A time is a time, however far away: it is compared with others only.
        assert!(readings(absurd.as_bytes()).is_ok_and(|known| known.is_empty()));
    }
}
