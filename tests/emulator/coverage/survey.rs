//! The survey: how many of the 594 workloads that people burst use a feature.
//!
//! In: templates. Out: how many of them use the feature, in percent.

use serde_json::Value;

use super::templates::Template;

/// How far the share among the templates may be from the survey's, in percentage points.
pub const TOLERANCE: usize = 5;

/// A feature of pods.
pub struct Feature {
    /// Its name in a failure.
    pub name: &'static str,
    /// The share of the survey's workloads that use it, in percent.
    pub survey: usize,
    is_used: fn(&Value) -> bool,
}

impl Feature {
    /// The share of `templates` that use the feature, in percent.
    pub fn share(&self, templates: &[&Template]) -> usize {
        let specs = templates.iter().map(|template| &template.pod["spec"]);
        let users = specs.filter(|spec| (self.is_used)(spec)).count();
        (users * 100 + templates.len() / 2) / templates.len()
    }
}

const fn feature(name: &'static str, survey: usize, is_used: fn(&Value) -> bool) -> Feature {
    Feature {
        name,
        survey,
        is_used,
    }
}

/// The features that the survey counted.
pub const FEATURES: [Feature; 26] = [
    feature("no resources", 50, |spec| {
        !list(spec, "containers").any(|one| {
            one["resources"]
                .as_object()
                .is_some_and(|set| !set.is_empty())
        })
    }),
    feature("readinessProbe.httpGet", 32, |spec| {
        has(spec, "/readinessProbe/httpGet")
    }),
    feature("readinessProbe.exec", 4, |spec| {
        has(spec, "/readinessProbe/exec")
    }),
    feature("livenessProbe.httpGet", 21, |spec| {
        has(spec, "/livenessProbe/httpGet")
    }),
    feature("livenessProbe.tcpSocket", 10, |spec| {
        has(spec, "/livenessProbe/tcpSocket")
    }),
    feature("livenessProbe.exec", 7, |spec| {
        has(spec, "/livenessProbe/exec")
    }),
    feature("grpc probes", 2, |spec| has(spec, "/livenessProbe/grpc")),
    feature("startupProbe", 7, |spec| has(spec, "/startupProbe")),
    feature("its own service account", 36, |spec| {
        spec["serviceAccountName"].is_string()
    }),
    feature("runAsUser", 29, |spec| protects(spec, "/runAsUser")),
    feature("runAsNonRoot", 25, |spec| protects(spec, "/runAsNonRoot")),
    feature("capabilities.drop", 25, |spec| {
        protects(spec, "/capabilities/drop")
    }),
    feature("fsGroup", 24, |spec| protects(spec, "/fsGroup")),
    feature("allowPrivilegeEscalation", 22, |spec| {
        protects(spec, "/allowPrivilegeEscalation")
    }),
    feature("seccompProfile", 19, |spec| {
        protects(spec, "/seccompProfile")
    }),
    feature("readOnlyRootFilesystem", 17, |spec| {
        protects(spec, "/readOnlyRootFilesystem")
    }),
    feature("subPath", 16, |spec| {
        containers(spec)
            .any(|one| list(one, "volumeMounts").any(|mount| mount["subPath"].is_string()))
    }),
    feature("args without command", 15, |spec| {
        containers(spec).any(|one| one["args"].is_array() && one["command"].is_null())
    }),
    feature("envFrom", 15, |spec| has(spec, "/envFrom")),
    feature("initContainers", 14, |spec| {
        spec["initContainers"].is_array()
    }),
    feature("claims", 12, |spec| {
        list(spec, "volumes").any(|volume| !volume["persistentVolumeClaim"].is_null())
    }),
    feature("nodeSelector", 10, |spec| !spec["nodeSelector"].is_null()),
    feature("preStop", 5, |spec| has(spec, "/lifecycle/preStop")),
    feature("emptyDir in memory", 4, |spec| {
        list(spec, "volumes").any(|volume| volume["emptyDir"]["medium"] == "Memory")
    }),
    feature("a grace period over 30 s", 4, |spec| {
        spec["terminationGracePeriodSeconds"]
            .as_u64()
            .is_some_and(|seconds| seconds > 30)
    }),
    feature("GPUs", 4, |spec| {
        has(spec, "/resources/limits/nvidia.com~1gpu")
    }),
];

fn list<'a>(object: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    object[name].as_array().into_iter().flatten()
}

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    list(spec, "containers").chain(list(spec, "initContainers"))
}

/// Whether a container has this field.
fn has(spec: &Value, pointer: &str) -> bool {
    containers(spec).any(|one| one.pointer(pointer).is_some())
}

/// Whether a security context of the pod or of a container has this field.
fn protects(spec: &Value, pointer: &str) -> bool {
    let own = containers(spec).map(|one| &one["securityContext"]);
    let mut all = own.chain([&spec["securityContext"]]);
    all.any(|context| context.pointer(pointer).is_some())
}
