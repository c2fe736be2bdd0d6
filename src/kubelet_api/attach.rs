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
    let (sender, mut receiver) = mpsc::channel(4);
    let forward = async {
        while let Some(bytes) = receiver.recv().await {
            if out.send((OutputStream::Stdout, bytes)).await.is_err() {
                return;
            }
        }
    };
    let streamed = async { tokio::join!(logs::stream_new_output(source, sender), forward).0 };
    let streamed = tokio::select! {
        streamed = streamed => streamed,
        () = gone.cancelled() => return CommandOutcome::Failed("the client is gone".to_owned()),
    };
    match streamed {
        Ok(()) => CommandOutcome::Exited(0),
        Err(refusal) => CommandOutcome::Failed(refusal.message),
    }
}
