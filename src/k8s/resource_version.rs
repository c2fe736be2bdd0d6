//! Parses resource versions, so that two versions of an object can be compared.

/// The resource version as a number: a later version has a larger number. Kubernetes guarantees this since 1.35, and
/// earlier versions do the same. `None` if it is not a number.
pub fn parse_resource_version(resource_version: &str) -> Option<u128> {
    resource_version.parse().ok()
}
