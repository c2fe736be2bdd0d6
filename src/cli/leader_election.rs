//! Leader election: one process reconciles, and the others wait with warm caches.
//!
//! In: the lease. Out: the controller runs while this process holds the lease; the reason if the lease is lost.

use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::core::DeserializeGuard;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Config};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};
use tokio_util::sync::CancellationToken;

use super::renewals::Renewals;
use crate::controller::{self, ControllerParts, LEASE_NAME};
use crate::k8s::watch_health::{report_errors, skip_unreadable};

/// The duration of the lease, in seconds: without a renewal, another process may take it after this time.
const LEASE_DURATION_SECONDS: u64 = 15;
/// How many seconds before the lease expires the leader renews it.
const LEASE_GRACE_SECONDS: u64 = 5;
/// Timeout for connecting and for each read of a request about the lease. It is shorter than the grace period,
/// because a longer one would cost the lease.
const LEASE_CALL_TIMEOUT: Duration = Duration::from_secs(4);
/// The pause after a failed request for the lease.
const LEASE_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// After this time without a renewal, a lease manager that has not taken the lease is replaced: the time in which it
/// should have taken it.
const OVERDUE: Duration = Duration::from_secs(LEASE_DURATION_SECONDS + LEASE_GRACE_SECONDS);

/// How long the leader's work may take to end after the lease is lost: until another process may lead.
const STOP_TIMEOUT: Duration = Duration::from_secs(LEASE_GRACE_SECONDS);

/// Waits for the lease, and runs the controller while this process holds it. When the lease is lost, the process
/// ends, because another one leads.
pub(super) async fn lead(
    parts: ControllerParts,
    leases: Client,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    // Followers watch the cluster too, so that their caches are complete when they take over.
    let (cache, client) = (parts.cache.clone(), parts.client.clone());
    let watch = async move { Box::pin(cache.watch(&client)).await };
    tokio::pin!(watch);
    let manager = tokio::select! {
        manager = acquire_lease(&parts, leases) => manager?,
        () = &mut watch => bail!("watching the cluster ended"),
        () = cancel.cancelled() => return Ok(()),
    };
    tracing::info!("leading");
    parts.metrics.set_leader(true);
    let (mut is_leader, task) = manager.watch().await;
    // When the lease is lost, only the controller is stopped at first. Everything else runs until it has ended, so
    // that the lost lease is the error with which the process ends.
    let work_cancel = cancel.child_token();
    let outcome = {
        // In every case, the controller must stop: its work must not outlive the lease.
        let _cancel_guard = work_cancel.clone().drop_guard();
        let work = controller::run(parts, work_cancel.clone());
        tokio::pin!(work);
        let lease_lost = async { is_leader.wait_for(|leads| !leads).await.map(drop) };
        tokio::select! {
            () = &mut work => Ok(()),
            () = &mut watch => Err(anyhow::anyhow!("watching the cluster ended")),
            () = cancel.cancelled() => Ok(()),
            lease_lost = lease_lost => {
                work_cancel.cancel();
                // Work that has not ended by then ends with the process, because another process already leads.
                if tokio::time::timeout(STOP_TIMEOUT, &mut work).await.is_err() {
                    tracing::warn!("the work of the leader did not end in time");
                }
                lease_lost.context("watching the leader's lease")
                    .and_then(|()| bail!("another process leads now"))
            }
        }
    };
    // With its last receiver dropped, the manager releases the lease and its task ends.
    drop(is_leader);
    let _ = task.await;
    outcome
}

/// Waits until this process holds the lease.
async fn acquire_lease(parts: &ControllerParts, leases: Client) -> anyhow::Result<LeaseManager> {
    let renewals = Renewals::default();
    let standby = Standby {
        leases: renewals.client(leases),
        namespace: &parts.lease_namespace,
        identity: &parts.identity,
        renewals: renewals.clone(),
    };
    standby.elected(lease_released(parts, renewals)).await
}

