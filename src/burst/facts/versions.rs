//! Whether a watch shows the version of a pod that was reserved.

use super::pod::PodFacts;
use crate::api::{Reservation, parse_resource_version};

/// The version of a pod in a watch, compared with the version in its reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionComparison {
    /// The version that was reserved.
    Same,
    /// An earlier version, or one that cannot be compared: the watch is behind.
    NotNewer,
    /// A later version.
    Newer,
}

impl VersionComparison {
    /// Compares the pod as the watch shows it with `entry`.
    pub fn compare(entry: &Reservation, pod: &PodFacts) -> Self {
        let (reserved, seen) = (&entry.resource_version, &pod.id.resource_version);
        if reserved == seen {
            return Self::Same;
        }
        match (
            parse_resource_version(reserved),
            parse_resource_version(seen),
        ) {
            (Some(reserved), Some(seen)) if seen > reserved => Self::Newer,
            _ => Self::NotNewer,
        }
    }
}
