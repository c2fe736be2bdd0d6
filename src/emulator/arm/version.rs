//! API versions of Microsoft.ContainerInstance, and the response fields that came with them.

use std::fmt;

use super::error::ArmFailure;

/// The versions from 2018-10-01 on, oldest first. Source: the service's published types, read 2026-11.
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

/// A supported API version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion(&'static str);

impl ApiVersion {
    /// Reads the query parameter `api-version` of a request for `resource_type`.
    pub fn parse(text: Option<&str>, resource_type: &str) -> Result<Self, ArmFailure> {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            let message =
                "The api-version query parameter (?api-version=) is required for all requests.";
            return Err(ArmFailure::bad_request(
                "MissingApiVersionParameter",
                message,
            ));
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
            ArmFailure::bad_request("NoRegisteredProviderFound", message)
        })
    }

    /// The newest version.
    pub fn newest() -> Self {
        Self(VERSIONS[VERSIONS.len() - 1])
    }

    /// Whether responses have `sku` and `initContainers`. Recordings of 2018-10-01 do not have them.
    pub fn has_sku(self) -> bool {
        self.0 >= "2019-12-01"
    }

    /// Whether responses have `provisioningTimeoutInSeconds`. Recordings of 2023-05-01 have it, those
    /// of 2021-09-01 do not.
    pub fn has_provisioning_timeout(self) -> bool {
        self.0 >= "2022-10-01"
    }

    /// Whether the 201 of a PUT has `location` and `retry-after` (in the specification from 2025-09-01
    /// on).
    pub fn has_final_location(self) -> bool {
        self.0 >= "2025-09-01"
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}
