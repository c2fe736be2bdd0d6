//! Logs: readable lines on a terminal, JSON otherwise.
//!
//! In: `tracing` events and spans. Out: lines on standard error.
//!
//! A span carries the fields that all lines of one activity have in common. In JSON, each line lists the spans that
//! it was logged in under `spans`, the outermost first:
//!
//! | span | fields | lines about |
//! | --- | --- | --- |
//! | `reconcile` | `pool` | one reconciliation of a pool |
//! | `grants` | `pool` | the execution of one plan of a pool |
//! | `placement` | `pool`, `placement`, `node` | a placement's node, region and container groups |
//! | `pod` | `pod` (`namespace/name`), `group` | one pod on a virtual node; inside `placement` |
//!
//! Spans have the level ERROR: a span is disabled with all lines that are less severe than the filter, and a warning
//! without its pool and pod says little.

use std::io::IsTerminal as _;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

/// The filter without `RUST_LOG`. The controller of `kube` has a span of its own for each reconciliation, which
/// repeats the span `reconcile`.
const DEFAULT_FILTER: &str = "info,kube_runtime::controller=warn";

/// Starts to write logs to standard error. The filter is `RUST_LOG`, or INFO and above if that is not set or
/// invalid.
pub fn init() {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let (text, json) = if std::io::stderr().is_terminal() {
        (Some(fmt::layer().with_writer(std::io::stderr)), None)
    } else {
        let json = fmt::layer().json().flatten_event(true);
        let json = json.with_current_span(false);
        (None, Some(json.with_writer(std::io::stderr)))
    };
    let subscriber = tracing_subscriber::registry().with(filter);
    let subscriber = subscriber.with(filter_fn(|metadata| !may_quote(metadata)));
    subscriber.with(text).with(json).init();
}

/// Whether a log line may quote a Secret: if the Kubernetes client cannot parse an answer, it logs a warning with
/// the whole body. The line is dropped; the caller reports the error.
fn may_quote(metadata: &Metadata<'_>) -> bool {
    metadata.target() == "kube_client::client" && *metadata.level() == Level::WARN
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::Secret;
    use kube::{Api, Client};
    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct LogLines(Arc<Mutex<Vec<u8>>>);

    impl Write for LogLines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The log after an API server has answered a GET of a Secret with something that is not a Secret.
    async fn log_after_invalid_answer(keeps_quotes: bool) -> String {
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            let body = kube::client::Body::from(
                br#"{"data": {"password": "hunter2"}, "kind": 7}"#.to_vec(),
            );
            Ok::<_, std::convert::Infallible>(http::Response::new(body))
        });
        let (lines, secrets) = (LogLines::default(), Client::new(service, "default"));
        let written = lines.clone();
        let layer = fmt::layer().with_writer(move || written.clone());
        let subscriber = tracing_subscriber::registry().with(EnvFilter::new("info"));
        let subscriber = subscriber.with(filter_fn(move |metadata| {
            keeps_quotes || !may_quote(metadata)
        }));
        let _logging = tracing::subscriber::set_default(subscriber.with(layer));
        let secrets: Api<Secret> = Api::default_namespaced(secrets);
        secrets.get("login").await.expect_err("it is not a Secret");
        String::from_utf8(lines.0.lock().clone()).expect("text")
    }

    #[tokio::test]
    async fn an_answer_that_cannot_be_read_is_not_quoted_in_the_log() {
        let quoted = log_after_invalid_answer(true).await;
        assert!(
            quoted.contains("hunter2"),
            "the client no longer quotes answers: {quoted}"
        );
        let kept = log_after_invalid_answer(false).await;
        assert!(!kept.contains("hunter2"), "{kept}");
    }
}
