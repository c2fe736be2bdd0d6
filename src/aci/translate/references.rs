//! The references of a pod: the objects that must be read before the pod can be translated.
//!
//! In: a pod. Out: the names of its Secrets and `ConfigMap`s with the keys it uses, its persistent volume claims,
//! the tokens to request, and whether it wants variables for the Services of its namespace. This module only
//! collects names; `node::environment` reads the objects.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Container, EnvVarSource, KeyToPath, Pod, PodSpec, Volume, VolumeProjection,
};

use super::{azure_files, sub_paths};

/// The lifetime of a token, in seconds, if its volume does not set one (the API's default).
const DEFAULT_TOKEN_SECONDS: i64 = 3600;

/// What a pod uses of one Secret or `ConfigMap`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyedReference {
    /// Whether the pod cannot start without the object.
    pub required: bool,
    /// The keys that the pod uses; true if the pod cannot start without the key.
    pub keys: BTreeMap<String, bool>,
}

/// A service account token to request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenNeed {
    /// The audience; empty for the API server.
    pub audience: String,
    /// The lifetime, in seconds.
    pub seconds: i64,
}

/// The objects that a pod refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodReferences {
    /// Secrets by name.
    pub secrets: BTreeMap<String, KeyedReference>,
    /// `ConfigMap`s by name.
    pub config_maps: BTreeMap<String, KeyedReference>,
    /// Persistent volume claims by name.
    pub claims: BTreeSet<String>,
    /// Secrets for pulling images. The pod starts even if they are missing.
    pub pull_secrets: BTreeSet<String>,
    /// The service account whose tokens to request.
    pub service_account: String,
    /// The tokens to request.
    pub tokens: BTreeSet<TokenNeed>,
    /// Whether the pod wants variables for all Services of its namespace, in addition to the API server's.
    pub services: bool,
}

impl PodReferences {
    /// Whether the pod refers to no other object (Services are not counted).
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty()
            && self.config_maps.is_empty()
            && self.claims.is_empty()
            && self.pull_secrets.is_empty()
            && self.tokens.is_empty()
    }
}

/// The objects that `pod` refers to.
pub fn pod_references(pod: &Pod) -> PodReferences {
    let Some(spec) = &pod.spec else {
        return PodReferences::default();
    };
    let mut references = PodReferences {
        pull_secrets: pull_secrets(spec),
        service_account: service_account(spec),
        services: spec.enable_service_links.unwrap_or(true),
        ..PodReferences::default()
    };
    let init = spec.init_containers.iter().flatten();
    for container in init.chain(&spec.containers) {
        add_container(container, &mut references);
    }
    for volume in spec.volumes.iter().flatten() {
        add_volume(volume, &mounted_keys(volume, spec), &mut references);
    }
    references
}

/// What mounts select of the volume by `subPath` directly in the volume: a key, if the volume has all keys of an object.
fn mounted_keys<'a>(volume: &Volume, spec: &'a PodSpec) -> Vec<&'a str> {
    let init = spec.init_containers.iter().flatten();
    let containers = init.chain(&spec.containers);
    let mounts = containers.flat_map(|container| container.volume_mounts.iter().flatten());
    let mounts = mounts.filter(|mount| mount.name == volume.name);
    let parts = mounts.filter_map(|mount| mount.sub_path.as_deref());
    parts.filter_map(sub_paths::only_segment).collect()
}

/// The name of the service account, with the API server's default.
pub(super) fn service_account(spec: &PodSpec) -> String {
    let names = [&spec.service_account_name, &spec.service_account];
    let mut given = names.into_iter().flatten().filter(|name| !name.is_empty());
    given.next().map_or("default", String::as_str).to_owned()
}

/// The token that a projected volume requests.
pub(super) fn token_need(audience: Option<&str>, seconds: Option<i64>) -> TokenNeed {
    TokenNeed {
        audience: audience.unwrap_or_default().to_owned(),
        seconds: seconds.unwrap_or(DEFAULT_TOKEN_SECONDS),
    }
}

fn pull_secrets(spec: &PodSpec) -> BTreeSet<String> {
    let names = spec.image_pull_secrets.iter().flatten();
    let names = names.map(|secret| secret.name.clone());
    names.filter(|name| !name.is_empty()).collect()
}

type ReferencedObjects = BTreeMap<String, KeyedReference>;

/// Records a reference to the object `name`, and to `keys` in it.
fn add_reference<'a>(
    objects: &mut ReferencedObjects,
    name: &str,
    optional: Option<bool>,
    keys: impl IntoIterator<Item = &'a str>,
) {
    let required = !optional.unwrap_or(false);
    let reference = objects.entry(name.to_owned()).or_default();
    reference.required |= required;
    for key in keys {
        *reference.keys.entry(key.to_owned()).or_default() |= required;
    }
}

fn add_container(container: &Container, references: &mut PodReferences) {
    for source in container.env_from.iter().flatten() {
        if let Some(map) = &source.config_map_ref {
            add_reference(&mut references.config_maps, &map.name, map.optional, []);
        }
        if let Some(secret) = &source.secret_ref {
            add_reference(&mut references.secrets, &secret.name, secret.optional, []);
        }
    }
    for variable in container.env.iter().flatten() {
        // A non-empty `value` takes precedence over `valueFrom`.
        if variable.value.as_ref().is_none_or(String::is_empty)
            && let Some(source) = &variable.value_from
        {
            add_variable(source, references);
        }
    }
}

