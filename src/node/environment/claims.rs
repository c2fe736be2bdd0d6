//! Reads what is behind persistent volume claims: the claim, its volume and the volume's Secret, each by its name.
//!
//! In: the names of claims. Out: the Azure file share of each, or why ACI cannot mount it. A claim counts only if
//! the volume's `claimRef` names it: a user who may write a claim can name any volume in it, and the volume names a
//! Secret.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Secret};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::{Api, Client};

use super::missing::{MissingObject, MissingReason, namespace_access_remedy};
use super::reader::{ReadFailure, read_by_name};
use crate::aci::translate::claims::{ClaimBacking, ClaimedShare, provisions_shares};
use crate::aci::translate::resolved_references::ObjectContent;

/// The permission to read volumes, which are cluster-scoped.
const VOLUME_ACCESS_REMEDY: &str = "to let burstpool read what is behind claims, give its ClusterRole the verb get on persistentvolumes";

/// Reads the claims in `names`, and what is behind each.
pub(super) async fn read_claims(
    client: &Client,
    namespace: &str,
    names: &BTreeSet<String>,
) -> BTreeMap<String, Result<ClaimBacking, MissingObject>> {
    let reads = names.iter().map(|name| async move {
        let claim = claim_backing(client, namespace, name).await;
        (name.clone(), claim)
    });
    join_all(reads).await.into_iter().collect()
}

/// Whether ACI can mount the claim's volume, as far as this shows without its Secret; for an unbound claim of a
/// class with `WaitForFirstConsumer`, whether the class provisions shares. The inner error says why not.
pub async fn check_mountable(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Result<(), String>, MissingObject> {
    let claim = read_claim(client, namespace, name).await?;
    if bound_volume_name(&claim).is_err()
        && let Some(class) = storage_class(client, &claim).await
        && class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
    {
        return Ok(provisions_shares(&class));
    }
    Ok(resolve_share(client, &claim).await?.map(drop))
}

/// The storage class that a claim names; `None` if it cannot be read.
async fn storage_class(client: &Client, claim: &PersistentVolumeClaim) -> Option<StorageClass> {
    let name = claim.spec.as_ref()?.storage_class_name.as_deref()?;
    read_by_name(&Api::all(client.clone()), name).await.ok()
}

async fn read_claim(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<PersistentVolumeClaim, MissingObject> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let claim = read_by_name(&claims, name).await;
    let object = || format!("PersistentVolumeClaim {namespace}/{name}");
    claim.map_err(|failure| {
        MissingObject::not_read(object(), &failure, namespace_access_remedy(namespace))
    })
}

/// The name of the volume that `claim` is bound to, and its share; the inner error says why ACI cannot mount it.
async fn resolve_share(
    client: &Client,
    claim: &PersistentVolumeClaim,
) -> Result<Result<(String, ClaimedShare), String>, MissingObject> {
    let meta = &claim.metadata;
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let name = meta.name.as_deref().unwrap_or_default();
    let object = format!("PersistentVolumeClaim {namespace}/{name}");
    let unbound = |why: String| MissingObject::unusable(object.clone(), why);
    let name = bound_volume_name(claim).map_err(unbound)?;
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let volume = read_by_name(&volumes, name).await;
    let missing = |failure: ReadFailure| {
        MissingObject::not_read(
            format!("PersistentVolume {name} of {object}"),
            &failure,
            VOLUME_ACCESS_REMEDY,
        )
    };
    let volume = volume.map_err(missing)?;
    check_claim_ref(&volume, claim).map_err(unbound)?;
    Ok(ClaimedShare::from_volume(claim, &volume).map(|share| (name.to_owned(), share)))
}

async fn claim_backing(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<ClaimBacking, MissingObject> {
    let claim = read_claim(client, namespace, name).await?;
    let (name, share) = match resolve_share(client, &claim).await? {
        Ok(share) => share,
        Err(why) => return Ok(ClaimBacking::Unsupported(why)),
    };
    let (namespace, secret) = share.secret.clone();
    let object = format!("Secret {namespace}/{secret} of PersistentVolume {name}");
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let secret = read_by_name(&secrets, &secret).await;
    let secret = secret.map_err(|failure| {
        MissingObject::not_read(
            object.clone(),
            &failure,
            namespace_access_remedy(&namespace),
        )
    })?;
    let share = share.with_key(&ObjectContent::from(secret));
    share
        .map(ClaimBacking::Share)
        .map_err(|key| MissingObject::unusable(object, format!("has no key '{key}'")))
}

/// The name of the volume that a claim is bound to; the error says what the claim waits for.
fn bound_volume_name(claim: &PersistentVolumeClaim) -> Result<&str, String> {
    if claim.metadata.deletion_timestamp.is_some() {
        return Err("is being deleted".to_owned());
    }
    let phase = claim
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let volume = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_name.as_deref());
    match (phase, volume.filter(|name| !name.is_empty())) {
        (Some("Bound"), Some(volume)) => Ok(volume),
        (Some("Lost"), _) => Err("has lost its PersistentVolume".to_owned()),
        (phase, _) => Err(format!(
            "is not bound to a PersistentVolume yet: its phase is {}",
            phase.unwrap_or("Pending")
        )),
    }
}

/// Checks that the volume's `claimRef` names the claim.
fn check_claim_ref(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), String> {
    let reference = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.claim_ref.as_ref());
    let is_same = reference.is_some_and(|reference| {
        reference.uid == claim.metadata.uid
            && reference.namespace == claim.metadata.namespace
            && reference.name == claim.metadata.name
    });
    if is_same {
        return Ok(());
    }
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    Err(format!(
        "names the PersistentVolume {name}, which is not bound to it"
    ))
}

