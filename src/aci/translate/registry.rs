//! Credentials for pulling images: from pull secrets, or with a managed identity.
//!
//! In: the pod's images, its pull secrets, and the identity that it requests. Out: the registry credentials in the
//! group's body, or refusals. ACI accepts one credential for each registry. The entry whose key matches most of an
//! image's path is used, because the kubelet tries that one first. Two images of one registry that need different
//! credentials are refused. An empty entry (`"quay.io": {}`) is not a credential: the image is pulled without one.
//! A Secret that is missing or has another type is skipped, as the kubelet does, because the image may not need it.
//! Entries for other registries are not sent.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;

use super::annotations::{PULL_IDENTITY, annotation_path};
use super::body::RegistryCredential;
use super::image::{self, ImageLocation};
use super::pod::TranslationContext;
use super::refusals::Refusals;
use super::resolved_references::{ObjectContent, ValueSource};
use super::secret_string::SecretString;
use crate::aci::image::is_azure_registry;

/// The content of Docker's `config.json`.
#[derive(Default, Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: Option<RegistryEntries>,
}

/// Entries by registry. Go parses `null` as an empty entry.
type RegistryEntries = BTreeMap<String, Option<RegistryEntry>>;

/// The entry of a registry. `auth` is `username:password` in base64 and takes precedence over the two other fields.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct RegistryEntry {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
}

impl RegistryEntry {
    /// Whether the entry is empty. Some tools write an empty entry for each registry that they know.
    fn is_empty(&self) -> bool {
        let fields = [&self.username, &self.password, &self.auth];
        let mut given = fields.into_iter().flatten();
        // `Og==` is a colon in base64: an empty username and an empty password.
        given.all(|text| text.trim().is_empty() || text.trim() == "Og==")
    }
}

/// An entry, with its registry key and the index of its Secret.
struct CredentialCandidate {
    secret: usize,
    key: String,
    entry: RegistryEntry,
}

/// The credentials for the registries of `images`. Each image comes with its field path.
pub(super) fn credentials(
    images: &[(String, &str)],
    identity: Option<&str>,
    context: &TranslationContext<'_>,
    refusals: &mut Refusals,
) -> Vec<RegistryCredential> {
    let candidates = candidates(context, refusals);
    let mut chosen: BTreeMap<String, RegistryCredential> = BTreeMap::new();
    let mut any_in_azure = false;
    for (at, image) in images {
        let location = image::parse_location(image);
        let registry = location.registry.clone();
        any_in_azure |= is_azure_registry(&registry);
        let credential = match best_candidate(&candidates, &location) {
            Some(candidate) => login_credential(candidate, &registry, refusals),
            None => identity
                .filter(|_| is_azure_registry(&registry))
                .map(|id| identity_credential(id, &registry)),
        };
        let Some(credential) = credential else {
            continue;
        };
        let first = chosen.entry(registry).or_insert_with(|| credential.clone());
        refusals.require(
            *first == credential,
            at,
            "it needs another credential than another image of its registry, and ACI accepts one for each registry",
        );
    }
    refusals.require(
        identity.is_none() || any_in_azure,
        annotation_path(PULL_IDENTITY),
        "no image is in Azure Container Registry, so none can be pulled by an identity",
    );
    chosen.into_values().collect()
}

fn identity_credential(id: &str, registry: &str) -> RegistryCredential {
    RegistryCredential {
        server: registry.to_owned(),
        identity: Some(id.to_owned()),
        ..RegistryCredential::default()
    }
}

/// The candidate that matches most of the image's path; of several, the first.
fn best_candidate<'a>(
    candidates: &'a [CredentialCandidate],
    location: &ImageLocation,
) -> Option<&'a CredentialCandidate> {
    let matches = candidates.iter().rev();
    let matches = matches
        .filter_map(|candidate| Some((image::match_length(&candidate.key, location)?, candidate)));
    matches
        .max_by_key(|(length, _)| *length)
        .map(|(_, candidate)| candidate)
}

fn login_credential(
    candidate: &CredentialCandidate,
    registry: &str,
    refusals: &mut Refusals,
) -> Option<RegistryCredential> {
    let Some((username, password)) = login(&candidate.entry) else {
        refusals.refuse(
            format!("spec.imagePullSecrets[{}]", candidate.secret),
            format!(
                "its entry for '{}' has no username and password",
                candidate.key
            ),
        );
        return None;
    };
    Some(RegistryCredential {
        server: registry.to_owned(),
        username: Some(username),
        password: Some(password),
        identity: None,
    })
}

/// The username and password of an entry. The password may contain colons.
fn login(entry: &RegistryEntry) -> Option<(String, SecretString)> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let Some(auth) = given(&entry.auth) {
        let auth = auth.trim();
        let decoded = STANDARD.decode(auth).ok();
        let decoded =
            decoded.or_else(|| STANDARD_NO_PAD.decode(auth.trim_end_matches('=')).ok())?;
        let decoded = String::from_utf8(decoded).ok()?;
        let (username, password) = decoded.split_once(':')?;
        // Docker sometimes ends the password with NUL characters.
        let password = password.trim_end_matches('\0');
        return Some((username.to_owned(), SecretString::new(password)));
    }
    Some((
        given(&entry.username)?,
        SecretString::new(given(&entry.password)?),
    ))
}

/// The non-empty entries of the pod's pull secrets, in order. Before a grant there are none, because no Secret has
/// been read.
fn candidates(
    context: &TranslationContext<'_>,
    refusals: &mut Refusals,
) -> Vec<CredentialCandidate> {
    let ValueSource::Resolved(resolved) = context.values else {
        return Vec::new();
    };
    let mut candidates = Vec::new();
    let secrets = context.spec.image_pull_secrets.iter().flatten();
    for (secret, name) in secrets.enumerate() {
        let Some(data) = resolved.secrets.get(&name.name) else {
            continue;
        };
        match parse_entries(data) {
            Ok(entries) => {
                let entries = entries.into_iter();
                let given = entries.filter_map(|(key, entry)| {
                    let entry = entry.filter(|entry| !entry.is_empty())?;
                    Some(CredentialCandidate { secret, key, entry })
                });
                candidates.extend(given);
            }
            // The parser's message is left out, because it may quote the Secret.
            Err(_) => refusals.refuse(
                format!("spec.imagePullSecrets[{secret}]"),
                format!(
                    "the Secret '{}' contains no Docker configuration",
                    name.name
                ),
            ),
        }
    }
    candidates
}

fn parse_entries(content: &ObjectContent) -> Result<RegistryEntries, serde_json::Error> {
    if let Some(config) = content.data.get(".dockerconfigjson") {
        let config: DockerConfig = serde_json::from_slice(config)?;
        return Ok(config.auths.unwrap_or_default());
    }
    match content.data.get(".dockercfg") {
        Some(config) => serde_json::from_slice(config),
        None => Ok(BTreeMap::new()),
    }
}
