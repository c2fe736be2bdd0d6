//! A command in the client's terminal.
//!
//! In: a command and the client's streams. Out: bytes in both directions, and a terminal whose size follows the
//! client's.

use std::time::Duration;

use tokio::sync::mpsc;

use super::{ExecTarget, copy_output, parse_outcome, raw_terminal};
use crate::aci::error::Error;
use crate::aci::shell::{self, OutputMarker, RemoteShell, ShellProbe, ShellTarget, TerminalSize};
use crate::kubelet_api::remote_command::{
    CommandOutcome, CommandRequest, CommandStreams, OutputStream,
};

/// How long to wait for the size of the client's terminal, which usually arrives first.
const INITIAL_SIZE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a size must stay the same before the terminal is resized: each resize costs a call.
const RESIZE_DEBOUNCE: Duration = Duration::from_millis(200);
/// Timeout of one resize.
const RESIZE_TIMEOUT: Duration = Duration::from_secs(30);

pub async fn run(
    target: &ExecTarget,
    wanted: &CommandRequest,
    mut streams: CommandStreams,
) -> Result<CommandOutcome, Error> {
    let size = tokio::time::timeout(INITIAL_SIZE_TIMEOUT, streams.resize.recv()).await;
    let size = size.ok().flatten();
    let shell_target = target.shell_target();
    let mut shell = match shell_target.start_shell(size).await? {
        ShellProbe::Ready(shell) => shell,
        ShellProbe::NoShell(screen_text) => {
            return raw_terminal::run(target, wanted, streams, &screen_text).await;
        }
    };
    let marker = OutputMarker::random();
    let script = shell::terminal_script(&wanted.command, &shell.environment, &marker, size);
    shell.input.send(script.into()).await;
    let terminal = shell.read_until(&marker).await;
    let CommandStreams {
        mut stdin,
        resize,
        output: out,
        ..
    } = streams;
    let RemoteShell {
        input: mut terminal_input,
        output: terminal_output,
        unread,
        ..
    } = shell;
    let write_stdin = async {
        while let Some(bytes) = stdin.recv().await {
            if !terminal_input.send(bytes).await {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let follow_size = async {
        if let Some(terminal) = &terminal {
            follow_resizes(&shell_target, terminal, resize).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        payload = copy_output((terminal_output, unread), OutputStream::Stdout, &out, &marker, None) => Ok(parse_outcome(payload)),
        () = write_stdin => Ok(parse_outcome(None)),
        () = follow_size => Ok(parse_outcome(None)),
    }
}

/// Resizes a terminal with the client's, from a second session: ACI has no other way.
async fn follow_resizes(
    target: &ShellTarget,
    terminal: &str,
    mut sizes: mpsc::Receiver<TerminalSize>,
) {
    while let Some(mut size) = sizes.recv().await {
        while let Ok(Some(newer)) = tokio::time::timeout(RESIZE_DEBOUNCE, sizes.recv()).await {
            size = newer;
        }
        let Some(script) = shell::resize_script(terminal, size) else {
            return;
        };
        let resize = async {
            match target.start_shell(None).await {
                Ok(ShellProbe::Ready(mut shell)) => {
                    shell.input.send(script.into()).await;
                    while shell.read().await.is_some() {}
                }
                Ok(ShellProbe::NoShell(_)) => {}
                Err(error) => tracing::debug!(error = error.error_chain(), "resizing a terminal"),
            }
        };
        if tokio::time::timeout(RESIZE_TIMEOUT, resize).await.is_err() {
            tracing::debug!("resizing a terminal takes too long");
        }
    }
}
