//! The format of a row of the field table, and the lookup of rows.
//!
//! In: the name of a type. Out: its rows; and for a row and a value, whether the value is refused.

use k8s_openapi::api::core::v1::PodSpec;
use serde_json::Value;

use super::{container, pod, security, volume};
use crate::aci::translate::groups;
use crate::api::AcceptedLoss;

/// What burstpool does with a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FieldDecision {
    /// It is translated; the text says to what.
    Translated(&'static str),
    /// It has no effect on ACI, and nothing is lost; the text says why.
    Meaningless(&'static str),
    /// A pod that sets it is refused; the text says why. Values that request nothing (null, false, 0, empty) are
    /// accepted.
    Refused(&'static str),
    /// As [`FieldDecision::Refused`], but these values are accepted as well.
    RefusedUnless(&'static [&'static str], &'static str),
    /// As [`FieldDecision::Refused`], unless the pool's author accepts the loss (`spill.accept`); the text says why.
    RefusedUnlessAccepted(LossRule, &'static str),
}

/// A loss that a pool's author can accept, and for which values of the field it stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossRule {
    /// The loss.
    pub loss: AcceptedLoss,
    /// The values that lose nothing, as text.
    pub harmless: &'static [&'static str],
    /// The only values whose loss can be accepted, as text; all others are refused. Empty: all values.
    pub acceptable: &'static [&'static str],
}

/// Why a value of a field is refused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct FieldRefusal {
    /// The reason.
    pub why: &'static str,
    /// The loss, if the pool's author can accept it.
    pub loss: Option<AcceptedLoss>,
}

/// A field, and what burstpool does with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FieldRow {
    /// The field's JSON name.
    pub name: &'static str,
    /// What burstpool does with the field.
    pub decision: FieldDecision,
    /// The type of the field's value, if that type has rows of its own.
    pub value_type: Option<&'static str>,
    /// Whether 0 is a request as well: the field is a user ID or group ID.
    pub zero_counts: bool,
    /// The rule by which the field is accepted in pods that it does not affect.
    pub effect: Option<FieldEffect>,
    /// Whether a program of burstpool inside the container group could do what ACI does not: the helper, which is not
    /// written yet.
    pub waits_for_helper: bool,
}

/// A field that affects only some pods. In the others it is accepted, because nothing is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldEffect {
    /// `fsGroup`: files of volumes that a container other than root mounts.
    FsGroup,
    /// `supplementalGroups`: files that a container can use only as a member.
    SupplementalGroups,
}

impl FieldEffect {
    /// Whether the pod runs in the same way without the field.
    fn is_none_in(self, spec: &PodSpec) -> bool {
        match self {
            Self::FsGroup => groups::fs_group_has_no_effect(spec),
            Self::SupplementalGroups => groups::supplemental_groups_have_no_effect(spec),
        }
    }
}

impl FieldRow {
    /// The same row for a field with a value of type `kind`, or a list of such values.
    pub(super) const fn with_type(self, kind: &'static str) -> Self {
        Self {
            value_type: Some(kind),
            ..self
        }
    }

    /// The same row for a field in which 0 is a request as well.
    pub(super) const fn counting_zero(self) -> Self {
        Self {
            zero_counts: true,
            ..self
        }
    }

    /// The same row for a field that is accepted in pods that it does not affect.
    pub(super) const fn where_it_has(self, effect: FieldEffect) -> Self {
        Self {
            effect: Some(effect),
            ..self
        }
    }

    /// The same row for a field that is refused, with some values at least, until there is a helper.
    pub(super) const fn until_helper(self) -> Self {
        Self {
            waits_for_helper: true,
            ..self
        }
    }

    /// Whether the field is accepted in the pod whatever its value, because nothing is lost.
    pub(super) fn has_no_effect(&self, spec: &PodSpec) -> bool {
        self.effect.is_some_and(|effect| effect.is_none_in(spec))
    }

    /// Why a pod with `value` in this field is refused; `None` if it is accepted.
    pub(super) fn refusal(&self, value: &Value) -> Option<FieldRefusal> {
        let (harmless, why, rule): (&[&str], _, _) = match self.decision {
            FieldDecision::Refused(why) => (&[], why, None),
            FieldDecision::RefusedUnless(harmless, why) => (harmless, why, None),
            FieldDecision::RefusedUnlessAccepted(rule, why) => (rule.harmless, why, Some(rule)),
            FieldDecision::Translated(_) | FieldDecision::Meaningless(_) => return None,
        };
        let text = match value {
            Value::Null | Value::Bool(false) => return None,
            Value::Number(number) if number.as_f64() == Some(0.0) && !self.zero_counts => {
                return None;
            }
            Value::Object(fields) if fields.is_empty() => return None,
            Value::Array(items) if items.is_empty() => return None,
            Value::Bool(true) | Value::Object(_) | Value::Array(_) => String::new(),
            Value::Number(number) => number.to_string(),
            Value::String(text) if text.is_empty() => return None,
            Value::String(text) => text.clone(),
        };
        if harmless.contains(&text.as_str()) {
            return None;
        }
        let rule = rule
            .filter(|rule| rule.acceptable.is_empty() || rule.acceptable.contains(&text.as_str()));
        let loss = rule.map(|rule| rule.loss);
        Some(FieldRefusal { why, loss })
    }
}

