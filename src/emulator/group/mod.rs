//! A container group without I/O: values in, values out, the time is an argument.
//!
//! In: request bodies (`model`, `validate`) and the time. Out: the group's life cycle (`lifecycle`,
//! `stage`, `run`, `script`, `log`), its use of the quotas (`quota`), and the service's JSON view of it
//! (`view`).

pub mod id;
pub mod lifecycle;
pub mod log;
pub mod model;
pub mod quota;
pub mod run;
pub mod script;
pub mod stage;
pub mod validate;
pub mod view;
