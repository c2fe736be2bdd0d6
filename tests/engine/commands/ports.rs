//! Port forwarding to pods.

use std::process::Stdio;

use super::kubectl::{Client, Running};
use super::text;
use crate::support::wait;

pub async fn ports(client: &Client<'_>) {
    let make = "head -c 5000000 /dev/urandom > /www/big";
    let done = client.run(&["exec", "cmd-1", "--", "sh", "-c", make], b"");
    assert!(done.status.success(), "{}", text(&done.stderr));
    let done = client.run(&["exec", "cmd-1", "--", "cat", "/www/big"], b"");
    let big = done.stdout;
    let mut command = client.command(&["port-forward", "cmd-1", ":80", ":81"]);
    command.stderr(Stdio::piped());
    let mut forwarding = Running::start(command);
    let forwarded = |line: String| {
        let line = line.strip_prefix("Forwarding from 127.0.0.1:")?.to_owned();
        Some(line.split_once(" -> ")?.0.to_owned())
    };
    // kubectl prints a line for each connection, and ends if its output is not read. Its other lines
    // stay in the pipe.
    let ours: Vec<String> = forwarding
        .lines
        .by_ref()
        .map_while(Result::ok)
        .filter_map(forwarded)
        .take(2)
        .collect();
    let fetched = (0..6).map(|_| async {
        let page = get(format!("http://127.0.0.1:{}/big", ours[0])).await;
        page.expect("an answer").bytes().await.expect("a body")
    });
    for page in futures::future::join_all(fetched).await {
        assert!(page == big, "{} of {} bytes", page.len(), big.len());
    }
    // No process listens at that port: the connection ends, and kubectl says why.
    let refused = get(format!("http://127.0.0.1:{}/", ours[1])).await;
    assert!(refused.is_err_and(|why| !why.is_timeout()), "it stays open");
    let mut said = Vec::new();
    let is_why = |line: &String| line.contains("error forwarding port 81");
    let told = forwarding
        .complaints()
        .inspect(|line| said.push(line.clone()));
    let told = { told }.find(is_why);
    assert!(
        told.is_some_and(|line| line.contains("refused")),
        "{said:#?}"
    );
}

/// Fetches a URL. The timeout applies to gaps, not to the whole: speed depends on the machine.
async fn get(url: String) -> reqwest::Result<reqwest::Response> {
    let client = reqwest::Client::builder()
        .read_timeout(wait::DEADLINE)
        .build()?;
    client.get(url).send().await
}
