//! `kubectl exec`: commands in containers.
//!
//! In: a command and the client's streams. Out: the command's output and exit code. ACI has a single stream for
//! input and output and reports no exit code: [`shell`] provides both. If the image has no shell, the client gets
//! ACI's terminal as it is, with a notice.

mod raw_terminal;
mod terminal;

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::sync::mpsc;

use super::nodes::FoundPod;
use super::remote_command::{CommandOutcome, CommandRequest, CommandStreams, OutputStream};
use crate::aci::client::{TerminalInput, TerminalOutput};
use crate::aci::error::Error;
use crate::aci::shell::{
    self, MarkerFilter, MarkerScanner, OutputMarker, RemoteShell, ShellCommand, ShellProbe,
    ShellTarget,
};

/// The most input that is sent to the script in one part, in bytes.
const MAX_INPUT_PART_BYTES: usize = 256 << 10;
/// How long to wait for the rest of stderr after the command has ended.
const STDERR_DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A container of a pod.
#[derive(Clone)]
pub struct ExecTarget {
    /// The pod.
    pub pod: FoundPod,
    /// The container's name.
    pub container: String,
}

impl ExecTarget {
    /// The container in Azure.
    fn shell_target(&self) -> ShellTarget {
        ShellTarget {
            azure: self.pod.node.azure.clone(),
            scope: self.pod.node.scope.clone(),
            group: self.pod.pod.group.clone(),
            container: self.container.clone(),
        }
    }
}

/// Runs a command until it ends or its client disconnects, which also ends the command.
pub async fn run(
    target: &ExecTarget,
    wanted: &CommandRequest,
    streams: CommandStreams,
) -> CommandOutcome {
    let gone = streams.client_gone.clone();
    let outcome = async {
        if wanted.tty {
            terminal::run(target, wanted, streams).await
        } else {
            run_without_tty(target, wanted, streams).await
        }
    };
    let outcome = tokio::select! {
        outcome = outcome => outcome,
        // Dropping a terminal ends the program in it.
        () = gone.cancelled() => return CommandOutcome::Failed("the client is gone".to_owned()),
    };
    outcome.unwrap_or_else(|error| CommandOutcome::Failed(error.error_chain()))
}

