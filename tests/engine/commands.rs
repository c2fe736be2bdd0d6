//! Commands in real containers, with kubectl, through the API server: exit codes, streams, files, ports.

use std::io::{BufRead as _, BufReader, Write as _};
use std::panic::AssertUnwindSafe;
use std::process::{Command, Output, Stdio};

use burstpool::emulator::{EngineSocket, Options};
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::host::Host;
use crate::support::wait;
use crate::world::{World, is_running};

const IMAGE: &str = "localhost/burstpool-test/busybox:1";
/// Serves pages, and ends when it is asked to.
const SERVE: &str =
    "mkdir -p /www; echo Welcome to $HOSTNAME > /www/index.html; exec httpd -f -p 80 -h /www";
/// In the names of all containers of the pods.
const MARK: &str = "default-cmd-";
/// What is carried both ways.
const SIZE: usize = 50 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_in_containers_are_what_kubectl_expects() {
    let Some(host) = Host::get().await else {
        return;
    };
    let options = Options {
        containers: Some(EngineSocket::At(host.socket.clone())),
        ..Options::default()
    };
    let world = World::with(options).await;
    let outcome = AssertUnwindSafe(commands(&world)).catch_unwind().await;
    world.end().await;
    let left = host.containers(MARK).await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
    assert!(left.is_empty(), "left behind: {:?}", left.keys());
}

async fn commands(world: &World) {
    world.create_pool("shop").await;
    for name in ["cmd-0", "cmd-1", "cmd-2"] {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "cmd"}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "tolerations": [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}],
                "nodeSelector": {"burstpool.io/pool": "shop"},
                "containers": [{
                    "name": "main", "image": IMAGE, "command": ["sh", "-c", SERVE],
                    "ports": [{"containerPort": 80}],
                    "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
                }],
            },
        });
        world.create(pod).await;
    }
    let config = watcher::Config::default().labels("app=cmd");
    let runs = |pod: &Pod| {
        let status = pod.status.as_ref();
        is_running(Some(pod)) && status.is_some_and(|status| status.pod_ip.is_some())
    };
    let three_run = |pods: &[Pod]| pods.len() == 3 && pods.iter().all(runs);
    let pods = wait::until_all(world.pods(), config, "three pods to run", three_run).await;
    let pods = pods.expect("they run");
    pages(world, &pods).await;
    for websockets in ["true", "false"] {
        codes_and_streams(world, websockets);
        terminals(world, websockets);
        ports(world, websockets).await;
    }
    for websockets in ["true", "false"] {
        files(world, websockets);
    }
}

