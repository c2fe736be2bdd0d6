//! A [`PodsContext`] without a cluster and without Azure, for the tests of this crate.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use kube::Client;
use tokio::sync::Notify;

use super::{LIST_INTERVAL, ORPHAN_GRACE, PodSettings, PodsConfig, PodsContext};
use crate::aci::client::{AciClient as Azure, CloudEndpoints, Credential, GroupScope};
use crate::aci::image::{ImageReader, ImageReaderSettings};
use crate::aci::names::GroupOwner;
use crate::aci::translate::IdentityNamespaces;
use crate::api::Placement;
use crate::node::probe::Prober;

/// A context with this Kubernetes client and an Azure that cannot be reached.
pub(crate) fn context(client: Client) -> PodsContext {
    let nowhere = Credential::File(PathBuf::from("/nowhere"));
    PodsContext::new(PodsConfig {
        client,
        azure: Azure::new(&CloudEndpoints::default(), nowhere, reqwest::Client::new()),
        scope: GroupScope {
            subscription: "s".to_owned(),
            resource_group: "rg".to_owned(),
        },
        owner: GroupOwner {
            cluster: "c".to_owned(),
            pool: "p".to_owned(),
            node: "n".to_owned(),
        },
        settings: PodSettings {
            placement: Placement::default(),
            tags: BTreeMap::new(),
            kube_proxy: None,
            deletion_cost: 0,
        },
        address: "10.0.0.1".to_owned(),
        services: Arc::default(),
        rate_limiter: Arc::default(),
        azure_failed: Arc::new(Notify::new()),
        quota: Arc::default(),
        pods_changed: Arc::new(Notify::new()),
        list_interval: LIST_INTERVAL,
        orphan_grace: ORPHAN_GRACE,
        identities: IdentityNamespaces::default(),
        images: ImageReader::new(ImageReaderSettings::without_identity()).expect("a client"),
        prober: Prober::new("1.37"),
    })
}
