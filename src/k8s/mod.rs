//! What the API server asks of the objects that every room writes, and what follows when it refuses one.

pub mod events;
pub mod refused;
