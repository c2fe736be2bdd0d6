//! Refusals: everything in a pod that ACI does not support.
//!
//! In: a field path and a reason from each part of the translation. Out: all of them at once, so that a user does
//! not have to fix the pod field by field.

use std::fmt;

/// A field that ACI does not support.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unsupported {
    /// The field's path, such as `spec.containers[0].lifecycle`.
    pub field: String,
    /// The reason, as a clause without a full stop.
    pub why: String,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.why)
    }
}

/// The refusals so far.
#[derive(Debug, Default)]
pub(super) struct Refusals(Vec<Unsupported>);

impl Refusals {
    /// Refuses `field`. The same refusal is recorded only once.
    pub(super) fn refuse(&mut self, field: impl Into<String>, why: impl Into<String>) {
        let (field, why) = (field.into(), why.into());
        let refusal = Unsupported { field, why };
        if !self.0.contains(&refusal) {
            self.0.push(refusal);
        }
    }

    /// Refuses `field` unless `condition` is true.
    pub(super) fn require(
        &mut self,
        condition: bool,
        field: impl Into<String>,
        why: impl Into<String>,
    ) {
        if !condition {
            self.refuse(field, why);
        }
    }

    /// Whether any path that starts with `field` has been refused.
    pub(super) fn has_refusal_in(&self, field: &str) -> bool {
        self.0
            .iter()
            .any(|refusal| refusal.field.starts_with(field))
    }

    /// Returns `value` if nothing was refused, else the refusals.
    pub(super) fn into_result<T>(self, value: T) -> Result<T, Vec<Unsupported>> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(self.0)
        }
    }
}
