//! Which hosts the client of registries may send requests to.
//!
//! In: a URL, or the addresses that a name resolves to. Out: whether a request may go there. Pods name registries, and
//! registries name the endpoints of tokens and of blobs, so that both could send the operator to addresses that only
//! it can reach: its own machine, or the metadata service, which hands out credentials. The check concerns the
//! resolved address too, because a name can resolve to anything. For this reason requests to registries use no proxy: a
//! proxy would resolve the names.
//!
//! Registries in a virtual network have private addresses. Only the registry that the pod names, and hosts that such a
//! private registry leads to, may have one: a registry on the Internet must not lead the operator to private hosts.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use thiserror::Error;
use tokio::sync::Semaphore;
use url::{Host, Url};

use super::error::shortened;
use crate::aci::address::{is_loopback_or_reserved, is_private};

/// The domains of Azure Container Registry in the public cloud, US Government and China.
const AZURE_DOMAINS: [&str; 3] = [".azurecr.io", ".azurecr.us", ".azurecr.cn"];

/// A host that no request is sent to.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{host} is not requested: {why}")]
pub struct RegistryHostRefusal {
    /// The beginning of the host, with its port.
    pub host: String,
    /// The reason.
    pub why: &'static str,
}

const RESERVED: &str =
    "it has an address of the machine itself, a link-local address, or a metadata address";
const PRIVATE: &str = "it has a private address, and a registry on the Internet leads there";
const NOT_ENCRYPTED: &str = "requests to registries are sent over https only";
const WITH_CREDENTIALS: &str = "a URL with credentials is not followed";

/// How many names may be resolved at once. The system's resolver cannot be interrupted: one that does not answer
/// must not take all threads for blocking calls.
const LOOKUPS: usize = 16;

/// Which addresses a host may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostScope {
    /// All but those of the machine itself and reserved ones.
    Any,
    /// Public ones only.
    Public,
}

impl HostScope {
    /// Why a host with this address is not requested.
    fn refusal(self, address: IpAddr) -> Option<&'static str> {
        if is_loopback_or_reserved(address) {
            return Some(RESERVED);
        }
        (self == Self::Public && is_private(address)).then_some(PRIVATE)
    }
}

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
    pub(super) fn check(&self, url: &Url, scope: HostScope) -> Result<(), RegistryHostRefusal> {
        let host = authority(url);
        let refuse = |why| {
            Err(RegistryHostRefusal {
                host: shortened(&host),
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
        let refusal = match url.host() {
            Some(Host::Ipv4(address)) => scope.refusal(address.into()),
            Some(Host::Ipv6(address)) => scope.refusal(address.into()),
            Some(Host::Domain(name)) => is_localhost(name).then_some(RESERVED),
            None => None,
        };
        refusal.map_or(Ok(()), refuse)
    }

    /// A resolver of names that leaves out the addresses that may not be requested. Resolvers that share `lookups`
    /// share a limit.
    pub(super) fn resolver(
        &self,
        scope: HostScope,
        lookups: &Arc<Semaphore>,
    ) -> Arc<RegistryResolver> {
        let names = self.local.iter().filter_map(|host| host.rsplit_once(':'));
        let names = names.map(|(name, _)| name.to_owned());
        Arc::new(RegistryResolver {
            local: names.collect(),
            scope,
            lookups: lookups.clone(),
        })
    }
}

/// The limit of lookups at the same time.
pub(super) fn lookup_permits() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(LOOKUPS))
}

/// Whether a name is the machine itself, whatever a resolver says (RFC 6761).
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || name.ends_with(".localhost")
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
    scope: HostScope,
    lookups: Arc<Semaphore>,
}

impl Resolve for RegistryResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (is_local, scope) = (self.local.contains(name.as_str()), self.scope);
        let lookups = self.lookups.clone();
        Box::pin(async move {
            let permit = lookups.acquire_owned().await?;
            let host = name.as_str().to_owned();
            // The lookup may outlive this future, and keeps its permit as long as it takes a thread.
            let found = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                (host.as_str(), 0).to_socket_addrs()
            });
            let found: Vec<SocketAddr> = found.await??.collect();
            let refusal = |address: &SocketAddr| {
                if is_local {
                    None
                } else {
                    scope.refusal(address.ip())
                }
            };
            let mut refusals = found.iter().filter_map(refusal);
            let why = refusals.next_back().unwrap_or(RESERVED);
            let allowed = found.iter().filter(|address| refusal(address).is_none());
            let allowed: Vec<SocketAddr> = allowed.copied().collect();
            if allowed.is_empty() {
                let host = shortened(name.as_str());
                return Err(RegistryHostRefusal { host, why }.into());
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
            .check(&url.parse().expect(url), HostScope::Any)
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
            "https://localhost/",
            "https://LOCALHOST.:5000/",
            "https://a.localhost/",
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
    fn a_registry_on_the_internet_leads_to_public_hosts_only() {
        let guard = RegistryHostGuard::default();
        let check = |url: &str| guard.check(&url.parse().expect(url), HostScope::Public);
        for url in [
            "https://10.0.0.4/v2/",
            "https://172.16.0.1/",
            "https://192.168.1.1/",
            "https://100.64.0.1/",
            "https://[fd00::1]/a",
            "https://[::ffff:10.0.0.4]/",
            "https://[64:ff9b::a00:4]/",
        ] {
            let refusal = check(url).map_err(|refusal| refusal.why);
            assert_eq!(refusal, Err(PRIVATE), "{url}");
        }
        for url in [
            "https://20.0.0.4/",
            "https://[2001:db8::1]/",
            "https://quay.io/",
        ] {
            assert_eq!(check(url), Ok(()), "{url}");
        }
        assert!(check("https://127.0.0.1/").is_err());
        let long = format!("https://{}.io/", "a".repeat(5_000));
        let refusal = guard.check(
            &long.replace("https", "http").parse().expect("a URL"),
            HostScope::Any,
        );
        assert!(refusal.expect_err("not encrypted").host.len() <= 100);
    }

    #[tokio::test]
    async fn names_wait_for_a_lookup_that_does_not_end() {
        let guard = RegistryHostGuard::for_tests(["localhost:5000"], []);
        let lookups = Arc::new(Semaphore::new(1));
        let held = lookups.clone().acquire_owned().await.expect("a permit");
        let resolver = guard.resolver(HostScope::Any, &lookups);
        let mut found = resolver.resolve("localhost".parse().expect("a name"));
        assert!(futures::poll!(&mut found).is_pending());
        drop(held);
        assert!(found.await.is_ok());
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
            let resolver = guard.resolver(HostScope::Any, &lookup_permits());
            resolver.resolve(name.parse().expect(name))
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
