//! The virtual node: registered in Kubernetes, its pods run as container groups.
//!
//! Pure: `object` (what the node looks like), `record` (what it says for whoever drains it), `registration`
//! (what is missing of it), `capacity` (how much of ACI it may offer), `plan` (what is to be done for a
//! pod), `absence` (when its group counts as gone), `daemon` (for a `DaemonSet`'s), `binding` (what is
//! written on a pod that was bound here). I/O: `register` and `lease` keep the node, `call` ends what they
//! ask in time, `watched` shows watches that fail, `region` asks what Azure has to
//! offer, `pods` keeps the pods, `environment` reads what they refer to. Knows [`api`](crate::api) and [`aci`](crate::aci).

pub mod absence;
pub mod binding;
pub mod call;
pub mod capacity;
pub mod daemon;
pub mod environment;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod lease;
pub mod object;
pub mod observed;
pub mod plan;
pub mod pods;
pub mod quota;
pub mod record;
pub mod region;
pub mod register;
pub mod registration;
pub mod watched;
