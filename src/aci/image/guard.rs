//! Which hosts the client of registries may send requests to.
//!
//! In: a URL, or the addresses that a name resolves to. Out: whether a request may go there. Pods name registries, and
//! registries name the endpoints of tokens and of blobs, so that both could send the operator to addresses that only
//! it can reach: its own machine, or the metadata service, which hands out credentials. The check concerns the
//! resolved address too, because a name can resolve to anything. Where a proxy is configured (`HTTPS_PROXY`), the
//! proxy resolves names, and must make that check.
//!
//! Private addresses are allowed: registries in a virtual network have them.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use thiserror::Error;
use url::{Host, Url};

use crate::aci::address::is_loopback_or_reserved;

/// The domains of Azure Container Registry in the public cloud, US Government and China.
const AZURE_DOMAINS: [&str; 3] = [".azurecr.io", ".azurecr.us", ".azurecr.cn"];

/// A host that no request is sent to.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{host} is not requested: {why}")]
pub struct RegistryHostRefusal {
    /// The host, with its port.
    pub host: String,
    /// The reason.
    pub why: &'static str,
}

const RESERVED: &str =
    "it has an address of the machine itself, a link-local address, or a metadata address";
const NOT_ENCRYPTED: &str = "requests to registries are sent over https only";
const WITH_CREDENTIALS: &str = "a URL with credentials is not followed";

/// Decides which hosts may be requested.
#[derive(Clone, Debug, Default)]
pub struct RegistryHostGuard {
    /// Registries of tests, as `host:port`: they are on loopback and speak plain HTTP.
    local: BTreeSet<String>,
    /// Those of `local` that are taken for Azure Container Registry.
    local_azure: BTreeSet<String>,
}

impl RegistryHostGuard {
    /// A guard for tests. It allows plain HTTP and loopback addresses for the hosts `local` (`host:port`), and takes
    /// those in `azure` for Azure Container Registry.
    pub fn for_tests<'a>(
        local: impl IntoIterator<Item = &'a str>,
        azure: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        Self {
            local: local.into_iter().map(str::to_owned).collect(),
            local_azure: azure.into_iter().map(str::to_owned).collect(),
        }
    }

    /// The beginning of the URLs of the registry at `host`.
    pub(super) fn scheme(&self, host: &str) -> &'static str {
        if self.local.contains(host) {
            "http"
        } else {
            "https"
        }
    }

    /// Whether the registry at `host` is Azure Container Registry, so that the operator's identity may be used there.
    pub fn is_azure(&self, host: &str) -> bool {
        is_azure_registry(host) || self.local_azure.contains(host)
    }

    /// Checks a URL before each request. A host that is a name is checked again when it is resolved.
    pub(super) fn check(&self, url: &Url) -> Result<(), RegistryHostRefusal> {
        let host = authority(url);
        let refuse = |why| {
            Err(RegistryHostRefusal {
                host: host.clone(),
                why,
            })
        };
        if !url.username().is_empty() || url.password().is_some() {
            return refuse(WITH_CREDENTIALS);
        }
        if self.local.contains(&host) && url.scheme() == "http" {
            return Ok(());
        }
        if url.scheme() != "https" {
            return refuse(NOT_ENCRYPTED);
        }
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::from(address),
            Some(Host::Ipv6(address)) => IpAddr::from(address),
            _ => return Ok(()),
        };
        if is_loopback_or_reserved(address) {
            refuse(RESERVED)
        } else {
            Ok(())
        }
    }

    /// A resolver of names that leaves out the addresses that may not be requested.
    pub(super) fn resolver(&self) -> Arc<RegistryResolver> {
        let names = self.local.iter().filter_map(|host| host.rsplit_once(':'));
        let names = names.map(|(name, _)| name.to_owned());
        Arc::new(RegistryResolver {
            local: names.collect(),
        })
    }
}

/// Whether the registry at `host` is Azure Container Registry, so that a managed identity can pull from it.
pub(in crate::aci) fn is_azure_registry(host: &str) -> bool {
    let name = host.split(':').next().unwrap_or_default();
    AZURE_DOMAINS.iter().any(|domain| name.ends_with(domain))
}

