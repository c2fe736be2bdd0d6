//! The outcome of a plan for a pending pod, with its reason.
//!
//! In: the result of the steps in [`select`](super::select) for each pod. Out: [`PodOutcome`]. Its text goes into
//! messages and Events, and its [`reason`](PodOutcome::reason) is the Event's reason.

use std::fmt;

use jiff::Timestamp;

use crate::aci::translate::Unsupported;
use crate::api::LossSet;

/// What the plan decides for a pending pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodOutcome {
    /// The operator grants it.
    Grant {
        /// The placement that has room for it. The scheduler may choose another.
        placement: String,
        /// What it loses on ACI; the pool accepts that.
        not_kept: LossSet,
    },
    /// A grant was sent, or another leader may have sent one. The watch does not show the result yet.
    InFlight,
    /// The operator does not grant it before a time.
    Hold {
        /// The end of the hold.
        until: Timestamp,
        /// The reason.
        why: HoldReason,
    },
    /// Its hold is over, but something blocks the grant.
    Blocked(BlockedBy),
    /// ACI cannot run it as it is, for these reasons.
    Refuse(Vec<Unsupported>),
    /// The operator makes no decision about it.
    Ignore(IgnoreReason),
}

/// Why the operator holds a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HoldReason {
    /// `spill.after` is not over: the cluster's own nodes or a node autoscaler may still make room.
    TooEarly,
    /// The scheduler preempts other pods on a node for it.
    Nominated,
    /// The API server denied its grant, with this message.
    Denied(String),
}

/// What blocks the grant of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BlockedBy {
    /// The pool's maximum, which is reached.
    PoolLimit(u64),
    /// The workload's maximum, which is reached.
    WorkloadLimit(u64),
    /// The pool's grant rate is used up. The time is when the next grant is allowed.
    RateLimit(Option<Timestamp>),
    /// No placement that could run it has enough of this resource left.
    Capacity(&'static str),
    /// No placement that could run it takes pods, for this reason.
    PlacementClosed(String),
    /// The workload's maximum is a percentage, and the desired replicas are unknown for this reason.
    ScaleUnknown(String),
    /// A volume claim of the pod does not exist or is not bound yet. The text says which.
    ClaimNotBound(String),
    /// Because of the pods that run now, the scheduler would place it in no placement. The text says why.
    Topology(String),
    /// This instance does not lead the pool yet.
    NotLeading,
}

/// Why the operator makes no decision about a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IgnoreReason {
    /// The scheduler has not refused it: it has not tried yet, or the pod has scheduling gates.
    NotUnschedulable,
    /// The pod is being deleted.
    Deleting,
    /// It tolerates the pool's taint without a grant, so it is user-placed.
    UserPlaced,
    /// It tolerates the taint because it carries the label and toleration of another pod's grant.
    ForeignGrant,
    /// The operator has not yet evaluated whether ACI can run this version of the pod.
    NotEvaluated,
}

impl PodOutcome {
    /// The reason in one word, for Events and `burstpool explain`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Grant { .. } => "Granted",
            Self::InFlight => "InFlight",
            Self::Hold {
                why: HoldReason::Denied(_),
                ..
            } => "GrantDenied",
            Self::Hold { .. } => "Holding",
            Self::Blocked(lack) => lack.reason(),
            Self::Refuse(_) => "CannotSpill",
            Self::Ignore(IgnoreReason::ForeignGrant) => "GrantIgnored",
            Self::Ignore(_) => "Ignored",
        }
    }
}

impl BlockedBy {
    /// The reason in one word, for Events and `burstpool explain`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::PoolLimit(_) => "PoolLimitReached",
            Self::WorkloadLimit(_) => "WorkloadLimitReached",
            Self::RateLimit(_) => "RateLimited",
            Self::Capacity(_) => "NoRoom",
            Self::PlacementClosed(_) => "PlacementClosed",
            Self::ScaleUnknown(_) => "ScaleUnknown",
            Self::ClaimNotBound(_) => "ClaimNotBound",
            Self::Topology(_) => "ConstraintNotMet",
            Self::NotLeading => "NotLeading",
        }
    }
}

impl fmt::Display for PodOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grant {
                placement,
                not_kept,
            } => {
                write!(
                    f,
                    "the cluster's own nodes have no room for it: it may run in placement {placement}"
                )?;
                if !not_kept.is_empty() {
                    write!(
                        f,
                        "; not kept, as the pool accepts (spill.accept): {not_kept}"
                    )?;
                }
                Ok(())
            }
            Self::InFlight => write!(f, "it has been granted"),
            Self::Hold { until, why } => write!(f, "{why}; it is held until {until:.0}"),
            Self::Blocked(lack) => write!(f, "it waits: {lack}"),
            Self::Refuse(refusals) => {
                write!(f, "it cannot run on ACI: ")?;
                for (at, refusal) in refusals.iter().enumerate() {
                    write!(f, "{}{refusal}", if at == 0 { "" } else { "; " })?;
                }
                Ok(())
            }
            Self::Ignore(why) => why.fmt(f),
        }
    }
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooEarly => write!(f, "the cluster's own nodes may still have room for it"),
            Self::Nominated => write!(f, "the scheduler makes room for it on a node"),
            Self::Denied(why) => write!(f, "its grant was denied: {why}"),
        }
    }
}

impl fmt::Display for BlockedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PoolLimit(limit) => {
                write!(
                    f,
                    "the pool has as many pods on ACI as spec.spill.maxReplicas lets it: {limit}"
                )
            }
            Self::WorkloadLimit(limit) => {
                write!(
                    f,
                    "its workload has as many pods on ACI as its maxReplicas lets it: {limit}"
                )
            }
            Self::RateLimit(_) => write!(f, "spec.spill.rate lets no more pods spill now"),
            Self::Capacity(what) => {
                write!(f, "no placement that can run it has enough {what} left")
            }
            Self::PlacementClosed(why) => {
                write!(f, "no placement that can run it takes pods: {why}")
            }
            Self::ScaleUnknown(why) => {
                write!(f, "how many replicas are desired is not known: {why}")
            }
            Self::ClaimNotBound(why) => f.write_str(why),
            Self::Topology(why) => {
                write!(f, "the scheduler would place it in no placement now: {why}")
            }
            Self::NotLeading => write!(f, "the operator has only just taken over"),
        }
    }
}

impl fmt::Display for IgnoreReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotUnschedulable => "the scheduler has not refused it",
            Self::Deleting => "it is being deleted",
            Self::UserPlaced => "it tolerates the taint of the virtual nodes without a grant",
            Self::ForeignGrant => {
                "it carries the label burstpool.io/pool and the toleration of a grant that it was not \
                 given: its template was probably copied from a granted pod. burstpool ignores the \
                 grant; remove the label, the annotations burstpool.io/* and the toleration \
                 virtual-kubelet.io/provider from the template"
            }
            Self::NotEvaluated => "it has not been evaluated yet",
        })
    }
}
