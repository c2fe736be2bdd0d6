//! The format of a row of the field table, and the lookup of rows.
//!
//! In: the name of a type. Out: its rows; and for a row and a value, whether the value is refused.

use serde_json::Value;

use super::{container, pod, security, volume};

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

    /// Why a pod with `value` in this field is refused; `None` if it is accepted.
    pub(super) fn refusal(&self, value: &Value) -> Option<&'static str> {
        let (harmless, why): (&[&str], _) = match self.decision {
            FieldDecision::Refused(why) => (&[], why),
            FieldDecision::RefusedUnless(harmless, why) => (harmless, why),
            FieldDecision::Translated(_) | FieldDecision::Meaningless(_) => return None,
        };
        let is_set = match value {
            Value::Null | Value::Bool(false) => false,
            Value::Bool(true) => true,
            Value::Object(fields) => !fields.is_empty(),
            Value::Number(number) => self.zero_counts || number.as_f64() != Some(0.0),
            Value::String(text) => !text.is_empty() && !harmless.contains(&text.as_str()),
            Value::Array(items) => !items.is_empty(),
        };
        is_set.then_some(why)
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

const fn row(name: &'static str, decision: FieldDecision) -> FieldRow {
    FieldRow {
        name,
        decision,
        value_type: None,
        zero_counts: false,
    }
}

/// The type of an element of `spec.initContainers`: a `Container` with some rows replaced.
pub(super) const INIT_CONTAINER: &str = "InitContainer";

/// Every type with its rows, in the order of the printed table.
pub fn types() -> impl Iterator<Item = (&'static str, &'static [FieldRow])> {
    [pod::TYPES, container::TYPES, security::TYPES, volume::TYPES]
        .into_iter()
        .flatten()
        .copied()
}

/// The rows of a type. An init container inherits the rows of `Container` that it does not replace.
pub fn rows(kind: &str) -> impl Iterator<Item = &'static FieldRow> {
    let own = own_rows(kind);
    let inherited = if kind == INIT_CONTAINER {
        own_rows("Container")
    } else {
        &[]
    };
    let inherited = inherited
        .iter()
        .filter(|row| own.iter().all(|own| own.name != row.name));
    own.iter().chain(inherited)
}

fn own_rows(kind: &str) -> &'static [FieldRow] {
    types()
        .find(|(name, _)| *name == kind)
        .map_or(&[], |(_, rows)| rows)
}
