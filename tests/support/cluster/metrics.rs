//! metrics-server behind the API server's aggregator.
//!
//! In: a client and the cluster's site. Out: `metrics.k8s.io` answers. There is no pod network, so the
//! Service is an `ExternalName` for this machine, which the aggregator resolves itself.

use std::fs;

use k8s_openapi::{
    ByteString, api::core::v1::Service, kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};
use kube::{Api, Client, api::PostParams};
use serde_json::{Value, json};

use super::{certificates as pki, components::Site};
use crate::support::{Error, wait};

const NAME: &str = "v1beta1.metrics.k8s.io";

/// Registers metrics-server, and waits until the API server reports it as available.
pub async fn register(client: Client, site: &Site) -> Result<(), Error> {
    let post = PostParams::default();
    let services: Api<Service> = Api::namespaced(client.clone(), "kube-system");
    services.create(&post, &service()).await?;
    let apis: Api<APIService> = Api::all(client);
    let ca = fs::read(site.directory.join(format!("{}.crt", pki::CA)))
        .map_err(Error::io("reading the certificate authority"))?;
    apis.create(&post, &api_service(site.ports.metrics_server, ca))
        .await?;
    wait::until(apis, NAME, "metrics.k8s.io to be available", |api| {
        api.and_then(|api| api.status.as_ref()?.conditions.as_ref())
            .is_some_and(|all| {
                all.iter()
                    .any(|c| c.type_ == "Available" && c.status == "True")
            })
    })
    .await
}

fn service() -> Service {
    from(json!({
        "metadata": {"name": "metrics-server"},
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    }))
}

fn api_service(port: u16, ca: Vec<u8>) -> APIService {
    from(json!({
        "metadata": {"name": NAME},
        "spec": {
            "group": "metrics.k8s.io", "version": "v1beta1",
            "groupPriorityMinimum": 100, "versionPriority": 100,
            "service": {"namespace": "kube-system", "name": "metrics-server", "port": port},
            "caBundle": ByteString(ca),
        },
    }))
}

fn from<K: serde::de::DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).expect("written above as the type has it")
}
