//! Tests: each loss that a pool's author can accept.

use serde_json::{Value, json};

use super::super::Unsupported;
use super::given::Given;
use crate::api::AcceptedLoss;

/// A pod that asks for what `loss` takes away, the same pod without it, and the field.
fn asking(loss: AcceptedLoss) -> (Value, Value, &'static str) {
    let spec = |container: Value, changes: Value| {
        let mut spec =
            json!({"containers": [{"name": "a", "image": "a", "securityContext": container}]});
        for (field, value) in changes.as_object().expect("fields") {
            spec[field] = value.clone();
        }
        spec
    };
    let pod = |changes: Value| spec(Value::Null, changes);
    let volume = |volume: Value| pod(json!({"volumes": [volume]}));
    match loss {
        AcceptedLoss::EmptyDirMemory => (
            volume(json!({"name": "v", "emptyDir": {"medium": "Memory"}})),
            volume(json!({"name": "v", "emptyDir": {}})),
            "spec.volumes[0].emptyDir.medium",
        ),
        AcceptedLoss::FileModes => (
            volume(json!({"name": "v", "secret": {"secretName": "s", "defaultMode": 0o400}})),
            volume(json!({"name": "v", "secret": {"secretName": "s", "defaultMode": 0o644}})),
            "spec.volumes[0].secret.defaultMode",
        ),
        AcceptedLoss::FsGroup => (
            pod(json!({"securityContext": {"fsGroup": 0, "fsGroupChangePolicy": "Always"}})),
            pod(json!({})),
            "spec.securityContext.fsGroup",
        ),
        AcceptedLoss::ReadOnlyRootFilesystem => (
            spec(json!({"readOnlyRootFilesystem": true}), json!({})),
            spec(json!({"readOnlyRootFilesystem": false}), json!({})),
            "spec.containers[0].securityContext.readOnlyRootFilesystem",
        ),
        AcceptedLoss::Seccomp => (
            spec(
                json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "a"}}),
                json!({}),
            ),
            spec(
                json!({"seccompProfile": {"type": "RuntimeDefault"}}),
                json!({}),
            ),
            "spec.containers[0].securityContext.seccompProfile.type",
        ),
        AcceptedLoss::ShareProcessNamespace => (
            pod(json!({"shareProcessNamespace": true})),
            pod(json!({"shareProcessNamespace": false})),
            "spec.shareProcessNamespace",
        ),
        AcceptedLoss::SidecarOrder => {
            let app = json!({"name": "a", "image": "a", "resources": {"requests": {"cpu": 2, "memory": "2G"}}});
            let proxy = json!({"name": "proxy", "image": "p", "resources": {"requests": {"cpu": 1}},
                "ports": [{"name": "health", "containerPort": 81}],
                "livenessProbe": {"httpGet": {"port": "health"}}, "readinessProbe": {"exec": {"command": ["r"]}}});
            let mut sidecar = proxy.clone();
            sidecar["restartPolicy"] = "Always".into();
            (
                json!({"containers": [app], "initContainers": [sidecar]}),
                json!({"containers": [proxy, app]}),
                "spec.initContainers[0].restartPolicy",
            )
        }
        AcceptedLoss::SubPathHidesDirectory => {
            let mounting = |mount: Value, volume: Value| json!({"volumes": [volume], "containers": [{"name": "a", "image": "a", "volumeMounts": [mount]}]});
            let items = json!([{"key": "k", "path": "f"}]);
            (
                mounting(
                    json!({"name": "config", "mountPath": "/etc/app/f", "subPath": "k"}),
                    json!({"name": "config", "secret": {"secretName": "s"}}),
                ),
                mounting(
                    json!({"name": "files-0", "mountPath": "/etc/app", "readOnly": true}),
                    json!({"name": "files-0", "secret": {"secretName": "s", "items": items}}),
                ),
                "spec.containers[0].volumeMounts[0].subPath",
            )
        }
    }
}

fn given(spec: Value) -> Given {
    Given::spec(spec).secret("s", &[("k", "v")])
}

#[test]
fn each_loss_is_refused_by_name_and_the_group_is_that_of_a_pod_without_it_once_it_is_accepted() {
    for loss in AcceptedLoss::ALL {
        let (asks, plain, field) = asking(loss);
        let others = AcceptedLoss::ALL.into_iter().filter(|other| *other != loss);
        let others: Vec<AcceptedLoss> = others.collect();
        for accepted in [&[][..], &others] {
            let refused = given(asks.clone()).accepting(accepted).translate();
            let refused = refused.expect_err("it is not accepted");
            let [
                Unsupported {
                    field: named,
                    loss: lost,
                    ..
                },
            ] = refused.as_slice()
            else {
                panic!("{refused:?}")
            };
            assert_eq!((named.as_str(), *lost), (field, Some(loss)));
            let remedy = format!("; remove it from the pod, or accept it: spill.accept: [{loss}]");
            let text = refused[0].to_string();
            assert!(text.starts_with(field) && text.ends_with(&remedy), "{text}");
        }
        let accepted = given(asks).accepting(&[loss]).body();
        assert_eq!(accepted, given(plain.clone()).body(), "{loss}");
        let unused = given(plain.clone()).accepting(&AcceptedLoss::ALL).body();
        assert_eq!(unused, given(plain).body(), "{loss}");
    }
}

