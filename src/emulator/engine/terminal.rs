//! Terminals of containers: a command with input and output, or only a container's output.
//!
//! In: a request to exec or attach. Out: bytes in both directions, until the command ends or the client
//! disconnects; then the command is ended, like in a terminal that is closed.
//!
//! Seen with podman 4.3.1: a command keeps running after its connection is closed or half closed (also
//! with Docker), and no API call ends it. So this module sends SIGHUP to its process, and SIGKILL if
//! that has no effect. It does so only if it can see that the process belongs to the container.
//! Otherwise (an engine in a virtual machine) it types Ctrl-C and Ctrl-D, which ends most interactive
//! programs. podman ignores `ConsoleSize` and refuses to resize a terminal before the command has
//! started, so a command that reads its terminal size at once may see none yet. Docker applies
//! `ConsoleSize` from API 1.42 on.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::{ExecConfig, ExecInspectResponse};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::io::{AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::net::unix::OwnedWriteHalf;
use tokio_util::io::ReaderStream;

use super::client::EngineClient;
use super::error::EngineError;
use super::groups::EngineParts;
use super::hijack;

/// How many bytes of input are buffered for a command that does not read.
const INPUT_BUFFER_BYTES: usize = 64 << 10;
/// How often to try to resize the terminal while the engine starts the command, and the interval.
const RESIZE_ATTEMPTS: (usize, Duration) = (3, Duration::from_millis(10));
/// How often to check between SIGHUP and SIGKILL whether the command has ended, and the interval: 1 s
/// in all.
const KILL_GRACE: (usize, Duration) = (10, Duration::from_millis(100));
/// Ctrl-C and Ctrl-D.
const INTERRUPT_KEYS: &[u8] = b"\x03\x04";

/// A connected terminal. Drop disconnects it.
pub struct Terminal {
    /// The bytes that the terminal shows.
    pub output: Pin<Box<dyn Stream<Item = Bytes> + Send>>,
    /// The bytes that the client types.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
}

/// Runs a command in a container.
pub(super) async fn exec(
    parts: &Arc<EngineParts>,
    name: &str,
    command: Vec<String>,
    size: (u16, u16),
) -> Result<Terminal, EngineError> {
    let client = &parts.client;
    let config = ExecConfig {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(true),
        console_size: Some(vec![size.0.into(), size.1.into()]),
        cmd: Some(command),
        ..ExecConfig::default()
    };
    let id = client.create_exec(name, config).await?;
    let (output, write) = hijack::start(client.socket(), &id, size).await?;
    let (input, typed) = tokio::io::duplex(INPUT_BUFFER_BYTES);
    parts
        .tasks
        .spawn(forward_input(parts.clone(), id.clone(), typed, write));
    for _ in 0..RESIZE_ATTEMPTS.0 {
        // The command may have ended already; then its terminal cannot be resized.
        if client.resize_exec(&id, size).await.is_ok() {
            break;
        }
        tokio::time::sleep(RESIZE_ATTEMPTS.1).await;
    }
    let output = ReaderStream::new(output)
        .take_while(|part| std::future::ready(part.is_ok()))
        .filter_map(|part| std::future::ready(part.ok()));
    Ok(Terminal {
        output: Box::pin(output),
        input: Box::pin(input),
    })
}

/// Shows a container's output from now on. Input is discarded.
pub(super) async fn attach(client: &EngineClient, name: &str) -> Result<Terminal, EngineError> {
    let output = client.attach(name).await?;
    let output = output
        .take_while(|part| std::future::ready(part.is_ok()))
        .filter_map(|part| {
            std::future::ready(part.ok().map(bollard::container::LogOutput::into_bytes))
        });
    Ok(Terminal {
        output: Box::pin(output),
        input: Box::pin(tokio::io::sink()),
    })
}

/// Copies input to the command, and ends the command when the client has disconnected.
async fn forward_input(
    parts: Arc<EngineParts>,
    id: String,
    mut typed: DuplexStream,
    mut write: OwnedWriteHalf,
) {
    let copy = async {
        // Ignore the error: if the command has ended, its output ends, too.
        let _ = tokio::io::copy(&mut typed, &mut write).await;
        // After a failed write, keep reading until the client disconnects.
        let _ = tokio::io::copy(&mut typed, &mut tokio::io::sink()).await;
    };
    tokio::select! {
        () = copy => {}
        // The emulator stops and kills all containers anyway.
        () = parts.cancel.cancelled() => return,
    }
    if let Err(error) = hang_up(&parts.client, &id, Some(&mut write)).await {
        tracing::debug!(error = error.error_chain(), "a command was not ended");
    }
}

/// Ends a command whose client has disconnected: SIGHUP, then SIGKILL, or typed keys.
pub(super) async fn hang_up(
    client: &EngineClient,
    id: &str,
    mut input: Option<&mut OwnedWriteHalf>,
) -> Result<(), EngineError> {
    for signal in ["HUP", "KILL"] {
        let state = client.inspect_exec(id).await?;
        let Some(process) = running(&state) else {
            return Ok(());
        };
        if !is_in_container(process, state.container_id.as_deref()) {
            if let Some(input) = input.take() {
                // Ignore the error: the command may have ended meanwhile.
                let _ = input.write_all(INTERRUPT_KEYS).await;
            }
            return Ok(());
        }
        send(signal, process).await;
        for _ in 0..KILL_GRACE.0 {
            tokio::time::sleep(KILL_GRACE.1).await;
            if running(&client.inspect_exec(id).await?).is_none() {
                return Ok(());
            }
        }
    }
    tracing::warn!("cannot end a command");
    Ok(())
}

fn running(state: &ExecInspectResponse) -> Option<i64> {
    state
        .pid
        .filter(|pid| state.running == Some(true) && *pid > 1)
}

/// Whether the process with this number belongs to the container. An engine may count processes in
/// another namespace, where the number means another process.
fn is_in_container(process: i64, container: Option<&str>) -> bool {
    let groups = std::fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default();
    container.is_some_and(|id| id.len() >= 12 && groups.contains(id))
}

/// Sends a signal with the program `kill`: the standard library has no call for it.
async fn send(signal: &str, process: i64) {
    let result = tokio::process::Command::new("kill")
        .args(["-s", signal, &process.to_string()])
        .kill_on_drop(true)
        .output()
        .await;
    match result {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let error = String::from_utf8_lossy(&output.stderr);
            tracing::debug!(signal, %error, "cannot end a command");
        }
        Err(error) => tracing::warn!(%error, "cannot end a command"),
    }
}
