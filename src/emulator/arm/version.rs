//! API versions: which exist, and what came with which.

use std::fmt;

use super::error::ArmError;

/// The versions of Microsoft.ContainerInstance from 2018-10-01 on, oldest first (the list of the
/// service's published types, read 2026-11).
pub const VERSIONS: [&str; 19] = [
    "2018-10-01",
    "2019-12-01",
    "2020-11-01",
    "2021-03-01",
    "2021-07-01",
    "2021-09-01",
    "2021-10-01",
    "2022-09-01",
    "2022-10-01-preview",
    "2023-02-01-preview",
    "2023-05-01",
    "2024-05-01-preview",
    "2024-09-01-preview",
    "2024-10-01-preview",
    "2024-11-01-preview",
    "2025-09-01",
    "2026-06-01-preview",
    "2026-07-01",
    "2026-08-01-preview",
];

/// A version that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(&'static str);

impl Version {
    /// Reads the query parameter `api-version` of a request for `resource_type`.
    pub fn parse(text: Option<&str>, resource_type: &str) -> Result<Self, ArmError> {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            let message =
                "The api-version query parameter (?api-version=) is required for all requests.";
            return Err(ArmError::bad_request("MissingApiVersionParameter", message));
        };
        let known = VERSIONS
            .iter()
            .find(|known| known.eq_ignore_ascii_case(text));
        known.copied().map(Self).ok_or_else(|| {
            let message = format!(
                "No registered resource provider found for API version '{text}' for type \
                 '{resource_type}'. The supported api-versions are '{}'.",
                VERSIONS.join(", ")
            );
            ArmError::bad_request("NoRegisteredProviderFound", message)
        })
    }

    /// The newest one.
    pub fn newest() -> Self {
        Self(VERSIONS[VERSIONS.len() - 1])
    }

    /// Whether answers have `sku` and `initContainers`: not yet in what was recorded of 2018-10-01.
    pub fn has_sku(self) -> bool {
        self.0 >= "2019-12-01"
    }

    /// Whether answers have `provisioningTimeoutInSeconds`: recorded with 2023-05-01, not with
    /// 2021-09-01.
    pub fn has_provisioning_timeout(self) -> bool {
        self.0 >= "2022-10-01"
    }

    /// Whether a PUT's 201 also has `location` and `retry-after` (the specification from 2025-09-01).
    pub fn has_final_location(self) -> bool {
        self.0 >= "2025-09-01"
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}
