//! A shell in a container's terminal, which runs commands and reports their exit codes.
//!
//! In: a container of a group. Out: a shell that waits for a script, or what the terminal showed if the image has
//! none. `script` has the scripts and explains them, `environment` gives commands the container's environment, and
//! `marker_scanner` finds what the scripts print.

mod environment;
mod marker_scanner;
mod script;

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;

use super::client::{AciClient, GroupScope, TerminalInput, TerminalOutput};
use super::error::Error;
use super::names::GroupName;
pub use environment::ShellEnvironment;
pub use marker_scanner::{MarkerFilter, MarkerScanner};
pub use script::{
    OutputMarker, ShellCommand, command_script, resize_script, stderr_script, terminal_script,
};

/// How long a shell may take to become ready.
const SHELL_TIMEOUT: Duration = Duration::from_secs(20);
/// The size of a terminal that no user sees: wide, so that it does not break long lines.
const HIDDEN_TERMINAL_SIZE: TerminalSize = TerminalSize {
    width: 1000,
    height: 24,
};

/// The size of a terminal, as Kubernetes clients send it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct TerminalSize {
    /// In characters.
    pub width: u16,
    /// In characters.
    pub height: u16,
}

/// A container of a group.
#[derive(Clone)]
pub struct ShellTarget {
    /// Calls Azure.
    pub azure: AciClient,
    /// Where the group is.
    pub scope: GroupScope,
    /// The group's name.
    pub group: GroupName,
    /// The container's name.
    pub container: String,
}

/// A terminal, and its output that has not been read yet.
pub struct RemoteShell {
    /// What is typed.
    pub input: TerminalInput,
    /// What the terminal prints.
    pub output: TerminalOutput,
    /// Output that was read and not used yet.
    pub unread: Bytes,
    /// The container's environment.
    pub environment: ShellEnvironment,
}

/// The result of preparing a shell.
pub enum ShellProbe {
    /// The shell waits for a script.
    Ready(RemoteShell),
    /// The image has no `/bin/sh`, or none with `stty`; what the terminal showed.
    NoShell(String),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShellOutcome {
    /// It exited with this code.
    Exited(i32),
    /// It did not run: the image has no `/bin/sh`, or none with `stty`.
    NoShell,
    /// The terminal was closed before it ended.
    Closed,
}

impl ShellTarget {
    /// Runs a command without input, and drops its output. Dropping the future ends the command.
    ///
    /// # Errors
    ///
    /// If Azure refuses to open a terminal, or does not answer: the command has not run.
    pub async fn run(&self, command: &[String]) -> Result<ShellOutcome, Error> {
        let mut shell = match self.start_shell(None).await? {
            ShellProbe::Ready(shell) => shell,
            ShellProbe::NoShell(_) => return Ok(ShellOutcome::NoShell),
        };
        let marker = OutputMarker::random();
        let command = ShellCommand {
            command: command.to_vec(),
            ..ShellCommand::default()
        };
        let environment = &shell.environment;
        let script = command_script(&command, environment, &marker, &OutputMarker::random());
        shell.input.send(script.into()).await;
        let payload = shell.read_until(&marker).await;
        let code = payload.and_then(|payload| payload.parse().ok());
        Ok(code.map_or(ShellOutcome::Closed, ShellOutcome::Exited))
    }

    /// Opens a terminal in which `program` runs.
    ///
    /// # Errors
    ///
    /// If Azure refuses to open a terminal, or does not answer.
    pub async fn open(
        &self,
        program: &str,
        size: Option<TerminalSize>,
    ) -> Result<RemoteShell, Error> {
        let TerminalSize { width, height } = size.unwrap_or(HIDDEN_TERMINAL_SIZE);
        let (group, size) = (self.group.as_str(), (height, width));
        let session = self
            .azure
            .exec(&self.scope, group, &self.container, program, size)
            .await?;
        let (input, output) = self.azure.connect(&session).await?;
        Ok(RemoteShell {
            input,
            output,
            unread: Bytes::new(),
            environment: ShellEnvironment::default(),
        })
    }

    /// Opens a shell that waits for a script.
    ///
    /// # Errors
    ///
    /// If Azure refuses to open a terminal, or does not answer.
    pub async fn start_shell(&self, size: Option<TerminalSize>) -> Result<ShellProbe, Error> {
        let mut shell = self.open("/bin/sh", size).await?;
        let marker = OutputMarker::random();
        shell.input.send(script::boot_script(&marker).into()).await;
        let mut prompt = ShellPrompt::new(&marker);
        let ready = async {
            while let Some(bytes) = shell.output.next().await {
                if let Some(rest) = prompt.feed(bytes) {
                    shell.unread = rest;
                    return true;
                }
            }
            false
        };
        let is_ready = tokio::time::timeout(SHELL_TIMEOUT, ready)
            .await
            .unwrap_or(false);
        let [before, service, container, after] = &prompt.parts;
        if is_ready {
            shell.environment = ShellEnvironment::parse(service, container, after);
            return Ok(ShellProbe::Ready(shell));
        }
        let before = String::from_utf8_lossy(before).into_owned();
        shell.input.close().await;
        Ok(ShellProbe::NoShell(before))
    }
}

/// The parts that a shell prints before it waits for a script, each followed by the marker.
struct ShellPrompt<'a> {
    marker: &'a OutputMarker,
    scanner: MarkerScanner,
    parts: [Vec<u8>; 4],
    index: usize,
}

impl<'a> ShellPrompt<'a> {
    fn new(marker: &'a OutputMarker) -> Self {
        Self {
            marker,
            scanner: MarkerScanner::new(marker.as_bytes()),
            parts: Default::default(),
            index: 0,
        }
    }

    /// Takes in output. Once the last part is complete, returns the output after it.
    fn feed(&mut self, mut bytes: Bytes) -> Option<Bytes> {
        loop {
            let (output, payload) = self.scanner.feed(&bytes);
            self.parts[self.index].extend_from_slice(&output);
            payload?;
            let next = MarkerScanner::new(self.marker.as_bytes());
            bytes = std::mem::replace(&mut self.scanner, next).into_rest();
            self.index += 1;
            if self.index == self.parts.len() {
                return Some(bytes);
            }
        }
    }
}

impl RemoteShell {
    /// The next output; `None` at the end.
    pub async fn read(&mut self) -> Option<Bytes> {
        if self.unread.is_empty() {
            return self.output.next().await;
        }
        Some(std::mem::take(&mut self.unread))
    }

    /// Reads up to a marker, drops everything before it, and returns the text after it.
    pub async fn read_until(&mut self, marker: &OutputMarker) -> Option<String> {
        let mut scanner = MarkerScanner::new(marker.as_bytes());
        loop {
            let bytes = self.read().await?;
            if let (_, Some(payload)) = scanner.feed(&bytes) {
                self.unread = scanner.into_rest();
                return Some(payload);
            }
        }
    }
}
