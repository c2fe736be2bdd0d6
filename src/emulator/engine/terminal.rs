//! Terminals of containers: a command with input and output, or a container's output alone.
//!
//! In: what a websocket's client wants. Out: bytes both ways, until the command ends or the client
//! leaves; then its command is ended, as a terminal that is closed would.
//!
//! Seen with podman 4.3.1: a command outlives its connection, closed or half closed, for ever
//! (Docker has the same gap), and no call ends it. So its process gets SIGHUP, and SIGKILL if
//! that does not help, wherever this process can see that the process is in the container;
//! elsewhere (an engine in a virtual machine) Ctrl-C and Ctrl-D are typed, which ends what people
//! usually run. A terminal's size is only heeded after the start: `ConsoleSize` is ignored and
//! sizing before is refused, so a command that looks at once may find no size yet. Docker
//! heeds `ConsoleSize` from API 1.42 on.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::{ExecConfig, ExecInspectResponse};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::io::{AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::net::unix::OwnedWriteHalf;
use tokio_util::io::ReaderStream;

use super::client::Client;
use super::error::Error;
use super::groups::Parts;
use super::hijack;

/// How many bytes of input wait for a command that does not read.
const INPUT: usize = 64 << 10;
/// How often, and in which steps, sizing is tried while the engine gets the command going.
const SIZINGS: (usize, Duration) = (3, Duration::from_millis(10));
/// How long a command has between SIGHUP and SIGKILL, looked at in steps.
const LAST_CHANCE: (usize, Duration) = (10, Duration::from_millis(100));
/// Ctrl-C and Ctrl-D.
const TYPED: &[u8] = b"\x03\x04";

/// A terminal. Dropping it is leaving it.
pub struct Terminal {
    /// What is shown.
    pub output: Pin<Box<dyn Stream<Item = Bytes> + Send>>,
    /// What is typed.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
}

/// Runs a command in a container.
pub(super) async fn exec(
    parts: &Arc<Parts>,
    name: &str,
    command: Vec<String>,
    size: (u16, u16),
) -> Result<Terminal, Error> {
    let client = &parts.client;
    let wanted = ExecConfig {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(true),
        console_size: Some(vec![size.0.into(), size.1.into()]),
        cmd: Some(command),
        ..ExecConfig::default()
    };
    let id = client.create_exec(name, wanted).await?;
    let (output, write) = hijack::start(client.socket(), &id, size).await?;
    let (input, typed) = tokio::io::duplex(INPUT);
    parts
        .tasks
        .spawn(stay(parts.clone(), id.clone(), typed, write));
    for _ in 0..SIZINGS.0 {
        // A command that has ended already has no terminal to be sized.
        if client.resize_exec(&id, size).await.is_ok() {
            break;
        }
        tokio::time::sleep(SIZINGS.1).await;
    }
    let output = ReaderStream::new(output)
        .take_while(|part| std::future::ready(part.is_ok()))
        .filter_map(|part| std::future::ready(part.ok()));
    Ok(Terminal {
        output: Box::pin(output),
        input: Box::pin(input),
    })
}

/// Shows what a container writes from now on.
pub(super) async fn attach(client: &Client, name: &str) -> Result<Terminal, Error> {
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

/// Carries what is typed to the command, and ends it when nobody is there to type any more.
async fn stay(parts: Arc<Parts>, id: String, mut typed: DuplexStream, mut write: OwnedWriteHalf) {
    let carried = async {
        // The command may have ended, which its output tells.
        let _ = tokio::io::copy(&mut typed, &mut write).await;
        // A copy that could not write ends before its client has left.
        let _ = tokio::io::copy(&mut typed, &mut tokio::io::sink()).await;
    };
    tokio::select! {
        () = carried => {}
        // The containers are being killed anyway.
        () = parts.cancel.cancelled() => return,
    }
    if let Err(error) = hang_up(&parts.client, &id, Some(&mut write)).await {
        tracing::debug!(error = error.in_full(), "ending a command");
    }
}

/// Ends a command that nobody watches any more.
pub(super) async fn hang_up(
    client: &Client,
    id: &str,
    mut input: Option<&mut OwnedWriteHalf>,
) -> Result<(), Error> {
    for signal in ["HUP", "KILL"] {
        let seen = client.inspect_exec(id).await?;
        let Some(process) = running(&seen) else {
            return Ok(());
        };
        if !is_in_container(process, seen.container_id.as_deref()) {
            if let Some(input) = input.take() {
                // It may have ended in between.
                let _ = input.write_all(TYPED).await;
            }
            return Ok(());
        }
        send(signal, process).await;
        for _ in 0..LAST_CHANCE.0 {
            tokio::time::sleep(LAST_CHANCE.1).await;
            if running(&client.inspect_exec(id).await?).is_none() {
                return Ok(());
            }
        }
    }
    tracing::warn!("a command could not be ended");
    Ok(())
}

fn running(seen: &ExecInspectResponse) -> Option<i64> {
    seen.pid
        .filter(|pid| seen.running == Some(true) && *pid > 1)
}

/// Whether a process that this one sees by that number is the container's: an engine may count in
/// another process namespace.
fn is_in_container(process: i64, container: Option<&str>) -> bool {
    let groups = std::fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default();
    container.is_some_and(|id| id.len() >= 12 && groups.contains(id))
}

/// Sends a signal. The standard library has no call for it.
async fn send(signal: &str, process: i64) {
    let sent = tokio::process::Command::new("kill")
        .args(["-s", signal, &process.to_string()])
        .kill_on_drop(true)
        .output()
        .await;
    match sent {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            tracing::debug!(signal, words = %String::from_utf8_lossy(&output.stderr), "ending a command");
        }
        Err(error) => tracing::warn!(%error, "ending a command"),
    }
}
