//! Azure Resource Manager and Container Instances on localhost.
pub mod clock;
