//! The downward API: a pod's own fields and resources in variables and files.
//!
//! In: a field path or resource selector. Out: its value, or why ACI cannot provide it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{Container, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::pod::TranslationContext;
use super::printable::is_print;
use super::references::service_account;
use super::resources::GROUP_DISK;
use crate::k8s::quantity::NanoAmount;

/// Where the value is used: some fields are available only in variables, others only in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DownwardTarget {
    Variable,
    File,
}

/// The value of a field of the pod; the error says why it is not available.
pub(super) fn field_value(
    path: &str,
    target: DownwardTarget,
    context: &TranslationContext<'_>,
) -> Result<String, String> {
    let metadata = &context.pod.metadata;
    let text = |text: &Option<String>| Ok(text.clone().unwrap_or_default());
    let key = |map: &Option<BTreeMap<String, String>>, key: &str| {
        let value = map.as_ref().and_then(|map| map.get(key));
        Ok(value.cloned().unwrap_or_default())
    };
    match (split_subscript(path), target) {
        (("metadata.labels", Some(name)), _) => key(&metadata.labels, name),
        (("metadata.annotations", Some(name)), _) => key(&metadata.annotations, name),
        (("metadata.labels", None), DownwardTarget::File) => {
            Ok(format_map(metadata.labels.as_ref()))
        }
        (("metadata.annotations", None), DownwardTarget::File) => {
            Ok(format_map(metadata.annotations.as_ref()))
        }
        (("metadata.name", None), _) => text(&metadata.name),
        (("metadata.namespace", None), _) => text(&metadata.namespace),
        (("metadata.uid", None), _) => text(&metadata.uid),
        (("spec.nodeName", None), DownwardTarget::Variable) => {
            Ok(context.placement.node.to_owned())
        }
        (("spec.serviceAccountName", None), DownwardTarget::Variable) => {
            Ok(service_account(context.spec))
        }
        (("status.hostIP" | "status.hostIPs", None), DownwardTarget::Variable) => context
            .placement
            .node_address
            .map(str::to_owned)
            .ok_or_else(|| "the virtual node's address is not known".to_owned()),
        (("status.podIP" | "status.podIPs", None), DownwardTarget::Variable) => {
            Err("ACI assigns a pod's address after its environment variables are set".to_owned())
        }
        _ => Err(format!(
            "'{path}' is not a field that the downward API offers here"
        )),
    }
}

/// Splits `path['key']` into path and key.
fn split_subscript(path: &str) -> (&str, Option<&str>) {
    let inner = path
        .strip_suffix("']")
        .and_then(|path| path.split_once("['"));
    match inner {
        Some((path, key)) if !key.is_empty() => (path, Some(key)),
        _ => (path, None),
    }
}

/// A map as lines of `key="value"`, sorted by key (as in pkg/fieldpath of Kubernetes).
fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten();
    let lines: Vec<String> = lines
        .map(|(k, v)| format!("{k}={}", go_quoted(v)))
        .collect();
    lines.join("\n")
}

/// Quotes text as Go's `%q` does.
fn go_quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            c if is_print(c) => quoted.push(c),
            c => {
                let code = u32::from(c);
                let _ = match code {
                    0..0x80 => write!(quoted, "\\x{code:02x}"),
                    0x80..0x1_0000 => write!(quoted, "\\u{code:04x}"),
                    _ => write!(quoted, "\\U{code:08x}"),
                };
            }
        }
    }
    quoted.push('"');
    quoted
}

/// The value of a container's resource; the error says why it is not available. A limit that the container does not
/// set is the pod's limit, else the size of the whole group (the kubelet uses the allocatable amount of its node).
pub(super) fn resource_value(
    selector: &ResourceFieldSelector,
    own: Option<&Container>,
    context: &TranslationContext<'_>,
) -> Result<String, String> {
    let name = selector.container_name.as_deref().unwrap_or_default();
    let container = if name.is_empty() {
        own
    } else {
        let init = context.spec.init_containers.iter().flatten();
        let mut containers = init.chain(&context.spec.containers);
        containers.find(|container| container.name == name)
    };
    let container = container.ok_or_else(|| format!("there is no container '{name}'"))?;
    let (list, resource) = selector
        .resource
        .split_once('.')
        .filter(|(list, _)| ["limits", "requests"].contains(list))
        .ok_or_else(|| format!("'{}' is not a resource of a container", selector.resource))?;
    let group = context.sizes.total();
    let whole = match resource {
        "cpu" => group.0,
        "memory" => group.1,
        "ephemeral-storage" => GROUP_DISK,
        _ => {
            return Err(format!(
                "'{}' is not a resource that ACI has",
                selector.resource
            ));
        }
    };
    let resources = container.resources.as_ref();
    let amount = if list == "limits" {
        let limits = [resources, context.spec.resources.as_ref()];
        let mut limits = limits.iter().flatten().filter_map(|r| r.limits.as_ref());
        let limit = limits.find_map(|limits| limits.get(resource));
        let limit = limit.map(parse_quantity).transpose()?;
        limit.filter(|limit| !limit.is_zero()).unwrap_or(whole)
    } else {
        let request = resources.and_then(|r| r.requests.as_ref()?.get(resource));
        request.map_or(Ok(NanoAmount::default()), parse_quantity)?
    };
    let divisor = selector.divisor.as_ref().map(parse_quantity).transpose()?;
    let one = NanoAmount::whole(1);
    let divisor = divisor.filter(|divisor| !divisor.is_zero()).unwrap_or(one);
    Ok(amount.in_steps_of(divisor).to_string())
}

fn parse_quantity(quantity: &Quantity) -> Result<NanoAmount, String> {
    NanoAmount::from_quantity(quantity).ok_or_else(|| format!("'{}' is not an amount", quantity.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscripts_are_split_off() {
        for (path, split) in [
            (
                "metadata.labels['a/b.c']",
                ("metadata.labels", Some("a/b.c")),
            ),
            ("metadata.labels['']", ("metadata.labels['']", None)),
            ("metadata.name", ("metadata.name", None)),
            ("a['b']['c']", ("a", Some("b']['c"))),
            ("']", ("']", None)),
        ] {
            assert_eq!(split_subscript(path), split, "{path}");
        }
    }

    #[test]
    fn maps_are_listed_as_go_quotes_them() {
        let map = BTreeMap::from([
            ("b".to_owned(), "x\n\"\\\t\u{1}\u{85}é".to_owned()),
            ("a".to_owned(), String::new()),
            (
                "c".to_owned(),
                " \u{7f}\u{a0}\u{ad}\u{200b}\u{feff}\u{fffd}\u{e000}😀\u{e0001}".to_owned(),
            ),
        ]);
        assert_eq!(
            format_map(Some(&map)),
            concat!(
                "a=\"\"\nb=\"x\\n\\\"\\\\\\t\\x01\\u0085é\"\n",
                "c=\" \\x7f\\u00a0\\u00ad\\u200b\\ufeff\u{fffd}\\ue000😀\\U000e0001\"",
            )
        );
        assert_eq!(format_map(None), "");
    }
}
