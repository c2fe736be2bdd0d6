//! A [`Context`] without a cluster and without Azure, for the tests of this crate.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use kube::Client;
use tokio::sync::Notify;

use super::{Context, ORPHAN_GRACE, Parts, SWEEP_EVERY, Settings};
use crate::aci::client::{Client as Azure, Cloud, Credential, Scope};
use crate::aci::names::Owner;
use crate::aci::translate::Identities;
use crate::api::Placement;

/// A context with this Kubernetes client and an Azure that cannot be reached.
pub(crate) fn context(client: Client) -> Context {
    let nowhere = Credential::File(PathBuf::from("/nowhere"));
    Context::new(Parts {
        client,
        azure: Azure::new(&Cloud::default(), nowhere, reqwest::Client::new()),
        scope: Scope {
            subscription: "s".to_owned(),
            resource_group: "rg".to_owned(),
        },
        owner: Owner {
            cluster: "c".to_owned(),
            pool: "p".to_owned(),
            node: "n".to_owned(),
        },
        settings: Settings {
            placement: Placement::default(),
            tags: BTreeMap::new(),
            kube_proxy: None,
            deletion_cost: 0,
        },
        address: "10.0.0.1".to_owned(),
        pace: Arc::default(),
        trouble: Arc::new(Notify::new()),
        quota: Arc::default(),
        changed: Arc::new(Notify::new()),
        sweep_every: SWEEP_EVERY,
        orphan_grace: ORPHAN_GRACE,
        identities: Identities::default(),
    })
}
