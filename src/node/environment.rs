//! Reads what a pod refers to from the cluster: Secrets, `ConfigMap`s, the volumes behind its claims, tokens of its
//! service account, and the kubeconfig of ACI's kube-proxy if the placement enables it.
//!
//! In: a pod, and the Services from the node's watch. Out: [`ResolvedReferences`] for `aci::translate`, or what is
//! missing, why, and what to do about it. It reads each object by name, because `config/namespace` permits nothing
//! else (decision D10); it keeps nothing and logs no value.
//!
//! If a required object is missing, the pod waits, as on a kubelet: the caller writes an Event and tries again. A
//! missing optional object is left out. A missing pull secret only causes a warning, as with a kubelet, since the
//! image may need none.

mod claims;
mod kube_proxy;
mod missing;
mod reader;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Client;

use crate::aci::translate::references::pod_references;
use crate::aci::translate::{ResolvedReferences, resolved_references};

pub use claims::check_mountable;
pub use kube_proxy::{AccountName, AccountNameError, KubeProxy, SERVICE_ACCOUNT};
pub use missing::{MissingObject, MissingReason};

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct PodEnvironment {
    /// The values.
    pub resolved: ResolvedReferences,
    /// Pull secrets that do not exist: the pod starts without them.
    pub warnings: Vec<MissingObject>,
}

/// Reads what `pod` refers to. `services` are all Services of the cluster; `kube_proxy` is `Some` if the placement
/// enables ACI's kube-proxy.
pub async fn resolve(
    client: &Client,
    pod: &Pod,
    services: &[Arc<Service>],
    kube_proxy: Option<&KubeProxy>,
) -> Result<PodEnvironment, Vec<MissingObject>> {
    let needs = pod_references(pod);
    let mut read = reader::ReadReferences::fetch(client, pod, &needs, kube_proxy).await;
    let missing = missing::missing_required(&needs, &read);
    if !missing.is_empty() {
        return Err(missing);
    }
    Ok(PodEnvironment {
        warnings: missing::missing_pull_secrets(&needs, &read),
        resolved: ResolvedReferences {
            secrets: read.secrets.take_found(),
            config_maps: read.config_maps.take_found(),
            claims: read.claims(),
            tokens: read.tokens(),
            kube_config: read.kube_config.and_then(Result::ok),
            services: visible_services(pod, needs.services, services),
            images: BTreeMap::new(),
        },
    })
}

/// The Services for which `pod` gets environment variables: those of its namespace if `includes_namespace` is set,
/// and the API server's, unless the namespace has a Service of that name.
fn visible_services(
    pod: &Pod,
    includes_namespace: bool,
    services: &[Arc<Service>],
) -> Vec<resolved_references::ServiceAddress> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let in_namespace = |service: &Service, namespace: &str| {
        service.metadata.namespace.as_deref() == Some(namespace)
    };
    let namespaced = services
        .iter()
        .filter(|s| includes_namespace && in_namespace(s, namespace));
    let mut visible: Vec<_> = namespaced
        .filter_map(|s| resolved_references::ServiceAddress::from_service(s))
        .collect();
    let default_services = services.iter().filter(|s| in_namespace(s, "default"));
    let api_server = default_services
        .filter_map(|s| resolved_references::ServiceAddress::from_service(s))
        .find(|service| service.name == "kubernetes");
    if let Some(api_server) = api_server
        && visible
            .iter()
            .all(|service| service.name != api_server.name)
    {
        visible.push(api_server);
    }
    visible.sort_by(|a, b| a.name.cmp(&b.name));
    visible
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(namespace: &str, name: &str, ip: &str) -> Arc<Service> {
        let service: Value = json!({
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"clusterIP": ip, "ports": [{"port": 80}]},
        });
        Arc::new(serde_json::from_value(service).expect("a Service"))
    }

    #[test]
    fn a_pod_sees_its_namespaces_services_and_the_api_servers() {
        let services = [
            service("shop", "web", "10.0.0.3"),
            service("shop", "headless", "None"),
            service("other", "web", "10.0.0.4"),
            service("default", "kubernetes", "10.0.0.1"),
            service("default", "else", "10.0.0.5"),
        ];
        let addresses = |namespace: &str, links| {
            let mut pod = Pod::default();
            pod.metadata.namespace = Some(namespace.to_owned());
            let addresses = visible_services(&pod, links, &services).into_iter();
            addresses.map(|s| s.address).collect::<Vec<_>>()
        };
        assert_eq!(addresses("shop", true), ["10.0.0.1", "10.0.0.3"]);
        assert_eq!(addresses("shop", false), ["10.0.0.1"]);
        assert_eq!(addresses("default", true), ["10.0.0.5", "10.0.0.1"]);
    }
}