impl MissingObject {
    /// An object that exists, but not in the state that the pod needs: the pod waits for it.
    fn unusable(object: String, why: String) -> Self {
        Self {
            object,
            reason: MissingReason::Missing,
            why,
            remedy: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(change: &Value) -> PersistentVolumeClaim {
        let mut claim = json!({
            "metadata": {"namespace": "shop", "name": "data", "uid": "u-1"},
            "spec": {"volumeName": "pv-1"}, "status": {"phase": "Bound"},
        });
        for (field, value) in change.as_object().into_iter().flatten() {
            claim[field] = value.clone();
        }
        serde_json::from_value(claim).expect("a claim")
    }

    #[test]
    fn only_a_bound_claim_has_a_volume() {
        let volume_of = |change: Value| bound_volume_name(&claim(&change)).map(str::to_owned);
        assert_eq!(volume_of(json!({})), Ok("pv-1".to_owned()));
        let cases = [
            (
                json!({"status": {"phase": "Pending"}}),
                "is not bound to a PersistentVolume yet: its phase is Pending",
            ),
            (
                json!({"status": null}),
                "is not bound to a PersistentVolume yet: its phase is Pending",
            ),
            (
                json!({"spec": {}}),
                "is not bound to a PersistentVolume yet: its phase is Bound",
            ),
            (
                json!({"status": {"phase": "Lost"}}),
                "has lost its PersistentVolume",
            ),
            (
                json!({"metadata": {"deletionTimestamp": "2026-01-02T03:04:05Z"}}),
                "is being deleted",
            ),
        ];
        for (change, why) in cases {
            assert_eq!(volume_of(change), Err(why.to_owned()));
        }
    }

    #[test]
    fn a_volume_that_is_bound_to_another_claim_is_refused() {
        let checked = |reference: Value| {
            let volume = json!({"metadata": {"name": "pv-1"}, "spec": {"claimRef": reference}});
            check_claim_ref(
                &serde_json::from_value(volume).expect("a volume"),
                &claim(&json!({})),
            )
        };
        let same = json!({"namespace": "shop", "name": "data", "uid": "u-1"});
        assert_eq!(checked(same.clone()), Ok(()));
        for (field, value) in [("namespace", "other"), ("name", "other"), ("uid", "u-2")] {
            let mut other = same.clone();
            other[field] = value.into();
            assert!(checked(other).is_err(), "{field}");
        }
        assert!(checked(Value::Null).is_err());
    }
}