/// The host of a URL with its port.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Resolves names to addresses that may be requested.
pub(super) struct RegistryResolver {
    /// Names of tests' registries, which may be on loopback.
    local: BTreeSet<String>,
}

impl Resolve for RegistryResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let is_local = self.local.contains(name.as_str());
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed =
                found.filter(|address| is_local || !is_loopback_or_reserved(address.ip()));
            let allowed: Vec<SocketAddr> = allowed.collect();
            if allowed.is_empty() {
                let host = name.as_str().to_owned();
                return Err(RegistryHostRefusal {
                    host,
                    why: RESERVED,
                }
                .into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(guard: &RegistryHostGuard, url: &str) -> Result<(), &'static str> {
        guard
            .check(&url.parse().expect(url))
            .map_err(|refusal| refusal.why)
    }

    #[test]
    fn requests_go_to_registries_only() {
        let guard = RegistryHostGuard::default();
        for url in [
            "https://quay.io/v2/",
            "https://10.0.0.4/v2/",
            "https://registry:5000/",
            "https://[fd00::1]/a",
        ] {
            assert_eq!(check(&guard, url), Ok(()), "{url}");
        }
        for url in [
            "https://127.0.0.1/v2/",
            "https://127.8.8.8:5000/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::127.0.0.1]/",
            "https://0.0.0.0/",
            "https://[::]/",
            "https://169.254.169.254/metadata",
            "https://168.63.129.16/",
            "https://[fe80::1]/",
            "https://[::ffff:169.254.169.254]/",
            "https://[64:ff9b::a9fe:a9fe]/",
        ] {
            assert_eq!(check(&guard, url), Err(RESERVED), "{url}");
        }
        for url in [
            "http://quay.io/v2/",
            "ftp://quay.io/",
            "file:///etc/passwd",
            "http://127.0.0.1:5000/",
        ] {
            assert_eq!(check(&guard, url), Err(NOT_ENCRYPTED), "{url}");
        }
        assert_eq!(
            check(&guard, "https://user@quay.io/"),
            Err(WITH_CREDENTIALS)
        );
        assert_eq!(
            check(&guard, "https://:secret@quay.io/"),
            Err(WITH_CREDENTIALS)
        );
    }

    #[test]
    fn a_test_opens_its_own_registries_and_no_others() {
        let guard = RegistryHostGuard::for_tests(["127.0.0.1:5000"], []);
        assert_eq!(check(&guard, "http://127.0.0.1:5000/v2/"), Ok(()));
        for url in [
            "https://127.0.0.1:5000/",
            "http://127.0.0.1:5001/",
            "http://[::1]:5000/",
            "http://localhost:5000/",
        ] {
            assert!(check(&guard, url).is_err(), "{url}");
        }
        assert_eq!(
            (guard.scheme("127.0.0.1:5000"), guard.scheme("quay.io")),
            ("http", "https")
        );
    }

    #[test]
    fn azures_registries_are_known_by_their_domains() {
        let guard = RegistryHostGuard::for_tests([], ["127.0.0.1:5000"]);
        for host in [
            "shop.azurecr.io",
            "shop.azurecr.cn",
            "shop.azurecr.us:443",
            "127.0.0.1:5000",
        ] {
            assert!(guard.is_azure(host), "{host}");
        }
        for host in [
            "azurecr.io.example",
            "shopazurecr.io",
            "docker.io",
            "127.0.0.1:5001",
        ] {
            assert!(!guard.is_azure(host), "{host}");
        }
    }

    #[tokio::test]
    async fn a_name_is_resolved_to_allowed_addresses_only() {
        let resolve = |guard: RegistryHostGuard, name: &str| {
            guard.resolver().resolve(name.parse().expect(name))
        };
        let refusal = resolve(RegistryHostGuard::default(), "localhost").await;
        let refusal = refusal.map(drop).expect_err("localhost is on loopback");
        let refusal = refusal
            .downcast::<RegistryHostRefusal>()
            .expect("the guard's own refusal");
        assert_eq!(
            (refusal.host.as_str(), refusal.why),
            ("localhost", RESERVED)
        );
        let local = RegistryHostGuard::for_tests(["localhost:5000"], []);
        let found = resolve(local, "localhost").await.expect("a test may");
        assert!(found.into_iter().all(|address| address.ip().is_loopback()));
    }
}
