//! Ports of pods, forwarded.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use super::kubectl::Client;
use super::text;

pub async fn ports(client: &Client<'_>) {
    let make = "head -c 5000000 /dev/urandom > /www/big";
    let done = client.run(&["exec", "cmd-1", "--", "sh", "-c", make], b"");
    assert!(done.status.success(), "{}", text(&done.stderr));
    let done = client.run(&["exec", "cmd-1", "--", "cat", "/www/big"], b"");
    let big = done.stdout;
    let mut forwarding = client
        .command(&["port-forward", "cmd-1", ":80", ":81"])
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