/// A process that waits for the lease.
pub(super) struct Standby<'a> {
    /// The client for the lease: that of `renewals`.
    pub(super) leases: Client,
    pub(super) namespace: &'a str,
    pub(super) identity: &'a str,
    pub(super) renewals: Renewals,
}

impl Standby<'_> {
    /// Waits until this process holds the lease. `released` yields whenever no process holds it.
    pub(super) async fn elected(
        &self,
        released: impl futures::Stream<Item = ()>,
    ) -> anyhow::Result<LeaseManager> {
        let mut released = std::pin::pin!(released);
        loop {
            let manager = LeaseManagerBuilder::new(self.leases.clone(), LEASE_NAME)
                .with_namespace(self.namespace)
                .with_identity(self.identity)
                .with_duration(LEASE_DURATION_SECONDS)
                .with_grace(LEASE_GRACE_SECONDS)
                .build()
                .await
                .context("preparing the leader's lease")?;
            // The manager sleeps until the lease expires by the machine's clock, even if its holder has released it
            // in the meantime, or the clock has been set back. A new manager tries at once.
            tokio::select! {
                changed = manager.changed() => match changed {
                    Ok(true) => return Ok(manager),
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(%error, "requesting the leader's lease");
                        tokio::time::sleep(LEASE_RETRY_INTERVAL).await;
                    }
                },
                Some(()) = released.next() => tracing::debug!("the lease is free"),
                () = self.renewals.expired(OVERDUE) => tracing::debug!("the lease has expired"),
            }
        }
    }
}

/// Yields `()` whenever the watch shows that no process holds the lease. `renewals` records each renewal that the
/// watch shows.
fn lease_released(
    parts: &ControllerParts,
    renewals: Renewals,
) -> impl futures::Stream<Item = ()> + use<> {
    let leases: Api<DeserializeGuard<Lease>> =
        Api::namespaced(parts.client.clone(), &parts.lease_namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={LEASE_NAME}"));
    let events = skip_unreadable(watcher(leases, config).default_backoff());
    let applied = report_errors("the leader's lease", events).applied_objects();
    releases(
        applied.filter_map(|lease| std::future::ready(lease.ok())),
        renewals,
    )
}

/// Yields `()` for each of these states of the lease in which no process holds it, and records each renewal.
fn releases(
    leases: impl futures::Stream<Item = Lease>,
    renewals: Renewals,
) -> impl futures::Stream<Item = ()> {
    leases.filter_map(move |lease| {
        let spec = lease.spec.unwrap_or_default();
        renewals.observe(&spec);
        let is_released = spec.holder_identity.is_none_or(|holder| holder.is_empty());
        std::future::ready(is_released.then_some(()))
    })
}

/// A Kubernetes client for the lease. It gives up a failing or hanging request before the lease expires.
pub(super) fn lease_client(config: &Config) -> anyhow::Result<Client> {
    let mut config = config.clone();
    config.default_retry = false;
    config.connect_timeout = Some(LEASE_CALL_TIMEOUT);
    config.read_timeout = Some(LEASE_CALL_TIMEOUT);
    Client::try_from(config).context("connecting to Kubernetes")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::LeaseSpec;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_watch_shows_renewals_and_releases_of_the_lease() {
        let lease = |holder: Option<&str>, transitions| Lease {
            spec: Some(LeaseSpec {
                holder_identity: holder.map(str::to_owned),
                lease_transitions: Some(transitions),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        };
        let held = lease(Some("another"), 1);
        let states = [
            held.clone(),
            lease(Some(""), 1),
            lease(None, 1),
            held.clone(),
        ];
        let renewals = Renewals::default();
        let released = releases(futures::stream::iter(states), renewals.clone());
        assert_eq!(released.count().await, 2);
        // The last state is known since the watch showed it.
        advance(Duration::from_secs(5)).await;
        let spec = held.spec.expect("a spec");
        assert_eq!(renewals.observe(&spec), Duration::from_secs(5));
    }
}
