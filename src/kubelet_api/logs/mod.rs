//! What containers have written.
//!
//! In: a container of a pod, and what is wanted of its log. Out: the log, from Azure. ACI does not tell
//! what comes next, so a log that is followed is read again and again, and what is new of it is told; it
//! ends with the container. ACI keeps the log of a container's last run only.
//!
//! Times are asked for only where they are needed: the service puts one in front of each part in which a
//! line was read, so that a long line has times inside.

mod grown;
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

use super::answer::{Answer, Refusal, text};
use super::tasks::Tasks;
use grown::{Grown, New};
use lines::Lines;
use options::Options;
pub use source::Source;

/// How long to wait between two looks at a log: after something new, and at most when all is quiet.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(8));
/// How many bytes a second of a long log are read again, so that many who follow do not fill the line.
const BYTES_PER_SECOND: usize = 1 << 20;

/// Answers a request for a container's log.
pub async fn answer(source: Source, query: &str, tasks: &Tasks) -> Answer {
    let options = options::parse(query, Timestamp::now()).map_err(Refusal::bad)?;
    if options.previous {
        return Err(Refusal::bad(format!(
            "the log of the previous run of container {} is not to be had: Azure Container Instances keeps \
             the log of the last run only",
            source.container
        )));
    }
    if options.follow {
        return follow(source, options, tasks).await;
    }
    let log = source.read(options.tail, options.needs_times()).await?;
    let mut lines = Lines::new(options);
    let shaped = match options.tail {
        Some(tail) => lines.shape(lines::tail(&log, tail)),
        None => lines.shape(&log),
    };
    let mut response = text(StatusCode::OK, String::new());
    *response.body_mut() = Body::from(shaped);
    Ok(response)
}

/// The first look is the answer's own: what is wrong with it is told as such.
async fn follow(source: Source, options: Options, tasks: &Tasks) -> Answer {
    let log = source.read(None, options.needs_times()).await?;
    let (told, mut wanted) = mpsc::channel::<Bytes>(4);
    let follower = Follower {
        source,
        grown: Grown::default(),
        times: options.needs_times(),
        lines: Lines::new(options),
        told,
    };
    tasks.spawn(follower.follow(log, options.tail));
    let (cancel, mut is_over) = (tasks.cancel.clone(), false);
    let body = futures::stream::poll_fn(move |context| {
        if is_over {
            return Poll::Ready(None);
        }
        let next = ready!(wanted.poll_recv(context));
        is_over = next.is_none();
        Poll::Ready(match next {
            Some(bytes) => Some(Ok(bytes)),
            // The container writes on: an orderly end would say that this was all.
            None if cancel.is_cancelled() => Some(Err(io::Error::other("the process ends"))),
            None => None,
        })
    });
    let mut response = Response::new(Body::from_stream(body));
    *response.status_mut() = StatusCode::OK;
    Ok(response)
}

/// What a container writes from now on, for as long as `told` is listened to.
pub async fn output(source: Source, told: mpsc::Sender<Bytes>) -> Result<(), Refusal> {
    let options = Options::default();
    let log = source.read(None, options.needs_times()).await?;
    let follower = Follower {
        source,
        grown: Grown::default(),
        times: options.needs_times(),
        lines: Lines::new(options),
        told,
    };
    follower.follow(log, Some(0)).await;
    Ok(())
}

struct Follower {
    source: Source,
    grown: Grown,
    /// Whether the log is read with times.
    times: bool,
    lines: Lines,
    told: mpsc::Sender<Bytes>,
}

impl Follower {
    /// Tells the log until its container ends or nobody listens.
    async fn follow(mut self, first: String, tail: Option<usize>) {
        let told = self.told.clone();
        tokio::select! {
            () = self.tell(first, tail) => {}
            () = told.closed() => {}
        }
    }

    async fn tell(&mut self, first: String, tail: Option<usize>) {
        let run = self.source.run().await;
        let (New::More(new) | New::Other(new)) = self.grown.take(&first, false);
        let new = tail.map_or(new, |tail| lines::tail(new, tail));
        let shaped = self.lines.shape(new);
        if !self.say(shaped).await {
            return;
        }
        let mut size = first.len();
        drop(first);
        let mut pause = PAUSES.0;
        loop {
            let seconds = size / BYTES_PER_SECOND;
            let long = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
            tokio::time::sleep(pause.max(long)).await;
            // Asked before the log is read: all that an ended container wrote is in what is read then.
            let has_ended = self.source.has_ended(run.as_ref()).await;
            let Ok(log) = self.source.read(None, self.times).await else {
                if has_ended {
                    return;
                }
                pause = (pause * 2).min(PAUSES.1);
                continue;
            };
            size = log.len();
            let shaped = match self.grown.take(&log, has_ended) {
                // After its end, what is there is the next run's.
                New::Other(_) if has_ended => return,
                New::More(new) | New::Other(new) => self.lines.shape(new),
            };
            pause = if shaped.is_empty() {
                (pause * 2).min(PAUSES.1)
            } else {
                PAUSES.0
            };
            if !self.say(shaped).await || has_ended {
                return;
            }
        }
    }

    /// Whether to go on.
    async fn say(&self, shaped: Vec<u8>) -> bool {
        let heard = shaped.is_empty() || self.told.send(shaped.into()).await.is_ok();
        heard && !self.lines.is_full()
    }
}
