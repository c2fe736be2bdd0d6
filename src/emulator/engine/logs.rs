//! Reads the logs of containers from the engine, standard output and standard error in the engine's
//! order.

use std::time::Duration;

use bollard::query_parameters::LogsOptionsBuilder;
use futures::StreamExt as _;
use jiff::Timestamp;

use super::client::EngineClient;
use crate::emulator::group::log::{ContainerLog, RUNNING_LIMIT, STOPPED_LINES};

/// Timeout for reading a log.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The last `tail` lines (all if `None`) of standard output and standard error, at least the last
/// [`RUNNING_LIMIT`] bytes of them. If the engine fails, the text is incomplete or empty.
pub async fn text(
    client: &EngineClient,
    name: &str,
    tail: Option<usize>,
    timestamps: bool,
) -> String {
    let tail = tail.map_or("all".to_owned(), |tail| tail.to_string());
    let options = LogsOptionsBuilder::new()
        .stdout(true)
        .stderr(true)
        .timestamps(timestamps)
        .tail(&tail)
        .build();
    let mut parts = std::pin::pin!(client.logs(name, options));
    let mut written = Vec::new();
    let reading = async {
        while let Some(part) = parts.next().await {
            match part {
                Ok(part) => written.extend_from_slice(part.as_ref()),
                Err(error) => {
                    tracing::debug!(%error, name, "a log was not read");
                    return;
                }
            }
            // Read a long log to its end, but keep only its last part in memory.
            if written.len() > 2 * RUNNING_LIMIT {
                written.drain(..written.len() - RUNNING_LIMIT);
            }
        }
    };
    if tokio::time::timeout(READ_TIMEOUT, reading).await.is_err() {
        tracing::warn!(name, "a log takes too long to read");
    }
    String::from_utf8_lossy(&written).into_owned()
}

/// The part of a stopped container's log that the service keeps. A line whose time cannot be parsed
/// gets the time `now`. The lines are read without times, because an engine also puts times inside long
/// lines.
pub async fn stopped_log(client: &EngineClient, name: &str, now: Timestamp) -> ContainerLog {
    let lines = text(client, name, Some(STOPPED_LINES), false).await;
    let times = text(client, name, Some(STOPPED_LINES), true).await;
    let mut times = times.lines().map(timed);
    let mut log = ContainerLog::default();
    for line in lines.lines() {
        log.push(times.next().flatten().unwrap_or(now), line);
    }
    log
}

/// Parses the time at the beginning of a line.
fn timed(line: &str) -> Option<Timestamp> {
    line.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_time_in_front() {
        let at = timed("1970-01-01T00:00:01.5Z a b").expect("a time");
        assert_eq!(at.as_millisecond(), 1500);
        assert_eq!(timed("1970-01-01T00:00:00Z "), Some(Timestamp::UNIX_EPOCH));
        assert_eq!(timed("no time"), None);
    }
}
