//! HTTP probes (`pkg/probe/http/http_test.go` of Kubernetes 1.37 has most of the cases).

mod headers;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;

use super::server::{ProbeServer, hanging, raw, self_signed, serve};
use super::*;

fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).expect("a response")
}

/// What an app answers: the path says the status, a query the location.
fn app(request: &Request) -> Response {
    let (path, query) = (request.uri().path(), request.uri().query());
    match (path, query) {
        ("/loop", _) => answer(302, &[("location", "/loop")], ""),
        (_, Some(location)) => {
            let status = path[1..].parse().expect("a status");
            answer(status, &[("location", location)], "moved")
        }
        _ => answer(path[1..].parse().unwrap_or(404), &[], "body"),
    }
}

async fn app_server() -> ProbeServer {
    serve(None, |request| async move { app(&request) }).await
}

fn get(port: u16, path: &str) -> Value {
    json!({"httpGet": {"port": port, "path": path}})
}

#[tokio::test]
async fn a_status_below_400_succeeds_and_others_are_named() {
    let server = app_server().await;
    for (path, wanted) in [
        ("/200", success()),
        ("/204", success()),
        ("/299", success()),
        (
            "/300",
            warning("Probe terminated redirects, Response body: body"),
        ),
        (
            "/302",
            warning("Probe terminated redirects, Response body: body"),
        ),
        (
            "/304",
            warning("Probe terminated redirects, Response body: "),
        ),
        ("/400", failure("HTTP probe failed with statuscode: 400")),
        ("/404", failure("HTTP probe failed with statuscode: 404")),
        ("/500", failure("HTTP probe failed with statuscode: 500")),
        ("/503", failure("HTTP probe failed with statuscode: 503")),
    ] {
        assert_eq!(probed(&get(server.port, path)).await, wanted, "{path}");
    }
}

/// `TestHTTPProbeChecker`, `TestHTTPProbeChecker_NonLocalRedirects`.
#[tokio::test]
async fn redirects_are_followed_on_the_same_host_and_end_with_a_warning_elsewhere() {
    let (server, other) = (app_server().await, app_server().await);
    let (port, new_port) = (server.port, other.port);
    let moved = "Probe terminated redirects, Response body: moved";
    for status in [301, 302, 303, 307, 308] {
        for (location, wanted) in [
            ("/200".to_owned(), success()),
            ("200".to_owned(), success()),
            (
                "/500".to_owned(),
                failure("HTTP probe failed with statuscode: 500"),
            ),
            (format!("http://127.0.0.1:{new_port}/200"), success()),
            (
                format!("http://127.0.0.1:{new_port}/503"),
                failure("HTTP probe failed with statuscode: 503"),
            ),
            ("http://0.0.0.0/200".to_owned(), warning(moved)),
            ("//other.example/200".to_owned(), warning(moved)),
        ] {
            let path = format!("/{status}?{location}");
            assert_eq!(probed(&get(port, &path)).await, wanted, "{path}");
        }
    }
    assert_eq!(probed(&get(port, "/300?/500")).await, warning(moved));
    let before = server.opened();
    let looped = probed(&get(port, "/loop")).await;
    assert_eq!(looped, failure("Get \"/loop\": stopped after 10 redirects"));
    assert_eq!(server.opened() - before, 10);
    let ftp = probed(&get(port, "/302?ftp://127.0.0.1/x")).await;
    let ProbeOutcome::Failure(why) = ftp.outcome else {
        unreachable!("{ftp:?}");
    };
    assert!(
        why.ends_with("unsupported protocol scheme \"ftp\""),
        "{why}"
    );
    let bad = probed(&get(port, "/302?http://[::1")).await;
    let ProbeOutcome::Failure(why) = bad.outcome else {
        unreachable!("{bad:?}");
    };
    assert!(
        why.contains("failed to parse Location header \"http://[::1\""),
        "{why}"
    );
}

/// `TestHTTPProbeChecker_PayloadTruncated`.
#[tokio::test]
async fn no_more_than_ten_kilobytes_of_a_body_are_read() {
    let server = serve(None, |request: Request| async move {
        let part = || Ok::<_, std::io::Error>(Bytes::from_static(b"aaaaaaa"));
        let endless = futures::stream::repeat_with(part);
        let status = request.uri().path()[1..].parse().expect("a status");
        answer(status, &[], Body::from_stream(endless))
    })
    .await;
    assert_eq!(probed(&get(server.port, "/200")).await, success());
    let ProbeOutcome::Success { warning } = probed(&get(server.port, "/302")).await.outcome else {
        unreachable!("a redirect without a location succeeds");
    };
    let body = "Probe terminated redirects, Response body: ".len();
    assert_eq!(warning.expect("a warning").len() - body, 10 << 10);
    server.closed(2).await;
}