/// Runs kubectl over a websocket or over SPDY.
fn kubectl(world: &World, websockets: &str, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = command(world, websockets, arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    let typing = std::thread::spawn(move || {
        // A command that does not read leaves a pipe that nobody reads.
        let _ = stdin.write_all(&input);
    });
    let done = child.wait_with_output().expect("it ends");
    typing.join().expect("it is typed");
    done
}

fn command(world: &World, websockets: &str, arguments: &[&str]) -> Command {
    let mut command = world.cluster.kubectl();
    command
        .args(arguments)
        .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets)
        .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn codes_and_streams(world: &World, websockets: &str) {
    for (script, code) in [("true", 0), ("exit 3", 3), ("kill -9 $$", 137)] {
        let script = format!("echo out; echo err >&2; {script}");
        let done = kubectl(
            world,
            websockets,
            &["exec", "cmd-0", "--", "sh", "-c", &script],
            b"",
        );
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
    let done = kubectl(
        world,
        websockets,
        &["exec", "cmd-0", "--", "no-such-program"],
        b"",
    );
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
    let done = kubectl(world, websockets, &quoted, b"");
    assert_eq!(text(&done.stdout), "a 'b' \"c\"||$HOME;\n*|");
    let done = kubectl(
        world,
        websockets,
        &["exec", "-i", "cmd-0", "--", "wc", "-c"],
        b"four",
    );
    assert_eq!(text(&done.stdout).trim(), "4", "{}", text(&done.stderr));
    // A command that ends before its input does.
    let done = kubectl(
        world,
        websockets,
        &["exec", "-i", "cmd-0", "--", "true"],
        &vec![0; 1 << 20],
    );
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
}

/// Bytes that do not repeat.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(SIZE);
    while bytes.len() < SIZE {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

fn files(world: &World, websockets: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let (there, back) = (
        directory.path().join("there"),
        directory.path().join("back"),
    );
    let bytes = noise();
    std::fs::write(&there, &bytes).expect("it is written");
    let copy = |from: &str, to: &str| {
        let done = kubectl(world, websockets, &["cp", from, to], b"");
        assert!(done.status.success(), "{}", text(&done.stderr));
    };
    copy(&there.to_string_lossy(), "cmd-0:/tmp/file");
    let done = kubectl(
        world,
        websockets,
        &["exec", "cmd-0", "--", "sha256sum", "/tmp/file"],
        b"",
    );
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
    let done = kubectl(
        world,
        websockets,
        &["exec", "-i", "cmd-0", "--", "cat"],
        &bytes,
    );
    assert!(
        done.stdout == bytes,
        "{} bytes: {}",
        done.stdout.len(),
        text(&done.stderr)
    );
}

/// A terminal of 91 by 33 that becomes one of 120 by 40; Ctrl-C is for what runs in it.
const TERMINAL: &str = r#"
import fcntl, os, pty, select, signal, struct, sys, termios, time
pid, fd = pty.fork()
if pid == 0:
    time.sleep(0.5)
    os.execvp(sys.argv[1], sys.argv[1:])
size = lambda rows, cols: fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
size(33, 91)
out, end = b"", time.time() + 90
def until(text):
    global out
    while text not in out:
        if time.time() > end: sys.exit("never: %r in %r" % (text, out))
        if select.select([fd], [], [], 0.2)[0]:
            try: part = os.read(fd, 65536)
            except OSError: part = b""
            if not part: sys.exit("ended: %r in %r" % (text, out))
            out += part
os.write(fd, b"stty size; echo re''ady\n")
until(b"ready"); assert b"33 91" in out, out
size(40, 120); os.kill(pid, signal.SIGWINCH)
os.write(fd, b"until stty size | grep '40 120'; do sleep 0.2; done; echo siz''ed\n")
until(b"sized")
os.write(fd, b"echo slee''ping; sleep 1000\n")
until(b"sleeping"); time.sleep(1)
os.write(fd, b"\x03")
os.write(fd, b"echo ali''ve; exit 7\n")
until(b"alive")
try:
    while os.read(fd, 65536): pass
except OSError: pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

fn terminals(world: &World, websockets: &str) {
    let kubectl = command(world, websockets, &["exec", "-it", "cmd-0", "--", "sh"]);
    let mut terminal = Command::new("python3");
    terminal.args(["-c", TERMINAL]).arg(kubectl.get_program());
    terminal.args(kubectl.get_args());
    for (name, value) in kubectl.get_envs() {
        terminal.env(name, value.expect("it is set"));
    }
    let done = terminal.output().expect("python3");
    assert_eq!(
        done.status.code(),
        Some(7),
        "{}{}",
        text(&done.stdout),
        text(&done.stderr)
    );
}

async fn ports(world: &World, websockets: &str) {
    let make = "head -c 5000000 /dev/urandom > /www/big";
    let done = kubectl(
        world,
        websockets,
        &["exec", "cmd-1", "--", "sh", "-c", make],
        b"",
    );
    assert!(done.status.success(), "{}", text(&done.stderr));
    let done = kubectl(
        world,
        websockets,
        &["exec", "cmd-1", "--", "cat", "/www/big"],
        b"",
    );
    let big = done.stdout;
    let mut forwarding = command(world, websockets, &["port-forward", "cmd-1", ":80", ":81"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl");
    // It says more with each connection, and ends if nobody reads that.
    let mut said = BufReader::new(forwarding.stdout.take().expect("piped")).lines();
    let forwarded = |line: String| {
        let line = line.strip_prefix("Forwarding from 127.0.0.1:")?.to_owned();
        Some(line.split_once(" -> ")?.0.to_owned())
    };
    let ours: Vec<String> = said
        .by_ref()
        .map_while(Result::ok)
        .filter_map(forwarded)
        .take(2)
        .collect();
    let fetched = (0..6).map(|_| async {
        let page = reqwest::get(format!("http://127.0.0.1:{}/big", ours[0])).await;
        page.expect("an answer").bytes().await.expect("a body")
    });
    for page in futures::future::join_all(fetched).await {
        assert!(page == big, "{} of {} bytes", page.len(), big.len());
    }
    // Nobody listens there: the connection ends, and kubectl says why.
    let refused = reqwest::get(format!("http://127.0.0.1:{}/", ours[1])).await;
    assert!(refused.is_err());
    let told = BufReader::new(forwarding.stderr.take().expect("piped")).lines();
    let told = told
        .map_while(Result::ok)
        .find(|line| line.contains("error forwarding port 81"));
    assert!(told.is_some_and(|line| line.contains("refused")));
    forwarding.kill().expect("it ends");
    forwarding.wait().expect("it is ours");
}

/// The story of the first sample: the page of each pod is changed by a command, and fetched.
async fn pages(world: &World, pods: &[Pod]) {
    for (number, pod) in pods.iter().enumerate() {
        let name = pod.metadata.name.as_deref().expect("a name");
        let change = format!("echo page {number} > /www/index.html");
        world.kubectl(&["exec", name, "--", "sh", "-c", &change]);
    }
    for (number, pod) in pods.iter().enumerate() {
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
        let page = reqwest::get(format!("http://{}/", address.expect("an address"))).await;
        let page = page.expect("an answer").text().await.expect("a text");
        assert_eq!(page, format!("page {number}\n"));
    }
}
