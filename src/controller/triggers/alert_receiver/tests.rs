//! Tests: the requests that the receiver refuses and counts.

use std::io::Write as _;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tower::ServiceExt as _;

use super::*;
use crate::controller::fixtures::triggers;

/// A notification without alerts.
const EMPTY: &str = r#"{"version": "4", "alerts": []}"#;

/// A receiver with the token `right`; the operator has not listed the pools yet.
fn receiver() -> (Router, Arc<TriggerContext>, tempfile::NamedTempFile) {
    let mut token = tempfile::NamedTempFile::new().expect("a file");
    token.write_all(b"right\n").expect("it is written");
    let shared = triggers().context.clone();
    let router = router(Receiver {
        shared: shared.clone(),
        token_file: token.path().to_owned(),
        cancel: CancellationToken::new(),
    });
    (router, shared, token)
}

/// Fills the cache from a cluster without objects.
async fn list(shared: &TriggerContext) {
    let service = tower::service_fn(|request: Request<kube::client::Body>| async move {
        if request
            .uri()
            .query()
            .is_some_and(|query| query.contains("watch="))
        {
            return std::future::pending().await;
        }
        let empty = serde_json::json!({"metadata": {"resourceVersion": "1"}, "items": []});
        let empty = kube::client::Body::from(empty.to_string().into_bytes());
        Ok::<_, http::Error>(http::Response::new(empty))
    });
    let client = kube::Client::new(service, "default");
    tokio::select! {
        () = shared.cache.watch(&client) => {}
        () = shared.cache.wait_until_synced() => {}
    }
}

async fn send(router: &Router, request: http::request::Builder, body: Body) -> u16 {
    let request = request.body(body).expect("a request");
    let response = router.clone().oneshot(request).await.expect("an answer");
    response.status().as_u16()
}

fn to(path: &str, token: &str) -> http::request::Builder {
    let request = Request::builder().method("POST").uri(path);
    request.header("authorization", token)
}

#[tokio::test]
async fn refused_requests_are_answered_with_a_reason_and_counted() {
    let (router, shared, _token) = receiver();
    let payload = r#"{"version": "4", "alerts": []}"#;
    let endless = || {
        let part = || Ok::<_, std::io::Error>("x".repeat(65_536));
        Body::from_stream(futures::stream::repeat_with(part))
    };
    let valid = "Bearer right";
    for (request, body, status, reason) in [
        (
            Request::builder().method("POST").uri("/alerts"),
            Body::from(payload),
            401,
            "unauthenticated",
        ),
        (
            to("/alerts", "Bearer wrong"),
            endless(),
            401,
            "unauthenticated",
        ),
        (
            to("/alerts", "Basic right"),
            Body::from(payload),
            401,
            "unauthenticated",
        ),
        (to("/alerts", valid), Body::from("{"), 400, "malformed"),
        (to("/alerts", valid), Body::empty(), 400, "malformed"),
        (to("/alerts", valid), endless(), 413, "too_large"),
        (
            to("/alerts", valid).header("content-length", "9999999"),
            Body::empty(),
            413,
            "too_large",
        ),
        (to("/other", valid), Body::from(payload), 404, "wrong_path"),
        (
            to("/alerts", valid).method("GET"),
            Body::empty(),
            405,
            "wrong_method",
        ),
        // Nothing has been listed yet: the sender must retry.
        (
            to("/alerts", "bearer right"),
            Body::from(payload),
            503,
            "not_ready",
        ),
    ] {
        let line = format!("burstpool_alerts_refused_total{{reason=\"{reason}\"}}");
        let count = || {
            let text = shared.metrics.encode();
            let value = text
                .lines()
                .find_map(|text| text.strip_prefix(line.as_str()));
            value.map_or(0, |count| count.trim().parse::<u64>().expect("a number"))
        };
        let before = count();
        assert_eq!(send(&router, request, body).await, status, "{reason}");
        assert_eq!(count(), before + 1, "{reason}");
    }
}

