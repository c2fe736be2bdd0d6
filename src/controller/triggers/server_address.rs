//! The server that a trigger queries, and whether credentials may be sent to it. Pure.
//!
//! In: `serverAddress`, the Secret of `authSecretRef`, the hosts of Azure Monitor. Out: the server, or why its
//! address or a credential cannot be used, with the remedy.
//!
//! Users who may write a `BurstPool` often may not read the Secrets that the operator reads. The pool alone
//! therefore cannot choose where a Secret is sent: the Secret's own annotation lists the servers that may
//! receive it.

use std::fmt;

use k8s_openapi::api::core::v1::Secret;
use url::{Host, Url};

use crate::aci::address::is_reserved;

/// The annotation of a Secret that lists the servers to which it may be sent: `host` or `host:port`, separated
/// by commas. A host without a port allows all its ports.
pub(super) const ALLOW_SERVER: &str = "burstpool.io/allow-server";
/// The type of Secrets that hold a service account's token.
const SERVICE_ACCOUNT_TOKEN: &str = "kubernetes.io/service-account-token";

/// A server, as a URL names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerAddress {
    host: String,
    port: u16,
    is_plaintext: bool,
}

impl ServerAddress {
    /// Parses `serverAddress`.
    pub fn parse(address: &str) -> Result<Self, String> {
        let error_message = |why: &str| format!("serverAddress {why}");
        let url: Url = address
            .parse()
            .map_err(|error| error_message(&format!("is not a URL: {error}")))?;
        let is_plaintext = match url.scheme() {
            "https" => false,
            "http" => true,
            _ => return Err(error_message("must begin with http:// or https://")),
        };
        let has_credentials = !url.username().is_empty() || url.password().is_some();
        if has_credentials || url.query().is_some() || url.fragment().is_some() {
            return Err(error_message("must have no credentials, query or fragment"));
        }
        let is_refused = match url.host() {
            Some(Host::Ipv4(address)) => is_reserved(address.into()),
            Some(Host::Ipv6(address)) => is_reserved(address.into()),
            _ => false,
        };
        if is_refused {
            return Err(error_message(
                "is a link-local address or one of the cloud's own services, which are never queried: set it to the \
                 address of Prometheus",
            ));
        }
        let host = url.host_str().unwrap_or_default();
        // The host becomes part of a command in a message.
        let is_allowed_char =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
        if host.is_empty() || !host.chars().all(is_allowed_char) {
            return Err(error_message("must name a host by its DNS name or address"));
        }
        Ok(Self {
            host: host.trim_end_matches('.').to_owned(),
            port: url.port_or_known_default().unwrap_or_default(),
            is_plaintext,
        })
    }

    /// Whether requests are not encrypted.
    pub fn is_plaintext(&self) -> bool {
        self.is_plaintext
    }

    /// Whether an entry of the annotation names this server.
    fn matches(&self, entry: &str) -> bool {
        let entry = entry.to_ascii_lowercase();
        entry == self.host || entry == self.to_string()
    }

