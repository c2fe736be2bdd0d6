//! The DNS configuration of the group (decision D17).
//!
//! In: the pod's DNS policy and settings, and the placement's `network.dns`. Out: the DNS configuration in the
//! group's body, or refusals.
//!
//! In a subnet, `ClusterFirst` means the placement's `network.dns` with the cluster's search domains, or Azure's
//! resolver if the placement has no `network.dns`. Without a subnet, ACI accepts no DNS settings: `ClusterFirst`
//! and `Default` then mean Azure's resolver, and a pod with its own DNS settings is refused. Lists are merged and
//! truncated as in the kubelet.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{PodDNSConfig, PodDNSConfigOption};

use super::body::DnsConfig;
use super::pod::TranslationContext;
use super::refusals::Refusals;
use crate::api::Dns;

/// Azure's resolver. It has this address in every virtual network.
const AZURE_RESOLVER: &str = "168.63.129.16";
/// The most name servers (the limit of the C library, and therefore of the kubelet).
const MAX_NAME_SERVERS: usize = 3;
/// The most search domains, and the most characters in all of them (the kubelet's limits since Kubernetes 1.28).
const MAX_SEARCH_DOMAINS: (usize, usize) = (32, 2048);

/// The group's DNS configuration; `None` to use Azure's resolver.
pub(super) fn dns_config(
    context: &TranslationContext<'_>,
    refusals: &mut Refusals,
) -> Option<DnsConfig> {
    let none = PodDNSConfig::default();
    let pod_config = context.spec.dns_config.as_ref().unwrap_or(&none);
    let policy = context.spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let known = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    refusals.require(
        known.contains(&policy),
        "spec.dnsPolicy",
        format!("'{policy}' is not a DNS policy"),
    );
    let cluster = context.placement.spec.network.dns.as_ref();
    let cluster = cluster.filter(|_| policy.starts_with("ClusterFirst"));
    if !context.placement.is_in_subnet() {
        const WHY: &str =
            "ACI accepts DNS settings in a subnet only, and the placement has no subnet";
        refusals.require(policy != "None", "spec.dnsPolicy", WHY);
        refusals.require(*pod_config == none, "spec.dnsConfig", WHY);
        return None;
    }
    if cluster.is_none() && *pod_config == none && policy != "None" {
        return None;
    }
    let mut config = DnsLists::default();
    if let Some(dns) = cluster {
        let namespace = context.pod.metadata.namespace.as_deref();
        config = DnsLists::of_cluster(dns, namespace.unwrap_or_default());
    } else if policy != "None" {
        config.servers = vec![AZURE_RESOLVER.to_owned()];
    }
    config.merge(pod_config);
    for server in &config.servers {
        let valid = server.parse::<IpAddr>().is_ok();
        refusals.require(
            valid,
            "spec.dnsConfig.nameservers",
            format!("'{server}' is not an IP address"),
        );
    }
    let has_servers = !config.servers.is_empty();
    refusals.require(
        has_servers,
        "spec.dnsConfig.nameservers",
        "the policy None needs name servers",
    );
    Some(config.into_body())
}

/// The lists of a DNS configuration, before they are truncated to the limits.
#[derive(Default)]
struct DnsLists {
    servers: Vec<String>,
    searches: Vec<String>,
    options: Vec<(String, Option<String>)>,
}

impl DnsLists {
    /// The lists of `ClusterFirst` for a pod in `namespace`.
    fn of_cluster(dns: &Dns, namespace: &str) -> Self {
        let domain = &dns.cluster_domain;
        let searches = [
            format!("{namespace}.svc.{domain}"),
            format!("svc.{domain}"),
            domain.clone(),
        ];
        Self {
            servers: dns.name_servers.clone(),
            searches: searches.into(),
            options: vec![("ndots".to_owned(), Some("5".to_owned()))],
        }
    }

    /// Adds the pod's own settings. An option replaces an earlier option of the same name.
    fn merge(&mut self, own: &PodDNSConfig) {
        let lists = [
            (&mut self.servers, &own.nameservers),
            (&mut self.searches, &own.searches),
        ];
        for (list, more) in lists {
            for item in more.iter().flatten() {
                if !list.contains(item) {
                    list.push(item.clone());
                }
            }
        }
        for PodDNSConfigOption { name, value } in own.options.iter().flatten() {
            let name = name.clone().unwrap_or_default();
            match self.options.iter_mut().find(|(known, _)| *known == name) {
                Some(option) => option.1.clone_from(value),
                None => self.options.push((name, value.clone())),
            }
        }
    }

    fn into_body(mut self) -> DnsConfig {
        self.servers.truncate(MAX_NAME_SERVERS);
        self.searches.truncate(MAX_SEARCH_DOMAINS.0);
        while self.searches.join(" ").len() > MAX_SEARCH_DOMAINS.1 {
            self.searches.pop();
        }
        let options = self
            .options
            .into_iter()
            .filter(|(name, _)| !name.is_empty());
        let options = options.map(|(name, value)| match value.filter(|v| !v.is_empty()) {
            Some(value) => format!("{name}:{value}"),
            None => name,
        });
        DnsConfig {
            name_servers: self.servers,
            search_domains: self.searches.join(" "),
            options: options.collect::<Vec<_>>().join(" "),
        }
    }
}
