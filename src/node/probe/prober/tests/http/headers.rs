//! The headers of a probe's request.

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// A server that keeps the heads of requests as lines.
async fn echo() -> (ProbeServer, Arc<Mutex<Vec<String>>>) {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = seen.clone();
    let server = serve(None, move |request: Request| {
        let mut lines = vec![request.uri().to_string()];
        for (name, value) in request.headers() {
            lines.push(format!("{name}: {}", value.to_str().expect("text")));
        }
        lines[1..].sort();
        *kept.lock() = lines;
        let response = match request.uri().path() {
            "/relative" => answer(302, &[("location", "/x")], ""),
            "/absolute" => {
                let port = request.uri().query().unwrap_or_default();
                let location = format!("http://127.0.0.1:{port}/x");
                answer(302, &[("location", &location)], "")
            }
            _ => answer(200, &[], ""),
        };
        async { response }
    })
    .await;
    (server, seen)
}

/// The headers of a probe, and those of its request.
type HeaderCase = (
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
);

/// `HOST` stands for the server's host and port.
const CASES: [HeaderCase; 5] = [
    (
        &[],
        &[
            "accept: */*",
            "connection: close",
            "host: HOST",
            "user-agent: kube-probe/1.37",
        ],
    ),
    (
        &[("Host", "a.example"), ("X-A", "1"), ("x-a", "2")],
        &[
            "accept: */*",
            "connection: close",
            "host: a.example",
            "user-agent: kube-probe/1.37",
            "x-a: 1",
            "x-a: 2",
        ],
    ),
    (
        &[("User-Agent", "foo/1.0"), ("Accept", "text/html")],
        &[
            "accept: text/html",
            "connection: close",
            "host: HOST",
            "user-agent: foo/1.0",
        ],
    ),
    (
        &[("User-Agent", ""), ("Accept", "")],
        &["connection: close", "host: HOST"],
    ),
    (
        &[("Accept-Encoding", ""), ("Connection", "Keep-Alive")],
        &[
            "accept-encoding: ",
            "accept: */*",
            "connection: Keep-Alive",
            "connection: close",
            "host: HOST",
            "user-agent: kube-probe/1.37",
        ],
    ),
];

#[tokio::test]
async fn a_request_has_the_headers_of_the_kubelet_and_of_the_probe() {
    let (server, seen) = echo().await;
    let host = format!("127.0.0.1:{}", server.port);
    for (headers, wanted) in CASES {
        let given: Vec<Value> = headers
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect();
        let handler = json!({"httpGet": {"port": server.port, "path": "/x", "httpHeaders": given}});
        assert_eq!(probed(&handler).await, success());
        let lines = seen.lock().clone();
        assert_eq!(lines[0], "/x");
        let wanted = wanted.iter().map(|line| line.replace("HOST", &host));
        assert_eq!(lines[1..], wanted.collect::<Vec<_>>(), "{headers:?}");
    }
}

/// `TestHTTPProbeChecker_HostHeaderPreservedAfterRedirect`.
#[tokio::test]
async fn a_relative_redirect_keeps_the_host_and_each_names_where_it_comes_from() {
    let (server, seen) = echo().await;
    let port = server.port;
    let headers = json!([{"name": "Host", "value": "a.example"}]);
    for (path, host) in [
        ("/relative".to_owned(), "a.example".to_owned()),
        (format!("/absolute?{port}"), format!("127.0.0.1:{port}")),
    ] {
        let handler = json!({"httpGet": {"port": port, "path": path, "httpHeaders": headers}});
        assert_eq!(probed(&handler).await, success());
        let lines = seen.lock().clone();
        assert_eq!(lines[0], "/x");
        assert!(lines.contains(&format!("host: {host}")), "{lines:?}");
        let referer = format!("referer: http://127.0.0.1:{port}{path}");
        assert!(lines.contains(&referer), "{lines:?}");
    }
}

#[tokio::test]
async fn names_of_headers_are_written_as_go_writes_them() {
    let listener = TcpListener::bind((POD, 0)).await.expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let (mut head, mut bytes) = (Vec::new(), [0; 4096]);
        while !head.ends_with(b"\r\n\r\n") {
            let read = stream.read(&mut bytes).await.expect("a request");
            head.extend_from_slice(&bytes[..read]);
        }
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer).await.expect("it is read");
        String::from_utf8(head).expect("text")
    });
    let headers = json!([{"name": "x-api-key", "value": "1"}]);
    let handler = json!({"httpGet": {"port": port, "path": "/x", "httpHeaders": headers}});
    assert_eq!(probed(&handler).await, success());
    let head = server.await.expect("no panic");
    for line in ["Host: 127.0.0.1", "User-Agent: kube-probe", "X-Api-Key: 1"] {
        assert!(head.contains(line), "{head}");
    }
}
