//! What becomes of a pod that waits, in values and in words.

use std::fmt;

use jiff::Timestamp;

use crate::aci::translate::Unsupported;

/// What becomes of a pod that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is granted.
    Grant {
        /// Where there is room for it; the scheduler decides.
        placement: String,
    },
    /// It is granted as far as we know, and not seen so yet.
    InFlight,
    /// It is held until a time.
    Hold {
        /// Until when.
        until: Timestamp,
        /// Why.
        why: Held,
    },
    /// It may be granted, and something is lacking.
    Wait(Lack),
    /// It cannot burst as it is.
    Refuse(Vec<Unsupported>),
    /// There is nothing to decide.
    Ignore(Ignored),
}

/// Why a pod is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Home, or a node autoscaler, may yet make room.
    Young,
    /// The scheduler makes room for it on a node.
    Nominated,
    /// Its grant was denied, in these words.
    Denied(String),
}

/// What a pod lacks to be granted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Lack {
    /// The pool has as many as it may.
    PoolLimit(u64),
    /// The workload has as many as it may.
    WorkloadLimit(u64),
    /// The pool grants no faster.
    Rate(Option<Timestamp>),
    /// No placement that could run it has so much left of this.
    Room(&'static str),
    /// No placement that could run it takes pods, for this reason.
    Closed(String),
    /// What it is a percentage of is not known, for this reason.
    Scale(String),
    /// A claim that it names does not exist or is not bound yet, in these words.
    Claim(String),
    /// The scheduler would place it in no placement because of the pods that run already, in these words.
    Topology(String),
    /// We do not decide for this pool yet.
    Leader,
}

/// Why there is nothing to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// The scheduler has not refused it: it has not looked yet, or something gates the pod.
    NotRefused,
    /// It is being deleted.
    Deleting,
    /// It tolerates the pool's taint by itself.
    UserPlaced,
    /// So it does, and it carries the marks of a grant that was another pod's.
    ForeignGrant,
    /// Nobody has asked yet whether ACI can run this version of it.
    Unjudged,
}

impl Outcome {
    /// One word, for Events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Grant { .. } => "Granted",
            Self::InFlight => "InFlight",
            Self::Hold {
                why: Held::Denied(_),
                ..
            } => "GrantDenied",
            Self::Hold { .. } => "Holding",
            Self::Wait(lack) => lack.reason(),
            Self::Refuse(_) => "CannotSpill",
            Self::Ignore(Ignored::ForeignGrant) => "GrantIgnored",
            Self::Ignore(_) => "Ignored",
        }
    }
}

impl Lack {
    /// One word, for Events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::PoolLimit(_) => "PoolLimitReached",
            Self::WorkloadLimit(_) => "WorkloadLimitReached",
            Self::Rate(_) => "RateLimited",
            Self::Room(_) => "NoRoom",
            Self::Closed(_) => "PlacementClosed",
            Self::Scale(_) => "ScaleUnknown",
            Self::Claim(_) => "ClaimNotBound",
            Self::Topology(_) => "ConstraintNotMet",
            Self::Leader => "NotLeading",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grant { placement } => write!(
                f,
                "the cluster's own nodes have no room for it: it may run in placement {placement}"
            ),
            Self::InFlight => write!(f, "it has been granted"),
            Self::Hold { until, why } => write!(f, "{why}; it is held until {until:.0}"),
            Self::Wait(lack) => write!(f, "it waits: {lack}"),
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

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Young => write!(f, "home may yet have room for it"),
            Self::Nominated => write!(f, "the scheduler makes room for it on a node"),
            Self::Denied(why) => write!(f, "its grant was denied: {why}"),
        }
    }
}

impl fmt::Display for Lack {
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
            Self::Rate(_) => write!(f, "spec.spill.rate lets no more pods spill now"),
            Self::Room(what) => write!(f, "no placement that can run it has enough {what} left"),
            Self::Closed(why) => write!(f, "no placement that can run it takes pods: {why}"),
            Self::Scale(why) => write!(f, "how many replicas are desired is not known: {why}"),
            Self::Claim(why) => f.write_str(why),
            Self::Topology(why) => {
                write!(f, "the scheduler would place it in no placement now: {why}")
            }
            Self::Leader => write!(f, "the operator has only just taken over"),
        }
    }
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotRefused => "the scheduler has not refused it",
            Self::Deleting => "it is being deleted",
            Self::UserPlaced => "it tolerates the virtual nodes by itself",
            Self::ForeignGrant => {
                "it carries the label burstpool.io/pool and the toleration of a grant that it was not \
                 given: its template was probably copied from a granted pod. burstpool ignores the \
                 grant; remove the label, the annotations burstpool.io/* and the toleration \
                 virtual-kubelet.io/provider from the template"
            }
            Self::Unjudged => "it has not been looked at yet",
        })
    }
}
