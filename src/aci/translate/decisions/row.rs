//! A row of the table, and how to find it.

use serde_json::Value;

use super::{container, pod, security, volume};

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decision {
    /// It is kept: as this.
    Translated(&'static str),
    /// It has no effect on ACI, and nothing is lost by that: because.
    Meaningless(&'static str),
    /// A pod that has it is refused: because. Values that ask for nothing are let through.
    Refused(&'static str),
    /// As [`Decision::Refused`], but these values are let through as well.
    RefusedUnless(&'static [&'static str], &'static str),
}

/// A field and what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// The field's name in JSON.
    pub name: &'static str,
    /// The decision.
    pub decision: Decision,
    /// The type of what is in it, where that has fields of its own to decide.
    pub holds: Option<&'static str>,
    /// Whether 0 asks for something, too: it is a user's or a group's number.
    pub counts_zero: bool,
}

impl Row {
    /// The same row, whose field holds a `kind` (or a list of them).
    pub(super) const fn of(self, kind: &'static str) -> Self {
        Self {
            holds: Some(kind),
            ..self
        }
    }

    /// The same row, whose field asks for something also with a 0.
    pub(super) const fn also_zero(self) -> Self {
        Self {
            counts_zero: true,
            ..self
        }
    }

    /// Why the field refuses a pod that has `value` in it.
    pub(super) fn refuses(&self, value: &Value) -> Option<&'static str> {
        let (harmless, why): (&[&str], _) = match self.decision {
            Decision::Refused(why) => (&[], why),
            Decision::RefusedUnless(harmless, why) => (harmless, why),
            Decision::Translated(_) | Decision::Meaningless(_) => return None,
        };
        let asks = match value {
            Value::Null | Value::Bool(false) => false,
            Value::Bool(true) => true,
            Value::Object(fields) => !fields.is_empty(),
            Value::Number(number) => self.counts_zero || number.as_f64() != Some(0.0),
            Value::String(text) => !text.is_empty() && !harmless.contains(&text.as_str()),
            Value::Array(items) => !items.is_empty(),
        };
        asks.then_some(why)
    }
}

/// A field that is kept.
pub(super) const fn translated(name: &'static str, how: &'static str) -> Row {
    row(name, Decision::Translated(how))
}

/// A field without effect.
pub(super) const fn meaningless(name: &'static str, why: &'static str) -> Row {
    row(name, Decision::Meaningless(why))
}

/// A field that refuses the pod.
pub(super) const fn refused(name: &'static str, why: &'static str) -> Row {
    row(name, Decision::Refused(why))
}

/// A field that refuses the pod unless it has one of these values.
pub(super) const fn refused_unless(
    name: &'static str,
    harmless: &'static [&'static str],
    why: &'static str,
) -> Row {
    row(name, Decision::RefusedUnless(harmless, why))
}

const fn row(name: &'static str, decision: Decision) -> Row {
    Row {
        name,
        decision,
        holds: None,
        counts_zero: false,
    }
}

/// The type of an element of `spec.initContainers`: a `Container` but for some rows.
pub(super) const INIT_CONTAINER: &str = "InitContainer";

/// Every type and its rows, in the order in which the table shows them.
pub fn types() -> impl Iterator<Item = (&'static str, &'static [Row])> {
    [pod::TYPES, container::TYPES, security::TYPES, volume::TYPES]
        .into_iter()
        .flatten()
        .copied()
}

/// The rows of a type; an init container's are a container's where it has none of its own.
pub fn rows(kind: &str) -> impl Iterator<Item = &'static Row> {
    let own = rows_of(kind);
    let inherited = if kind == INIT_CONTAINER {
        rows_of("Container")
    } else {
        &[]
    };
    let inherited = inherited
        .iter()
        .filter(|row| own.iter().all(|own| own.name != row.name));
    own.iter().chain(inherited)
}

fn rows_of(kind: &str) -> &'static [Row] {
    types()
        .find(|(name, _)| *name == kind)
        .map_or(&[], |(_, rows)| rows)
}
