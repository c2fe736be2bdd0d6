//! Single fields: what becomes of them, and when they are refused.

use serde_json::{Value, json};

use super::given::Given;

/// Pods of one container, and the fields that each is refused for.
#[test]
fn what_depends_on_a_value_is_refused_by_name() {
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
            json!({"ports": [{"containerPort": 0}, {"containerPort": 70000}, {"containerPort": 3389}]}),
            vec![
                c("ports[0].containerPort"),
                c("ports[1].containerPort"),
                c("ports[2].containerPort"),
            ],
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
fn what_depends_on_the_pod_is_refused_by_name() {
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
        (
            with("activeDeadlineSeconds", json!(10)),
            vec!["spec.activeDeadlineSeconds"],
        ),
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
fn variables_are_as_a_kubelet_makes_them() {
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    let given = Given::container(json!({
        "envFrom": [
            {"configMapRef": {"name": "m"}}, {"prefix": "P_", "secretRef": {"name": "s"}},
            {"configMapRef": {"name": "absent", "optional": true}}],
        "env": [
            {"name": "FIRST", "value": "$(a)$(LATER)$(P_k)"},
            {"name": "a", "value": "over $(a)"},
            {"name": "EMPTY"},
            {"name": "LATER", "value": "$$(a) $(a) $(EMPTY)$(none)"},
            {"name": "TWICE", "value": "1"}, {"name": "TWICE", "value": "$(TWICE)2"},
            {"name": "POD", "valueFrom": field("metadata.name")},
            {"name": "UID", "valueFrom": field("metadata.uid")},
            {"name": "NOTE", "valueFrom": field("metadata.annotations['note']")},
            {"name": "NONE", "valueFrom": field("metadata.labels['none']")},
            {"name": "ACCOUNT", "valueFrom": field("spec.serviceAccountName")},
            {"name": "MISSING", "valueFrom": {"secretKeyRef": {"name": "s", "key": "none", "optional": true}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "ASKED", "valueFrom": {"resourceFieldRef": {"resource": "requests.memory", "divisor": "1Ki"}}},
        ],
        "resources": {"requests": {"cpu": "1500m", "memory": "1.5Mi"}},
    }))
    .config_map("m", &[("a", "A"), ("b", "B")])
    .secret("s", &[("k", "hidden")])
    .annotated("note", "hello");
    assert_eq!(
        given.variables(),
        [
            "b=B",
            "P_k:hidden",
            "FIRST:A$(LATER)hidden",
            "a=over A",
            "EMPTY=",
            "LATER=$(a) over A $(none)",
            "TWICE=12",
            "POD=web",
            "UID=u-1",
            "NOTE=hello",
            "NONE=",
            "ACCOUNT=default",
            "CPU=2",
            "ASKED=1536",
        ]
    );
}

#[test]
fn what_only_values_tell_is_refused_when_they_are_known() {
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

#[test]
fn pull_secrets_of_every_documented_form_are_understood() {
    // base64 of `user:pa:ss`, with padding and without, and of `user:x`.
    let forms = [
        (
            ".dockerconfigjson",
            json!({"auths": {"https://a.io/v1/": {"auth": "dXNlcjpwYTpzcw=="}}}),
        ),
        (
            ".dockerconfigjson",
            json!({"auths": {"a.io": {"auth": "dXNlcjpwYTpzcw", "email": "x"}}, "credsStore": "osx"}),
        ),
        (
            ".dockerconfigjson",
            json!({"auths": {"a.io": {"username": "user", "password": "pa:ss"}}}),
        ),
        (
            ".dockerconfigjson",
            json!({"auths": {"a.io": {"username": "other", "password": "other", "auth": "dXNlcjpwYTpzcw=="}}}),
        ),
        (
            ".dockercfg",
            json!({"a.io": {"username": "user", "password": "pa:ss"}}),
        ),
        (
            ".dockercfg",
            json!({"*.io": {"auth": "dXNlcjpwYTpzcw=="}, "b.io": {"auth": "dXNlcjp4"}}),
        ),
        (
            ".dockercfg",
            json!({"a.io": {"auth": "dXNlcjp4"}, "a.io/team": {"auth": "dXNlcjpwYTpzcw=="}}),
        ),
    ];
    for (key, config) in forms {
        let spec = json!({
            "containers": [{"name": "a", "image": "a.io/team/web:1"}, {"name": "b", "image": "c.example/web"}],
            "imagePullSecrets": [{"name": "missing"}, {"name": "opaque"}, {"name": "p"}],
        });
        let given = Given::spec(spec)
            .secret("opaque", &[("a", "b")])
            .secret("p", &[(key, &config.to_string())]);
        assert_eq!(
            given.body()["properties"]["imageRegistryCredentials"],
            json!([{"server": "a.io", "username": "user", "password": "pa:ss"}]),
            "{config}"
        );
    }
}

#[test]
fn two_images_of_a_registry_need_one_credential() {
    let spec = json!({
        "containers": [{"name": "a", "image": "a.io/x/web"}, {"name": "b", "image": "a.io/y/web"}],
        "imagePullSecrets": [{"name": "p"}],
    });
    let config = r#"{"a.io/x": {"username": "x", "password": "x"}, "a.io/y": {"username": "y", "password": "y"}}"#;
    let given = Given::spec(spec).secret("p", &[(".dockercfg", config)]);
    assert_eq!(given.refused(), ["spec.containers[1].image"]);
}

#[test]
fn annotations_ask_for_what_the_placement_can_give() {
    let web =
        |ports: Value| Given::container(json!({"image": "shop.azurecr.io/web", "ports": ports}));
    let ports = json!([{"containerPort": 80}]);
    let id = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/n";
    let named = |name: &str| vec![format!("metadata.annotations[{name}]")];
    let cases = [
        (
            web(ports.clone()).annotated("burstpool.io/dns-name-label", "shop-web"),
            vec![],
        ),
        (
            web(ports.clone()).annotated("virtualkubelet.io/dnsnamelabel", "shop-web"),
            vec![],
        ),
        (
            web(ports.clone()).annotated("burstpool.io/dns-name-label", "Shop"),
            named("burstpool.io/dns-name-label"),
        ),
        (
            web(json!([])).annotated("burstpool.io/dns-name-label", "shop-web"),
            named("burstpool.io/dns-name-label"),
        ),
        (
            web(ports.clone())
                .in_subnet()
                .annotated("burstpool.io/dns-name-label", "shop-web"),
            named("burstpool.io/dns-name-label"),
        ),
        (
            web(json!([])).annotated("burstpool.io/cce-policy", "x"),
            named("burstpool.io/cce-policy"),
        ),
        (
            web(json!([])).annotated("virtual-kubelet.io/container-sku", "Confidential"),
            named("virtual-kubelet.io/container-sku"),
        ),
        (
            web(json!([])).annotated("virtual-kubelet.io/container-sku", "Standard"),
            vec![],
        ),
        (
            web(json!([])).annotated("burstpool.io/identity", "me"),
            named("burstpool.io/identity"),
        ),
        (
            web(json!([])).annotated("burstpool.io/identity", id),
            vec![],
        ),
        (
            web(json!([])).annotated("burstpool.io/image-pull-identity", id),
            vec![],
        ),
        (
            web(json!([])).annotated("burstpool.io/image-pull-identity", "me"),
            named("burstpool.io/image-pull-identity"),
        ),
        (
            Given::container(json!({})).annotated("burstpool.io/image-pull-identity", id),
            named("burstpool.io/image-pull-identity"),
        ),
        (
            web(json!([])).annotated("burstpool.io/tags", "a=b,c"),
            named("burstpool.io/tags"),
        ),
        (
            web(json!([])).annotated("burstpool.io/tags", "Burstpool-Cluster=mine"),
            named("burstpool.io/tags"),
        ),
        (
            web(json!([])).annotated("burstpool.io/tags", "a?=b"),
            named("burstpool.io/tags"),
        ),
        (
            web(ports).placed(&json!({"priority": "Spot"})),
            vec!["spec.containers[*].ports".to_owned()],
        ),
    ];
    for (given, expected) in cases {
        assert_eq!(given.clone().refused(), expected, "{}", given.pod);
    }
}

#[test]
fn an_address_is_public_only_with_ports_and_without_a_subnet() {
    let web = || {
        Given::container(
            json!({"ports": [{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}]}),
        )
    };
    let address = |given: Given| given.body()["properties"]["ipAddress"].clone();
    assert_eq!(
        address(web()),
        json!({"type": "Public", "ports": [{"protocol": "TCP", "port": 80}, {"protocol": "UDP", "port": 53}]})
    );
    assert_eq!(address(web().in_subnet()), Value::Null);
    assert_eq!(address(Given::container(json!({}))), Value::Null);
}

#[test]
fn name_servers_are_the_placements_the_pods_or_azures() {
    let cluster =
        json!({"network": {"dns": {"nameServers": ["10.0.0.10"], "clusterDomain": "example"}}});
    let pod = |policy: &str, config: Value| {
        let mut spec = json!({"containers": [{"name": "a", "image": "a"}], "dnsPolicy": policy});
        spec["dnsConfig"] = config;
        Given::spec(spec).in_subnet()
    };
    let dns = |given: Given| given.body()["properties"]["dnsConfig"].clone();
    let none = Value::Null;
    assert_eq!(dns(pod("ClusterFirst", none.clone())), none);
    assert_eq!(dns(pod("Default", none.clone()).placed(&cluster)), none);
    let own = json!({"nameServers": ["10.0.0.10"], "searchDomains": "shop.svc.example svc.example example", "options": "ndots:5"});
    assert_eq!(dns(pod("ClusterFirst", none.clone()).placed(&cluster)), own);
    assert_eq!(
        dns(pod("ClusterFirstWithHostNet", none.clone()).placed(&cluster)),
        own
    );
    let config = json!({"nameservers": ["1.1.1.1", "10.0.0.10", "2.2.2.2", "3.3.3.3"], "searches": ["a.example"], "options": [{"name": "ndots", "value": "1"}, {"name": "edns0"}]});
    assert_eq!(
        dns(pod("ClusterFirst", config.clone()).placed(&cluster)),
        json!({"nameServers": ["10.0.0.10", "1.1.1.1", "2.2.2.2"], "searchDomains": "shop.svc.example svc.example example a.example", "options": "ndots:1 edns0"})
    );
    assert_eq!(
        dns(pod("None", config)),
        json!({"nameServers": ["1.1.1.1", "10.0.0.10", "2.2.2.2"], "searchDomains": "a.example", "options": "ndots:1 edns0"})
    );
    assert_eq!(
        dns(pod("ClusterFirst", json!({"options": [{"name": "edns0"}]}))),
        json!({"nameServers": ["168.63.129.16"], "options": "edns0"})
    );
    assert_eq!(pod("None", none).refused(), ["spec.dnsConfig.nameservers"]);
    assert_eq!(
        pod("ClusterFirst", json!({"nameservers": ["dns.example"]})).refused(),
        ["spec.dnsConfig.nameservers"]
    );
}
