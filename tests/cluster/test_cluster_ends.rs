//! How clusters end: on drop, and with the process that started them, even if it is killed.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::json;

use crate::support::{Cluster, Options};

#[tokio::test]
async fn dropping_a_cluster_ends_its_processes_and_removes_its_directory() {
    let options = Options {
        metrics_server: true,
        ..Options::default()
    };
    let cluster = Cluster::start(options)
        .await
        .expect("a cluster with every component");
    let (processes, directory) = (cluster.processes(), cluster.directory().to_owned());
    assert_eq!(still_running(&processes), processes);
    assert_eq!(processes.len(), 7, "{processes:?}");
    let metrics = ["get", "--raw", "/apis/metrics.k8s.io/v1beta1"];
    let answer = cluster.kubectl().args(metrics).output().expect("kubectl");
    assert!(
        answer.status.success(),
        "{}",
        String::from_utf8_lossy(&answer.stderr)
    );

    drop(cluster);

    assert_eq!(still_running(&processes), BTreeMap::new());
    assert!(!directory.exists());
}

/// Runs `holds_a_cluster_until_killed` in a process of its own and kills that with SIGKILL.
///
/// The only other process with that standard error is the supervisor, which ends after all components
/// have ended and the directory is gone. So the test waits for the end of that pipe.
#[test]
fn killing_a_test_run_leaves_nothing() {
    // The name of a test does not contain the name of its crate.
    let (_, module) = module_path!()
        .split_once("::")
        .expect("a module of the test binary");
    let holder = format!("{module}::holds_a_cluster_until_killed");
    let mut run = Command::new(env::current_exe().expect("this test binary has a path"))
        .args(["--ignored", "--exact", &holder, "--nocapture"])
        .env(HOLDS, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a test binary can be run");
    let said = BufReader::new(run.stdout.take().expect("it is piped"))
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix(HOLDS).map(str::to_owned));
    let Some(said) = said else {
        unreachable!("the run holds no cluster: {}", rest_of(&mut run));
    };
    let (processes, directory): (BTreeMap<String, u32>, PathBuf) =
        serde_json::from_str(&said).expect("as written below");
    assert_eq!(still_running(&processes), processes);
    assert!(
        mentioned(&directory) >= 5,
        "every component's arguments name the directory"
    );

    run.kill().expect("SIGKILL");
    run.wait().expect("it ends");
    let rest = rest_of(&mut run);

    assert_eq!(still_running(&processes), BTreeMap::new(), "{rest}");
    assert_eq!(mentioned(&directory), 0);
    assert!(!directory.exists());
}

/// `cargo test` builds the demo; to run this test alone, build it first (`cargo build --example demo`).
#[test]
fn interrupting_the_demo_ends_all_of_it() {
    let mut demo = demo(&["--hold"]);
    let mut lines = BufReader::new(demo.stdout.take().expect("it is piped"))
        .lines()
        .map_while(Result::ok);
    let kubeconfig = lines.find_map(|line| {
        let path = line.trim().strip_prefix("export KUBECONFIG=")?;
        Some(PathBuf::from(path))
    });
    let Some(kubeconfig) = kubeconfig else {
        unreachable!("the demo did not start: {}", rest_of(&mut demo));
    };
    let directory = kubeconfig
        .parent()
        .expect("it is in the cluster's directory")
        .to_owned();
    lines
        .find(|line| line.starts_with("Ctrl-C"))
        .expect("it says how to end it");
    assert!(mentioned(&directory) >= 5);

    let id = demo.id().to_string();
    Command::new("kill")
        .args(["-INT", &id])
        .status()
        .expect("kill runs");
    let ended = demo.wait().expect("it ends");
    let rest = rest_of(&mut demo);

    assert!(ended.success(), "{rest}");
    assert_eq!(mentioned(&directory), 0, "{rest}");
    assert!(!directory.exists());
}

#[test]
fn the_demo_plays_a_whole_peak_and_ends_with_nothing_left() {
    let mut demo = demo(&["--fast"]);
    let mut said = String::new();
    let mut pipe = demo.stdout.take().expect("it is piped");
    pipe.read_to_string(&mut said).expect("text");
    let ended = demo.wait().expect("it ends");
    assert!(ended.success(), "{said}{}", rest_of(&mut demo));
    for step in [
        "quiet: 3 replicas run at home",
        "home is full: 4 replicas are refused",
        "spilled: 8 run at home and 4 on ACI",
        "kubectl logs",
        "kubectl exec",
        "returned: 3 run at home, and no container group is left",
        "deleted the pool: its node is gone",
        "4 container groups were created, and 4 deleted.",
    ] {
        assert!(said.contains(step), "{step}: {said}");
    }
    let kubeconfig = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("export KUBECONFIG="));
    let directory = Path::new(kubeconfig.expect("it says so")).parent();
    let directory = directory.expect("it is in the cluster's directory");
    assert_eq!(mentioned(directory), 0);
    assert!(!directory.exists());
}

/// The demo, as `cargo test` builds it.
fn demo(arguments: &[&str]) -> Child {
    let own = env::current_exe().expect("this test binary has a path");
    let target = own
        .ancestors()
        .nth(2)
        .expect("deps/ is in the build's folder");
    Command::new(target.join("examples/demo"))
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("cargo test builds the demo")
}

/// The environment variable that makes the test hold a cluster, and the prefix of the line that
/// describes it.
const HOLDS: &str = "BURSTPOOL_TEST_HOLDS";

#[tokio::test]
#[ignore = "run by killing_a_test_run_leaves_nothing"]
async fn holds_a_cluster_until_killed() {
    if env::var_os(HOLDS).is_none() {
        return;
    }
    let cluster = Cluster::shared().await;
    let held = json!([cluster.processes(), cluster.directory()]);
    // libtest has begun the line with the test's name.
    writeln!(std::io::stdout(), "\n{HOLDS}{held}").expect("somebody reads");
    std::future::pending::<()>().await;
}

/// The rest of standard error of a process and its supervisor.
fn rest_of(run: &mut Child) -> String {
    let mut rest = String::new();
    let pipe = run.stderr.as_mut().expect("it is piped");
    pipe.read_to_string(&mut rest).expect("text");
    rest
}

/// The processes that have not ended. A zombie counts as ended.
fn still_running(processes: &BTreeMap<String, u32>) -> BTreeMap<String, u32> {
    let runs = |pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok();
    processes
        .iter()
        .filter(|(_, pid)| runs(pid))
        .map(|(name, pid)| (name.clone(), *pid))
        .collect()
}

/// How many processes have the directory in their arguments.
fn mentioned(directory: &Path) -> usize {
    let name = directory.to_str().expect("its name is plain");
    let processes = fs::read_dir("/proc")
        .expect("the tests run on Linux")
        .filter_map(Result::ok);
    processes
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .filter(|arguments| String::from_utf8_lossy(arguments).contains(name))
        .count()
}
