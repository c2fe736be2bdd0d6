//! Pods as people write them, mostly with fields that ACI supports.

mod container;

use std::collections::BTreeMap;
use std::sync::Arc;

use burstpool::aci::image::ImageConfig;
use burstpool::aci::translate::body::AzureFile;
use burstpool::aci::translate::claims::ClaimBacking;
use burstpool::aci::translate::kube_proxy::ApiServer;
use burstpool::aci::translate::resolved_references::{
    ObjectContent, ResolvedImage, ServiceAddress,
};
use burstpool::aci::translate::secret_string::SecretString;
use burstpool::aci::translate::{ImageRequest, PodReferences, ResolvedReferences};
use burstpool::api;
use rand::prelude::*;
use serde_json::{Value, json};

use container::container;

/// A part of every secret value.
pub const SECRET: &str = "s3cr3t-m4rker";

/// A pod, its placement, and a seed for the values of its references.
#[derive(Debug)]
pub struct Case {
    pub pod: Value,
    pub place: api::Placement,
    pub tags: BTreeMap<String, String>,
    pub seed: u64,
}

impl Case {
    /// A case with `pod` and a random kind of placement.
    pub fn of(pod: Value, seed: u64, rng: &mut StdRng) -> Self {
        let subnet = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/n";
        let place = pick(
            rng,
            &[
                json!({}),
                json!({"subnetId": subnet, "zones": ["1"]}),
                json!({"subnetId": subnet, "network": {"dns": {"nameServers": ["10.0.0.10"]}}}),
                json!({"subnetId": subnet, "network": {"kubeProxy": true}}),
                json!({"priority": "Spot"}),
                json!({"sku": "Confidential"}),
            ],
        );
        let mut place = place;
        place["name"] = "weu".into();
        place["region"] = "westeurope".into();
        Self {
            pod,
            place: serde_json::from_value(place).expect("a placement"),
            tags: BTreeMap::from([("team".to_owned(), "shop".to_owned())]),
            seed,
        }
    }

    /// Values for all references. Optional objects are missing in some cases.
    pub fn resolved(&self, needs: &PodReferences) -> ResolvedReferences {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let mut resolved = ResolvedReferences::default();
        let rng = &mut rng;
        for (name, need) in &needs.secrets {
            if need.required || rng.random_bool(0.5) {
                let content = content(need.keys.keys(), SECRET, rng);
                resolved.secrets.insert(name.clone(), content);
            }
        }
        for (name, need) in &needs.config_maps {
            if need.required || rng.random_bool(0.5) {
                let content = content(need.keys.keys(), "config", rng);
                resolved.config_maps.insert(name.clone(), content);
            }
        }
        for name in needs.pull_secrets.iter().filter(|_| rng.random_bool(0.8)) {
            let password = format!("{SECRET}:{name}");
            let config = json!({"auths": {
                "https://shop.azurecr.io": {"username": "u", "password": password},
                "docker.io": {"username": "u", "password": password},
                "other.example": {"auth": "!"},
            }});
            let config = (
                ".dockerconfigjson".to_owned(),
                config.to_string().into_bytes(),
            );
            let secret = resolved.secrets.entry(name.clone()).or_default();
            secret.data.extend([config]);
        }
        for need in &needs.tokens {
            let token = SecretString::new(format!("token-{SECRET}"));
            resolved.tokens.insert(need.clone(), token);
        }
        for name in &needs.claims {
            resolved.claims.insert(name.clone(), claim(rng));
        }
        if self.place.network.kube_proxy {
            let server = ApiServer {
                url: "https://api.example".into(),
                certificate_authority: b"PEM".to_vec(),
            };
            let token = SecretString::new(format!("proxy-{SECRET}"));
            resolved.kube_config = Some(server.kube_config(&token));
        }
        resolved.services = vec![ServiceAddress {
            name: "kubernetes".into(),
            address: "10.0.0.1".into(),
            ports: vec![(Some("https".into()), "TCP".into(), 443)],
        }];
        resolved
    }

