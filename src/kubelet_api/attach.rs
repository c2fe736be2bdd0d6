//! `kubectl attach`: the output of a container from now on.
//!
//! In: a container and a client's streams. Out: the container's log as it grows. ACI's own attach is undocumented
//! and unused, and it takes no input either.

use tokio::sync::mpsc;

use super::logs::{self, LogSource};
use super::remote_command::{CommandOutcome, CommandStreams, OutputStream};

/// Sends the container's output until it ends or the client disconnects.
pub async fn run(source: LogSource, streams: CommandStreams) -> CommandOutcome {
    let CommandStreams {
        output: out,
        client_gone: gone,
        ..
    } = streams;
    let (told, mut heard) = mpsc::channel(4);
    let carried = async {
        while let Some(bytes) = heard.recv().await {
            if out.send((OutputStream::Stdout, bytes)).await.is_err() {
                return;
            }
        }
    };
    let shown = async { tokio::join!(logs::stream_new_output(source, told), carried).0 };
    let shown = tokio::select! {
        shown = shown => shown,
        () = gone.cancelled() => return CommandOutcome::Failed("the client is gone".to_owned()),
    };
    match shown {
        Ok(()) => CommandOutcome::Exited(0),
        Err(refusal) => CommandOutcome::Failed(refusal.message),
    }
}
