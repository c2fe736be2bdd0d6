//! What cannot be translated, collected over the whole pod so that a user sees all of it at once.

use std::fmt;

/// A field that ACI cannot keep.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unsupported {
    /// The field's path, such as `spec.containers[0].lifecycle`.
    pub field: String,
    /// Why, as a half sentence.
    pub why: String,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.why)
    }
}

/// What has been refused so far.
#[derive(Debug, Default)]
pub(super) struct Refusals(Vec<Unsupported>);

impl Refusals {
    /// Refuses `field`.
    pub(super) fn refuse(&mut self, field: impl Into<String>, why: impl Into<String>) {
        let (field, why) = (field.into(), why.into());
        let refusal = Unsupported { field, why };
        if !self.0.contains(&refusal) {
            self.0.push(refusal);
        }
    }

    /// Refuses `field` unless `condition`.
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

    /// Whether anything in `field` has been refused.
    pub(super) fn any_in(&self, field: &str) -> bool {
        self.0
            .iter()
            .any(|refusal| refusal.field.starts_with(field))
    }

    /// `value`, if nothing was refused.
    pub(super) fn or<T>(self, value: T) -> Result<T, Vec<Unsupported>> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(self.0)
        }
    }
}