    /// The images of `requests` with random configurations.
    pub fn images(&self, requests: &[ImageRequest]) -> BTreeMap<String, ResolvedImage> {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let image = |request: &ImageRequest| {
            let config = ImageConfig {
                entrypoint: pick(&mut rng, &[vec![], vec!["/entry".into()]]),
                cmd: pick(&mut rng, &[vec![], vec!["serve".into()]]),
                user: pick(&mut rng, &["", "0", "101", "101:5", "app"]).into(),
                working_dir: pick(&mut rng, &["", "/", "/srv"]).into(),
                ..ImageConfig::default()
            };
            let image = ResolvedImage {
                pinned: format!("{}@sha256:{}", request.image, "0".repeat(64)),
                config: Arc::new(config),
            };
            (request.image.clone(), image)
        };
        requests.iter().map(image).collect()
    }
}

/// What a claim is backed by.
fn claim(rng: &mut StdRng) -> ClaimBacking {
    let share = AzureFile {
        share_name: "files".into(),
        read_only: rng.random_bool(0.5),
        storage_account_name: "shopfiles".into(),
        storage_account_key: SecretString::new(format!("key-{SECRET}")),
    };
    let other = ClaimBacking::Unsupported("spec.csi.driver is disk.csi.azure.com".into());
    if rng.random_bool(0.9) {
        ClaimBacking::Share(share)
    } else {
        other
    }
}

fn content<'a>(
    keys: impl Iterator<Item = &'a String>,
    value: &str,
    rng: &mut StdRng,
) -> ObjectContent {
    let mut data = BTreeMap::new();
    for key in keys {
        // An account's name is not a secret: it is in its host name.
        let value = match key.as_str() {
            "azurestorageaccountname" => "shopfiles".to_owned(),
            key => format!("{value} of {key}"),
        };
        data.insert(key.clone(), value.into_bytes());
    }
    for key in ["USER", "extra", "app.properties"] {
        let often = if key.contains('.') { 0.05 } else { 0.5 };
        if rng.random_bool(often) {
            data.insert(key.to_owned(), format!("{value} $(A)").into_bytes());
        }
    }
    ObjectContent {
        data,
        ..ObjectContent::default()
    }
}

/// A random element of `all`.
pub fn pick<T: Clone>(rng: &mut StdRng, all: &[T]) -> T {
    all.choose(rng).cloned().expect("something to pick from")
}

/// Each element of `all` with this probability, in order.
fn some(rng: &mut StdRng, chance: f64, all: &[Value]) -> Vec<Value> {
    let all = all.iter().filter(|_| rng.random_bool(chance));
    all.cloned().collect()
}

/// Sets some fields of a pod's spec: often those that ACI has, seldom others.
fn set_fields(spec: &mut Value, rng: &mut StdRng) {
    let fields = [
        ("restartPolicy", json!("Never")),
        ("enableServiceLinks", json!(false)),
        (
            "imagePullSecrets",
            json!([{"name": "pull"}, {"name": "pull-more"}]),
        ),
        ("resources", whole(rng)),
        ("hostname", json!("web")),
        (
            "securityContext",
            json!({"runAsUser": 1000, "runAsNonRoot": true}),
        ),
        ("securityContext", json!({"runAsUser": 0, "fsGroup": 2000})),
        ("dnsPolicy", json!("Default")),
        ("tolerations", json!([{"operator": "Exists"}])),
        ("serviceAccountName", json!("web")),
    ];
    for (field, value) in fields {
        if rng.random_bool(0.3) {
            spec[field] = value;
        }
    }
    let odd = [
        (
            "dnsConfig",
            json!({"nameservers": ["1.1.1.1"], "options": [{"name": "edns0"}]}),
        ),
        (
            "securityContext",
            json!({"runAsUser": 1000, "fsGroup": 2000, "fsGroupChangePolicy": "Always"}),
        ),
        (
            "securityContext",
            json!({"runAsUser": 0, "supplementalGroups": [3000]}),
        ),
        ("hostNetwork", json!(true)),
        ("novel", json!({"a": 1})),
    ];
    for (field, value) in odd {
        if rng.random_bool(0.05) {
            spec[field] = value;
        }
    }
}

