//! Which of two versions of an object is the later one.

/// How new an object of this resource version is. Versions are numbers that grow, guaranteed since
/// Kubernetes 1.35 and so before.
pub fn version(resource_version: &str) -> Option<u128> {
    resource_version.parse().ok()
}
