//! A Kubernetes client that reads the API server's time from its answers.
//!
//! In: the `Date` header of each answer, and the time at which the request was sent. Out: the time to [`ServerClock`],
//! and the skew of this machine's clock to [`Metrics`].

use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use anyhow::Context as _;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tower::{Layer, Service};

use crate::telemetry::{Metrics, ServerClock};

/// Connects to Kubernetes. Each answer updates `clock` with the API server's time.
pub(super) fn connected(
    config: Config,
    clock: &Arc<ServerClock>,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Client> {
    let builder = ClientBuilder::try_from(config).context("connecting to Kubernetes")?;
    let dated = DateLayer {
        clock: clock.clone(),
        metrics: metrics.clone(),
    };
    Ok(builder.with_layer(&dated).build())
}

/// A layer that passes the `Date` of each answer to a clock.
#[derive(Clone)]
struct DateLayer {
    clock: Arc<ServerClock>,
    metrics: Arc<Metrics>,
}

impl DateLayer {
    fn record_date(&self, sent: Duration, headers: &HeaderMap) {
        let date = headers.get(http::header::DATE);
        if let Some(date) = date.and_then(|date| date.to_str().ok()) {
            self.clock.record_date(sent, date);
            self.metrics.clock_skew(self.clock.skew().as_secs_f64());
        }
    }
}

impl<S> Layer<S> for DateLayer {
    type Service = DatedService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let dated = self.clone();
        DatedService { inner, dated }
    }
}

struct DatedService<S> {
    inner: S,
    dated: DateLayer,
}

impl<S, B> Service<Request<Body>> for DatedService<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<B>, S::Error>>;

    fn poll_ready(&mut self, context: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (dated, sent) = (self.dated.clone(), self.dated.clock.elapsed());
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await?;
            dated.record_date(sent, response.headers());
            Ok(response)
        })
    }
}
