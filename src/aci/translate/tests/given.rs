//! Test inputs: pods as JSON, and the objects that they refer to.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Secret};
use serde_json::{Value, json};

use super::super::claims::{ClaimBacking, ClaimedShare};
use super::super::references::pod_references;
use super::super::resolved_references::{ObjectContent, ServiceAddress};
use super::super::secret_string::SecretString;
use super::super::{
    Group, IdentityNamespaces, ResolvedReferences, TranslationTarget, Unsupported, decode,
    eligible, translate,
};
use crate::aci::names::GroupOwner;
use crate::api::{self, AcceptedLoss, LossSet};

/// A pod, the objects that it refers to, and its placement.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) pod: Value,
    pub(super) resolved: ResolvedReferences,
    pub(super) place: api::Placement,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) identities: IdentityNamespaces,
    pub(super) accepted: LossSet,
}

impl Given {
    /// A pod with this spec.
    pub(super) fn spec(spec: Value) -> Self {
        Self::pod(
            json!({"metadata": {"name": "web", "namespace": "shop", "uid": "u-1"}, "spec": spec}),
        )
    }

    /// A pod with one container. The argument has all its fields except name and image.
    pub(super) fn container(mut container: Value) -> Self {
        container["name"] = "web".into();
        if container.get("image").is_none() {
            container["image"] = "nginx".into();
        }
        Self::spec(json!({"containers": [container]}))
    }

    pub(super) fn pod(pod: Value) -> Self {
        let place = json!({"name": "weu", "region": "westeurope"});
        Self {
            pod,
            resolved: ResolvedReferences::default(),
            place: serde_json::from_value(place).unwrap(),
            tags: BTreeMap::new(),
            identities: ["*".to_owned()].into_iter().collect(),
            accepted: LossSet::default(),
        }
    }

    /// Accepts these losses.
    pub(super) fn accepting(mut self, losses: &[AcceptedLoss]) -> Self {
        self.accepted = losses.iter().copied().collect();
        self
    }

    /// Lets pods of these namespaces choose identities.
    pub(super) fn identified(mut self, namespaces: &[&str]) -> Self {
        self.identities = namespaces
            .iter()
            .map(|namespace| (*namespace).to_owned())
            .collect();
        self
    }

    pub(super) fn annotated(mut self, name: &str, value: &str) -> Self {
        self.pod["metadata"]["annotations"][name] = value.into();
        self
    }

    pub(super) fn placed(mut self, change: &Value) -> Self {
        let mut place = serde_json::to_value(&self.place).unwrap();
        for (field, value) in change.as_object().unwrap() {
            place[field] = value.clone();
        }
        self.place = serde_json::from_value(place).unwrap();
        self
    }

    pub(super) fn in_subnet(self) -> Self {
        let id = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/n";
        self.placed(&json!({"subnetId": id}))
    }

    pub(super) fn secret(mut self, name: &str, data: &[(&str, &str)]) -> Self {
        let content = content(data);
        self.resolved.secrets.insert(name.to_owned(), content);
        self
    }

    pub(super) fn config_map(mut self, name: &str, data: &[(&str, &str)]) -> Self {
        let content = content(data);
        self.resolved.config_maps.insert(name.to_owned(), content);
        self
    }

    /// Adds an object of a fixture. Tokens are invented.
    pub(super) fn with(mut self, object: &Value) -> Self {
        let name = object["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        match object["kind"].as_str() {
            Some("Secret") => {
                let secret: Secret = serde_json::from_value(object.clone()).unwrap();
                self.resolved
                    .secrets
                    .insert(name, ObjectContent::from(secret));
            }
            Some("ConfigMap") => {
                let map: ConfigMap = serde_json::from_value(object.clone()).unwrap();
                self.resolved
                    .config_maps
                    .insert(name, ObjectContent::from(map));
            }
            Some("PersistentVolume") => self.volume(object),
            Some("Service") => {
                let service = serde_json::from_value(object.clone()).unwrap();
                self.resolved
                    .services
                    .extend(ServiceAddress::from_service(&service));
            }
            Some("BurstPool") => {
                self.tags = serde_json::from_value(object["spec"]["azure"]["tags"].clone())
                    .unwrap_or_default();
                let accepted: Option<Vec<AcceptedLoss>> =
                    serde_json::from_value(object["spec"]["spill"]["accept"].clone()).unwrap();
                self.accepted = accepted.into_iter().flatten().collect();
                self = self.placed(&object["spec"]["placements"][0]);
            }
            other => panic!("no object of a fixture: {other:?}"),
        }
        self
    }

