//! Leader lease renewals, measured with this machine's own clock.
//!
//! In: the API server's answers about the lease, and the events of its watch. Out: the same answers, with the
//! renewal time replaced by the time at which this process first observed that renewal. The holder writes the
//! renewal time by its own clock, and `kube_lease_manager` compares it with this machine's clock. Without the
//! replacement, a standby whose clock is ahead would take a lease that is held, and one whose clock is behind would
//! not take a lease that has expired. Kubernetes' own leader election also uses the time of observation (client-go,
//! tools/leaderelection, `observedTime`).

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use tokio::time::Instant;

/// The last observed renewal of the lease, and when it was first observed.
#[derive(Clone, Debug, Default)]
pub(super) struct Renewals(Arc<Mutex<Option<(LeaseSpec, Instant)>>>);

impl Renewals {
    /// Records that the lease has this content now. Returns how long ago this content was first observed.
    pub(super) fn observe(&self, lease: &LeaseSpec) -> Duration {
        self.observe_at(lease, Instant::now())
    }

    fn observe_at(&self, lease: &LeaseSpec, now: Instant) -> Duration {
        let mut last = self.0.lock();
        match &*last {
            Some((known, first_observed)) if known == lease => {
                now.saturating_duration_since(*first_observed)
            }
            _ => {
                *last = Some((lease.clone(), now));
                Duration::ZERO
            }
        }
    }

    /// Completes when no renewal has been observed for `timeout`, and at the earliest `timeout` after the call.
    pub(super) async fn expired(&self, timeout: Duration) {
        let mut since = Instant::now();
        loop {
            tokio::time::sleep_until(since + timeout).await;
            let last = self.0.lock();
            match &*last {
                Some((_, renewed)) if *renewed > since => since = *renewed,
                _ => return,
            }
        }
    }

    /// Wraps a client so that its answers contain the local renewal time. It must be used for the lease only.
    pub(super) fn client(&self, client: Client) -> Client {
        let namespace = client.default_namespace().to_owned();
        let renewals = self.clone();
        let service = tower::service_fn(move |request| {
            let (client, renewals) = (client.clone(), renewals.clone());
            async move {
                renewals
                    .localize_response(client.send(request).await?)
                    .await
            }
        });
        Client::new(service, namespace)
    }

    /// Replaces the renewal time in a successful answer.
    async fn localize_response(
        self,
        response: Response<Body>,
    ) -> Result<Response<Body>, kube::Error> {
        if !response.status().is_success() {
            return Ok(response);
        }
        let (mut head, body) = response.into_parts();
        let body = body.collect().await?;
        let mut body = body.to_bytes();
        if let Some(lease) = self.localized(&body) {
            head.headers.remove(CONTENT_LENGTH);
            body = lease.into();
        }
        Ok(Response::from_parts(head, Body::from(body)))
    }

    /// The lease with its renewal time by this machine's clock; `None` if the body is not a lease, or the lease was
    /// never renewed.
    fn localized(&self, body: &[u8]) -> Option<Vec<u8>> {
        let mut lease: Lease = serde_json::from_slice(body).ok()?;
        let spec = lease.spec.as_mut()?;
        let age = self.observe(spec);
        spec.renew_time.as_ref()?;
        let age = SignedDuration::try_from(age).ok()?;
        spec.renew_time = Some(MicroTime(Timestamp::now().saturating_sub(age).ok()?));
        serde_json::to_vec(&lease).ok()
    }
}

