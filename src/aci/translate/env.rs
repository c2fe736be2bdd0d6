//! A container's environment variables, with the kubelet's precedence: `envFrom`, then `env` (a later definition of
//! a name wins, and may refer to earlier ones), then variables for Services, then HOSTNAME.
//!
//! In: a container and the values that it refers to. Out: the variables of the group's body, or refusals. A
//! variable is secret if any part of its value comes from a Secret. ACI accepts names of 1 to 63 letters, digits
//! and underscores (naming page of 2026-07). A pod with another name is refused, even if the name is a key from
//! `envFrom`, because the kubelet of this Kubernetes version would set such a variable.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVarSource};

use super::body::EnvironmentVariable;
use super::downward::{self, DownwardTarget};
use super::expansion::{Expanded, expand};
use super::pod::TranslationContext;
use super::refusals::Refusals;
use super::resolved_references::ReferenceKind;
use super::secret_string::SecretString;
use super::services;

const INVALID_NAME: &str =
    "ACI accepts variable names of 1 to 63 letters, digits and underscores only";

/// The environment variables of a container.
#[derive(Debug, Default)]
pub(super) struct ContainerEnv {
    variables: BTreeMap<String, (usize, EnvValue)>,
    set_count: usize,
    /// The host name. It becomes the variable HOSTNAME, which is set last because no command may refer to it.
    hostname: String,
    /// Variables whose optional Secret is missing, each with the text of a reference to it. A value that refers to
    /// one of them is treated as secret nevertheless, so that whether ACI can run the pod does not depend on the
    /// Secret's existence.
    missing_secrets: BTreeMap<String, String>,
}

/// The value of a variable.
struct EnvValue {
    text: String,
    is_secret: bool,
}

impl std::fmt::Debug for EnvValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_secret {
            "(concealed)"
        } else {
            &self.text
        })
    }
}

impl ContainerEnv {
    fn set(&mut self, name: &str, value: EnvValue) {
        self.set_count += 1;
        self.variables
            .insert(name.to_owned(), (self.set_count, value));
    }

    fn set_if_absent(&mut self, name: &str, text: &str) {
        if !self.variables.contains_key(name) && is_variable_name(name) {
            let text = text.to_owned();
            self.set(
                name,
                EnvValue {
                    text,
                    is_secret: false,
                },
            );
        }
    }

    /// Expands the references in `text`. The variables of `services` are looked up last.
    fn expand(&self, text: &str, services: &BTreeMap<String, String>) -> Expanded {
        expand(text, |name| {
            let withheld = self.missing_secrets.get(name);
            let own = self.variables.get(name).map(|(_, value)| value);
            if let Some(value) = own {
                return Some((&value.text, value.is_secret || withheld.is_some()));
            }
            let service = services.get(name).map(|text| (text.as_str(), false));
            service.or(withheld.map(|reference| (reference.as_str(), true)))
        })
    }

    /// Expands a part of a command. It is an error if the result would contain a secret, because ACI shows commands
    /// to all readers of the group.
    pub(super) fn expand_command(&self, part: &str) -> Result<String, String> {
        let expanded = self.expand(part, &BTreeMap::new());
        if expanded.is_secret {
            return Err(
                "it refers to a variable with a secret value, and ACI shows commands to every \
                 reader of the group; let the program read the variable itself"
                    .to_owned(),
            );
        }
        Ok(expanded.text)
    }

    /// The variables in the format of ACI's API.
    pub(super) fn into_body(mut self) -> Vec<EnvironmentVariable> {
        let hostname = std::mem::take(&mut self.hostname);
        if !hostname.is_empty() {
            self.set_if_absent("HOSTNAME", &hostname);
        }
        let mut variables: Vec<_> = self.variables.into_iter().collect();
        variables.sort_by_key(|(_, (order, _))| *order);
        variables
            .into_iter()
            .map(|(name, (_, value))| {
                let (plain, secret) = if value.is_secret {
                    (None, Some(SecretString::new(value.text)))
                } else {
                    (Some(value.text), None)
                };
                EnvironmentVariable {
                    name,
                    value: plain,
                    secure_value: secret,
                }
            })
            .collect()
    }
}

/// The environment of `container`, whose field path is `at`.
pub(super) fn environment(
    container: &Container,
    at: &str,
    context: &TranslationContext<'_>,
    refusals: &mut Refusals,
) -> ContainerEnv {
    let mut environment = ContainerEnv::default();
    for (index, source) in container.env_from.iter().flatten().enumerate() {
        let at = format!("{at}.envFrom[{index}]");
        from_object(source, &at, context, &mut environment, refusals);
    }
    let services = services::variables(context.values.services());
    // If two Services yield the same variable, the first one wins, both in the environment and in references.
    let by_name: BTreeMap<String, String> = services.iter().rev().cloned().collect();
    for (index, variable) in container.env.iter().flatten().enumerate() {
        let at = format!("{at}.env[{index}]");
        let text = variable.value.as_deref().unwrap_or_default();
        let value = match &variable.value_from {
            Some(source) if text.is_empty() => {
                from_source(source, container, &at, context, refusals)
            }
            _ => {
                let Expanded {
                    text,
                    is_secret: secret,
                } = environment.expand(text, &by_name);
                Some(EnvValue {
                    text,
                    is_secret: secret,
                })
            }
        };
        if !is_variable_name(&variable.name) {
            refusals.refuse(
                format!("{at}.name"),
                format!("'{}': {INVALID_NAME}", variable.name),
            );
        } else if let Some(value) = value {
            environment.missing_secrets.remove(&variable.name);
            environment.set(&variable.name, value);
        } else if is_secret(variable.value_from.as_ref()) {
            let reference = format!("$({})", variable.name);
            environment
                .missing_secrets
                .insert(variable.name.clone(), reference);
        }
    }
    for (name, value) in &services {
        environment.set_if_absent(name, value);
    }
    hostname(context).clone_into(&mut environment.hostname);
    environment
}

