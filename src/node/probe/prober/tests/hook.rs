//! Requests of `httpGet` hooks.

use ::http::{HeaderMap, header};
use axum::extract::Request;
use axum::response::Response;
use parking_lot::Mutex;

use super::server::{ProbeServer, free_port, hanging, self_signed, serve};
use super::*;
use crate::aci::pre_stop::PreStopHook;

type Seen = Arc<Mutex<Vec<(String, HeaderMap)>>>;

/// A server that answers 500, but redirects `/moved` to `/there`, and what it was asked.
async fn app(tls: Option<rustls::ServerConfig>) -> (ProbeServer, Seen) {
    let seen = Seen::default();
    let record = seen.clone();
    let server = serve(tls, move |request: Request| {
        let path = request.uri().path().to_owned();
        record
            .lock()
            .push((path.clone(), request.headers().clone()));
        async move {
            let response = Response::builder().status(if path == "/moved" { 307 } else { 500 });
            let response = response.header(header::LOCATION, "/there");
            response
                .body(axum::body::Body::empty())
                .expect("a response")
        }
    });
    (server.await, seen)
}

async fn run(get: Value, timeout: Duration) -> Result<HookAnswer, String> {
    let container = json!({"name": "web", "lifecycle": {"preStop": {"httpGet": get}}});
    let container: Container = serde_json::from_value(container).expect("a container");
    let hook = PreStopHook::of(&container, true, "c").expect("a valid hook");
    let Some(PreStopHook::HttpGet(get)) = hook else {
        unreachable!("{hook:?}");
    };
    let prober = Prober::new("1.37");
    prober.run_hook(POD, &get, timeout).await
}

const LONG: Duration = Duration::from_mins(1);

#[tokio::test]
async fn any_status_is_success_and_redirects_are_followed() {
    let (server, seen) = app(None).await;
    let answer = run(json!({"port": server.port, "path": "/moved"}), LONG).await;
    assert_eq!(answer, Ok(HookAnswer::AsAsked));
    let seen = seen.lock();
    let paths: Vec<&str> = seen.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["/moved", "/there"]);
    assert_eq!(seen[0].1[header::USER_AGENT], "kube-lifecycle/1.37");
}

#[tokio::test]
async fn a_hook_over_https_is_sent_again_without_tls_and_credentials_to_an_app_that_speaks_http() {
    let headers =
        json!([{"name": "Authorization", "value": "secret"}, {"name": "X-Reason", "value": "a"}]);
    let get = |port: u16| json!({"port": port, "scheme": "HTTPS", "httpHeaders": headers});
    let (plain, seen) = app(None).await;
    assert_eq!(run(get(plain.port), LONG).await, Ok(HookAnswer::WithoutTls));
    let headers = seen.lock()[0].1.clone();
    assert_eq!(headers["x-reason"], "a");
    assert!(!headers.contains_key(header::AUTHORIZATION));

    let (tls, seen) = app(Some(self_signed(&[]))).await;
    assert_eq!(run(get(tls.port), LONG).await, Ok(HookAnswer::AsAsked));
    assert_eq!(seen.lock()[0].1[header::AUTHORIZATION], "secret");
}

#[tokio::test]
async fn a_hook_fails_only_if_no_answer_begins() {
    let refused = run(json!({"port": free_port()}), LONG).await;
    let refused = refused.expect_err("nothing listens");
    assert!(
        refused.ends_with("connect: connection refused"),
        "{refused}"
    );
    let silent = hanging(b"").await;
    let late = run(json!({"port": silent.port}), Duration::from_millis(200)).await;
    assert!(late.expect_err("no answer").contains("deadline exceeded"));
}
