//! Walks a pod along the field table.
//!
//! In: a pod's spec. Out: a refusal for every field that the table refuses or does not contain.

use k8s_openapi::api::core::v1::PodSpec;
use serde_json::Value;

use super::row::{FieldRefusal, INIT_CONTAINER, SIDECAR_CONTAINER, rows};
use crate::aci::translate::refusals::Refusals;

/// Refuses every field of `spec` that the table refuses or does not contain.
pub(in crate::aci::translate) fn check(spec: &PodSpec, refusals: &mut Refusals) {
    match serde_json::to_value(spec) {
        Ok(value) => walk(&value, ("PodSpec", spec), "spec", refusals),
        Err(error) => refusals.refuse("spec", format!("it cannot be read: {error}")),
    }
}

fn walk(value: &Value, (kind, pod): (&str, &PodSpec), at: &str, refusals: &mut Refusals) {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, (kind, pod), &format!("{at}[{index}]"), refusals);
            }
        }
        Value::Object(fields) => {
            let is_sidecar =
                kind == INIT_CONTAINER && fields.get("restartPolicy") == Some(&"Always".into());
            let kind = if is_sidecar { SIDECAR_CONTAINER } else { kind };
            for (name, value) in fields {
                let at = format!("{at}.{name}");
                let Some(row) = rows(kind).find(|row| row.name == name) else {
                    refusals.refuse(at, "burstpool does not know this field");
                    continue;
                };
                if let Some(FieldRefusal { why, loss }) = row.refusal(value) {
                    match loss {
                        _ if row.has_no_effect(pod) => {}
                        Some(loss) => refusals.refuse_unless_accepted(at, why, loss),
                        None => refusals.refuse(at, why),
                    }
                } else if let Some(kind) = row.value_type {
                    walk(value, (kind, pod), &at, refusals);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use schemars::JsonSchema as _;
    use serde_json::json;

    use super::super::row::{FieldDecision, is_like_container, types};
    use super::*;
    use crate::api::NO_LOSSES;

    fn refused(spec: Value) -> Vec<String> {
        let spec: PodSpec = serde_json::from_value(spec).expect("a pod");
        let mut refusals = Refusals::default();
        check(&spec, &mut refusals);
        let refused = refusals
            .into_result((), &NO_LOSSES)
            .err()
            .unwrap_or_default();
        refused.into_iter().map(|refusal| refusal.field).collect()
    }

    #[test]
    fn refused_fields_are_named_by_their_paths() {
        let refused = refused(json!({
            "hostNetwork": true, "hostPID": false, "hostIPC": true, "runtimeClassName": "gvisor",
            "schedulingGroup": {"podGroupName": "a"},
            "resourceClaims": [{"name": "gpu"}],
            "hostAliases": [],
            "os": {"name": "windows"},
            "securityContext": {"fsGroup": 0, "supplementalGroups": [], "sysctls": [{"name": "a", "value": "b"}]},
            "initContainers": [
                {"name": "a", "restartPolicy": "Never", "livenessProbe": {"exec": {"command": ["a"]}}},
                {"name": "s", "restartPolicy": "Always", "livenessProbe": {"exec": {"command": ["a"]}},
                 "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}, "tty": true},
            ],
            "containers": [
                {"name": "a"},
                {"name": "b", "lifecycle": {"preStop": {"tcpSocket": {"port": 1}}, "postStart": {"sleep": {"seconds": 1}}}, "startupProbe": {"periodSeconds": 1}, "tty": true,
                 "ports": [{"containerPort": 80, "hostPort": 80}, {"containerPort": 81, "protocol": "SCTP"}],
                 "livenessProbe": {"tcpSocket": {"port": 1}}, "readinessProbe": {"tcpSocket": {"port": 1, "host": "a"}},
                 "volumeMounts": [{"name": "v", "mountPath": "/v", "subPathExpr": "x", "mountPropagation": "None"}]},
            ],
            "volumes": [
                {"name": "h", "hostPath": {"path": "/"}}, {"name": "p", "nfs": {"server": "a", "path": "/"}},
                {"name": "e", "emptyDir": {"medium": "Memory"}}, {"name": "f", "emptyDir": {"medium": ""}}],
        }));
        let mut refused = refused;
        refused.sort();
        assert_eq!(
            refused,
            [
                "spec.containers[1].lifecycle.postStart",
                "spec.containers[1].lifecycle.preStop.tcpSocket",
                "spec.containers[1].ports[0].hostPort",
                "spec.containers[1].ports[1].protocol",
                "spec.containers[1].readinessProbe.tcpSocket.host",
                "spec.containers[1].tty",
                "spec.containers[1].volumeMounts[0].subPathExpr",
                "spec.hostIPC",
                "spec.hostNetwork",
                "spec.initContainers[0].livenessProbe",
                "spec.initContainers[0].restartPolicy",
                "spec.initContainers[1].lifecycle",
                "spec.initContainers[1].restartPolicy",
                "spec.initContainers[1].tty",
                "spec.os.name",
                "spec.resourceClaims",
                "spec.runtimeClassName",
                "spec.schedulingGroup",
                "spec.securityContext.fsGroup",
                "spec.securityContext.sysctls",
                "spec.volumes[0].hostPath",
                "spec.volumes[1].nfs",
                "spec.volumes[2].emptyDir.medium",
            ]
        );
    }

    /// The definition that a `$ref` of the schema names, without its package.
    fn reference(schema: &Value) -> Option<&str> {
        let target = schema.pointer("/allOf/0/$ref").or(schema.get("$ref"))?;
        target.as_str()?.rsplit(['.', '/']).next()
    }

    #[test]
    fn every_field_of_the_pods_schema_has_a_decision() {
        let mut generator = schemars::SchemaGenerator::default();
        let _ = Pod::json_schema(&mut generator);
        let definitions = generator.take_definitions(true);
        let definition = |kind: &str| {
            let name = if is_like_container(kind) {
                "Container"
            } else {
                kind
            };
            let (_, schema) = definitions
                .iter()
                .find(|(key, _)| key.rsplit('.').next() == Some(name))?;
            schema.get("properties")?.as_object()
        };
        let (mut todo, mut seen) = (vec!["PodSpec"], vec![]);
        let mut wrong = vec![];
        while let Some(kind) = todo.pop() {
            if seen.contains(&kind) {
                continue;
            }
            seen.push(kind);
            let Some(fields) = definition(kind) else {
                wrong.push(format!("{kind} is no type of the schema"));
                continue;
            };
            for (name, schema) in fields {
                let Some(row) = rows(kind).find(|row| row.name == name) else {
                    wrong.push(format!("{kind}.{name} has no decision"));
                    continue;
                };
                let below = reference(schema).or_else(|| reference(schema.get("items")?));
                let below = below.filter(|kind| definition(kind).is_some());
                let decides_below = matches!(row.decision, FieldDecision::Translated(_));
                match (row.value_type, below) {
                    (Some(INIT_CONTAINER), Some("Container")) => {
                        todo.extend([INIT_CONTAINER, SIDECAR_CONTAINER]);
                    }
                    (Some(holds), Some(below)) if holds == below => todo.push(holds),
                    (None, None) => {}
                    (None, Some(_)) if !decides_below => {}
                    (holds, below) => {
                        wrong.push(format!("{kind}.{name} holds {below:?}, not {holds:?}"));
                    }
                }
            }
            for row in rows(kind).filter(|row| !fields.contains_key(row.name)) {
                wrong.push(format!("{kind}.{} is no field of the schema", row.name));
            }
        }
        for (kind, _) in types().filter(|(kind, _)| !seen.contains(kind)) {
            wrong.push(format!("{kind} is decided and never reached"));
        }
        assert!(seen.len() > 30, "{seen:?}");
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn every_decision_has_an_explanation() {
        for (kind, rows) in types() {
            for row in rows {
                let words = match row.decision {
                    FieldDecision::Translated(words)
                    | FieldDecision::Meaningless(words)
                    | FieldDecision::Refused(words)
                    | FieldDecision::RefusedUnless(_, words)
                    | FieldDecision::RefusedUnlessAccepted(_, words) => words,
                };
                assert!(!words.is_empty(), "{kind}.{}", row.name);
            }
        }
    }
}
