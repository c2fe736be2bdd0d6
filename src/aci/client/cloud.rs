//! Which cloud: where ARM is, where tokens come from, and what they are for.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use url::Url;

/// The endpoints of a cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cloud {
    /// Azure Resource Manager; no path, because the client's routes replace it.
    pub arm: Url,
    /// Where tokens come from: scheme and host.
    pub authority: String,
    /// What a token is for.
    pub scope: String,
}

/// A text that names no cloud.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0} is no cloud: use AzureCloud, AzureUSGovernment or AzureChinaCloud")]
pub struct UnknownCloud(String);

impl Default for Cloud {
    fn default() -> Self {
        Self::of(
            "https://management.azure.com",
            "https://login.microsoftonline.com",
        )
    }
}

impl Cloud {
    fn of(arm: &str, authority: &str) -> Self {
        let arm: Url = arm.parse().expect("the URLs of this file are URLs");
        Self {
            scope: format!("{arm}.default"),
            arm,
            authority: authority.to_owned(),
        }
    }

    /// The same cloud with another ARM endpoint, and tokens for that.
    #[must_use]
    pub fn with_arm(mut self, arm: Url) -> Self {
        self.scope = format!("{}/.default", arm.as_str().trim_end_matches('/'));
        self.arm = arm;
        self
    }

    /// The same cloud with tokens from elsewhere.
    #[must_use]
    pub fn with_authority(mut self, authority: &str) -> Self {
        authority
            .trim_end_matches('/')
            .clone_into(&mut self.authority);
        self
    }
}

impl FromStr for Cloud {
    type Err = UnknownCloud;

    /// Reads a cloud's name as the Azure CLI has it. The endpoints are Microsoft's documented ones.
    fn from_str(name: &str) -> Result<Self, UnknownCloud> {
        match name.to_ascii_lowercase().as_str() {
            "azurecloud" | "azurepubliccloud" => Ok(Self::default()),
            "azureusgovernment" | "azureusgovernmentcloud" => Ok(Self::of(
                "https://management.usgovcloudapi.net",
                "https://login.microsoftonline.us",
            )),
            "azurechinacloud" => Ok(Self::of(
                "https://management.chinacloudapi.cn",
                "https://login.chinacloudapi.cn",
            )),
            _ => Err(UnknownCloud(name.to_owned())),
        }
    }
}

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.arm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clouds_have_their_own_endpoints_and_scopes() {
        let scope = |name: &str| name.parse::<Cloud>().map(|cloud| cloud.scope);
        assert_eq!(
            scope("AzureCloud").as_deref(),
            Ok("https://management.azure.com/.default")
        );
        let government: Cloud = "AzureUSGovernment".parse().expect("a cloud");
        assert_eq!(government.authority, "https://login.microsoftonline.us");
        assert_eq!(
            scope("AzureChinaCloud").as_deref(),
            Ok("https://management.chinacloudapi.cn/.default")
        );
        assert_eq!(scope("Azure"), Err(UnknownCloud("Azure".to_owned())));
        let emulator = Cloud::default().with_arm("http://127.0.0.1:1".parse().expect("a URL"));
        assert_eq!(emulator.scope, "http://127.0.0.1:1/.default");
    }
}