/// A row for a field that is translated.
pub(super) const fn translated(name: &'static str, how: &'static str) -> FieldRow {
    row(name, FieldDecision::Translated(how))
}

/// A row for a field without effect on ACI.
pub(super) const fn meaningless(name: &'static str, why: &'static str) -> FieldRow {
    row(name, FieldDecision::Meaningless(why))
}

/// A row for a field that ACI does not support.
pub(super) const fn refused(name: &'static str, why: &'static str) -> FieldRow {
    row(name, FieldDecision::Refused(why))
}

/// A row for a field that ACI supports only with one of these values.
pub(super) const fn refused_unless(
    name: &'static str,
    harmless: &'static [&'static str],
    why: &'static str,
) -> FieldRow {
    row(name, FieldDecision::RefusedUnless(harmless, why))
}

/// A row for a field that ACI does not keep, unless the pool's author accepts `loss`.
pub(super) const fn refused_unless_accepted(
    name: &'static str,
    loss: AcceptedLoss,
    why: &'static str,
) -> FieldRow {
    let rule = LossRule {
        loss,
        harmless: &[],
        acceptable: &[],
    };
    row(name, FieldDecision::RefusedUnlessAccepted(rule, why))
}

/// As [`refused_unless_accepted`], by the values of the field.
pub(super) const fn refused_unless_accepted_values(
    name: &'static str,
    rule: LossRule,
    why: &'static str,
) -> FieldRow {
    row(name, FieldDecision::RefusedUnlessAccepted(rule, why))
}

const fn row(name: &'static str, decision: FieldDecision) -> FieldRow {
    FieldRow {
        name,
        decision,
        value_type: None,
        zero_counts: false,
        effect: None,
        waits_for_helper: false,
    }
}

/// The type of an element of `spec.initContainers`: a `Container` with some rows replaced.
pub(super) const INIT_CONTAINER: &str = "InitContainer";
/// The type of an element of `spec.initContainers` that is a native sidecar: a `Container` with some rows replaced.
pub(super) const SIDECAR_CONTAINER: &str = "SidecarContainer";

/// Every type with its rows, in the order of the printed table.
pub fn types() -> impl Iterator<Item = (&'static str, &'static [FieldRow])> {
    [pod::TYPES, container::TYPES, security::TYPES, volume::TYPES]
        .into_iter()
        .flatten()
        .copied()
}

/// Whether the type is a `Container` with some rows replaced.
pub(super) fn is_like_container(kind: &str) -> bool {
    [INIT_CONTAINER, SIDECAR_CONTAINER].contains(&kind)
}

/// The rows of a type. Init containers and sidecars inherit the rows of `Container` that they do not replace.
pub fn rows(kind: &str) -> impl Iterator<Item = &'static FieldRow> {
    let own = own_rows(kind);
    let inherited = if is_like_container(kind) {
        own_rows("Container")
    } else {
        &[]
    };
    let inherited = inherited
        .iter()
        .filter(|row| own.iter().all(|own| own.name != row.name));
    own.iter().chain(inherited)
}

/// Whether a field that is refused, such as `spec.containers[0].workingDir`, waits for the helper. If not, burstpool can
/// never run a pod with it on ACI.
pub fn waits_for_helper(field: &str) -> bool {
    let Some(path) = field.strip_prefix("spec.") else {
        return false;
    };
    let mut kind = "PodSpec";
    for segment in path.split('.') {
        let name = segment.split('[').next().unwrap_or(segment);
        // No other init container has probes or hooks.
        let of = if kind == INIT_CONTAINER {
            SIDECAR_CONTAINER
        } else {
            kind
        };
        let Some(row) = rows(of).find(|row| row.name == name) else {
            return false;
        };
        match row.value_type {
            _ if row.waits_for_helper => return true,
            Some(below) => kind = below,
            None => return false,
        }
    }
    false
}

fn own_rows(kind: &str) -> &'static [FieldRow] {
    types()
        .find(|(name, _)| *name == kind)
        .map_or(&[], |(_, rows)| rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_wait_for_the_helper_or_are_refused_for_good() {
        for (field, waits) in [
            ("spec.containers[0].workingDir", true),
            ("spec.containers[12].volumeMounts[3].subPath", true),
            ("spec.initContainers[0].volumeMounts[0].subPathExpr", true),
            ("spec.initContainers[1].livenessProbe.tcpSocket", true),
            ("spec.containers[0].startupProbe.exec", true),
            (
                "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath",
                true,
            ),
            ("spec.hostAliases", true),
            ("spec.containers[0].livenessProbe.httpGet.host", false),
            ("spec.containers[0].resources.limits.nvidia.com/gpu", false),
            ("spec.volumes[0].hostPath", false),
            ("spec.hostNetwork", false),
            ("spec.novel[0].field", false),
            ("metadata.annotations[a/b]", false),
        ] {
            assert_eq!(waits_for_helper(field), waits, "{field}");
        }
    }
}
