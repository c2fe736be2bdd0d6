//! `kubectl attach`: the output of a container from now on.
//!
//! In: a container and a client's streams. Out: the container's log as it grows. ACI's own attach is undocumented
//! and unused, and it takes no input either.

use tokio::sync::mpsc;

use super::logs::{self, Source};
use super::remote_command::{Out, Outcome, Streams};

/// Sends the container's output until it ends or the client disconnects.
pub async fn run(source: Source, streams: Streams) -> Outcome {
    let Streams { out, gone, .. } = streams;
    let (told, mut heard) = mpsc::channel(4);
    let carried = async {
        while let Some(bytes) = heard.recv().await {
            if out.send((Out::Stdout, bytes)).await.is_err() {
                return;
            }
        }
    };
    let shown = async { tokio::join!(logs::output(source, told), carried).0 };
    let shown = tokio::select! {
        shown = shown => shown,
        () = gone.cancelled() => return Outcome::Failed("the client is gone".to_owned()),
    };
    match shown {
        Ok(()) => Outcome::Exited(0),
        Err(refusal) => Outcome::Failed(refusal.message),
    }
}
