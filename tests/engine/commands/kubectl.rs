//! The available kubectl versions: the cluster's own, and older ones, which use other protocols with a
//! kubelet.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use crate::support::skipped;
use crate::world::World;

/// Timeout of a kubectl. The longest command of these tests takes 80 s, and copying 50 MB about as
/// long.
const PATIENCE: Duration = Duration::from_mins(4);

/// A kubectl and the protocol that it uses.
pub struct Client<'a> {
    pub world: &'a World,
    /// The program. `None`: the cluster's own.
    program: Option<&'a Path>,
    /// The value of kubectl's variables for websockets. Versions before 1.29 never use them.
    websockets: &'static str,
}

impl<'a> Client<'a> {
    /// The cluster's own kubectl.
    pub fn own(world: &'a World, websockets: &'static str) -> Self {
        Self {
            world,
            program: None,
            websockets,
        }
    }

    /// Another kubectl.
    pub fn other(world: &'a World, program: &'a Path, websockets: &'static str) -> Self {
        Self {
            world,
            program: Some(program),
            websockets,
        }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.world.cluster.kubectl();
        if let Some(program) = self.program {
            let own = command;
            command = Command::new(program);
            for (name, value) in own.get_envs() {
                command.env(name, value.expect("it is set"));
            }
        }
        command
            .args(arguments)
            .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", self.websockets)
            .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", self.websockets);
        command
    }

    /// Runs it to its end.
    pub fn run(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = self.command(arguments);
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.stdin(Stdio::piped()).spawn().expect("kubectl");
        let _limit = Limit::of(&child);
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_vec();
        let typing = std::thread::spawn(move || {
            // Ignore the error: a command that does not read its input closes the pipe.
            let _ = stdin.write_all(&input);
        });
        let done = child.wait_with_output().expect("it ends");
        typing.join().expect("it is typed");
        done
    }
}

/// A running kubectl with its output. Drop ends it.
pub struct Running {
    child: Child,
    pub lines: std::io::Lines<BufReader<ChildStdout>>,
    _limit: Limit,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("kubectl");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let limit = Limit::of(&child);
        Self {
            child,
            lines,
            _limit: limit,
        }
    }

    /// Its standard error, if piped.
    pub fn complaints(&mut self) -> impl Iterator<Item = String> {
        let complaints = self.child.stderr.take().expect("piped");
        BufReader::new(complaints).lines().map_while(Result::ok)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ignore errors: it may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends a program after [`PATIENCE`], so that a waiting test fails. A Go program first prints what it
/// waits for. Drop cancels the limit.
pub struct Limit {
    _over: mpsc::Sender<()>,
}

impl Limit {
    pub fn of(child: &Child) -> Self {
        let (held, over) = mpsc::channel();
        let id = child.id().to_string();
        std::thread::spawn(move || {
            let late = Err(mpsc::RecvTimeoutError::Timeout);
            for (patience, signal) in [(PATIENCE, "QUIT"), (PATIENCE / 24, "KILL")] {
                if over.recv_timeout(patience) != late {
                    return;
                }
                // Ignore errors: it may have ended at this moment.
                let _ = Command::new("kill").args(["-s", signal, &id]).status();
            }
        });
        Self { _over: held }
    }
}

/// The other available kubectls with their minor versions: the one in PATH, and the old one that `make
/// kubectl` unpacks.
pub fn others() -> Vec<(u32, PathBuf)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path);
    let mut files = folders.map(|folder| folder.join("kubectl"));
    let installed = files.find(|file| file.is_file());
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join(target);
    let old = old.join("kubectl/usr/bin/kubectl");
    let has_old = old.is_file();
    if !has_old {
        skipped("an old kubectl", "`make kubectl` gets it");
    }
    let all = installed.into_iter().chain(has_old.then_some(old));
    all.filter_map(|file| Some((minor(&file)?, file))).collect()
}

fn minor(program: &Path) -> Option<u32> {
    let mut command = Command::new(program);
    let said = command
        .args(["version", "--client", "--output=json"])
        .output();
    let said: Value = serde_json::from_slice(&said.ok()?.stdout).ok()?;
    let minor = said["clientVersion"]["minor"].as_str()?;
    // Some builds have "20+".
    minor.trim_end_matches('+').parse().ok()
}
