//! Tests: single fields that are refused because of their values.

use serde_json::{Value, json};

use super::given::Given;

/// Pods with one container, each with the fields that are refused.
#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn refusals_of_a_value_name_the_field() {
    let c = |field: &str| format!("spec.containers[0].{field}");
    let cases: Vec<(Value, Vec<String>)> = vec![
        (json!({"args": ["a"]}), vec![c("args")]),
        (json!({"command": ["a"], "args": ["a"]}), vec![]),
        (json!({"image": " "}), vec![c("image")]),
        (
            json!({"imagePullPolicy": "Never"}),
            vec![c("imagePullPolicy")],
        ),
        (json!({"restartPolicy": "Never"}), vec![c("restartPolicy")]),
        (json!({"restartPolicy": "Always"}), vec![]),
        (
            json!({"lifecycle": {}, "stdin": false, "tty": false, "workingDir": ""}),
            vec![],
        ),
        (
            json!({"stdin": true, "tty": true}),
            vec![c("stdin"), c("tty")],
        ),
        (
            json!({"env": [{"name": "a-b", "value": "x"}]}),
            vec![c("env[0].name")],
        ),
        (
            json!({"env": [{"name": "A", "valueFrom": {"fileKeyRef": {"key": "a", "path": "b", "volumeName": "c"}}}]}),
            vec![c("env[0].valueFrom.fileKeyRef")],
        ),
        (
            json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]}),
            vec![c("env[0].valueFrom.fieldRef.fieldPath")],
        ),
        (
            json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels"}}}]}),
            vec![c("env[0].valueFrom.fieldRef.fieldPath")],
        ),
        (
            json!({"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.nvidia.com/gpu"}}}]}),
            vec![c("env[0].valueFrom.resourceFieldRef")],
        ),
        (
            json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}], "command": ["x", "$(A)"]}),
            vec![c("command[1]")],
        ),
        (
            json!({"ports": [{"containerPort": 0}, {"containerPort": 70000}]}),
            vec![c("ports[0].containerPort"), c("ports[1].containerPort")],
        ),
        (
            json!({"ports": [{"containerPort": 27017}, {"containerPort": 9999}, {"containerPort": 50051}]}),
            vec![],
        ),
        (
            json!({"ports": [{"containerPort": 50051, "name": "web"}],
                "readinessProbe": {"httpGet": {"port": "web"}}}),
            vec![c("ports[0].containerPort")],
        ),
        (
            json!({"ports": [{"containerPort": 50051, "name": "web"}],
                "livenessProbe": {"httpGet": {"port": "web"}}}),
            vec![c("ports[0].containerPort")],
        ),
        (
            json!({"ports": (1..7).map(|p| json!({"containerPort": p})).collect::<Vec<_>>()}),
            vec!["spec.containers[*].ports".to_owned()],
        ),
        (
            json!({"livenessProbe": {"httpGet": {"port": "web"}}}),
            vec![c("livenessProbe.httpGet.port")],
        ),
        (
            json!({"livenessProbe": {"httpGet": {"port": 80, "host": "other"}}}),
            vec![c("livenessProbe.httpGet.host")],
        ),
        (
            json!({"livenessProbe": {"exec": {"command": []}}}),
            vec![c("livenessProbe.exec.command")],
        ),
        (
            json!({"livenessProbe": {"tcpSocket": {"port": 1}}}),
            vec![c("livenessProbe.tcpSocket")],
        ),
        (
            json!({"readinessProbe": {"grpc": {"port": 1}}}),
            vec![c("readinessProbe.grpc")],
        ),
        (
            json!({"startupProbe": {"httpGet": {"port": 1}}}),
            vec![c("startupProbe")],
        ),
        (json!({"readinessProbe": {}}), vec![c("readinessProbe")]),
        (
            json!({"readinessProbe": {"exec": {"command": ["a"]}, "httpGet": {"port": 1}}}),
            vec![c("readinessProbe")],
        ),
        (
            json!({"readinessProbe": {"exec": {"command": ["a"]}, "periodSeconds": -1}}),
            vec![c("readinessProbe.periodSeconds")],
        ),
        (
            json!({"securityContext": {"runAsNonRoot": true}}),
            vec![c("securityContext.runAsNonRoot")],
        ),
        (
            json!({"securityContext": {"runAsNonRoot": true, "runAsUser": 0}}),
            vec![c("securityContext.runAsNonRoot")],
        ),
        (
            json!({"securityContext": {"runAsNonRoot": true, "runAsUser": 1}}),
            vec![],
        ),
        (
            json!({"securityContext": {"runAsUser": 3_000_000_000_u32}}),
            vec![c("securityContext.runAsUser")],
        ),
        (
            json!({"securityContext": {"privileged": true}}),
            vec![c("securityContext.privileged")],
        ),
        (
            json!({"securityContext": {"capabilities": {"add": ["NET_ADMIN", "chown", "CAP_SYS_TIME", "ALL"]}}}),
            vec![
                c("securityContext.capabilities.add[0]"),
                c("securityContext.capabilities.add[2]"),
                c("securityContext.capabilities.add[3]"),
            ],
        ),
        (
            json!({"securityContext": {"readOnlyRootFilesystem": true, "procMount": "Unmasked"}}),
            vec![
                c("securityContext.procMount"),
                c("securityContext.readOnlyRootFilesystem"),
            ],
        ),
        (
            json!({"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "a"}}}),
            vec![c("securityContext.seccompProfile.type")],
        ),
        (
            json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}),
            vec![c("volumeMounts[0].name")],
        ),
    ];
    for (container, mut expected) in cases {
        expected.sort();
        let given = Given::container(container.clone()).secret("s", &[("k", "hidden")]);
        assert_eq!(given.refused(), expected, "{container}");
    }
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn refusals_of_the_pod_name_the_field() {
    let many = |count: usize| -> Vec<Value> {
        (0..count).map(|i| json!({"name": format!("c{i}"), "image": "a", "resources": {"requests": {"cpu": "10m", "memory": "1M"}}})).collect()
    };
    let volumes: Vec<Value> = (0..21)
        .map(|i| json!({"name": format!("v{i}"), "emptyDir": {}}))
        .collect();
    let with = |field: &str, value: Value| {
        let mut spec = json!({"containers": [{"name": "a", "image": "a"}]});
        spec[field] = value;
        spec
    };
    let cases = [
        (json!({"containers": []}), vec!["spec.containers"]),
        (json!({"containers": many(61)}), vec!["spec.containers"]),
        (json!({"containers": many(60)}), vec![]),
        (
            json!({"containers": [{"name": "A", "image": "a"}, {"name": "b", "image": "a"}, {"name": "b", "image": "a"}]}),
            vec!["spec.containers[0].name", "spec.containers[2].name"],
        ),
        (with("volumes", volumes.into()), vec!["spec.volumes"]),
        (
            with("volumes", json!([{"name": "a"}])),
            vec!["spec.volumes[0]"],
        ),
        (
            with("volumes", json!([{"name": "a", "ephemeral": {}}])),
            vec!["spec.volumes[0]"],
        ),
        (
            with(
                "volumes",
                json!([{"name": "a", "emptyDir": {}, "gitRepo": {"repository": "x"}}]),
            ),
            vec!["spec.volumes[0]"],
        ),
        (
            with(
                "volumes",
                json!([{"name": "a", "emptyDir": {}}, {"name": "a", "emptyDir": {}}]),
            ),
            vec!["spec.volumes[1].name"],
        ),
        (
            with(
                "volumes",
                json!([{"name": "a", "csi": {"driver": "disk.csi.azure.com"}}]),
            ),
            vec!["spec.volumes[0].csi.driver"],
        ),
        (
            with(
                "volumes",
                json!([{"name": "a", "csi": {"driver": "file.csi.azure.com", "volumeAttributes": {"shareName": "x"}}}]),
            ),
            vec!["spec.volumes[0]"],
        ),
        (
            with(
                "volumes",
                json!([{"name": "a", "csi": {"driver": "file.csi.azure.com", "volumeAttributes": {"shareName": "x", "secretName": "files", "mountOptions": "ro"}}}]),
            ),
            vec!["spec.volumes[0].csi.volumeAttributes.mountOptions"],
        ),
        (
            with(
                "volumes",
                json!([{"name": "a", "configMap": {"name": "m", "items": [{"key": "k", "path": "a/b"}]}}]),
            ),
            vec!["spec.volumes[0].configMap.items[0].path"],
        ),
        (
            with(
                "volumes",
                json!([{"name": "a", "projected": {"sources": [{"serviceAccountToken": {"path": "../x"}}, {"clusterTrustBundle": {"path": "x"}}]}}]),
            ),
            vec![
                "spec.volumes[0].projected.sources[0].serviceAccountToken.path",
                "spec.volumes[0].projected.sources[1].clusterTrustBundle",
            ],
        ),
        (with("dnsPolicy", json!("None")), vec!["spec.dnsPolicy"]),
        (
            with("dnsConfig", json!({"nameservers": ["1.1.1.1"]})),
            vec!["spec.dnsConfig"],
        ),
        (
            with("restartPolicy", json!("Sometimes")),
            vec!["spec.restartPolicy"],
        ),
        (with("activeDeadlineSeconds", json!(10)), vec![]),
        (with("novel", json!(1)), vec!["spec.novel"]),
        (
            with("securityContext", json!({"runAsNonRoot": true})),
            vec!["spec.securityContext.runAsNonRoot"],
        ),
        (
            with(
                "securityContext",
                json!({"runAsNonRoot": true, "runAsUser": 7, "fsGroupChangePolicy": "Always"}),
            ),
            vec![],
        ),
        (
            with(
                "volumes",
                json!([{"name": "a", "emptyDir": {"sizeLimit": "50G"}}, {"name": "b", "emptyDir": {}}]),
            ),
            vec![],
        ),
        (
            with(
                "volumes",
                json!([{"name": "a", "emptyDir": {"sizeLimit": "50Gi"}}]),
            ),
            vec!["spec.volumes[0].emptyDir.sizeLimit"],
        ),
        (
            with(
                "volumes",
                json!([{"name": "a", "emptyDir": {"sizeLimit": "30G"}}, {"name": "b", "emptyDir": {"sizeLimit": "20001M"}}]),
            ),
            vec!["spec.volumes[1].emptyDir.sizeLimit"],
        ),
        (
            with(
                "securityContext",
                json!({"fsGroup": 2000, "fsGroupChangePolicy": "OnRootMismatch"}),
            ),
            vec![],
        ),
        (
            with(
                "securityContext",
                json!({"fsGroup": 0, "supplementalGroups": [5]}),
            ),
            vec![
                "spec.securityContext.fsGroup",
                "spec.securityContext.supplementalGroups",
            ],
        ),
        (
            with(
                "securityContext",
                json!({"runAsUser": 0, "fsGroup": 0, "supplementalGroups": [5]}),
            ),
            vec![],
        ),
        (
            with(
                "ephemeralContainers",
                json!([{"name": "debug", "image": "busybox", "tty": true, "stdin": true}]),
            ),
            vec![],
        ),
        (with("tolerations", json!([{"operator": "Exists"}])), vec![]),
    ];
    for (spec, expected) in cases {
        let given = Given::spec(spec.clone())
            .config_map("m", &[("k", "v")])
            .secret(
                "files",
                &[
                    ("azurestorageaccountname", "a"),
                    ("azurestorageaccountkey", "b"),
                ],
            );
        assert_eq!(given.refused(), expected, "{spec}");
    }
}

