//! ACI's `kube-proxy` extension. It lets a group in a subnet reach Services by their cluster IPs.
//!
//! In: whether the placement requests it, the URL of the API server as groups reach it, and a token of the only
//! service account that the extension may use. Out: the extension in the group's body. Its kubeconfig is a
//! protected setting, which Azure never returns.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::body::{Extension, ExtensionProperties};
use super::pod::TranslationContext;
use super::refusals::Refusals;
use super::secret_string::SecretString;

/// The type of the extension, and its name in the group.
const KUBE_PROXY: &str = "kube-proxy";
/// The version of the extension.
const VERSION: &str = "1.0";
/// The only documented value (`ContainerGroupExtensions.json` of the specification).
const KUBE_VERSION: &str = "v1.9.10";
/// The documented value. kube-proxy masquerades traffic from outside of this range. In a group, all traffic comes
/// from the group itself, so the value has no effect.
const CLUSTER_CIDR: &str = "10.240.0.0/16";

/// The cluster's API server, as container groups reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiServer {
    /// The URL of the API server.
    pub url: String,
    /// The CA certificates of the API server, in PEM; empty if a public CA has signed its certificate.
    pub certificate_authority: Vec<u8>,
}

impl ApiServer {
    /// A kubeconfig for this server with `token`, in the format of the protected setting: base64-encoded JSON.
    pub fn kube_config(&self, token: &SecretString) -> SecretString {
        let mut cluster = json!({"server": self.url});
        if !self.certificate_authority.is_empty() {
            let certificates = STANDARD.encode(&self.certificate_authority);
            cluster["certificate-authority-data"] = certificates.into();
        }
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": KUBE_PROXY, "cluster": cluster}],
            "users": [{"name": KUBE_PROXY, "user": {"token": token.expose()}}],
            "contexts": [{"name": KUBE_PROXY, "context": {"cluster": KUBE_PROXY, "user": KUBE_PROXY}}],
            "current-context": KUBE_PROXY,
        });
        SecretString::new(STANDARD.encode(config.to_string()))
    }
}

/// The extension, if the placement requests it.
pub(super) fn extension(
    context: &TranslationContext<'_>,
    refusals: &mut Refusals,
) -> Option<Extension> {
    if !context.placement.spec.network.kube_proxy {
        return None;
    }
    let field = "placements[].network.kubeProxy";
    // The CRD has a rule against this, but a pool may be older than that rule.
    refusals.require(
        context.placement.is_in_subnet(),
        field,
        "ACI runs kube-proxy in a subnet only, and the placement has no subnet",
    );
    let kube_config = match context.values.kube_config() {
        Ok(kube_config) => kube_config,
        Err(why) => {
            refusals.refuse(field, why);
            return None;
        }
    };
    let settings = [("clusterCidr", CLUSTER_CIDR), ("kubeVersion", KUBE_VERSION)];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Some(Extension {
        name: KUBE_PROXY.to_owned(),
        properties: ExtensionProperties {
            extension_type: KUBE_PROXY,
            version: VERSION,
            settings: settings.into(),
            protected_settings: BTreeMap::from([("kubeConfig".to_owned(), kube_config)]),
        },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn decoded(server: &ApiServer) -> Value {
        let config = server.kube_config(&SecretString::new("s3cret"));
        assert!(!format!("{config:?}").contains("s3cret"));
        let config = STANDARD.decode(config.expose()).expect("base64");
        serde_json::from_slice(&config).expect("JSON")
    }

    #[test]
    fn a_kubeconfig_names_one_server_and_one_user() {
        let mut server = ApiServer {
            url: "https://api.example:443".to_owned(),
            certificate_authority: b"PEM".to_vec(),
        };
        let config = decoded(&server);
        let read: kube::config::Kubeconfig =
            serde_json::from_value(config.clone()).expect("a kubeconfig");
        assert_eq!(read.current_context.as_deref(), Some("kube-proxy"));
        assert_eq!(
            config["clusters"][0]["cluster"],
            json!({"server": "https://api.example:443", "certificate-authority-data": "UEVN"})
        );
        assert_eq!(config["users"][0]["user"], json!({"token": "s3cret"}));
        server.certificate_authority.clear();
        assert_eq!(
            decoded(&server)["clusters"][0]["cluster"],
            json!({"server": "https://api.example:443"})
        );
    }
}
