//! The virtual node: what its pods need, and what is done for them.

pub mod environment;
