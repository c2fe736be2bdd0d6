//! A command in an image without a shell: ACI's terminal as it is.
//!
//! In: a command without blanks in its arguments, and the client's streams. Out: the terminal's output; no exit
//! code, and stderr mixed with stdout. The client gets a notice that says so.

use bytes::Bytes;

use super::ExecTarget;
use crate::aci::error::Error;
use crate::aci::shell::RemoteShell;
use crate::kubelet_api::nodes::PodPresence;
use crate::kubelet_api::remote_command::{
    CommandOutcome, CommandRequest, CommandStreams, OutputStream,
};

pub async fn run(
    target: &ExecTarget,
    wanted: &CommandRequest,
    streams: CommandStreams,
    screen_text: &str,
) -> Result<CommandOutcome, Error> {
    let container = &target.container;
    let needs_quotes = |word: &String| word.is_empty() || word.contains(char::is_whitespace);
    if let Some(word) = wanted.command.iter().find(|word| needs_quotes(word)) {
        return Ok(CommandOutcome::Failed(format!(
            "container {container} has no /bin/sh with stty, and without one Azure Container Instances \
             accepts no argument that contains blanks: {word:?}"
        )));
    }
    tracing::debug!(screen_text, "an image without a shell");
    let end = if wanted.tty { "\r\n" } else { "\n" };
    let notice = format!(
        "burstpool: container {container} has no /bin/sh with stty: stderr is mixed with stdout, and \
         the command's exit code is not known{end}"
    );
    let CommandStreams {
        mut stdin,
        output: out,
        ..
    } = streams;
    // The client may have disconnected.
    let _ = out.send((OutputStream::Stderr, notice.into())).await;
    let RemoteShell {
        input: mut terminal_input,
        output: mut terminal_output,
        ..
    } = target
        .shell_target()
        .open(&wanted.command.join(" "), None)
        .await?;
    // Concurrently with the output: a program that answers as it reads stops reading until its output is taken.
    let write_stdin = async {
        let mut is_open = wanted.stdin;
        while is_open {
            let bytes = stdin.recv().await;
            is_open = bytes.is_some();
            // At the end of input, send Ctrl-D, as a user at a terminal does.
            let bytes = bytes.unwrap_or(Bytes::from_static(b"\x04"));
            is_open &= terminal_input.send(bytes).await;
        }
        std::future::pending::<()>().await;
    };
    let copy_stdout = async {
        while let Some(bytes) = terminal_output.next().await {
            let bytes = if wanted.tty {
                bytes
            } else {
                strip_carriage_returns(&bytes)
            };
            if out.send((OutputStream::Stdout, bytes)).await.is_err() {
                return CommandOutcome::Failed("the client is gone".to_owned());
            }
        }
        outcome(&target.pod.presence())
    };
    tokio::select! {
        outcome = copy_stdout => Ok(outcome),
        () = write_stdin => Ok(CommandOutcome::Exited(0)),
    }
}

/// The outcome of a command whose terminal was closed, given the pod's present state. Azure also closes the terminal
/// when the operator has asked it to delete the group.
fn outcome(now: &PodPresence) -> CommandOutcome {
    let is_cut = match now {
        PodPresence::Present(pod) => pod.is_group_deleted,
        PodPresence::Gone => true,
        PodPresence::Unknown => false,
    };
    if is_cut {
        return CommandOutcome::Failed("the pod's container group is deleted".to_owned());
    }
    CommandOutcome::Exited(0)
}

/// Removes the carriage returns that a terminal adds at line ends; a program without a terminal writes none.
fn strip_carriage_returns(bytes: &[u8]) -> Bytes {
    let kept = bytes.iter().filter(|byte| **byte != b'\r');
    kept.copied().collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::kubelet_api::fixtures::pod;

    #[test]
    fn a_command_that_the_deletion_of_its_group_ends_has_not_succeeded() {
        let there = pod("web");
        let mut deleted = there.clone();
        Arc::make_mut(&mut deleted).is_group_deleted = true;
        let succeeded = [PodPresence::Present(there), PodPresence::Unknown];
        assert!(
            succeeded
                .iter()
                .all(|now| outcome(now) == CommandOutcome::Exited(0))
        );
        let cut = [PodPresence::Present(deleted), PodPresence::Gone];
        let failed = |now| matches!(outcome(now), CommandOutcome::Failed(_));
        assert!(cut.iter().all(failed));
    }
}