/// A plausible pod.
pub fn pod(seed: u64) -> Case {
    let rng = &mut StdRng::seed_from_u64(seed);
    let volumes = volumes(rng);
    let names: Vec<String> = volumes
        .iter()
        .map(|volume| volume["name"].as_str().unwrap_or_default().to_owned())
        .collect();
    let mut port = rng.random_range(1..900);
    let count = rng.random_range(1..4);
    let containers: Vec<Value> = (0..count)
        .map(|index| {
            let mut container = container(&format!("c{index}"), &names, rng);
            if rng.random_bool(0.3) {
                port += 1;
                container["ports"] = json!([{"containerPort": port, "name": "http"}, {"containerPort": port}]);
                let get = json!({"path": "/", "port": "http", "httpHeaders": [{"name": "A", "value": "b"}]});
                container["readinessProbe"] = json!({"httpGet": get, "periodSeconds": 3});
            }
            container
        })
        .collect();
    let init: Vec<Value> = (0..rng.random_range(0..3))
        .map(|index| container(&format!("i{index}"), &names, rng))
        .collect();
    let mut spec = json!({"containers": containers, "initContainers": init, "volumes": volumes});
    set_fields(&mut spec, rng);
    let metadata = json!({
        "name": "web-1", "namespace": "shop", "uid": "u-1", "labels": {"app": "web"},
        "annotations": {"burstpool.io/tags": "a=b", "burstpool.io/identity": "system"},
    });
    Case::of(json!({"metadata": metadata, "spec": spec}), seed, rng)
}

/// The resources of a whole pod.
fn whole(rng: &mut StdRng) -> Value {
    pick(
        rng,
        &[
            json!({"requests": {"cpu": "1500m"}, "limits": {"memory": "3Gi", "cpu": "2"}}),
            json!({"requests": {"cpu": "3001m", "memory": "3001M"}}),
            json!({"limits": {"memory": "1"}}),
        ],
    )
}

fn volumes(rng: &mut StdRng) -> Vec<Value> {
    let items = json!([{"key": "k", "path": "file"}]);
    let field = json!({"path": "name", "fieldRef": {"fieldPath": "metadata.name"}});
    let labels = json!({"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}});
    let cpu = json!({"path": "cpu", "resourceFieldRef": {"containerName": "c0", "resource": "limits.cpu"}});
    let token = json!({"path": "token", "audience": "vault", "expirationSeconds": 600});
    let all = [
        json!({"name": "tmp", "emptyDir": {}}),
        json!({"name": "cache", "emptyDir": {"sizeLimit": "500Mi"}}),
        json!({"name": "nested", "configMap": {"name": "settings", "items": [{"key": "k", "path": "a/file"}]}}),
        json!({"name": "a--b", "secret": {"secretName": "db"}}),
        json!({"name": "secret-items", "secret": {"secretName": "db", "items": items, "defaultMode": 292}}),
        json!({"name": "conf", "configMap": {"name": "settings", "optional": true}}),
        json!({"name": "mixed", "projected": {"sources": [
            {"serviceAccountToken": token}, {"configMap": {"name": "settings", "items": items}},
            {"secret": {"name": "tls", "optional": true}}, {"downwardAPI": {"items": [field]}}]}}),
        json!({"name": "downward", "downwardAPI": {"items": [labels, cpu]}}),
        json!({"name": "share", "azureFile": {"secretName": "files", "shareName": "x", "readOnly": true}}),
        json!({"name": "csi-share", "csi": {"driver": "file.csi.azure.com", "volumeAttributes": {"secretName": "files", "shareName": "x"}}}),
        json!({"name": "claimed", "persistentVolumeClaim": {"claimName": "data", "readOnly": true}}),
        json!({"name": "volume-0", "gitRepo": {"repository": "https://git.example/a"}}),
    ];
    some(rng, 0.35, &all)
}
