//! Refusals: everything in a pod that ACI does not support.
//!
//! In: a field path and a reason from each part of the translation. Out: all of them at once, so that a user does
//! not have to fix the pod field by field; or the losses, if the pool's author accepts all of them.

use std::fmt;

use crate::api::{AcceptedLoss, LossSet};

/// A field that ACI does not support.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unsupported {
    /// The field's path, such as `spec.containers[0].lifecycle`.
    pub field: String,
    /// The reason, as a clause without a full stop.
    pub why: String,
    /// The loss, if the pool's author can accept it. The pod then runs without what the field asks for.
    pub loss: Option<AcceptedLoss>,
}

impl Unsupported {
    /// A field that ACI does not support, for a reason that no pool's author can accept.
    pub fn new(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            why: why.into(),
            loss: None,
        }
    }

    /// The field and the reason, without the remedy that only helps before the pod is granted.
    pub fn without_remedy(&self) -> String {
        format!("{}: {}", self.field, self.why)
    }
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.why)?;
        if let Some(loss) = self.loss {
            write!(
                f,
                "; remove it from the pod, or accept it: spill.accept: [{loss}]"
            )?;
        }
        Ok(())
    }
}

/// What the pod loses, if `accepted` contains every loss and no other refusal is there; else the refusals that remain.
pub fn accept_losses<'a>(
    refusals: impl IntoIterator<Item = &'a Unsupported>,
    accepted: &LossSet,
) -> Result<LossSet, Vec<&'a Unsupported>> {
    let (mut losses, mut others) = (LossSet::default(), Vec::new());
    for refusal in refusals {
        match refusal.loss.filter(|loss| accepted.contains(*loss)) {
            Some(loss) => losses.insert(loss),
            None => others.push(refusal),
        }
    }
    if others.is_empty() {
        Ok(losses)
    } else {
        Err(others)
    }
}

/// The refusals so far.
#[derive(Debug, Default)]
pub(super) struct Refusals(Vec<Unsupported>);

impl Refusals {
    /// Refuses `field`. The same refusal is recorded only once.
    pub(super) fn refuse(&mut self, field: impl Into<String>, why: impl Into<String>) {
        self.push(Unsupported::new(field, why));
    }

    /// Refuses `field`, unless the pool's author accepts `loss`.
    pub(super) fn refuse_unless_accepted(
        &mut self,
        field: impl Into<String>,
        why: impl Into<String>,
        loss: AcceptedLoss,
    ) {
        self.push(Unsupported {
            loss: Some(loss),
            ..Unsupported::new(field, why)
        });
    }

    /// Adds a refusal. A field that is refused for good is not refused for a loss as well: to accept it does not help.
    fn push(&mut self, refusal: Unsupported) {
        let is_same = |other: &Unsupported| other.field == refusal.field;
        if refusal.loss.is_none() {
            self.0
                .retain(|other| !is_same(other) || other.loss.is_none());
        } else if self
            .0
            .iter()
            .any(|other| is_same(other) && other.loss.is_none())
        {
            return;
        }
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

    /// Returns `value` if nothing was refused but losses that are accepted, else the refusals that remain.
    pub(super) fn into_result<T>(
        self,
        value: T,
        accepted: &LossSet,
    ) -> Result<T, Vec<Unsupported>> {
        match accept_losses(&self.0, accepted) {
            Ok(_) => Ok(value),
            Err(others) => Err(others.into_iter().cloned().collect()),
        }
    }
}
