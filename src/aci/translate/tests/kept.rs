//! Tests: the translation of single fields.

use serde_json::{Value, json};

use super::super::body::AzureFile;
use super::super::claims::ClaimBacking;
use super::super::secret_string::SecretString;
use super::given::Given;

#[test]
fn a_limit_of_0_is_none_as_it_is_to_a_kubelet() {
    let body = Given::spec(json!({"containers": [
        {"name": "app", "image": "a", "resources": {"requests": {"memory": "2Gi"}, "limits": {"cpu": "0", "memory": "0"}},
         "env": [{"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]},
        {"name": "proxy", "image": "b", "resources": {"requests": {"cpu": "500m"}}}]}))
    .body();
    let app = &body["properties"]["containers"][0]["properties"];
    let amounts =
        |list: &str, name: &str| app["resources"][list][name].as_f64().expect("an amount");
    assert!(amounts("limits", "cpu") >= 0.5, "{app}");
    assert!(amounts("limits", "memoryInGB") >= 2.0, "{app}");
    assert_ne!(app["environmentVariables"][0]["value"], "0", "{app}");
}

#[test]
fn pull_secrets_of_every_documented_form_are_understood() {
    // Base64 of `user:pa:ss`, with and without padding, and of `user:x`.
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
fn an_empty_entry_is_not_a_credential() {
    let entry = |entry: Value| {
        let config = json!({"auths": {"quay.io/team": entry, "quay.io": {"auth": "dXNlcjp4"}}});
        let spec = json!({"containers": [{"name": "a", "image": "quay.io/team/web"}],
            "imagePullSecrets": [{"name": "p"}]});
        let given = Given::spec(spec).secret("p", &[(".dockerconfigjson", &config.to_string())]);
        given.body()["properties"]["imageRegistryCredentials"][0]["password"].clone()
    };
    for empty in [
        json!({}),
        Value::Null,
        json!({"auth": ""}),
        json!({"auth": "Og=="}),
        json!({"username": "", "password": "", "email": "a@b"}),
    ] {
        assert_eq!(entry(empty.clone()), "x", "{empty}");
    }
    for config in [r#"{"auths": {"quay.io": {}}}"#, r#"{"auths": null}"#] {
        let spec = json!({"containers": [{"name": "a", "image": "quay.io/web"}],
            "imagePullSecrets": [{"name": "p"}]});
        let given = Given::spec(spec).secret("p", &[(".dockerconfigjson", config)]);
        let body = given.body();
        assert_eq!(
            body["properties"].get("imageRegistryCredentials"),
            None,
            "{config}"
        );
    }
}

#[test]
fn a_port_that_aci_reserves_is_left_out() {
    let ports = json!([{"containerPort": 27017, "name": "db"}, {"containerPort": 80}]);
    let given = Given::container(json!({"ports": ports}));
    let rest = json!([{"protocol": "TCP", "port": 80}]);
    for body in [given.clone().body(), given.in_subnet().body()] {
        let properties = &body["properties"];
        assert_eq!(properties["containers"][0]["properties"]["ports"], rest);
        if let Some(address) = properties.get("ipAddress") {
            assert_eq!(address["ports"], rest);
        }
    }
    // In a subnet, the virtual node sends the readiness probe.
    let probed = json!({"ports": ports, "readinessProbe": {"httpGet": {"port": "db"}}});
    let body = Given::container(probed).in_subnet().body();
    let ports = &body["properties"]["containers"][0]["properties"]["ports"];
    assert_eq!(*ports, rest);
    let alone = json!({"ports": [{"containerPort": 27017}]});
    let body = Given::container(alone).body();
    assert_eq!(body["properties"].get("ipAddress"), None);
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
fn annotations_request_what_the_placement_supports() {
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
fn a_pod_chooses_an_identity_only_in_a_listed_namespace() {
    let id = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/app";
    let web = |annotation: &str, value: &str| {
        Given::container(json!({"image": "shop.azurecr.io/web"})).annotated(annotation, value)
    };
    let both = format!("system,{id}");
    for (annotation, value) in [
        ("burstpool.io/identity", id),
        ("burstpool.io/identity", both.as_str()),
        ("burstpool.io/image-pull-identity", id),
    ] {
        let named = vec![format!("metadata.annotations[{annotation}]")];
        for (namespaces, refused) in [
            (&[][..], &named[..]),
            (&["web"], &named),
            (&["web", "shop"], &[]),
            (&["*"], &[]),
        ] {
            let given = web(annotation, value).identified(namespaces);
            assert_eq!(given.refused(), refused, "{annotation} {namespaces:?}");
        }
        let refused = web(annotation, value).identified(&[]).translate();
        let why = refused.expect_err("it is refused")[0].to_string();
        assert!(why.ends_with("--pod-identity-namespaces=shop"), "{why}");
    }
    // The group's own identity has no permissions until an administrator grants some.
    let own = web("burstpool.io/identity", "system").identified(&[]);
    assert_eq!(own.refused(), Vec::<String>::new());
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

#[test]
fn kube_proxy_is_an_extension_whose_kubeconfig_is_protected() {
    let network =
        |kube_proxy| json!({"network": {"kubeProxy": kube_proxy, "realtimeMetrics": false}});
    let wanted = network(true);
    let web = || Given::container(json!({}));
    let body = web().in_subnet().placed(&wanted).body();
    assert_eq!(
        body["properties"]["extensions"],
        json!([{"name": "kube-proxy", "properties": {
            "extensionType": "kube-proxy", "version": "1.0",
            "settings": {"clusterCidr": "10.240.0.0/16", "kubeVersion": "v1.9.10"},
            "protectedSettings": {"kubeConfig": "a kubeconfig"},
        }}])
    );
    let without = web().in_subnet().placed(&network(false)).body();
    assert_eq!(without["properties"]["extensions"], Value::Null);
    let field = "placements[].network.kubeProxy";
    assert_eq!(web().placed(&wanted).refused(), [field]);
}

#[test]
fn realtime_metrics_are_an_extension_where_they_can_answer() {
    let extensions = |given: Given| given.body()["properties"]["extensions"].clone();
    let web = |container: Value| Given::container(container);
    assert_eq!(
        extensions(web(json!({})).in_subnet()),
        json!([{"name": "vk-realtime-metrics", "properties": {
            "extensionType": "realtime-metrics", "version": "1.0",
        }}])
    );
    let taken = json!({"ports": [{"containerPort": 18899}]});
    let other = json!({"ports": [{"containerPort": 18899, "protocol": "UDP"}]});
    assert_eq!(extensions(web(taken).in_subnet()), Value::Null);
    assert!(extensions(web(other).in_subnet()).is_array());
    assert_eq!(extensions(web(json!({}))), Value::Null);
    let confidential = json!({"sku": "Confidential"});
    let confidential = web(json!({})).in_subnet().placed(&confidential);
    assert_eq!(extensions(confidential), Value::Null);
    let off = json!({"network": {"realtimeMetrics": false}});
    let off = web(json!({})).in_subnet().placed(&off);
    assert_eq!(extensions(off), Value::Null);
}

#[test]
fn a_claim_is_the_share_that_it_is_bound_to() {
    let share = |read_only| {
        ClaimBacking::Share(AzureFile {
            share_name: "files".into(),
            read_only,
            storage_account_name: "shop".into(),
            storage_account_key: SecretString::new("key"),
        })
    };
    let pod = |read_only: bool, claim: Option<ClaimBacking>| {
        let volume = json!({"name": "data-1", "persistentVolumeClaim": {"claimName": "data", "readOnly": read_only}});
        let mut given =
            Given::spec(json!({"containers": [{"name": "a", "image": "a"}], "volumes": [volume]}));
        let claims = claim.map(|claim| ("data".to_owned(), claim));
        given.resolved.claims.extend(claims);
        given
    };
    for (of_pod, of_volume) in [(false, false), (true, false), (false, true)] {
        let body = pod(of_pod, Some(share(of_volume))).body();
        let read_only = of_pod || of_volume;
        assert_eq!(
            body["properties"]["volumes"],
            json!([{"name": "data-1", "azureFile": {"shareName": "files", "readOnly": read_only,
                "storageAccountName": "shop", "storageAccountKey": "key"}}])
        );
    }
    let field = "spec.volumes[0].persistentVolumeClaim";
    let disk = ClaimBacking::Unsupported("spec.csi.driver is disk.csi.azure.com".into());
    assert_eq!(pod(false, Some(disk)).refused(), [field]);
    assert_eq!(pod(false, None).refused(), [field]);
}

/// In Kubernetes, volumes with content are mounted read-only whatever the mount says.
#[test]
fn volumes_with_content_are_mounted_read_only() {
    let spec = json!({"containers": [{"name": "a", "image": "a", "volumeMounts": [
            {"name": "filled", "mountPath": "/filled"}, {"name": "none", "mountPath": "/none"},
            {"name": "own", "mountPath": "/own"}]}],
        "volumes": [{"name": "filled", "configMap": {"name": "m"}},
            {"name": "none", "configMap": {"name": "none", "optional": true}},
            {"name": "own", "emptyDir": {}}]});
    let body = Given::spec(spec).config_map("m", &[("k", "v")]).body();
    let mounts = &body["properties"]["containers"][0]["properties"]["volumeMounts"];
    let read_only = [0, 1, 2].map(|index| mounts[index]["readOnly"] == true);
    assert_eq!(read_only, [true, true, false], "{mounts}");
}
