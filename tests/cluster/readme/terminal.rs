//! A user at a terminal in the project's directory, with a cluster in KUBECONFIG.
//!
//! In: commands as in the README. Out: the test fails unless they succeed. `cargo run` starts the
//! program that cargo has already built, and kubectl is the cluster's.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::documents;
use crate::support::Cluster;

/// Variables that change the commands' ports to free ones on loopback.
const LOOPBACK: [(&str, &str); 2] = [
    ("BURSTPOOL_KUBELET_LISTEN", "127.0.0.1:0"),
    ("BURSTPOOL_METRICS_LISTEN", "127.0.0.1:0"),
];

/// A terminal and its running commands. Drop ends all.
pub struct Terminal {
    directory: tempfile::TempDir,
    variables: Vec<(String, String)>,
    running: Vec<Child>,
}

impl Terminal {
    /// A terminal with the cluster's administrator.
    pub fn open(cluster: &Cluster) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let kubectl = directory.path().join("kubectl");
        let own = cluster.kubectl();
        let program = own.get_program().to_string_lossy();
        let script = format!("#!/bin/sh\nexec '{program}' kubectl \"$@\"\n");
        std::fs::write(&kubectl, script).expect("it is written");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&kubectl, mode).expect("it is a program");
        for (name, program) in [
            ("burstpool", env!("CARGO_BIN_EXE_burstpool")),
            ("aci-emulator", env!("CARGO_BIN_EXE_aci-emulator")),
        ] {
            let link = directory.path().join(name);
            std::os::unix::fs::symlink(program, link).expect("a link");
        }
        for name in ["config", "crds"] {
            let link = directory.path().join(name);
            std::os::unix::fs::symlink(documents::root().join(name), link).expect("a link");
        }
        let text = |text: &OsStr| text.to_string_lossy().into_owned();
        let variables = own.get_envs().filter(|(name, _)| *name != "HOME");
        let variables = variables.filter_map(|(name, value)| Some((text(name), text(value?))));
        Self {
            directory,
            variables: variables.collect(),
            running: Vec::new(),
        }
    }

    fn bash(&self, command: &str) -> Command {
        let command = command.replace("cargo run --bin aci-emulator --", "aci-emulator");
        let command = command.replace("cargo run --", "burstpool");
        let directory = self.directory.path();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &command])
            .current_dir(directory)
            .env("HOME", directory)
            .env("PATH", format!("{}:{path}", directory.display()))
            .envs(LOOPBACK)
            .envs(self.variables.clone())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        bash
    }

    /// Runs a command and asserts that it succeeds.
    pub async fn run(&self, command: &str) {
        let done = self.bash(command).output().await.expect("bash");
        let said = [done.stdout, done.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(done.status.success(), "{command}\n{said}{}", self.log());
    }

    /// Starts the emulator, and sets $AZURE and $URL to its address.
    pub async fn start_emulator(&mut self, command: &str) {
        let mut bash = self.bash(&format!("exec {command}"));
        let mut emulator = bash
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(emulator.stdout.take().expect("its output")).lines();
        let line = lines.next_line().await.expect("a line").expect("one");
        let line: Value = serde_json::from_str(&line).expect("JSON");
        let url = line["url"].as_str().expect("a URL");
        for name in ["AZURE", "URL"] {
            self.variables.push((name.to_owned(), url.to_owned()));
        }
        self.running.push(emulator);
    }

    /// Starts the operator.
    pub fn start_operator(&mut self, command: &str) {
        let log = std::fs::File::create(self.directory.path().join("log")).expect("a log");
        let mut bash = self.bash(&format!("exec {command}"));
        let operator = bash.stderr(Stdio::from(log)).stdout(Stdio::null()).spawn();
        self.running.push(operator.expect("it starts"));
    }

    /// Sends the request of a curl command without curl, which not every machine has.
    pub async fn send(&self, command: &str) {
        let words = format!(r#"curl() {{ printf '%s\0' "$@"; }}; {command}"#);
        let words = self.bash(&words).output().await.expect("bash").stdout;
        let words = String::from_utf8(words).expect("text");
        let words: Vec<&str> = words.split_terminator('\0').collect();
        let ["-X", method, url, "-d", body] = words[..] else {
            unreachable!("another form of curl: {words:?}");
        };
        let method = method.parse().expect("a method");
        let client = reqwest::Client::new().request(method, url);
        let answer = client.body(body.to_owned()).send().await;
        let status = answer.expect("an answer").status();
        assert!(status.is_success(), "{command}: {status}");
    }

    /// The last lines of the operator's log.
    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(self.directory.path().join("log"));
        let lines: Vec<String> = log.unwrap_or_default().lines().map(str::to_owned).collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}
