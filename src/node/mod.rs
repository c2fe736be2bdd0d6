//! The virtual node: registered in Kubernetes, its pods run as container groups.
//!
//! Pure: `object` (what the node looks like), `registration` (what is missing of it), `capacity` (how
//! much of ACI it may offer), `plan` (what is to be done for a pod). I/O: `register` and `lease` keep
//! the node, `region` asks what Azure has to offer, `pods` keeps the pods, `environment` reads what they
//! refer to. Knows [`api`](crate::api) and [`aci`](crate::aci).

pub mod capacity;
pub mod environment;
pub mod lease;
pub mod object;
pub mod observed;
pub mod plan;
pub mod pods;
pub mod region;
pub mod register;
pub mod registration;
