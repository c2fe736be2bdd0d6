//! `aci-emulator` as a process: the parts of its command line that scripts rely on.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

async fn start(arguments: &[&str]) -> (Child, Value) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_aci-emulator"))
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the emulator starts");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let line = tokio::time::timeout(Duration::from_secs(60), lines.next_line()).await;
    let line = line.expect("in time").expect("readable").expect("one line");
    (child, serde_json::from_str(&line).expect("one JSON line"))
}

async fn terminate(child: &mut Child) -> Option<i32> {
    let id = child.id().expect("it runs").to_string();
    Command::new("kill")
        .args(["-TERM", &id])
        .status()
        .await
        .expect("kill runs");
    let ended = tokio::time::timeout(Duration::from_secs(60), child.wait()).await;
    ended.expect("in time").expect("waited for").code()
}

#[tokio::test]
async fn it_prints_one_json_line_listens_there_and_ends_on_a_signal() {
    let (mut child, line) = start(&["--listen", "127.0.0.1:0", "--speed", "20"]).await;
    let url = line["url"].as_str().expect("a URL");
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    let page = reqwest::get(format!("{url}/_emulator/")).await.unwrap();
    assert_eq!(page.status(), 200);
    assert_eq!(terminate(&mut child).await, Some(0));
}

#[tokio::test]
async fn with_tls_it_names_a_ca_that_clients_can_trust_and_takes_it_away_at_the_end() {
    let (mut child, line) = start(&["--tls"]).await;
    let file = line["caFile"].as_str().expect("a file").to_owned();
    let ca = reqwest::Certificate::from_pem(&std::fs::read(&file).expect("it is there")).unwrap();
    let client = reqwest::Client::builder()
        .add_root_certificate(ca)
        .build()
        .unwrap();
    let url = line["url"].as_str().expect("a URL");
    assert!(url.starts_with("https://"));
    for host in ["127.0.0.1", "localhost"] {
        let url = url.replace("127.0.0.1", host);
        let metadata: Value = client
            .get(format!("{url}/metadata/endpoints"))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        assert_eq!(metadata["resourceManager"], url);
    }
    reqwest::get(url).await.expect_err("nobody else trusts it");
    assert_eq!(terminate(&mut child).await, Some(0));
    assert!(!std::path::Path::new(&file).exists());
}

#[tokio::test]
async fn wrong_arguments_are_refused_by_name_and_help_explains_each() {
    for (arguments, word) in [
        (&["--speed", "0"][..], "--speed"),
        (&["--rtt", "soon"], "--rtt"),
        (&["--listen", "nowhere"], "--listen"),
        (&["--quota", "StandardCores"], "--quota"),
        (&["--ca-file", "x"], "--tls"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_aci-emulator"))
            .args(arguments)
            .output()
            .await
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(word), "{text}");
    }
    let help = Command::new(env!("CARGO_BIN_EXE_aci-emulator"))
        .arg("--help")
        .output()
        .await
        .unwrap();
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    for option in [
        "--listen",
        "--tls",
        "--speed",
        "--containers",
        "--rtt",
        "--quota",
        "--no-limits",
        "--start-latency",
    ] {
        assert!(help.contains(option), "{help}");
    }
}

#[tokio::test]
async fn an_address_in_use_is_reported_in_one_line() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut child = Command::new(env!("CARGO_BIN_EXE_aci-emulator"))
        .args(["--listen", &address])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .await
        .unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(1));
    assert!(text.contains(&format!("listening on {address}")), "{text}");
}