fn is_secret(source: Option<&EnvVarSource>) -> bool {
    source.is_some_and(|source| source.secret_key_ref.is_some())
}

/// The host name that a kubelet would set: `spec.hostname`, else the pod's name, cut to 63 characters.
fn hostname<'a>(context: &TranslationContext<'a>) -> &'a str {
    let given = context
        .spec
        .hostname
        .as_deref()
        .filter(|name| !name.is_empty());
    let name = context.pod.metadata.name.as_deref().unwrap_or_default();
    let name = given.unwrap_or(name);
    let end = (0..=name.len().min(63))
        .rev()
        .find(|end| name.is_char_boundary(*end));
    name[..end.unwrap_or(0)].trim_end_matches(['-', '.'])
}

fn is_variable_name(name: &str) -> bool {
    let has_valid_characters = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    has_valid_characters && (1..=63).contains(&name.len())
}

/// Sets one variable for each key of a `ConfigMap` or Secret.
fn from_object(
    source: &EnvFromSource,
    at: &str,
    context: &TranslationContext<'_>,
    environment: &mut ContainerEnv,
    refusals: &mut Refusals,
) {
    let map = source.config_map_ref.as_ref();
    let map = map.map(|map| (ReferenceKind::ConfigMap, &map.name, map.optional));
    let secret = source.secret_ref.as_ref();
    let secret = secret.map(|secret| (ReferenceKind::Secret, &secret.name, secret.optional));
    for (kind, name, optional) in map.into_iter().chain(secret) {
        let object = match context.values.object(kind, name, optional) {
            Ok(Some(object)) => object,
            Ok(None) => continue,
            Err(why) => {
                refusals.refuse(at, why);
                continue;
            }
        };
        let prefix = source.prefix.as_deref().unwrap_or_default();
        for (key, value) in &object.data {
            let name = format!("{prefix}{key}");
            if !is_variable_name(&name) {
                refusals.refuse(at, format!("'{name}': {INVALID_NAME}"));
            } else if let Some(value) = text_value(value.clone(), kind, at, refusals) {
                environment.set(&name, value);
            }
        }
    }
}

/// The value of a variable with `valueFrom`; `None` if it is optional and missing, or refused.
fn from_source(
    source: &EnvVarSource,
    container: &Container,
    at: &str,
    context: &TranslationContext<'_>,
    refusals: &mut Refusals,
) -> Option<EnvValue> {
    let map = source.config_map_key_ref.as_ref();
    let map = map.map(|key| (ReferenceKind::ConfigMap, &key.name, &key.key, key.optional));
    let secret = source.secret_key_ref.as_ref();
    let secret = secret.map(|key| (ReferenceKind::Secret, &key.name, &key.key, key.optional));
    if let Some((kind, name, key, optional)) = map.or(secret) {
        return match context.values.variable_value(kind, name, key, optional) {
            Ok(value) => text_value(value?, kind, at, refusals),
            Err(why) => {
                refusals.refuse(at, why);
                None
            }
        };
    }
    let value = if let Some(field) = &source.field_ref {
        downward::field_value(&field.field_path, DownwardTarget::Variable, context)
            .map_err(|why| (format!("{at}.valueFrom.fieldRef.fieldPath"), why))
    } else if let Some(selector) = &source.resource_field_ref {
        downward::resource_value(selector, Some(container), context)
            .map_err(|why| (format!("{at}.valueFrom.resourceFieldRef"), why))
    } else {
        Ok(String::new())
    };
    match value {
        Ok(text) => Some(EnvValue {
            text,
            is_secret: false,
        }),
        Err((field, why)) => {
            refusals.refuse(field, why);
            None
        }
    }
}

/// Converts bytes to the value of a variable.
fn text_value(
    value: Vec<u8>,
    kind: ReferenceKind,
    at: &str,
    refusals: &mut Refusals,
) -> Option<EnvValue> {
    let Ok(text) = String::from_utf8(value) else {
        refusals.refuse(
            at,
            "the value is not UTF-8 text, and a variable can only be text",
        );
        return None;
    };
    let secret = kind == ReferenceKind::Secret;
    Some(EnvValue {
        text,
        is_secret: secret,
    })
}