#[test]
fn a_sidecar_is_refused_for_good_where_the_pod_ends_or_an_init_container_follows() {
    let sidecar = |name: &str| json!({"name": name, "image": "p", "restartPolicy": "Always"});
    let init = |name: &str| json!({"name": name, "image": "i"});
    let both = [
        "spec.initContainers[0].restartPolicy",
        "spec.initContainers[1].restartPolicy",
    ];
    for (policy, containers, wanted, word) in [
        ("Always", vec![init("i"), sidecar("s")], &[][..], ""),
        ("Always", vec![sidecar("s"), sidecar("t")], &[], ""),
        (
            "Always",
            vec![sidecar("s"), init("i")],
            &both[..1],
            "'i' comes after",
        ),
        (
            "Always",
            vec![sidecar("s"), sidecar("t"), init("i")],
            &both,
            "'i' comes after",
        ),
        (
            "Never",
            vec![init("i"), sidecar("s")],
            &both[1..],
            "restartPolicy is Never",
        ),
        (
            "OnFailure",
            vec![sidecar("s")],
            &both[..1],
            "restartPolicy is OnFailure",
        ),
    ] {
        let spec = json!({"restartPolicy": policy, "containers": [init("a")], "initContainers": containers});
        let translated = given(spec)
            .accepting(&[AcceptedLoss::SidecarOrder])
            .translate();
        let refused = translated.err().unwrap_or_default();
        let fields: Vec<&str> = refused.iter().map(|one| one.field.as_str()).collect();
        assert_eq!(fields, wanted, "{refused:?}");
        let fits = |one: &Unsupported| one.loss.is_none() && one.why.contains(word);
        assert!(refused.iter().all(fits), "{refused:?}");
    }
}

#[test]
fn a_sidecar_is_the_first_container_of_the_group_and_its_requests_are_added() {
    let requests = |cpu: &str, memory: &str| json!({"requests": {"cpu": cpu, "memory": memory}});
    let spec = json!({
        "containers": [{"name": "app", "image": "a", "resources": requests("1", "1G")}],
        "initContainers": [
            {"name": "setup", "image": "i", "resources": requests("1200m", "100M")},
            {"name": "proxy", "image": "p", "restartPolicy": "Always", "resources": requests("500m", "500M")}],
    });
    let body = given(spec).accepting(&[AcceptedLoss::SidecarOrder]).body();
    let of = |list: &str| -> Vec<String> {
        let containers = body["properties"][list].as_array().expect("a list");
        let shown = |container: &Value| {
            let requests = &container["properties"]["resources"]["requests"];
            format!(
                "{} {} {}",
                container["name"], requests["cpu"], requests["memoryInGB"]
            )
        };
        containers.iter().map(shown).collect()
    };
    assert_eq!(of("containers"), ["\"proxy\" 0.5 0.5", "\"app\" 1.0 1.0"]);
    assert_eq!(of("initContainers"), ["\"setup\" null null"]);
}

#[test]
fn no_loss_is_a_user_a_privilege_or_a_namespace_of_the_host() {
    for (spec, field) in [
        (
            json!({"securityContext": {"runAsNonRoot": true}}),
            "spec.securityContext.runAsNonRoot",
        ),
        (json!({"hostNetwork": true}), "spec.hostNetwork"),
        (json!({"hostPID": true}), "spec.hostPID"),
        (
            json!({"securityContext": {"supplementalGroups": [1]}}),
            "spec.securityContext.supplementalGroups",
        ),
        (
            json!({"securityContext": {"seccompProfile": {"type": "Novel"}}}),
            "spec.securityContext.seccompProfile.type",
        ),
        (
            json!({"volumes": [{"name": "v", "emptyDir": {"medium": "HugePages"}}]}),
            "spec.volumes[0].emptyDir.medium",
        ),
    ] {
        let mut pod = spec;
        pod["containers"] =
            json!([{"name": "a", "image": "a", "securityContext": {"privileged": true}}]);
        let refused = given(pod).accepting(&AcceptedLoss::ALL).translate();
        let refused = refused.expect_err("it is refused");
        let privileged = "spec.containers[0].securityContext.privileged";
        for field in [field, privileged] {
            let refusal = refused.iter().find(|refusal| refusal.field == field);
            let refusal = refusal.unwrap_or_else(|| panic!("{field}: {refused:?}"));
            assert_eq!(refusal.loss, None, "{refusal}");
        }
    }
}
