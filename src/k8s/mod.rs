//! What the API server asks of the objects that every room writes.

pub mod events;