#[cfg(test)]
mod tests {
    use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};
    use serde_json::{Value, json};
    use tokio::sync::mpsc;

    use super::super::leader_election::Standby;
    use super::*;

    /// A lease that another instance holds; it renewed the lease at a time that is `seconds` from now by this
    /// machine's clock.
    fn held_lease(seconds: i64) -> LeaseSpec {
        let renewed = Timestamp::now() + SignedDuration::from_secs(seconds);
        // Leases store times in microseconds.
        let renewed = renewed.round(jiff::Unit::Microsecond).expect("in range");
        LeaseSpec {
            holder_identity: Some("another".to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(renewed)),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_renewal_counts_from_its_first_observation() {
        let renewals = Renewals::default();
        let start = Instant::now();
        let age = |lease: &LeaseSpec, seconds: u64| {
            let now = start + Duration::from_secs(seconds);
            renewals.observe_at(lease, now).as_secs()
        };
        for skew in [-3600, -90, 0, 90, 3600] {
            let (first, second) = (held_lease(skew), held_lease(skew + 10));
            assert_eq!(age(&first, 0), 0, "{skew}");
            assert_eq!(age(&first, 14), 14, "{skew}");
            assert_eq!(age(&second, 15), 0, "{skew}");
            assert_eq!(age(&second, 40), 25, "{skew}");
        }
    }

    /// A lease manager for a lease with this content, and the methods of the requests that it sends.
    async fn manager(
        lease: LeaseSpec,
        renewals: &Renewals,
    ) -> (LeaseManager, mpsc::UnboundedReceiver<String>) {
        let (sender, methods) = mpsc::unbounded_channel();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let _ = sender.send(request.method().to_string());
            let lease_json = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": "burstpool"}, "spec": lease});
            async move { response(&lease_json) }
        });
        let client = renewals.client(Client::new(service, "default"));
        let manager = LeaseManagerBuilder::new(client, "burstpool")
            .with_identity("us")
            .with_duration(15)
            .with_grace(5)
            .build();
        (manager.await.expect("a manager"), methods)
    }

    #[allow(clippy::unnecessary_wraps, reason = "a service may fail")]
    fn response(body: &Value) -> Result<Response<Body>, std::convert::Infallible> {
        Ok(Response::new(Body::from(body.to_string().into_bytes())))
    }

    /// Whether a manager writes to the lease within the next minute.
    async fn tries_to_take(lease: LeaseSpec, renewals: &Renewals) -> bool {
        let (manager, mut methods) = manager(lease, renewals).await;
        let minute = Duration::from_secs(60);
        drop(tokio::time::timeout(minute, manager.changed()).await);
        let mut sent = std::iter::from_fn(|| methods.try_recv().ok());
        sent.any(|method| method == "PATCH")
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_lease_is_taken_even_if_the_clock_was_set_back() {
        // The machine's clock stands still while the paused time goes on: it is set back all the time.
        let lease = held_lease(0);
        let (sender, mut requests) = mpsc::unbounded_channel();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let _ = sender.send((request.method().to_string(), Instant::now()));
            let lease_json = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": "burstpool"}, "spec": lease});
            async move { response(&lease_json) }
        });
        let renewals = Renewals::default();
        let standby = Standby {
            leases: renewals.client(Client::new(service, "default")),
            namespace: "default",
            identity: "us",
            renewals,
        };
        let start = Instant::now();
        let minute = Duration::from_secs(60);
        let elected = standby.elected(futures::stream::pending());
        drop(tokio::time::timeout(minute, elected).await);
        let mut sent = std::iter::from_fn(|| requests.try_recv().ok());
        let patch = sent.find(|(method, _)| method == "PATCH");
        let (_, taken_at) = patch.expect("the lease is taken");
        let delay = taken_at.saturating_duration_since(start);
        assert!(
            delay >= Duration::from_secs(15) && delay < Duration::from_secs(25),
            "{delay:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_renewed_does_not_expire() {
        let renewals = Renewals::default();
        let timeout = Duration::from_secs(20);
        let renewal = async {
            for n in 0..10 {
                renewals.observe(&held_lease(n));
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
        };
        let start = Instant::now();
        tokio::join!(renewals.expired(timeout), renewal);
        assert_eq!(start.elapsed().as_secs(), 110);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unrenewed_lease_is_taken_after_its_duration_whatever_the_clocks_show() {
        for skew in [-3600, -90, 0, 90, 3600] {
            let lease = held_lease(skew);
            let renewals = Renewals::default();
            assert!(
                !tries_to_take(lease.clone(), &renewals).await,
                "{skew}: just renewed"
            );
            let long_ago = Instant::now() - Duration::from_secs(20);
            let renewals = Renewals::default();
            renewals.observe_at(&lease, long_ago);
            assert!(
                tries_to_take(lease, &renewals).await,
                "{skew}: it was not renewed"
            );
        }
    }
}