    /// Adds the share behind the claim that `volume` is bound to. Its Secret must have been added before.
    fn volume(&mut self, volume: &Value) {
        let name = volume["spec"]["claimRef"]["name"].as_str().unwrap();
        let claim = json!({"metadata": {"name": name, "namespace": "shop"}});
        let claim: PersistentVolumeClaim = serde_json::from_value(claim).unwrap();
        let volume: PersistentVolume = serde_json::from_value(volume.clone()).unwrap();
        let claim = match ClaimedShare::from_volume(&claim, &volume) {
            Ok(share) => {
                let secret = &self.resolved.secrets[&share.secret.1];
                ClaimBacking::Share(share.with_key(secret).unwrap())
            }
            Err(why) => ClaimBacking::Unsupported(why),
        };
        self.resolved.claims.insert(name.to_owned(), claim);
    }

    /// Translates the pod: the group, or the refusals. It also asserts that the translation refuses everything that
    /// the eligibility check refuses.
    pub(super) fn translate(mut self) -> Result<Group, Vec<Unsupported>> {
        let (pod, unknown) = decode(self.pod).unwrap();
        for need in pod_references(&pod).tokens {
            let token = SecretString::new(format!("token for '{}'", need.audience));
            self.resolved.tokens.insert(need, token);
        }
        if self.place.network.kube_proxy {
            self.resolved.kube_config = Some(SecretString::new("a kubeconfig"));
        }
        let placement = TranslationTarget {
            spec: &self.place,
            tags: &self.tags,
            node: "burst-shop-weu",
            node_address: Some("10.1.2.3"),
            identities: &self.identities,
            accepted: &self.accepted,
        };
        let owner = GroupOwner {
            cluster: "c-1".into(),
            pool: "shop".into(),
            node: "burst-shop-weu".into(),
        };
        let group = translate(&pod, &unknown, &self.resolved, &owner, &placement);
        if let Err(refused) = eligible(&pod, &unknown, &placement) {
            let all = group
                .as_ref()
                .expect_err("what is not eligible is not translated");
            assert!(
                refused.iter().all(|refusal| all.contains(refusal)),
                "{refused:?} {all:?}"
            );
        }
        group
    }

    /// The body that is sent to Azure.
    pub(super) fn body(self) -> Value {
        let group = self
            .translate()
            .unwrap_or_else(|refused| panic!("{refused:?}"));
        serde_json::to_value(group).unwrap()
    }

    /// The fields that are refused.
    pub(super) fn refused(self) -> Vec<String> {
        let refused = self.translate().err().unwrap_or_default();
        let mut fields: Vec<_> = refused.into_iter().map(|refusal| refusal.field).collect();
        fields.sort();
        fields
    }

    /// The body of the first container.
    pub(super) fn first(self) -> Value {
        self.body()["properties"]["containers"][0]["properties"].clone()
    }

    /// The variables of the first container without HOSTNAME, as `name=value` or `name:secret`.
    pub(super) fn variables(self) -> Vec<String> {
        let first = self.first();
        let all = first["environmentVariables"].as_array().unwrap().iter();
        all.filter(|variable| variable["name"] != "HOSTNAME")
            .map(|variable| {
                let name = variable["name"].as_str().unwrap();
                match (variable["value"].as_str(), variable["secureValue"].as_str()) {
                    (Some(value), None) => format!("{name}={value}"),
                    (None, Some(secret)) => format!("{name}:{secret}"),
                    other => panic!("{other:?}"),
                }
            })
            .collect()
    }
}

fn content(data: &[(&str, &str)]) -> ObjectContent {
    let data = data.iter();
    let data = data.map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()));
    ObjectContent {
        data: data.collect(),
        ..ObjectContent::default()
    }
}
