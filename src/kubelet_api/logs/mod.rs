//! Container logs.
//!
//! In: a container of a pod, and the options of the request. Out: the log, from Azure. ACI cannot stream a log, so
//! a log that is followed is read again at intervals, and only its new part is sent, until the container ends. ACI
//! keeps only the log of a container's last run.
//!
//! Timestamps are requested only if needed: the service puts one in front of each part in which it read a line, so
//! a long line has timestamps inside.

mod cursor;
mod lines;
mod options;
mod source;

use std::io;
use std::task::{Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::response::{ApiResult, HttpError, text_response};
use super::tasks::ListenerTasks;
use cursor::{LogCursor, LogDelta};
use lines::LineFormatter;
use options::PodLogOptions;
pub use source::LogSource;

/// The shortest and the longest pause between two reads of a log that is followed: after new output, and after a
/// longer time without.
const POLL_INTERVALS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(8));
/// A log that is followed is read at most at this rate, in bytes per second, so that many clients that follow long
/// logs do not fill the connection to Azure.
const BYTES_PER_SECOND: usize = 1 << 20;

/// Answers a request for a container's log.
pub async fn serve_log(source: LogSource, query: &str, tasks: &ListenerTasks) -> ApiResult {
    let options = options::parse(query, Timestamp::now()).map_err(HttpError::bad_request)?;
    if options.previous {
        return Err(HttpError::bad_request(format!(
            "the log of the previous run of container {} is not available: Azure Container Instances keeps \
             the log of the last run only",
            source.container
        )));
    }
    if options.follow {
        return follow_log(source, options, tasks).await;
    }
    let log = source
        .read(options.tail_lines, options.needs_timestamps())
        .await?;
    let mut lines = LineFormatter::new(options);
    let formatted = match options.tail_lines {
        Some(tail) => lines.format(lines::tail(&log, tail)),
        None => lines.format(&log),
    };
    let mut response = text_response(StatusCode::OK, String::new());
    *response.body_mut() = Body::from(formatted);
    Ok(response)
}

/// Follows a log. The first read happens before the answer starts, so that its error becomes the answer's status.
async fn follow_log(source: LogSource, options: PodLogOptions, tasks: &ListenerTasks) -> ApiResult {
    let log = source.read(None, options.needs_timestamps()).await?;
    let (sender, mut receiver) = mpsc::channel::<Bytes>(4);
    let follower = LogFollower {
        source,
        cursor: LogCursor::default(),
        with_timestamps: options.needs_timestamps(),
        formatter: LineFormatter::new(options),
        sender,
    };
    tasks.spawn(follower.run(log, options.tail_lines));
    let (cancel, mut is_over) = (tasks.cancel.clone(), false);
    let body = futures::stream::poll_fn(move |context| {
        if is_over {
            return Poll::Ready(None);
        }
        let next = ready!(receiver.poll_recv(context));
        is_over = next.is_none();
        Poll::Ready(match next {
            Some(bytes) => Some(Ok(bytes)),
            // The container still runs: a regular end of the stream would tell the client that the log is complete.
            None if cancel.is_cancelled() => Some(Err(io::Error::other("the process ends"))),
            None => None,
        })
    });
    let mut response = Response::new(Body::from_stream(body));
    *response.status_mut() = StatusCode::OK;
    Ok(response)
}

/// Sends what a container writes from now on to `sender`, until the container ends or the receiver is dropped.
pub async fn stream_new_output(
    source: LogSource,
    sender: mpsc::Sender<Bytes>,
) -> Result<(), HttpError> {
    let options = PodLogOptions::default();
    let log = source.read(None, options.needs_timestamps()).await?;
    let follower = LogFollower {
        source,
        cursor: LogCursor::default(),
        with_timestamps: options.needs_timestamps(),
        formatter: LineFormatter::new(options),
        sender,
    };
    follower.run(log, Some(0)).await;
    Ok(())
}

struct LogFollower {
    source: LogSource,
    cursor: LogCursor,
    /// Whether to request timestamps.
    with_timestamps: bool,
    formatter: LineFormatter,
    sender: mpsc::Sender<Bytes>,
}

impl LogFollower {
    /// Sends the log until the container ends or the receiver is dropped.
    async fn run(mut self, first: String, tail: Option<usize>) {
        let sender = self.sender.clone();
        tokio::select! {
            () = self.poll_until_ended(first, tail) => {}
            () = sender.closed() => {}
        }
    }

    async fn poll_until_ended(&mut self, first: String, tail: Option<usize>) {
        let run = self.source.current_run().await;
        let (LogDelta::Appended(new) | LogDelta::Replaced(new)) =
            self.cursor.advance(&first, false);
        let new = tail.map_or(new, |tail| lines::tail(new, tail));
        let formatted = self.formatter.format(new);
        if !self.send(formatted).await {
            return;
        }
        let mut size = first.len();
        drop(first);
        let mut pause = POLL_INTERVALS.0;
        loop {
            let seconds = size / BYTES_PER_SECOND;
            let min_pause = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
            tokio::time::sleep(pause.max(min_pause)).await;
            // Check this before reading the log: if the container has ended, the log is complete.
            let has_ended = self.source.has_ended(run.as_ref()).await;
            let Ok(log) = self.source.read(None, self.with_timestamps).await else {
                if has_ended {
                    return;
                }
                pause = (pause * 2).min(POLL_INTERVALS.1);
                continue;
            };
            size = log.len();
            let formatted = match self.cursor.advance(&log, has_ended) {
                // The run has ended, and this log is the next run's.
                LogDelta::Replaced(_) if has_ended => return,
                LogDelta::Appended(new) | LogDelta::Replaced(new) => self.formatter.format(new),
            };
            pause = if formatted.is_empty() {
                (pause * 2).min(POLL_INTERVALS.1)
            } else {
                POLL_INTERVALS.0
            };
            if !self.send(formatted).await || has_ended {
                return;
            }
        }
    }

    /// Sends new output; returns whether to continue.
    async fn send(&self, formatted: Vec<u8>) -> bool {
        let is_received = formatted.is_empty() || self.sender.send(formatted.into()).await.is_ok();
        is_received && !self.formatter.is_full()
    }
}