/// Runs a command without a terminal for the client: stdout and stderr are separate.
async fn run_without_tty(
    target: &ExecTarget,
    wanted: &CommandRequest,
    streams: CommandStreams,
) -> Result<CommandOutcome, Error> {
    let shell_target = target.shell_target();
    let shells = if wanted.stderr {
        tokio::try_join!(shell_target.start_shell(None), async {
            shell_target.start_shell(None).await.map(Some)
        })?
    } else {
        (shell_target.start_shell(None).await?, None)
    };
    let (mut main, errors) = match shells {
        (ShellProbe::NoShell(screen_text), _) => {
            return raw_terminal::run(target, wanted, streams, &screen_text).await;
        }
        (ShellProbe::Ready(main), Some(ShellProbe::Ready(errors))) => (main, Some(errors)),
        (ShellProbe::Ready(main), _) => (main, None),
    };
    let marker = OutputMarker::random();
    let errors = match errors {
        Some(mut shell) => {
            shell.input.send(shell::stderr_script(&marker).into()).await;
            // Without a named pipe there is nothing to read: stderr comes with stdout.
            let payload = shell.read_until(&marker).await;
            payload
                .is_some_and(|payload| payload == "1")
                .then_some(shell)
        }
        None => None,
    };
    let part_marker = OutputMarker::random();
    let command = ShellCommand {
        command: wanted.command.clone(),
        stdin: wanted.stdin,
        stderr: wanted.stderr,
    };
    let script = shell::command_script(&command, &main.environment, &marker, &part_marker);
    main.input.send(script.into()).await;
    let CommandStreams {
        stdin, output: out, ..
    } = streams;
    let RemoteShell {
        input: mut terminal_input,
        output: terminal_output,
        unread,
        ..
    } = main;
    let (acknowledged, acknowledgements) = mpsc::channel(1);
    let input_acknowledgements = wanted.stdin.then(|| InputAcknowledgements {
        filter: MarkerFilter::new(part_marker.as_bytes()),
        acknowledged,
    });
    let copy_stdout = copy_output(
        (terminal_output, unread),
        OutputStream::Stdout,
        &out,
        &marker,
        input_acknowledgements,
    );
    let copy_stderr = async {
        if let Some(RemoteShell { output, unread, .. }) = errors {
            copy_output((output, unread), OutputStream::Stderr, &out, &marker, None).await;
        }
    };
    let write_stdin = async {
        if wanted.stdin {
            write_input(&mut terminal_input, stdin, acknowledgements).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::pin!(copy_stdout, copy_stderr, write_stdin);
    let mut is_stderr_complete = false;
    let payload = loop {
        tokio::select! {
            payload = &mut copy_stdout => break payload,
            () = &mut copy_stderr, if !is_stderr_complete => is_stderr_complete = true,
            () = &mut write_stdin => {}
        }
    };
    while !is_stderr_complete {
        is_stderr_complete = tokio::time::timeout(STDERR_DRAIN_TIMEOUT, &mut copy_stderr)
            .await
            .is_ok();
        // A background process of the command may hold the pipe open forever, so do not wait for it. But do wait
        // for a slow client: its channel is full.
        if out.capacity() > 0 {
            break;
        }
    }
    Ok(parse_outcome(payload))
}

/// The outcome of a command, from the exit code that its script printed after the marker.
fn parse_outcome(payload: Option<String>) -> CommandOutcome {
    match payload.map(|payload| payload.parse()) {
        Some(Ok(code)) => CommandOutcome::Exited(code),
        _ => CommandOutcome::Failed(
            "the container's terminal was closed before the command ended".to_owned(),
        ),
    }
}

/// Removes from the output the markers that acknowledge a part of the input, and passes them on.
struct InputAcknowledgements {
    filter: MarkerFilter,
    acknowledged: mpsc::Sender<()>,
}

impl InputAcknowledgements {
    fn filter_output(&mut self, bytes: &[u8]) -> Bytes {
        let (kept, count) = self.filter.feed(bytes);
        if count > 0 {
            // After the last part, the receiver is gone.
            let _ = self.acknowledged.try_send(());
        }
        kept
    }
}

/// Sends the terminal's output to the client up to the marker; returns the text after the marker.
async fn copy_output(
    (mut terminal, unread): (TerminalOutput, Bytes),
    to: OutputStream,
    out: &mpsc::Sender<(OutputStream, Bytes)>,
    marker: &OutputMarker,
    mut acknowledgements: Option<InputAcknowledgements>,
) -> Option<String> {
    let mut scanner = MarkerScanner::new(marker.as_bytes());
    let mut next = Some(unread);
    while let Some(mut bytes) = next {
        if let Some(acknowledgements) = &mut acknowledgements {
            bytes = acknowledgements.filter_output(&bytes);
        }
        let (kept, payload) = scanner.feed(&bytes);
        if !kept.is_empty() && out.send((to, kept)).await.is_err() {
            return None;
        }
        if payload.is_some() {
            return payload;
        }
        next = terminal.next().await;
    }
    let held_back = acknowledgements
        .map(|acknowledgements| acknowledgements.filter.into_rest())
        .unwrap_or_default();
    for rest in [scanner.into_rest(), held_back] {
        if !rest.is_empty() {
            // The client may have disconnected.
            let _ = out.send((to, rest)).await;
        }
    }
    None
}

/// Sends the client's input in parts, each with its length in front, and each after the previous part was
/// acknowledged. A part of length 0 marks the end.
async fn write_input(
    terminal: &mut TerminalInput,
    mut stdin: mpsc::Receiver<Bytes>,
    mut acknowledgements: mpsc::Receiver<()>,
) {
    while let Some(first) = stdin.recv().await {
        let mut part = BytesMut::from(first);
        while part.len() < MAX_INPUT_PART_BYTES
            && let Ok(more) = stdin.try_recv()
        {
            part.put(more);
        }
        // One message may be larger than a part.
        while !part.is_empty() {
            let content = part.split_to(part.len().min(MAX_INPUT_PART_BYTES));
            let mut message = BytesMut::from(format!("{}\n", content.len()).as_bytes());
            message.put(content);
            if !terminal.send(message.freeze()).await || acknowledgements.recv().await.is_none() {
                return;
            }
        }
    }
    terminal.send(Bytes::from_static(b"0\n")).await;
}