#[tokio::test]
async fn the_token_is_read_from_the_file_for_each_request() {
    let (router, _, token) = receiver();
    let payload = r#"{"version": "4", "alerts": []}"#;
    std::fs::write(token.path(), "new").expect("it is written");
    let old_status = send(&router, to("/alerts", "Bearer right"), Body::from(payload)).await;
    let new_status = send(&router, to("/alerts", "Bearer new"), Body::from(payload)).await;
    assert_eq!((old_status, new_status), (401, 503));
    std::fs::write(token.path(), "\n").expect("it is written");
    let none = send(&router, to("/alerts", "Bearer "), Body::from(payload)).await;
    assert_eq!(none, 503, "an empty token authenticates no sender");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_arrive_is_timed_out() {
    let (router, _, _token) = receiver();
    let never = Body::from_stream(futures::stream::pending::<Result<String, std::io::Error>>());
    assert_eq!(
        send(&router, to("/alerts", "Bearer right"), never).await,
        408
    );
}

#[tokio::test]
async fn a_receiver_that_shuts_down_answers_its_requests_and_accepts_no_alerts() {
    let (ready, shared, token) = receiver();
    Box::pin(list(&shared)).await;
    let status = send(&ready, to("/alerts", "Bearer right"), Body::from(EMPTY));
    assert_eq!(status.await, 200, "until it ends");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let cancel = CancellationToken::new();
    let router = router(Receiver {
        shared,
        token_file: token.path().to_owned(),
        cancel: cancel.clone(),
    });
    let sender = async {
        let length = EMPTY.len();
        let head = format!(
            "POST /alerts HTTP/1.1\r\nhost: a\r\nauthorization: Bearer right\r\nexpect: 100-continue\r\n\
             content-length: {length}\r\n\r\n"
        );
        let mut connection = TcpStream::connect(address).await.expect("a connection");
        connection
            .write_all(head.as_bytes())
            .await
            .expect("it is read");
        // The receiver sends 100 once it reads the body, so the request is under way.
        let mut status_line = [0; 12];
        connection
            .read_exact(&mut status_line)
            .await
            .expect("it goes on");
        assert_eq!(&status_line, b"HTTP/1.1 100");
        cancel.cancel();
        connection
            .write_all(EMPTY.as_bytes())
            .await
            .expect("it is read");
        let mut rest = String::new();
        connection
            .read_to_string(&mut rest)
            .await
            .expect("an answer");
        assert!(rest.contains("HTTP/1.1 503"), "{rest}");
        assert!(rest.to_lowercase().contains("connection: close"), "{rest}");
    };
    let both = async { tokio::join!(accept(&listener, &router, &cancel), sender) };
    let ended = tokio::time::timeout(Duration::from_secs(60), both).await;
    ended.expect("the receiver ends");
}

#[test]
fn only_alerts_for_a_trigger_that_has_not_started_are_sent_again() {
    let pool = |name: &str, alert: &str| -> Arc<BurstPool> {
        let pool = serde_json::json!({
            "apiVersion": "burstpool.io/v1alpha1", "kind": "BurstPool", "metadata": {"name": name},
            "spec": {"azure": {}, "placements": [{"name": "a", "region": "westeurope"}],
                "triggers": [{"name": "pager", "alert": {"matchLabels": {"alertname": alert}}}]},
        });
        Arc::new(serde_json::from_value(pool).expect("a pool"))
    };
    let pools = [pool("begun", "A"), pool("stuck", "B")];
    let begun = ("begun".to_owned(), "pager".to_owned());
    let missed = |alert: &str| {
        let body = serde_json::json!({"version": "4", "alerts": [
            {"status": "firing", "labels": {"alertname": alert}, "fingerprint": "f"}]});
        let notices = alert::parse(body.to_string().as_bytes()).expect("notices");
        let mut known = BTreeMap::from([(begun.clone(), ActiveAlerts::default())]);
        dispatch_notices(&pools, &mut known, &notices, Timestamp::now()).1
    };
    assert_eq!(
        missed("A"),
        None,
        "another pool that is stuck changes nothing"
    );
    let stuck = ("stuck".to_owned(), "pager".to_owned());
    assert_eq!(missed("B"), Some(stuck));
    assert_eq!(missed("C"), None);
}
