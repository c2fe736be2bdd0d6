//! Deserializes a pod, and collects the fields that k8s-openapi does not know (decision D18).
//!
//! In: raw JSON. Out: the pod, and the paths of unknown fields.

use k8s_openapi::api::core::v1::Pod;
use serde::Deserializer;
use serde_ignored::Path;

/// Deserializes a pod. The returned paths, such as `spec.containers[0].newField`, are fields that a newer API
/// server has and k8s-openapi does not.
pub fn decode<'a, D: Deserializer<'a>>(raw: D) -> Result<(Pod, Vec<String>), D::Error> {
    let mut unknown = Vec::new();
    let pod = serde_ignored::deserialize(raw, |path| unknown.push(path_text(&path)))?;
    Ok((pod, unknown))
}

/// The path in the notation of Kubernetes.
fn path_text(path: &Path<'_>) -> String {
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", path_text(parent)),
        Path::Map { parent, key } => {
            let parent = path_text(parent);
            if parent.is_empty() {
                key.clone()
            } else {
                format!("{parent}.{key}")
            }
        }
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => path_text(parent),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_that_the_types_do_not_know_are_named() {
        let raw = json!({
            "metadata": {"name": "web", "labels": {"any": "label"}},
            "spec": {
                "novel": {"a": 1},
                "containers": [{"name": "a"}, {"name": "b", "livenessProbe": {"udpSocket": {"port": 1}}}],
            },
        });
        let (pod, unknown) = decode(raw).expect("it decodes");
        assert_eq!(pod.metadata.name.as_deref(), Some("web"));
        let mut unknown = unknown;
        unknown.sort();
        assert_eq!(
            unknown,
            ["spec.containers[1].livenessProbe.udpSocket", "spec.novel"]
        );
    }

    #[test]
    fn a_pod_of_known_fields_has_no_unknown_ones() {
        let raw =
            json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "a"}]}});
        assert_eq!(decode(raw).expect("it decodes").1, Vec::<String>::new());
    }
}