fn add_variable(source: &EnvVarSource, references: &mut PodReferences) {
    if let Some(map) = &source.config_map_key_ref {
        let key = map.key.as_str();
        add_reference(&mut references.config_maps, &map.name, map.optional, [key]);
    }
    if let Some(secret) = &source.secret_key_ref {
        let key = secret.key.as_str();
        add_reference(
            &mut references.secrets,
            &secret.name,
            secret.optional,
            [key],
        );
    }
}

fn add_volume(volume: &Volume, mounted: &[&str], references: &mut PodReferences) {
    if let Some(secret) = &volume.secret {
        let name = secret.secret_name.as_deref().unwrap_or_default();
        let keys = volume_keys(secret.items.as_deref(), mounted);
        add_reference(&mut references.secrets, name, secret.optional, keys);
    }
    if let Some(map) = &volume.config_map {
        let keys = volume_keys(map.items.as_deref(), mounted);
        add_reference(&mut references.config_maps, &map.name, map.optional, keys);
    }
    let projected = volume.projected.iter();
    for source in projected.flat_map(|p| p.sources.iter().flatten()) {
        add_projection(source, references);
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        references.claims.insert(claim.claim_name.clone());
    }
    let share = azure_files::volume_share(volume);
    if let Some(secret) = share.as_ref().and_then(|share| share.secret) {
        add_reference(
            &mut references.secrets,
            secret,
            None,
            azure_files::SECRET_KEYS,
        );
    }
}

fn add_projection(source: &VolumeProjection, references: &mut PodReferences) {
    if let Some(secret) = &source.secret {
        let keys = item_keys(secret.items.as_deref());
        add_reference(&mut references.secrets, &secret.name, secret.optional, keys);
    }
    if let Some(map) = &source.config_map {
        let keys = item_keys(map.items.as_deref());
        add_reference(&mut references.config_maps, &map.name, map.optional, keys);
    }
    if let Some(projection) = &source.service_account_token {
        let token = token_need(
            projection.audience.as_deref(),
            projection.expiration_seconds,
        );
        references.tokens.insert(token);
    }
}

/// The keys that a volume needs: those of its items, or, without items, those that are mounted as files.
fn volume_keys<'a>(items: Option<&'a [KeyToPath]>, mounted: &[&'a str]) -> Vec<&'a str> {
    let items: Vec<&str> = item_keys(items).collect();
    if items.is_empty() {
        mounted.to_vec()
    } else {
        items
    }
}

fn item_keys(items: Option<&[KeyToPath]>) -> impl Iterator<Item = &str> {
    items
        .unwrap_or_default()
        .iter()
        .map(|item| item.key.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn references_of(spec: &serde_json::Value) -> PodReferences {
        let pod = json!({"metadata": {"name": "a"}, "spec": spec});
        pod_references(&serde_json::from_value(pod).expect("a pod"))
    }

    #[test]
    fn a_reference_that_is_required_once_is_required() {
        let references = references_of(&json!({
            "containers": [{"name": "a", "env": [
                {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "a", "optional": true}}},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "b"}}},
                {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "c", "optional": true}}},
                {"name": "D", "value": "given", "valueFrom": {"secretKeyRef": {"name": "unused", "key": "d"}}},
            ]}],
            "volumes": [{"name": "v", "secret": {"secretName": "s", "optional": true, "items": [{"key": "b", "path": "b"}]}}],
        }));
        let keys =
            |keys: &[(&str, bool)]| keys.iter().map(|(k, r)| ((*k).to_owned(), *r)).collect();
        let secret = KeyedReference {
            required: true,
            keys: keys(&[("a", false), ("b", true)]),
        };
        let map = KeyedReference {
            required: false,
            keys: keys(&[("c", false)]),
        };
        assert_eq!(
            references.secrets,
            BTreeMap::from([("s".to_owned(), secret)])
        );
        assert_eq!(
            references.config_maps,
            BTreeMap::from([("m".to_owned(), map)])
        );
        assert!(references.services && references.tokens.is_empty() && !references.is_empty());
    }

    #[test]
    fn tokens_shares_and_pull_secrets_are_needed() {
        let references = references_of(&json!({
            "containers": [{"name": "a"}],
            "enableServiceLinks": false,
            "serviceAccountName": "web",
            "imagePullSecrets": [{"name": "pull"}, {"name": ""}],
            "volumes": [
                {"name": "t", "projected": {"sources": [
                    {"serviceAccountToken": {"path": "token"}},
                    {"serviceAccountToken": {"path": "vault", "audience": "vault", "expirationSeconds": 600}},
                    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}]}},
                {"name": "f", "azureFile": {"secretName": "files", "shareName": "x"}},
                {"name": "p", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "c", "csi": {"driver": "file.csi.azure.com", "volumeAttributes": {"secretName": "more", "shareName": "x"}}}],
        }));
        let token = |audience: &str, seconds| TokenNeed {
            audience: audience.to_owned(),
            seconds,
        };
        assert_eq!(
            references.tokens,
            BTreeSet::from([token("", 3600), token("vault", 600)])
        );
        assert_eq!(references.service_account, "web");
        assert_eq!(references.claims, BTreeSet::from(["data".to_owned()]));
        assert_eq!(references.pull_secrets, BTreeSet::from(["pull".to_owned()]));
        assert_eq!(
            references.secrets.keys().collect::<Vec<_>>(),
            ["files", "more"]
        );
        assert!(
            references.secrets["files"]
                .keys
                .values()
                .all(|required| *required)
        );
        assert!(references.config_maps["kube-root-ca.crt"].keys["ca.crt"]);
        assert!(!references.services);
    }

    #[test]
    fn a_pod_without_references_needs_nothing() {
        assert!(references_of(&json!({"containers": [{"name": "a"}]})).is_empty());
        assert!(pod_references(&Pod::default()).is_empty());
    }
}
