//! What a pod needs and the operator could not read.
//!
//! In: the needs of a pod, and what was read. Out: each missing object with the reason and the remedy. Pure.

use std::collections::BTreeMap;
use std::fmt;

use super::reader::{ReadFailure, ReadObjects, ReadReferences};
use crate::aci::translate::PodReferences;
use crate::aci::translate::references::KeyedReference;
use crate::aci::translate::resolved_references::ObjectContent;

/// Why an object is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingReason {
    /// It does not exist, or it lacks a key.
    Missing,
    /// The operator has no permission to read it.
    Forbidden,
    /// The API server did not answer, or its answer could not be decoded.
    Unreadable,
}

impl MissingReason {
    /// The reason in CamelCase.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "ReferenceMissing",
            Self::Forbidden => "ReferenceForbidden",
            Self::Unreadable => "ReferenceUnreadable",
        }
    }
}

/// An object that a pod needs and does not get. Its text contains no value of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingObject {
    /// The object, such as `Secret shop/db`.
    pub object: String,
    /// Why it is missing.
    pub reason: MissingReason,
    /// Why, as the second half of a sentence, such as `does not exist`.
    pub why: String,
    /// What the user can do about it. Of several objects with the same remedy, only the last has it.
    pub remedy: Option<String>,
}

impl fmt::Display for MissingObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.object, self.why)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

/// How to let the operator read in `namespace`.
pub(super) fn namespace_access_remedy(namespace: &str) -> String {
    format!(
        "to let burstpool read what pods of this namespace refer to: kubectl apply -k config/namespace -n {namespace}"
    )
}

impl MissingObject {
    /// An object that could not be read; `remedy` applies if a permission is missing.
    pub(super) fn not_read(
        object: String,
        failure: &ReadFailure,
        remedy: impl Into<String>,
    ) -> Self {
        Self::from_failure(object, failure, "read", remedy.into())
    }

    /// A token that could not be requested; `remedy` applies if a permission is missing.
    pub(super) fn token_not_requested(
        object: String,
        failure: &ReadFailure,
        remedy: impl Into<String>,
    ) -> Self {
        Self::from_failure(object, failure, "requested", remedy.into())
    }

    fn from_failure(
        object: String,
        failure: &ReadFailure,
        verb: &str,
        remedy_if_forbidden: String,
    ) -> Self {
        let (reason, why) = match failure {
            ReadFailure::Absent => (MissingReason::Missing, "does not exist".to_owned()),
            ReadFailure::Forbidden => (MissingReason::Forbidden, format!("may not be {verb}")),
            ReadFailure::Unreadable(why) => (
                MissingReason::Unreadable,
                format!("could not be {verb}: {why}"),
            ),
        };
        let remedy = (reason == MissingReason::Forbidden).then_some(remedy_if_forbidden);
        Self {
            object,
            reason,
            why,
            remedy,
        }
    }
}

/// Everything that the pod requires and that was not read. An optional object may be missing, but only if the API
/// server says that it does not exist.
pub(super) fn missing_required(needs: &PodReferences, read: &ReadReferences) -> Vec<MissingObject> {
    let namespace = &read.namespace;
    let mut missing = missing_objects("Secret", &needs.secrets, &read.secrets, namespace);
    missing.extend(missing_objects(
        "ConfigMap",
        &needs.config_maps,
        &read.config_maps,
        namespace,
    ));
    let claims = read.claims.values();
    missing.extend(claims.filter_map(|claim| claim.as_ref().err().cloned()));
    missing.extend(missing_tokens(needs, read));
    for name in &needs.pull_secrets {
        if let Some(Err(failure)) = read.secrets.0.get(name)
            && *failure != ReadFailure::Absent
            && !needs.secrets.contains_key(name)
        {
            missing.push(MissingObject::not_read(
                format!("Secret {namespace}/{name}"),
                failure,
                namespace_access_remedy(namespace),
            ));
        }
    }
    if let Some(Err(object)) = &read.kube_config {
        missing.push(object.clone());
    }
    deduplicate_remedies(&mut missing);
    missing
}

fn missing_tokens<'a>(
    needs: &'a PodReferences,
    read: &'a ReadReferences,
) -> impl Iterator<Item = MissingObject> + 'a {
    read.token_requests.iter().filter_map(|(need, token)| {
        let failure = token.as_ref().err()?;
        let audience = match need.audience.as_str() {
            "" => String::new(),
            audience => format!(" for {audience}"),
        };
        let namespace = &read.namespace;
        let account = format!("ServiceAccount {namespace}/{}", needs.service_account);
        let remedy = namespace_access_remedy(namespace);
        if *failure == ReadFailure::Absent {
            return Some(MissingObject::not_read(account, failure, remedy));
        }
        let object = format!("a token{audience} of the {account}");
        Some(MissingObject::token_not_requested(object, failure, remedy))
    })
}

/// Keeps each remedy only on the last object that needs it: an Event's message has at most 1,024 characters.
fn deduplicate_remedies(missing: &mut [MissingObject]) {
    let mut remedies = Vec::new();
    for object in missing.iter_mut().rev() {
        match &object.remedy {
            Some(remedy) if remedies.contains(remedy) => object.remedy = None,
            Some(remedy) => remedies.push(remedy.clone()),
            None => {}
        }
    }
}

/// Pull secrets that do not exist.
pub(super) fn missing_pull_secrets(
    needs: &PodReferences,
    read: &ReadReferences,
) -> Vec<MissingObject> {
    let absent = |name: &&String| read.secrets.0.get(*name) == Some(&Err(ReadFailure::Absent));
    let absent = needs.pull_secrets.iter().filter(absent);
    let namespace = &read.namespace;
    absent
        .map(|name| {
            let object = format!("Secret {namespace}/{name} of imagePullSecrets");
            MissingObject::not_read(
                object,
                &ReadFailure::Absent,
                namespace_access_remedy(namespace),
            )
        })
        .collect()
}

fn missing_objects(
    kind: &str,
    needs: &BTreeMap<String, KeyedReference>,
    objects: &ReadObjects<ObjectContent>,
    namespace: &str,
) -> Vec<MissingObject> {
    let mut missing = Vec::new();
    for (name, need) in needs {
        let object = format!("{kind} {namespace}/{name}");
        match objects.0.get(name) {
            Some(Ok(content)) => {
                let required = need.keys.iter().filter(|(_, required)| **required);
                let lacking = required.filter(|(key, _)| content.file(key).is_none());
                missing.extend(lacking.map(|(key, _)| MissingObject {
                    object: object.clone(),
                    reason: MissingReason::Missing,
                    why: format!("has no key '{key}'"),
                    remedy: None,
                }));
            }
            Some(Err(ReadFailure::Absent)) if !need.required => {}
            Some(Err(failure)) => {
                missing.push(MissingObject::not_read(
                    object,
                    failure,
                    namespace_access_remedy(namespace),
                ));
            }
            None => missing.push(MissingObject::not_read(
                object,
                &ReadFailure::Absent,
                namespace_access_remedy(namespace),
            )),
        }
    }
    missing
}

#[cfg(test)]
mod tests;