#[test]
fn default_capabilities_and_those_of_confidential_groups_are_added() {
    let added = |name: &str| {
        Given::container(json!({"securityContext": {"capabilities": {"add": [name]}}}))
    };
    let body = |given: Given| given.first()["securityContext"]["capabilities"].clone();
    for name in [
        "NET_BIND_SERVICE",
        "CAP_NET_BIND_SERVICE",
        "cap_net_bind_service",
    ] {
        assert_eq!(body(added(name)), json!({"add": ["CAP_NET_BIND_SERVICE"]}));
    }
    let confidential = added("NET_ADMIN").placed(&json!({"sku": "Confidential"}));
    assert_eq!(body(confidential), json!({"add": ["CAP_NET_ADMIN"]}));
}

#[test]
fn a_size_limit_above_the_disk_is_refused_with_the_figure() {
    let volumes = json!([{"name": "cache", "emptyDir": {"sizeLimit": "60Gi"}}]);
    let pod = json!({"containers": [{"name": "a", "image": "a"}], "volumes": volumes});
    let refused = Given::spec(pod).translate().expect_err("a refusal");
    assert_eq!(
        refused[0].why,
        "with it, emptyDir volumes may grow to 64.425 GB together, and the disk of a container group has 50 GB"
    );
}

#[test]
fn values_are_refused_once_they_are_known() {
    let given = |data: &[(&str, &str)]| {
        Given::container(json!({"envFrom": [{"configMapRef": {"name": "m"}}]}))
            .config_map("m", data)
    };
    assert_eq!(
        given(&[("app.properties", "x")]).refused(),
        ["spec.containers[0].envFrom[0]"]
    );
    assert_eq!(
        given(&[("app_properties", "x")]).refused(),
        Vec::<String>::new()
    );
    let unread = Given::container(json!({"envFrom": [{"configMapRef": {"name": "m"}}]}));
    assert_eq!(unread.refused(), ["spec.containers[0].envFrom[0]"]);
    let pull = json!({"containers": [{"name": "a", "image": "a.io/b"}], "imagePullSecrets": [{"name": "p"}]});
    let pull =
        |config: &str| Given::spec(pull.clone()).secret("p", &[(".dockerconfigjson", config)]);
    assert_eq!(pull("nonsense").refused(), ["spec.imagePullSecrets[0]"]);
    assert_eq!(
        pull(r#"{"auths": {"a.io": {"auth": "!"}}}"#).refused(),
        ["spec.imagePullSecrets[0]"]
    );
    assert_eq!(
        pull(r#"{"auths": {"b.io": {"auth": "!"}}}"#).refused(),
        Vec::<String>::new()
    );
    assert_eq!(pull("{}").refused(), Vec::<String>::new());
}
