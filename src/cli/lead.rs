//! Leading: one process reconciles, the others wait and know everything already.
//!
//! In: the lease. Out: the controller at work while it is held, and the reason when it is lost.

use std::sync::Arc;
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
use crate::controller::{self, LEASE};
use crate::node::watched::{readable, reported};

/// For how long the leader is believed to live without a word, in seconds.
const LEASE_SECONDS: u64 = 15;
/// How long before that it must have said something.
const LEASE_GRACE_SECONDS: u64 = 5;
/// How long a call about the lease may go without a word: one that hangs for longer would cost the lease.
const LEASE_PATIENCE: Duration = Duration::from_secs(4);
/// How long to wait after the lease could not be asked for.
const LEASE_AGAIN: Duration = Duration::from_secs(1);

/// How long what was begun as leader may take to end once the lease is lost: until another one may lead.
const LOST: Duration = Duration::from_secs(LEASE_GRACE_SECONDS);

/// Waits to lead, and reconciles while it does. Losing the lead ends the process: another one leads.
pub(super) async fn lead(
    context: Arc<controller::Context>,
    leases: Client,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    // Followers watch, too: who takes over knows everything already.
    let (stores, client) = (context.stores.clone(), context.client.clone());
    let watching = async move { Box::pin(stores.watch(&client)).await };
    tokio::pin!(watching);
    let manager = tokio::select! {
        manager = elected(&context, leases) => manager?,
        () = &mut watching => bail!("watching the cluster ended"),
        () = cancel.cancelled() => return Ok(()),
    };
    tracing::info!("leading");
    context.metrics.leads(true);
    let (mut leading, task) = manager.watch().await;
    // A lead that is lost ends the work alone: everything else of the process goes on until the work has
    // ended, so that what ends the process, and what it says, is that loss.
    let working = cancel.child_token();
    let outcome = {
        // However it ends: what it has begun is not to outlive the lease.
        let _ends = working.clone().drop_guard();
        let work = controller::run(context, working.clone());
        tokio::pin!(work);
        let lost = async { leading.wait_for(|leads| !leads).await.map(drop) };
        tokio::select! {
            () = &mut work => Ok(()),
            () = &mut watching => Err(anyhow::anyhow!("watching the cluster ended")),
            () = cancel.cancelled() => Ok(()),
            lost = lost => {
                working.cancel();
                // What does not end by itself ends with the process: another one leads already.
                if tokio::time::timeout(LOST, &mut work).await.is_err() {
                    tracing::warn!("what was begun as leader did not end in time");
                }
                lost.context("watching the leader's lease")
                    .and_then(|()| bail!("another process leads now"))
            }
        }
    };
    // Nobody watches any more: the lease is released, and the task ends.
    drop(leading);
    let _ = task.await;
    outcome
}

/// Waits until we hold the lease.
async fn elected(context: &controller::Context, leases: Client) -> anyhow::Result<LeaseManager> {
    let renewals = Renewals::default();
    let leases = renewals.client(leases);
    let mut free = std::pin::pin!(freed(context, renewals));
    loop {
        let manager = LeaseManagerBuilder::new(leases.clone(), LEASE)
            .with_namespace(&context.lease_namespace)
            .with_identity(context.identity.clone())
            .with_duration(LEASE_SECONDS)
            .with_grace(LEASE_GRACE_SECONDS)
            .build()
            .await
            .context("preparing the leader's lease")?;
        tokio::select! {
            changed = manager.changed() => match changed {
                Ok(true) => return Ok(manager),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "asking for the leader's lease");
                    tokio::time::sleep(LEASE_AGAIN).await;
                }
            },
            // The manager sleeps until the lease is over, also if its holder has given it back since:
            // another one looks at once.
            Some(()) = free.next() => tracing::debug!("the lease is free"),
        }
    }
}

/// A word whenever nobody holds the lease. `renewals` learns of each renewal as it is watched.
fn freed(
    context: &controller::Context,
    renewals: Renewals,
) -> impl futures::Stream<Item = ()> + use<> {
    let leases: Api<DeserializeGuard<Lease>> =
        Api::namespaced(context.client.clone(), &context.lease_namespace);
    let ours = watcher::Config::default().fields(&format!("metadata.name={LEASE}"));
    let seen = readable(watcher(leases, ours).default_backoff());
    let seen = reported("the leader's lease", seen).applied_objects();
    seen.filter_map(move |lease| {
        let spec = lease.ok().map(|lease| lease.spec.unwrap_or_default());
        std::future::ready(spec.and_then(|spec| {
            renewals.see(&spec);
            let holder = spec.holder_identity;
            holder.is_none_or(|holder| holder.is_empty()).then_some(())
        }))
    })
}

/// Kubernetes for the lease: a call that fails or hangs is given up before the lease is over.
pub(super) fn leases(config: &Config) -> anyhow::Result<Client> {
    let mut config = config.clone();
    config.default_retry = false;
    config.connect_timeout = Some(LEASE_PATIENCE);
    config.read_timeout = Some(LEASE_PATIENCE);
    Client::try_from(config).context("connecting to Kubernetes")
}
