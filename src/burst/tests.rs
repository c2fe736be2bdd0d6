//! Tests of `burst` as a whole: scenarios, properties of every plan, and a simulation.

mod ahead;
mod eligible;
mod fence;
mod granting;
mod limits;
mod places;
mod properties;
mod shares;
mod simulation;
mod takeover;
mod words;
