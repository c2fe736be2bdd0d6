//! Logs: for people on a terminal, as JSON otherwise.

use std::io::IsTerminal as _;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

/// Writes logs to standard error from now on: what `RUST_LOG` says, else everything from INFO on.
pub fn init() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let (people, programs) = if std::io::stderr().is_terminal() {
        (Some(fmt::layer().with_writer(std::io::stderr)), None)
    } else {
        let json = fmt::layer().json().flatten_event(true);
        (None, Some(json.with_writer(std::io::stderr)))
    };
    let all = tracing_subscriber::registry().with(filter);
    let all = all.with(filter_fn(|metadata| !may_quote(metadata)));
    all.with(people).with(programs).init();
}

/// The client warns of an answer that it cannot read with all of it, which may be a Secret's. Whoever asked
/// says what failed.
fn may_quote(metadata: &Metadata<'_>) -> bool {
    metadata.target() == "kube_client::client" && *metadata.level() == Level::WARN
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use k8s_openapi::api::core::v1::Secret;
    use kube::{Api, Client};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("one writer").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is logged when an API server's answer to a question for a Secret is none.
    async fn logged(keeps: bool) -> String {
        let answers = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            let body = kube::client::Body::from(
                br#"{"data": {"password": "hunter2"}, "kind": 7}"#.to_vec(),
            );
            Ok::<_, std::convert::Infallible>(http::Response::new(body))
        });
        let (lines, secrets) = (Lines::default(), Client::new(answers, "default"));
        let written = lines.clone();
        let layer = fmt::layer().with_writer(move || written.clone());
        let all = tracing_subscriber::registry().with(EnvFilter::new("info"));
        let all = all.with(filter_fn(move |metadata| keeps || !may_quote(metadata)));
        let _logging = tracing::subscriber::set_default(all.with(layer));
        let secrets: Api<Secret> = Api::default_namespaced(secrets);
        secrets.get("login").await.expect_err("it is no Secret");
        String::from_utf8(lines.0.lock().expect("it is written").clone()).expect("text")
    }

    #[tokio::test]
    async fn an_answer_that_cannot_be_read_is_not_quoted_in_the_log() {
        let quoted = logged(true).await;
        assert!(
            quoted.contains("hunter2"),
            "the client quotes no more: {quoted}"
        );
        let kept = logged(false).await;
        assert!(!kept.contains("hunter2"), "{kept}");
    }
}
