//! gRPC probes (`pkg/probe/grpc/grpc_test.go` of Kubernetes 1.37 has most of the cases).

use ::http::{HeaderMap, HeaderValue};
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};

use super::server::{hanging, raw, self_signed, serve};
use super::*;

/// An answer of the health service with this status.
fn health(status: u8) -> Response {
    let message = Bytes::from(vec![0, 0, 0, 0, 2, 8, status]);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(message).with_trailers(std::future::ready(Some(Ok(trailers))));
    let response = Response::builder().header("content-type", "application/grpc");
    response.body(Body::new(body)).expect("a response")
}

/// An answer that has only a status.
fn refused(code: &str, message: &str) -> Response {
    let response = Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", code)
        .header("grpc-message", message);
    response.body(Body::empty()).expect("a response")
}

/// A server with the health service: the name of the asked service says the answer.
async fn answered(request: Request) -> Response {
    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
    let headers = request.headers();
    assert_eq!(headers["content-type"], "application/grpc");
    assert_eq!(headers["te"], "trailers");
    assert_eq!(headers["user-agent"], "kube-probe/1.37");
    let body = request.into_body().collect().await.expect("a body");
    let body = body.to_bytes();
    match body.get(7..).unwrap_or_default() {
        b"not-serving" => health(2),
        b"unknown" => health(0),
        b"new" => health(9),
        b"unimplemented" => refused("12", "unknown service grpc.health.v1.Health"),
        b"not-found" => refused("5", "unknown%20service"),
        b"odd" => refused("77", "x"),
        _ => health(1),
    }
}

#[tokio::test]
async fn only_a_service_that_serves_succeeds() {
    let server = serve(None, answered).await;
    let unimplemented = "error: this server does not implement the grpc health protocol \
        (grpc.health.v1.Health): unknown service grpc.health.v1.Health";
    for (service, wanted) in [
        (None, success()),
        (Some(""), success()),
        (Some("some.Service"), success()),
        (
            Some("not-serving"),
            failure("service unhealthy (responded with \"NOT_SERVING\")"),
        ),
        (
            Some("unknown"),
            failure("service unhealthy (responded with \"UNKNOWN\")"),
        ),
        (
            Some("new"),
            failure("service unhealthy (responded with \"9\")"),
        ),
        (Some("unimplemented"), failure(unimplemented)),
        (
            Some("not-found"),
            failure(
                "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service",
            ),
        ),
        (
            Some("odd"),
            failure("error: health rpc probe failed: rpc error: code = Code(77) desc = x"),
        ),
    ] {
        let handler = json!({"grpc": {"port": server.port, "service": service}});
        assert_eq!(probed(&handler).await, wanted, "{service:?}");
    }
    server.closed(9).await;
}

#[tokio::test]
async fn a_server_that_does_not_answer_in_time_or_at_all_fails() {
    let hung = serve(None, |_| std::future::pending()).await;
    let mut spec = spec(&json!({"grpc": {"port": hung.port}}));
    spec.timeout = Duration::from_secs(1);
    let answer = Prober::new("1.37").probe(POD, &spec).await;
    let wanted = failure("timeout: health rpc did not complete within 1s");
    assert_eq!(answer, wanted);
    hung.closed(1).await;
    // It takes connections and does not speak HTTP/2; the prober's connection does not outlive the probe.
    let silent = hanging(b"").await;
    let handler = json!({"grpc": {"port": silent.port}});
    let answer = probed_shortly(&handler).await;
    let wanted = failure("timeout: health rpc did not complete within 0s");
    assert_eq!(answer, wanted);
    silent.closed(1).await;
    let closed = free_port();
    let answer = probed(&json!({"grpc": {"port": closed}})).await;
    let wanted = failure(format!(
        "error: failed to connect service at \"127.0.0.1:{closed}\": connection error: desc = \
         \"transport: Error while dialing: dial tcp 127.0.0.1:{closed}: connect: connection refused\""
    ));
    assert_eq!(answer, wanted);
}

#[tokio::test]
async fn a_server_of_something_else_fails() {
    let page = serve(None, |_| async { Response::new(Body::from("<html>")) }).await;
    let missing = serve(None, |_| async {
        let response = Response::builder().status(404);
        response.body(Body::empty()).expect("a response")
    })
    .await;
    let old = raw(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    for (port, part) in [
        (
            page.port,
            "code = Unknown desc = unexpected content-type \"\"",
        ),
        (
            missing.port,
            "unexpected HTTP status code received from server: 404 (Not Found)",
        ),
        (old.port, "code = Unavailable desc = connection error"),
    ] {
        let answer = probed(&json!({"grpc": {"port": port}})).await;
        let ProbeOutcome::Failure(why) = &answer.outcome else {
            unreachable!("{answer:?}");
        };
        assert!(why.contains(part), "{why}");
        assert_eq!(answer.contact, ProbeContact::Pod);
    }
}

/// `TestGrpcProber_Probe_TLS`.
#[tokio::test]
async fn tls_is_used_if_the_probe_asks_for_it_and_only_then() {
    let secret = serve(Some(self_signed(&["h2"])), answered).await;
    let plain = serve(None, answered).await;
    for (port, mode, is_success) in [
        (secret.port, "TLS", true),
        (secret.port, "Plaintext", false),
        (plain.port, "TLS", false),
    ] {
        let handler = json!({"grpc": {"port": port, "mode": mode}});
        let answer = probed(&handler).await;
        assert_eq!(answer == success(), is_success, "{mode}: {answer:?}");
    }
}
