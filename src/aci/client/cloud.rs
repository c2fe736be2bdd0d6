//! The endpoints of the Azure clouds.
//!
//! In: a cloud's name as the Azure CLI spells it. Out: the URL of ARM, the URL that issues tokens, and the token
//! scopes.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use url::Url;

/// The endpoints of a cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudEndpoints {
    /// The URL of Azure Resource Manager. It has no path, because the client's routes replace the path.
    pub arm: Url,
    /// The URL that issues tokens: scheme and host.
    pub authority: String,
    /// The token scope for Azure Resource Manager.
    pub scope: String,
    /// The token scope for Azure Monitor's managed Prometheus. Microsoft documents the scope of the public cloud
    /// only. The scopes for US Government and China are taken from the clients of KEDA and Grafana (Grafana used
    /// chinacloudapp.cn at first).
    pub monitor_scope: String,
}

/// The error for a text that is not the name of a cloud.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0} is not an Azure cloud: use AzureCloud, AzureUSGovernment or AzureChinaCloud")]
pub struct UnknownCloud(String);

impl Default for CloudEndpoints {
    fn default() -> Self {
        Self::new(
            "https://management.azure.com",
            "https://login.microsoftonline.com",
            "https://prometheus.monitor.azure.com",
        )
    }
}

impl CloudEndpoints {
    fn new(arm: &str, authority: &str, monitor: &str) -> Self {
        let arm: Url = arm.parse().expect("the URLs of this file are URLs");
        Self {
            scope: format!("{arm}.default"),
            arm,
            authority: authority.to_owned(),
            monitor_scope: format!("{monitor}/.default"),
        }
    }

    /// The host of Azure Monitor. The query endpoints of managed Prometheus are subdomains of it.
    pub fn monitor_host(&self) -> &str {
        let scope = self.monitor_scope.trim_end_matches("/.default");
        scope.trim_start_matches("https://")
    }

    /// The same cloud with another ARM endpoint, and with the token scope for that endpoint.
    #[must_use]
    pub fn with_arm(mut self, arm: Url) -> Self {
        self.scope = format!("{}/.default", arm.as_str().trim_end_matches('/'));
        self.arm = arm;
        self
    }

    /// The same cloud with another token issuer.
    #[must_use]
    pub fn with_authority(mut self, authority: &str) -> Self {
        authority
            .trim_end_matches('/')
            .clone_into(&mut self.authority);
        self
    }
}

impl FromStr for CloudEndpoints {
    type Err = UnknownCloud;

    /// Parses a cloud's name as the Azure CLI spells it, without regard to case. The endpoints are those that
    /// Microsoft documents.
    fn from_str(name: &str) -> Result<Self, UnknownCloud> {
        match name.to_ascii_lowercase().as_str() {
            "azurecloud" | "azurepubliccloud" => Ok(Self::default()),
            "azureusgovernment" | "azureusgovernmentcloud" => Ok(Self::new(
                "https://management.usgovcloudapi.net",
                "https://login.microsoftonline.us",
                "https://prometheus.monitor.azure.us",
            )),
            "azurechinacloud" => Ok(Self::new(
                "https://management.chinacloudapi.cn",
                "https://login.chinacloudapi.cn",
                "https://prometheus.monitor.azure.cn",
            )),
            _ => Err(UnknownCloud(name.to_owned())),
        }
    }
}

impl fmt::Display for CloudEndpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.arm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clouds_have_their_own_endpoints_authorities_and_scopes() {
        let public = (
            "management.azure.com",
            "login.microsoftonline.com",
            "prometheus.monitor.azure.com",
        );
        let government = (
            "management.usgovcloudapi.net",
            "login.microsoftonline.us",
            "prometheus.monitor.azure.us",
        );
        let china = (
            "management.chinacloudapi.cn",
            "login.chinacloudapi.cn",
            "prometheus.monitor.azure.cn",
        );
        for (name, (arm, authority, monitor)) in [
            ("AzureCloud", public),
            ("AzurePublicCloud", public),
            ("AzureUSGovernment", government),
            ("AzureUSGovernmentCloud", government),
            ("azurechinacloud", china),
        ] {
            let cloud: CloudEndpoints = name.parse().expect(name);
            assert_eq!(cloud.arm.as_str(), format!("https://{arm}/"), "{name}");
            assert_eq!(cloud.authority, format!("https://{authority}"), "{name}");
            assert_eq!(cloud.scope, format!("https://{arm}/.default"), "{name}");
            let monitor = format!("https://{monitor}/.default");
            assert_eq!(cloud.monitor_scope, monitor, "{name}");
            let scope = format!("https://{}/.default", cloud.monitor_host());
            assert_eq!(scope, monitor, "{name}");
        }
        assert_eq!(
            "Azure".parse::<CloudEndpoints>(),
            Err(UnknownCloud("Azure".to_owned()))
        );
    }

    #[test]
    fn the_endpoints_are_those_that_azures_own_crate_knows() {
        use azure_core::{authority_hosts, resource_manager_endpoint as arm};
        let clouds = [
            (
                "AzureCloud",
                &arm::AZURE_PUBLIC_CLOUD,
                &authority_hosts::AZURE_PUBLIC_CLOUD,
            ),
            (
                "AzureUSGovernment",
                &arm::AZURE_US_GOVERNMENT_CLOUD,
                &authority_hosts::AZURE_US_GOVERNMENT_CLOUD,
            ),
            (
                "AzureChinaCloud",
                &arm::AZURE_CHINA_CLOUD,
                &authority_hosts::AZURE_CHINA_CLOUD,
            ),
        ];
        for (name, arm, authority) in clouds {
            let cloud: CloudEndpoints = name.parse().expect(name);
            assert_eq!(cloud.arm, **arm, "{name}");
            assert_eq!(
                Url::parse(&cloud.authority).as_ref(),
                Ok(&**authority),
                "{name}"
            );
        }
    }

    #[test]
    fn another_endpoint_changes_the_scope_and_another_authority_does_not() {
        let arm = "http://127.0.0.1:1".parse().expect("a URL");
        let emulator = CloudEndpoints::default().with_arm(arm);
        assert_eq!(emulator.scope, "http://127.0.0.1:1/.default");
        assert_eq!(emulator.authority, CloudEndpoints::default().authority);
        let elsewhere = CloudEndpoints::default().with_authority("https://login.example/");
        assert_eq!(elsewhere.authority, "https://login.example");
        assert_eq!(elsewhere.scope, CloudEndpoints::default().scope);
    }
}
