//! Port-forwards over SPDY.
//!
//! In: a SPDY session. Out: a connection to the pod for each pair of streams that the client opens, one for data
//! and one for errors.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::dial;
use crate::kubelet_api::spdy::session::{SpdySession, SpdyStream, reset};

/// How long a stream waits for the other one of its pair.
const PAIR_TIMEOUT: Duration = Duration::from_secs(30);

/// Forwards until the client disconnects.
pub async fn forward(mut session: SpdySession, address: IpAddr) {
    let mut halves: HashMap<String, (SpdyStream, Instant)> = HashMap::new();
    let mut pairs = JoinSet::new();
    let mut checks = tokio::time::interval(PAIR_TIMEOUT);
    loop {
        let stream = tokio::select! {
            stream = session.accept() => stream,
            Some(_) = pairs.join_next() => continue,
            _ = checks.tick() => {
                let late = |_: &String, half: &mut (SpdyStream, Instant)| half.1.elapsed() > PAIR_TIMEOUT;
                for (_, (stream, _)) in halves.extract_if(late) {
                    stream.sender().reset(reset::REFUSED_STREAM).await;
                }
                continue;
            }
        };
        let Some(stream) = stream else { break };
        let Some((key, port, is_data)) = parse_half(&stream) else {
            stream.sender().reset(reset::PROTOCOL_ERROR).await;
            continue;
        };
        stream.accept().await;
        let key = format!("{key}/{port}");
        match halves.remove(&key) {
            Some((other, _)) if is_data_of(&other) != is_data => {
                let (data, error) = if is_data {
                    (stream, other)
                } else {
                    (other, stream)
                };
                pairs.spawn(forward_pair(address, port, data, error));
            }
            _ => drop(halves.insert(key, (stream, Instant::now()))),
        }
    }
    session.close().await;
}

/// The pair and port of a stream, and whether it carries data; `None` if its headers are invalid.
fn parse_half(stream: &SpdyStream) -> Option<(String, u16, bool)> {
    let is_data = match stream.header("streamtype")? {
        "data" => true,
        "error" => false,
        _ => return None,
    };
    let port = stream
        .header("port")?
        .parse()
        .ok()
        .filter(|port| *port > 0)?;
    let key = match stream.header("requestid") {
        Some(id) => id.to_owned(),
        // Very old clients send no request ID, and open the data stream right after the error stream.
        None if is_data => format!("#{}", stream.id().wrapping_sub(2)),
        None => format!("#{}", stream.id()),
    };
    Some((key, port, is_data))
}

fn is_data_of(stream: &SpdyStream) -> bool {
    stream.header("streamtype") == Some("data")
}

async fn forward_pair(address: IpAddr, port: u16, data: SpdyStream, error: SpdyStream) {
    let error = error.sender();
    let (from_client, to_client, reset) = data.split();
    match dial::dial(address, port).await {
        Ok(stream) => {
            let sender = &to_client;
            let copied = dial::copy_bidirectional(stream, from_client, |bytes| sender.send(bytes));
            tokio::select! {
                () = copied => {}
                // The client reset the data stream, and no longer reads it.
                _ = reset => {}
            }
        }
        Err(why) => drop(error.send(why.into()).await),
    }
    to_client.finish().await;
    error.finish().await;
}
