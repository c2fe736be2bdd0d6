//! Exit codes, streams and files; silent, attached and abandoned commands.

use std::process::{Child, Stdio};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::kubectl::{Client, Running};
use super::text;
use crate::support::wait;
use crate::world::World;

pub fn codes_and_streams(client: &Client<'_>) {
    for (script, code) in [("true", 0), ("exit 3", 3), ("kill -9 $$", 137)] {
        let script = format!("echo out; echo err >&2; {script}");
        let done = client.run(&["exec", "cmd-0", "--", "sh", "-c", &script], b"");
        let said = (done.status.code(), text(&done.stdout));
        assert_eq!(
            said,
            (Some(code), "out\n".to_owned()),
            "{}",
            text(&done.stderr)
        );
        assert!(
            text(&done.stderr).starts_with("err\n"),
            "{}",
            text(&done.stderr)
        );
    }
    let done = client.run(&["exec", "cmd-0", "--", "no-such-program"], b"");
    assert_eq!(done.status.code(), Some(127), "{}", text(&done.stderr));
    let quoted = [
        "exec",
        "cmd-0",
        "--",
        "printf",
        "%s|",
        "a 'b' \"c\"",
        "",
        "$HOME;\n*",
    ];
    let done = client.run(&quoted, b"");
    assert_eq!(text(&done.stdout), "a 'b' \"c\"||$HOME;\n*|");
    let done = client.run(&["exec", "-i", "cmd-0", "--", "wc", "-c"], b"four");
    assert_eq!(text(&done.stdout).trim(), "4", "{}", text(&done.stderr));
    // The command ends before its input does.
    let done = client.run(&["exec", "-i", "cmd-0", "--", "true"], &vec![0; 1 << 20]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
}

/// A command sees nothing of the program that runs it: it has the environment of its container, and no
/// additional open files.
pub fn unseen(client: &Client<'_>) {
    let said = |command: &[&str]| {
        let arguments = [&["exec", "cmd-talks", "--"][..], command].concat();
        let done = client.run(&arguments, b"");
        assert!(done.status.success(), "{}", text(&done.stderr));
        text(&done.stdout)
    };
    let sorted = |variables: &str| {
        let mut all: Vec<String> = variables.split('\0').map(str::to_owned).collect();
        all.sort();
        all
    };
    let given = sorted(&said(&["cat", "/proc/1/environ"]));
    assert!(given.contains(&"s=small".to_owned()), "{given:?}");
    assert_eq!(sorted(&said(&["env", "-0"])), given);
    assert_eq!(said(&["ls", "/proc/self/fd"]), "0\n1\n2\n3\n");
    let ignored = said(&[
        "grep",
        "-h",
        "SigIgn",
        "/proc/1/status",
        "/proc/self/status",
    ]);
    let ignored = ignored.lines().map(|line| {
        let mask = line.trim_start_matches("SigIgn:").trim();
        u64::from_str_radix(mask, 16).expect("a mask of signals")
    });
    let ignored: Vec<u64> = ignored.collect();
    // The container's own shell ignores some signals. The program that runs a command adds none.
    assert_eq!(ignored[1] & !ignored[0], 0, "{ignored:x?}");
}

/// A long line that the runtime reads in parts arrives as one line, with or without timestamps.
pub fn long_lines(client: &Client<'_>) {
    let long = "x".repeat(20_000);
    let first = |arguments: &[&str]| {
        let done = client.run(&[&["logs", "cmd-talks"][..], arguments].concat(), b"");
        let said = text(&done.stdout);
        let line = said.lines().next().map(str::to_owned);
        line.unwrap_or_else(|| unreachable!("no line: {}", text(&done.stderr)))
    };
    // A failure shows the place of the difference instead of 20,000 letters.
    let differs = |line: &str| line.find(|c| c != 'x').map(|at| line[at..].to_owned());
    let plain = first(&[]);
    assert!(plain == long, "{} {:?}", plain.len(), differs(&plain));
    let timed = first(&["--timestamps"]);
    let (time, line) = timed.split_once(' ').expect("a time and a line");
    time.parse::<jiff::Timestamp>().expect("a time");
    assert!(line == long, "{} {:?}", line.len(), differs(line));
}

/// Bytes without a repeating pattern.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(size);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

pub fn files(client: &Client<'_>, size: usize) {
    let directory = tempfile::tempdir().expect("a directory");
    let (there, back) = (
        directory.path().join("there"),
        directory.path().join("back"),
    );
    let bytes = noise(size);
    std::fs::write(&there, &bytes).expect("it is written");
    let copy = |from: &str, to: &str| {
        let done = client.run(&["cp", from, to], b"");
        assert!(done.status.success(), "{}", text(&done.stderr));
    };
    copy(&there.to_string_lossy(), "cmd-0:/tmp/file");
    let done = client.run(&["exec", "cmd-0", "--", "sha256sum", "/tmp/file"], b"");
    let sum = format!("{:x}", Sha256::digest(&bytes));
    assert!(
        text(&done.stdout).starts_with(&sum),
        "{}",
        text(&done.stdout)
    );
    copy("cmd-0:/tmp/file", &back.to_string_lossy());
    assert!(
        std::fs::read(&back).expect("a file") == bytes,
        "it is another file"
    );
    let bytes = &bytes[..size / 10];
    let done = client.run(&["exec", "-i", "cmd-0", "--", "cat"], bytes);
    assert!(
        done.stdout == bytes,
        "{} bytes: {}",
        done.stdout.len(),
        text(&done.stderr)
    );
}

/// A container's log, its tail, and following it.
pub fn logs(client: &Client<'_>) {
    let tick = |line: &str| line.strip_prefix("tick ")?.parse::<u32>().ok();
    let done = client.run(&["logs", "cmd-talks", "--tail=2"], b"");
    let said = text(&done.stdout);
    let two: Vec<u32> = said.lines().filter_map(tick).collect();
    assert!(
        two.len() == 2 && two[1] == two[0] + 1,
        "{said}{}",
        text(&done.stderr)
    );
    let timed = ["logs", "cmd-talks", "-f", "--timestamps", "--tail=1"];
    let mut kubectl = Running::start(client.command(&timed));
    let mut ticks = Vec::new();
    while ticks.len() < 3 {
        let line = kubectl.lines.next().expect("a line").expect("it is read");
        let (time, line) = line.split_once(' ').expect("a time and a line");
        time.parse::<jiff::Timestamp>().expect("a time");
        ticks.push(tick(line).expect("a tick"));
    }
    assert!(
        ticks.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "{ticks:?}"
    );
}

/// An attached client sees the container's output, and cannot type.
pub fn attached(client: &Client<'_>) {
    let mut kubectl = Running::start(client.command(&["attach", "cmd-talks"]));
    let mut ticks = Vec::new();
    while ticks.len() < 3 {
        let line = kubectl.lines.next().expect("a line").expect("it is read");
        if let Some(tick) = line.strip_prefix("tick ") {
            ticks.push(tick.parse::<u32>().expect("a number"));
        }
    }
    assert!(
        ticks.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "{ticks:?}"
    );
    let done = client.run(&["attach", "-i", "cmd-talks"], b"");
    let said = text(&done.stderr);
    assert!(
        !done.status.success() && said.contains("attach without -i"),
        "{said}"
    );
}

/// When a client is killed, its command ends.
pub async fn left(client: &Client<'_>) {
    let script = "echo be''gun; exec sleep 4321";
    let arguments = ["exec", "cmd-2", "--", "sh", "-c", script];
    let mut kubectl = Running::start(client.command(&arguments));
    let line = kubectl.lines.next().expect("a line").expect("it is read");
    assert_eq!(line, "begun");
    let runs = || {
        let look = "ps | grep -c '[s]leep 4321'";
        let arguments = ["exec", "cmd-2", "--", "sh", "-c", look];
        text(&client.run(&arguments, b"").stdout).trim() == "1"
    };
    assert!(runs(), "it is seen while it runs");
    drop(kubectl);
    let ended = async {
        while runs() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::time::timeout(wait::DEADLINE, ended)
        .await
        .expect("the command ends");
}

/// Starts commands that are silent for longer than any idle timeout on the way.
pub fn silence(world: &World) -> [Child; 2] {
    let script = "sleep 80; echo awake; exit 5";
    let arguments = ["exec", "cmd-0", "--", "sh", "-c", script];
    ["true", "false"].map(|websockets| {
        let mut command = Client::own(world, websockets).command(&arguments);
        command.stdin(Stdio::null());
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        piped.spawn().expect("kubectl")
    })
}

/// They write their output at the end.
pub fn awake(silent: [Child; 2]) {
    for kubectl in silent {
        let done = kubectl.wait_with_output().expect("it ends");
        let said = (done.status.code(), text(&done.stdout));
        let wanted = (Some(5), "awake\n".to_owned());
        assert_eq!(said, wanted, "{}", text(&done.stderr));
    }
}