    /// Checks that the server is one of these hosts of Azure Monitor or a subdomain of one, and that requests
    /// are encrypted.
    pub fn check_azure_monitor(&self, hosts: &[String]) -> Result<(), String> {
        let is_within = |host: &String| {
            let prefix = self.host.strip_suffix(host.as_str());
            prefix.is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('.'))
        };
        if !self.is_plaintext && hosts.iter().any(is_within) {
            return Ok(());
        }
        Err(format!(
            "azureCredential sends the operator's Azure token only to https:// and to hosts of Azure Monitor ({}), \
             not to {self}: name a query endpoint of an Azure Monitor workspace, or start burstpool with \
             --azure-monitor-host",
            hosts.join(", ")
        ))
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Checks that a Secret may be sent to the server. The error contains the command that allows it.
pub(super) fn check_allowed(secret: &Secret, server: &ServerAddress) -> Result<(), String> {
    if secret.type_.as_deref() == Some(SERVICE_ACCOUNT_TOKEN) {
        return Err(format!(
            "has the type {SERVICE_ACCOUNT_TOKEN}, and a service account's token is never sent: name a Secret \
             with a credential that only Prometheus accepts"
        ));
    }
    let annotations = secret.metadata.annotations.as_ref();
    let allowed = annotations.and_then(|annotations| annotations.get(ALLOW_SERVER));
    let allowed = allowed.map(String::as_str).unwrap_or_default();
    let entries = allowed.split([',', ' ', '\n']).map(str::trim);
    let entries: Vec<&str> = entries.filter(|entry| !entry.is_empty()).collect();
    if entries.iter().any(|entry| server.matches(entry)) {
        return Ok(());
    }
    let metadata = &secret.metadata;
    let (name, namespace) = (metadata.name.as_deref(), metadata.namespace.as_deref());
    let (name, namespace) = (name.unwrap_or_default(), namespace.unwrap_or_default());
    let command = format!("kubectl annotate secret {name} -n {namespace}");
    let remedy = if entries.is_empty() {
        format!("{command} {ALLOW_SERVER}='{server}'")
    } else {
        // The current list is part of the Secret: users who may not read the Secret may be able to read the
        // pool's status.
        format!(
            "{command} --overwrite {ALLOW_SERVER}='{server}', with the servers that the annotation lists already"
        )
    };
    Err(format!(
        "does not allow burstpool to send it to {server}; to allow it: {remedy}"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn server(address: &str) -> ServerAddress {
        ServerAddress::parse(address).expect(address)
    }

    fn secret(kind: &str, allowed: Option<&str>) -> Secret {
        let mut secret = json!({"type": kind, "metadata": {"name": "prom", "namespace": "shop"}});
        if let Some(allowed) = allowed {
            secret["metadata"]["annotations"] = json!({"burstpool.io/allow-server": allowed});
        }
        serde_json::from_value(secret).expect("a Secret")
    }

    #[test]
    fn a_secret_goes_only_to_the_servers_that_it_names() {
        for (address, allowed, is_sent) in [
            ("http://prometheus.monitoring:9090", None, false),
            ("http://prometheus.monitoring:9090", Some(""), false),
            (
                "http://prometheus.monitoring:9090",
                Some("prometheus.monitoring:9090"),
                true,
            ),
            (
                "http://prometheus.monitoring:9090/prom",
                Some("prometheus.monitoring"),
                true,
            ),
            (
                "http://prometheus.monitoring:9090",
                Some("prometheus.monitoring:9091"),
                false,
            ),
            (
                "http://prometheus.monitoring:9090",
                Some("prometheus"),
                false,
            ),
            ("http://prometheus.monitoring:9090", Some("*"), false),
            (
                "https://thanos.example",
                Some("a, thanos.example:443"),
                true,
            ),
            ("https://thanos.example", Some("a,THANOS.example"), true),
            ("https://thanos.example.", Some("thanos.example"), true),
            ("http://thanos.example", Some("thanos.example:443"), false),
            (
                "https://thanos.example.evil.org",
                Some("thanos.example"),
                false,
            ),
            (
                "https://evil.org/thanos.example",
                Some("thanos.example"),
                false,
            ),
            ("https://[::1]:9090", Some("[::1]:9090"), true),
        ] {
            let result = check_allowed(&secret("Opaque", allowed), &server(address));
            assert_eq!(result.is_ok(), is_sent, "{address} {allowed:?}: {result:?}");
        }
    }

    #[test]
    fn a_refusal_has_the_command_that_allows_it_but_not_the_annotations_value() {
        let address = server("http://prometheus.monitoring:9090");
        let why = check_allowed(&secret("Opaque", None), &address).expect_err("it is not allowed");
        let command = "kubectl annotate secret prom -n shop \
                       burstpool.io/allow-server='prometheus.monitoring:9090'";
        assert!(why.ends_with(command), "{why}");
        let why = check_allowed(&secret("Opaque", Some("other.example")), &address);
        let why = why.expect_err("another one is allowed");
        assert!(
            why.contains(" --overwrite ") && !why.contains("other.example"),
            "{why}"
        );
    }

    #[test]
    fn a_service_accounts_secret_is_never_sent() {
        let token = secret(SERVICE_ACCOUNT_TOKEN, Some("prometheus.monitoring"));
        let why = check_allowed(&token, &server("https://prometheus.monitoring"));
        assert!(why.expect_err("never").contains("is never sent"));
    }

    #[test]
    fn an_address_names_a_permitted_host_and_nothing_else() {
        for (address, expected) in [
            ("prometheus:9090", "must begin with http://"),
            ("ftp://prometheus", "must begin with http://"),
            ("http://", "is not a URL"),
            ("http://allowed@evil", "no credentials"),
            ("http://prometheus/?a=b", "query or fragment"),
            ("http://prometheus/#", "query or fragment"),
            ("http://a;reboot/", "by its DNS name"),
            ("http://a'$(reboot)/", "by its DNS name"),
            ("http://169.254.169.254/metadata", "never queried"),
            ("http://0xa9fea9fe/", "never queried"),
            ("http://[fe80::1]/", "never queried"),
            ("http://[::ffff:169.254.169.254]/", "never queried"),
            ("http://[64:ff9b::a9fe:a9fe]/metadata", "never queried"),
            ("http://168.63.129.16/", "never queried"),
            ("http://100.100.100.200/", "never queried"),
            ("http://[fd00:ec2::254]/", "never queried"),
            ("http://0.0.0.0:8081/", "never queried"),
        ] {
            let why = ServerAddress::parse(address).expect_err(address);
            assert!(why.contains(expected), "{address}: {why}");
        }
        for address in [
            "http://127.0.0.1:9090/prom",
            "https://10.0.0.4",
            "http://[fd00::1]:9090",
        ] {
            server(address);
        }
    }

    #[test]
    fn an_azure_token_goes_only_to_azure_monitor() {
        let hosts = [
            "prometheus.monitor.azure.com".to_owned(),
            "127.0.0.1".to_owned(),
        ];
        for (address, is_sent) in [
            (
                "https://shop-abcd.westeurope.prometheus.monitor.azure.com",
                true,
            ),
            (
                "https://shop.westeurope.prometheus.monitor.azure.com/x",
                true,
            ),
            ("https://prometheus.monitor.azure.com", true),
            ("https://127.0.0.1:9090", true),
            ("http://shop.prometheus.monitor.azure.com", false),
            ("https://evilprometheus.monitor.azure.com", false),
            ("https://prometheus.monitor.azure.com.evil.org", false),
            ("https://shop.prometheus.monitor.azure.us", false),
            ("https://evil.org/prometheus.monitor.azure.com", false),
        ] {
            let result = server(address).check_azure_monitor(&hosts);
            assert_eq!(result.is_ok(), is_sent, "{address}: {result:?}");
        }
    }
}