#[tokio::test]
async fn an_app_that_hangs_fails_and_one_that_does_not_end_its_body_says_nothing() {
    let silent = hanging(b"").await;
    let url = |port| format!("Get \"http://127.0.0.1:{port}/x\"");
    let message = format!(
        "{}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
        url(silent.port)
    );
    assert_eq!(
        probed_shortly(&get(silent.port, "/x")).await,
        failure(message)
    );
    silent.closed(1).await;

    let slow = hanging(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx").await;
    let mut slowly = spec(&get(slow.port, "/x"));
    slowly.timeout = Duration::from_secs(2);
    let answer = Prober::new("1.37").probe(POD, &slowly).await;
    let message =
        "context deadline exceeded (Client.Timeout or context cancellation while reading body)";
    let wanted = ProbeAnswer::from_pod(ProbeOutcome::Errored(message.to_owned()));
    assert_eq!(answer, wanted);
    // It is tried three times.
    slow.closed(3).await;

    let short = raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx").await;
    let answer = probed(&get(short.port, "/x")).await;
    let wanted = ProbeAnswer::from_pod(ProbeOutcome::Errored("unexpected EOF".to_owned()));
    assert_eq!(answer, wanted);
}

#[tokio::test]
async fn an_app_that_does_not_speak_http_fails_in_the_kubelets_words() {
    let closed = free_port();
    let (eof, garbage) = (raw(b"").await, raw(b"hello world\r\n\r\n").await);
    let http = app_server().await;
    let url = |scheme: &str, port: u16| format!("Get \"{scheme}://127.0.0.1:{port}/x\": ");
    for (scheme, port, why) in [
        (
            "http",
            closed,
            format!("dial tcp 127.0.0.1:{closed}: connect: connection refused"),
        ),
        ("http", eof.port, "EOF".to_owned()),
        ("https", eof.port, "EOF".to_owned()),
        (
            "http",
            garbage.port,
            "net/http: HTTP/1.x transport connection broken: ".to_owned(),
        ),
        (
            "https",
            http.port,
            "http: server gave HTTP response to HTTPS client".to_owned(),
        ),
    ] {
        let handler =
            json!({"httpGet": {"port": port, "path": "/x", "scheme": scheme.to_uppercase()}});
        let answer = probed(&handler).await;
        let ProbeOutcome::Failure(message) = &answer.outcome else {
            unreachable!("{answer:?}");
        };
        let wanted = url(scheme, port) + &why;
        assert!(message.starts_with(&wanted), "{message}, not {wanted}");
        assert_eq!(answer.contact, ProbeContact::Pod);
    }
}

#[tokio::test]
async fn tls_is_not_verified_and_uses_http_2_if_the_app_does() {
    for (protocols, version) in [
        (&["h2", "http/1.1"][..], "HTTP/2.0"),
        (&["http/1.1"], "HTTP/1.1"),
        (&[], "HTTP/1.1"),
    ] {
        let server = serve(
            Some(self_signed(protocols)),
            |request: Request| async move {
                let seen = format!("{:?} {}", request.version(), request.uri().path());
                answer(302, &[], seen)
            },
        )
        .await;
        let handler = json!({"httpGet": {"port": server.port, "path": "/x", "scheme": "HTTPS"}});
        let wanted = format!("Probe terminated redirects, Response body: {version} /x");
        assert_eq!(probed(&handler).await, warning(&wanted), "{protocols:?}");
        server.closed(1).await;
    }
}

#[tokio::test]
async fn http_2_without_tls_is_spoken_if_the_probe_asks_for_it() {
    let server = serve(None, |request: Request| async move {
        let host = request.uri().authority().map(ToString::to_string);
        answer(302, &[], format!("{:?} {host:?}", request.version()))
    })
    .await;
    let headers = json!([{"name": "Host", "value": "a.example"}]);
    let handler = json!({"httpGet": {
        "port": server.port, "path": "/x", "protocol": "HTTP2", "httpHeaders": headers,
    }});
    let wanted = "Probe terminated redirects, Response body: HTTP/2.0 Some(\"a.example\")";
    assert_eq!(probed(&handler).await, warning(wanted));
}

#[tokio::test]
async fn each_probe_opens_a_connection_and_closes_it() {
    let server = app_server().await;
    for n in 1..=5 {
        assert_eq!(probed(&get(server.port, "/200")).await, success());
        server.closed(n).await;
    }
}

#[tokio::test]
async fn after_ten_kilobytes_the_end_of_the_body_is_not_waited_for() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n";
    let server = hanging(Box::leak(
        format!("{head}{}", "x".repeat(10 << 10))
            .into_bytes()
            .into(),
    ))
    .await;
    let mut spec = spec(&get(server.port, "/x"));
    spec.timeout = Duration::from_secs(5);
    assert_eq!(Prober::new("1.37").probe(POD, &spec).await, success());
}

#[tokio::test]
async fn an_answer_with_a_head_of_hundreds_of_kilobytes_fails() {
    let long = "x".repeat(300 << 10);
    let head = format!("HTTP/1.1 200 OK\r\nx: {long}\r\ncontent-length: 0\r\n\r\n");
    let server = hanging(Box::leak(head.into_bytes().into())).await;
    let answer = probed(&get(server.port, "/x")).await;
    assert!(
        matches!(answer.outcome, ProbeOutcome::Failure(_)),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_password_in_a_redirect_is_neither_sent_nor_shown() {
    let port = free_port();
    let server = serve(None, move |_| async move {
        let location = format!("http://user:secret@127.0.0.1:{port}/x");
        answer(302, &[("location", &location)], "")
    })
    .await;
    let answer = probed(&get(server.port, "/")).await;
    let why = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
    let wanted = format!("Get \"http://127.0.0.1:{port}/x\": {why}");
    assert_eq!(answer, failure(wanted));
}

#[tokio::test]
async fn the_reason_is_shown_after_a_url_of_any_length() {
    let port = free_port();
    let long = format!("/{}", "x".repeat(5000));
    let answer = probed(&get(port, &long)).await;
    let ProbeOutcome::Failure(why) = answer.outcome.truncated() else {
        unreachable!("nothing listens");
    };
    assert!(why.ends_with("connection refused"), "{why}");
}
