//! Reads the templates, and makes the pod of each as its controller and the API server do.
//!
//! In: the files of `tests/coverage`, and the operator's own Deployment. Out: [`Template`]s.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::storage::v1::StorageClass;
use serde::Deserialize as _;
use serde_json::{Value, json};

/// The annotation of a workload that says what it stands for.
const STANDS_FOR: &str = "example.com/stands-for";
/// The annotation with the configuration of its image, as registries name the fields.
const IMAGE: &str = "example.com/image";

/// Workloads of one kind of use.
pub struct Family {
    /// The heading in the table.
    pub title: &'static str,
    /// The file, from the project's directory.
    file: &'static str,
    /// Whether the survey counts them as workloads that people burst.
    pub is_bursty: bool,
}

/// The families, in the order of the table.
pub static FAMILIES: [Family; 7] = [
    family(
        "Web, plain manifests",
        "tests/coverage/web-manifests.yaml",
        true,
    ),
    family("Web, Helm charts", "tests/coverage/web-charts.yaml", true),
    family("Workers", "tests/coverage/workers.yaml", true),
    family("Batch", "tests/coverage/batch.yaml", true),
    family(
        "CI and machine learning",
        "tests/coverage/ci-and-ml.yaml",
        true,
    ),
    family(
        "Stateful sets and infrastructure",
        "tests/coverage/stateful-and-infrastructure.yaml",
        false,
    ),
    family("The operator itself", "config/default/operator.yaml", false),
];

const fn family(title: &'static str, file: &'static str, is_bursty: bool) -> Family {
    Family {
        title,
        file,
        is_bursty,
    }
}

/// A workload, and the pod that is made of it.
pub struct Template {
    /// The family that it belongs to.
    pub family: &'static Family,
    /// The kind of the workload.
    pub kind: String,
    /// The name of the workload.
    pub name: String,
    /// What it stands for, in a few words.
    pub stands_for: String,
    /// The pod, with the fields that the API server and the workload's controller add.
    pub pod: Value,
    /// The configuration of the image of its containers.
    pub image: Value,
    /// The `StorageClass` of each claim.
    pub claims: BTreeMap<String, StorageClass>,
}

/// All templates, in the order of the table.
pub fn all() -> Vec<Template> {
    FAMILIES.iter().flat_map(of_family).collect()
}

fn of_family(family: &'static Family) -> Vec<Template> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(family.file);
    let text = std::fs::read_to_string(&path).expect("the file of a family");
    let documents: Vec<Value> = serde_yaml::Deserializer::from_str(&text)
        .map(|document| {
            Value::deserialize(document).unwrap_or_else(|error| panic!("{}: {error}", family.file))
        })
        .collect();
    let mut classes: BTreeMap<String, StorageClass> = BTreeMap::new();
    for claim in documents
        .iter()
        .filter(|one| one["kind"] == "PersistentVolumeClaim")
    {
        classes.insert(name(claim), storage_class(claim));
    }
    let workloads = documents
        .iter()
        .filter(|one| one["kind"] != "PersistentVolumeClaim");
    workloads
        .map(|workload| template(family, workload, &classes))
        .collect()
}

fn name(object: &Value) -> String {
    object["metadata"]["name"]
        .as_str()
        .expect("a name")
        .to_owned()
}

/// The class of a claim. The default class is that of Azure Kubernetes Service: it makes disks.
fn storage_class(claim: &Value) -> StorageClass {
    let name = claim["spec"]["storageClassName"]
        .as_str()
        .unwrap_or("default");
    let is_share = name.starts_with("azurefile");
    let driver = if is_share {
        "file.csi.azure.com"
    } else {
        "disk.csi.azure.com"
    };
    let class = json!({"metadata": {"name": name}, "provisioner": driver});
    serde_json::from_value(class).expect("a StorageClass")
}

fn template(
    family: &'static Family,
    workload: &Value,
    classes: &BTreeMap<String, StorageClass>,
) -> Template {
    let annotation = |name: &str| workload["metadata"]["annotations"][name].as_str();
    let kind = workload["kind"].as_str().expect("a kind");
    let pod_template = match kind {
        "Pod" => workload,
        "CronJob" => &workload["spec"]["jobTemplate"]["spec"]["template"],
        "Deployment" | "StatefulSet" | "DaemonSet" | "Job" => &workload["spec"]["template"],
        other => panic!("{} is a {other}: add it to this match", name(workload)),
    };
    let mut claims = classes.clone();
    let mut pod = json!({"metadata": pod_template["metadata"], "spec": pod_template["spec"]});
    let metadata =
        json!({"name": format!("{}-0", name(workload)), "namespace": "shop", "uid": "u-1"});
    merge(&mut pod["metadata"], &metadata);
    for claim in workload["spec"]["volumeClaimTemplates"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let claim_name = format!("{}-{}-0", name(claim), name(workload));
        claims.insert(claim_name.clone(), storage_class(claim));
        let source = json!({"claimName": claim_name});
        push(
            &mut pod["spec"]["volumes"],
            json!({"name": name(claim), "persistentVolumeClaim": source}),
        );
    }
    if kind == "DaemonSet" {
        let owner = json!({"apiVersion": "apps/v1", "kind": kind, "name": name(workload), "uid": "u-2", "controller": true});
        push(&mut pod["metadata"]["ownerReferences"], owner);
    }
    mount_token(&mut pod["spec"]);
    Template {
        family,
        kind: kind.to_owned(),
        name: name(workload),
        stands_for: annotation(STANDS_FOR)
            .unwrap_or("burstpool, as `config/default` installs it")
            .to_owned(),
        pod,
        image: serde_json::from_str(annotation(IMAGE).unwrap_or("{}"))
            .expect("the configuration of an image"),
        claims,
    }
}

/// Adds the volume of the service account's token, as the API server's admission does.
fn mount_token(spec: &mut Value) {
    if spec["automountServiceAccountToken"] == false {
        return;
    }
    let namespace = json!({"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}});
    let sources = json!([
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]);
    push(
        &mut spec["volumes"],
        json!({"name": "kube-api-access", "projected": {"sources": sources}}),
    );
    for list in ["containers", "initContainers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            let path = "/var/run/secrets/kubernetes.io/serviceaccount";
            push(
                &mut container["volumeMounts"],
                json!({"name": "kube-api-access", "mountPath": path, "readOnly": true}),
            );
        }
    }
}

fn push(list: &mut Value, item: Value) {
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut().expect("a list").push(item);
}

fn merge(object: &mut Value, more: &Value) {
    if object.is_null() {
        *object = json!({});
    }
    for (field, value) in more.as_object().expect("an object") {
        object[field] = value.clone();
    }
}
