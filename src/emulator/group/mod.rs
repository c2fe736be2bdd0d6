//! A container group: what is asked for (`model`, `validate`), what it does (`life`, `stage`, `run`,
//! `script`, `log`) and what the service says about it (`view`). Pure: values in, values out, the
//! time an argument.

pub mod id;
pub mod life;
pub mod log;
pub mod model;
pub mod quota;
pub mod run;
pub mod script;
pub mod stage;
pub mod validate;
pub mod view;
