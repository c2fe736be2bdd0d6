//! `kubectl exec`: commands in containers.
//!
//! In: a command and the client's streams. Out: the command's output and exit code. ACI has a single stream for
//! input and output and reports no exit code: `script` explains how a shell script provides both. If the image has
//! no shell, the client gets ACI's terminal as it is, with a notice.

mod environment;
mod marker_scanner;
mod raw_terminal;
mod script;
mod shell;
mod terminal;

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::sync::mpsc;

use self::marker_scanner::{MarkerFilter, MarkerScanner};
use self::script::OutputMarker;
use super::remote_command::{CommandOutcome, CommandRequest, CommandStreams, OutputStream};
use crate::aci::client::{TerminalInput, TerminalOutput};
use crate::aci::error::Error;
pub use shell::ShellTarget;
use shell::{RemoteShell, ShellProbe};

/// The most input that is sent to the script in one part, in bytes.
const MAX_INPUT_PART_BYTES: usize = 256 << 10;
/// How long to wait for the rest of stderr after the command has ended.
const STDERR_DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs a command until it ends or its client disconnects, which also ends the command.
pub async fn run(
    place: &ShellTarget,
    wanted: &CommandRequest,
    streams: CommandStreams,
) -> CommandOutcome {
    let gone = streams.client_gone.clone();
    let ran = async {
        if wanted.tty {
            terminal::run(place, wanted, streams).await
        } else {
            run_without_tty(place, wanted, streams).await
        }
    };
    let ran = tokio::select! {
        ran = ran => ran,
        // Dropping a terminal ends the program in it.
        () = gone.cancelled() => return CommandOutcome::Failed("the client is gone".to_owned()),
    };
    ran.unwrap_or_else(|error| CommandOutcome::Failed(error.error_chain()))
}

/// Runs a command without a terminal for the client: stdout and stderr are separate.
async fn run_without_tty(
    place: &ShellTarget,
    wanted: &CommandRequest,
    streams: CommandStreams,
) -> Result<CommandOutcome, Error> {
    let asked = if wanted.stderr {
        tokio::try_join!(place.start_shell(None), async {
            place.start_shell(None).await.map(Some)
        })?
    } else {
        (place.start_shell(None).await?, None)
    };
    let (mut main, errors) = match asked {
        (ShellProbe::NoShell(shown), _) => {
            return raw_terminal::run(place, wanted, streams, &shown).await;
        }
        (ShellProbe::Ready(main), Some(ShellProbe::Ready(errors))) => (main, Some(errors)),
        (ShellProbe::Ready(main), _) => (main, None),
    };
    let mark = OutputMarker::new();
    let errors = match errors {
        Some(mut shell) => {
            shell.input.send(script::stderr_script(&mark).into()).await;
            // Without a named pipe there is nothing to read: stderr comes with stdout.
            let said = shell.read_until(&mark).await;
            said.is_some_and(|said| said == "1").then_some(shell)
        }
        None => None,
    };
    let taken = OutputMarker::new();
    let script = script::command_script(wanted, &main.environment, &mark, &taken);
    main.input.send(script.into()).await;
    let CommandStreams {
        stdin, output: out, ..
    } = streams;
    let RemoteShell {
        input: mut keyboard,
        output: screen,
        unread: shown,
        ..
    } = main;
    let (told, turns) = mpsc::channel(1);
    let turns_told = wanted.stdin.then(|| InputAcknowledgements {
        filter: MarkerFilter::new(taken.as_bytes()),
        acknowledged: told,
    });
    let output = copy_output(
        (screen, shown),
        OutputStream::Stdout,
        &out,
        &mark,
        turns_told,
    );
    let failed = async {
        if let Some(RemoteShell {
            output: screen,
            unread: shown,
            ..
        }) = errors
        {
            copy_output((screen, shown), OutputStream::Stderr, &out, &mark, None).await;
        }
    };
    let typed = async {
        if wanted.stdin {
            write_input(&mut keyboard, stdin, turns).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::pin!(output, failed, typed);
    let mut has_failed = false;
    let said = loop {
        tokio::select! {
            said = &mut output => break said,
            () = &mut failed, if !has_failed => has_failed = true,
            () = &mut typed => {}
        }
    };
    while !has_failed {
        has_failed = tokio::time::timeout(STDERR_DRAIN_TIMEOUT, &mut failed)
            .await
            .is_ok();
        // A background process of the command may hold the pipe open for ever, so do not wait for it. But do wait
        // for a slow client: its channel is full.
        if out.capacity() > 0 {
            break;
        }
    }
    Ok(parse_outcome(said))
}

/// The outcome of a command, from the exit code that its script printed.
fn parse_outcome(said: Option<String>) -> CommandOutcome {
    match said.map(|said| said.parse()) {
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
        let (through, times) = self.filter.feed(bytes);
        if times > 0 {
            // After the last part, the receiver is gone.
            let _ = self.acknowledged.try_send(());
        }
        through
    }
}

/// Sends the terminal's output to the client up to the marker; returns the text after the marker.
async fn copy_output(
    (mut screen, shown): (TerminalOutput, Bytes),
    to: OutputStream,
    out: &mpsc::Sender<(OutputStream, Bytes)>,
    mark: &OutputMarker,
    mut taken: Option<InputAcknowledgements>,
) -> Option<String> {
    let mut sieve = MarkerScanner::new(mark.as_bytes());
    let mut next = Some(shown);
    while let Some(mut bytes) = next {
        if let Some(taken) = &mut taken {
            bytes = taken.filter_output(&bytes);
        }
        let (through, said) = sieve.feed(&bytes);
        if !through.is_empty() && out.send((to, through)).await.is_err() {
            return None;
        }
        if said.is_some() {
            return said;
        }
        next = screen.next().await;
    }
    let held = taken
        .map(|taken| taken.filter.into_rest())
        .unwrap_or_default();
    for rest in [sieve.into_rest(), held] {
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
    keyboard: &mut TerminalInput,
    mut stdin: mpsc::Receiver<Bytes>,
    mut turns: mpsc::Receiver<()>,
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
            let now = part.split_to(part.len().min(MAX_INPUT_PART_BYTES));
            let mut typed = BytesMut::from(format!("{}\n", now.len()).as_bytes());
            typed.put(now);
            if !keyboard.send(typed.freeze()).await || turns.recv().await.is_none() {
                return;
            }
        }
    }
    keyboard.send(Bytes::from_static(b"0\n")).await;
}
