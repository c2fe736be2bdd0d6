//! Bodies of container groups that differ from a valid one in one property, and their error codes.

use serde_json::{Value, json};

use crate::azure::{RESOURCE_GROUP, SUBSCRIPTION, body};

/// A valid body with changes: JSON pointers and new values (null removes the field).
pub fn with(changes: &[(&str, Value)]) -> Value {
    let mut body = body(&[]);
    for (pointer, value) in changes {
        let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
        let parent = body.pointer_mut(parent).expect("the parent is there");
        match (parent, value) {
            (Value::Object(object), Value::Null) => drop(object.remove(field)),
            (Value::Object(object), value) => drop(object.insert(field.to_owned(), value.clone())),
            (parent, _) => panic!("{pointer}: {parent} is no object"),
        }
    }
    body
}

pub const CONTAINER: &str = "/properties/containers/0/properties";

pub fn container(field: &str, value: Value) -> Value {
    with(&[(&format!("{CONTAINER}/{field}"), value)])
}

pub fn requests(cpu: f64, memory: f64) -> Value {
    container(
        "resources",
        json!({"requests": {"cpu": cpu, "memoryInGB": memory}}),
    )
}

pub fn volumes(volumes: Value, mounts: Value) -> Value {
    with(&[
        ("/properties/volumes", volumes),
        (&format!("{CONTAINER}/volumeMounts"), mounts),
    ])
}

pub fn address(address: Value) -> Value {
    with(&[("/properties/ipAddress", address)])
}

pub fn probe(probe: Value) -> Value {
    container("livenessProbe", probe)
}

pub fn subnet() -> Value {
    let network = "Microsoft.Network/virtualNetworks/v/subnets/s";
    json!([{"id": format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/{RESOURCE_GROUP}/providers/{network}")}])
}

pub fn spot(changes: &[(&str, Value)]) -> Value {
    let mut all = vec![("/properties/priority", json!("Spot"))];
    all.extend(changes.iter().cloned());
    with(&all)
}

/// Bodies that the service rejects, with its codes.
pub fn refused_by_the_service() -> Vec<(Value, &'static str)> {
    let gpu = json!({"requests": {"cpu": 1, "memoryInGB": 1, "gpu": {"count": 1, "sku": "P100"}}});
    let over =
        json!({"requests": {"cpu": 1, "memoryInGB": 1}, "limits": {"cpu": 2, "memoryInGB": 1}});
    let gpu_pointer = format!("{CONTAINER}/resources");
    let public = json!({"type": "Public", "ports": [{"port": 80}]});
    vec![
        (with(&[("/location", Value::Null)]), "LocationRequired"),
        (with(&[("/location", json!(" "))]), "LocationRequired"),
        (
            with(&[("/properties", Value::Null)]),
            "InvalidRequestContent",
        ),
        (
            with(&[("/properties", json!("x"))]),
            "InvalidRequestContent",
        ),
        (with(&[("/tags", json!({"a": 1}))]), "InvalidRequestContent"),
        (
            with(&[("/tags", json!({"a/b": "1"}))]),
            "InvalidTagNameCharacters",
        ),
        (
            with(&[("/tags", json!({"a": "x".repeat(257)}))]),
            "InvalidTagValueLength",
        ),
        (
            with(&[("/properties/osType", Value::Null)]),
            "InvalidOsType",
        ),
        (
            with(&[("/properties/osType", json!("Plan9"))]),
            "InvalidOsType",
        ),
        (
            with(&[("/properties/priority", json!("Urgent"))]),
            "PriorityNotSpecified",
        ),
        (
            container("resources", over),
            "ContainerLimitGreaterThanContainerGroupTotalRequest",
        ),
        (
            container("resources", gpu.clone()),
            "ContainerGroupQuotaReached",
        ),
        (requests(31.0, 240.0), "ContainerGroupQuotaReached"),
        (
            spot(&[("/properties/ipAddress", public.clone())]),
            "SpotPriorityContainerGroupNotSupportedForInboundConnectivity",
        ),
        (
            spot(&[("/properties/subnetIds", subnet())]),
            "SpotPriorityContainerGroupNotSupportedForInboundConnectivity",
        ),
        (
            spot(&[("/properties/sku", json!("Confidential"))]),
            "SpotPriorityContainerGroupNotSupportedInSku",
        ),
        (
            spot(&[(&gpu_pointer, gpu.clone())]),
            "SpotPriorityContainerGroupWithGPUResourcesNotSupported",
        ),
        (
            with(&[
                ("/properties/sku", json!("Confidential")),
                ("/properties/osType", json!("Windows")),
            ]),
            "ConfidentialContainerGroupSkuIsNotSupported",
        ),
        (
            with(&[(
                "/properties/imageRegistryCredentials",
                json!([{"server": "r", "identity": "/x"}]),
            )]),
            "InvalidImageRegistryIdentity",
        ),
        (
            with(&[("/properties/subnetIds", json!([{"id": "v/s"}]))]),
            "LinkedInvalidPropertyId",
        ),
        (
            with(&[(
                "/properties/subnetIds",
                json!([{"id": "/subscriptions/s/resourceGroups/g"}]),
            )]),
            "VirtualNetworkNotFound",
        ),
        (
            with(&[(
                "/properties/containerGroupProfile",
                json!({"id": "/subscriptions/s/x/y/p", "revision": 1}),
            )]),
            "ResourceNotFound",
        ),
    ]
}

/// Bodies that exceed documented limits whose error codes are not published.
#[allow(clippy::too_many_lines, reason = "a table")]
pub fn refused_with_a_code_of_ours() -> Vec<(Value, &'static str)> {
    let twice = |list: &str, element: Value| with(&[(list, json!([element, element]))]);
    let web = body(&[])["properties"]["containers"][0].clone();
    let empty_dir = json!([{"name": "empty", "emptyDir": {}}]);
    let mount = |path: &str| json!([{"name": "empty", "mountPath": path}]);
    let limits = |cpu, memory| json!({"requests": {"cpu": 1, "memoryInGB": 1}, "limits": {"cpu": cpu, "memoryInGB": memory}});
    let port = |port: i64| address(json!({"type": "Public", "ports": [{"port": port}]}));
    let variable = |variables| container("environmentVariables", variables);
    vec![
        (
            with(&[("/properties/containers", json!([]))]),
            "ContainerGroupMissingContainers",
        ),
        (
            with(&[("/properties/containers", Value::Null)]),
            "ContainerGroupMissingContainers",
        ),
        (
            with(&[("/properties/containers", json!(vec![web.clone(); 61]))]),
            "ContainerGroupTooManyContainers",
        ),
        (
            twice("/properties/containers", web),
            "DuplicateContainerName",
        ),
        (
            with(&[("/properties/containers", json!([{"name": "Web"}]))]),
            "InvalidContainerName",
        ),
        (container("image", Value::Null), "MissingContainerImage"),
        (container("image", json!(" ")), "MissingContainerImage"),
        (
            variable(json!([{"name": "a-b", "value": ""}])),
            "InvalidEnvironmentVariable",
        ),
        (
            variable(json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}])),
            "InvalidEnvironmentVariable",
        ),
        (
            variable(json!([{"name": "A", "value": "1", "secureValue": "2"}])),
            "InvalidEnvironmentVariable",
        ),
        (container("resources", json!({})), "InvalidResourceRequest"),
        (requests(1.005, 1.0), "InvalidResourceRequest"),
        (requests(1.0, 1.25), "InvalidResourceRequest"),
        (requests(0.0, 1.0), "InvalidResourceRequest"),
        (
            container("resources", limits(0.5, 1.0)),
            "ContainerLimitLessThanRequest",
        ),
        (requests(32.0, 1.0), "ContainerGroupResourceRequestTooLarge"),
        (
            requests(1.0, 240.1),
            "ContainerGroupResourceRequestTooLarge",
        ),
        (
            spot(&[(
                &format!("{CONTAINER}/resources"),
                json!({"requests": {"cpu": 5, "memoryInGB": 1}}),
            )]),
            "ContainerGroupResourceRequestTooLarge",
        ),
        (requests(0.99, 1.0), "ContainerGroupResourceRequestTooSmall"),
        (requests(1.0, 0.9), "ContainerGroupResourceRequestTooSmall"),
        (port(0), "InvalidPort"),
        (port(65536), "InvalidPort"),
        (port(22), "ReservedPort"),
        (port(1026), "ReservedPort"),
        (port(19390), "ReservedPort"),
        (port(49152), "ReservedPort"),
        (
            container("ports", json!([{"port": 80}, {"port": 80}])),
            "DuplicatePort",
        ),
        (
            address(
                json!({"type": "Public", "ports": [{"port": 80}, {"port": 80, "protocol": "tcp"}]}),
            ),
            "DuplicatePort",
        ),
        (
            address(json!({"type": "Public", "ports": []})),
            "InvalidIpAddress",
        ),
        (
            address(json!({"type": "Private", "ports": [{"port": 80}]})),
            "InvalidIpAddress",
        ),
        (
            address(
                json!({"type": "Public", "ports": (1..=6).map(|p| json!({"port": p})).collect::<Vec<_>>()}),
            ),
            "InvalidIpAddress",
        ),
        (
            address(json!({"type": "Public", "ports": [{"port": 80}], "dnsNameLabel": "abc"})),
            "InvalidIpAddress",
        ),
        (
            with(&[(
                "/properties/dnsConfig",
                json!({"nameServers": ["a.example"]}),
            )]),
            "InvalidDnsConfig",
        ),
        (
            volumes(json!([{"name": "four", "emptyDir": {}}]), json!([])),
            "InvalidVolume",
        ),
        (
            volumes(json!([{"name": "no--such", "emptyDir": {}}]), json!([])),
            "InvalidVolume",
        ),
        (
            volumes(json!([{"name": "empty"}]), json!([])),
            "InvalidVolume",
        ),
        (
            volumes(
                json!([{"name": "empty", "emptyDir": {}, "secret": {}}]),
                json!([]),
            ),
            "InvalidVolume",
        ),
        (
            volumes(json!([{"name": "empty", "secret": {"k": "?"}}]), json!([])),
            "InvalidVolume",
        ),
        (
            volumes(
                json!([{"name": "empty", "secret": {"../k": ""}}]),
                json!([]),
            ),
            "InvalidVolume",
        ),
        (
            volumes(
                json!([{"name": "files", "azureFile": {"shareName": "s"}}]),
                json!([]),
            ),
            "InvalidVolume",
        ),
        (
            twice("/properties/volumes", empty_dir[0].clone()),
            "InvalidVolume",
        ),
        (
            volumes(
                json!(
                    (0..21)
                        .map(|n| json!({"name": format!("volume{n}"), "emptyDir": {}}))
                        .collect::<Vec<_>>()
                ),
                json!([]),
            ),
            "InvalidVolume",
        ),
        (volumes(json!([]), mount("/a")), "InvalidVolumeMount"),
        (volumes(empty_dir.clone(), mount("a")), "InvalidVolumeMount"),
        (
            volumes(empty_dir.clone(), json!([mount("/a")[0], mount("/a")[0]])),
            "InvalidVolumeMount",
        ),
        (probe(json!({})), "InvalidProbe"),
        (probe(json!({"tcpSocket": {"port": 80}})), "InvalidProbe"),
        (probe(json!({"grpc": {"port": 80}})), "InvalidProbe"),
        (probe(json!({"exec": {"command": []}})), "InvalidProbe"),
        (probe(json!({"httpGet": {"port": 0}})), "InvalidProbe"),
        (
            probe(json!({"httpGet": {"port": 80, "scheme": "ftp"}})),
            "InvalidProbe",
        ),
        (
            probe(json!({"httpGet": {"port": 80}, "periodSeconds": 0})),
            "InvalidProbe",
        ),
        (
            with(&[("/properties/restartPolicy", json!("Sometimes"))]),
            "InvalidRestartPolicy",
        ),
        (with(&[("/properties/sku", json!("Gold"))]), "InvalidSku"),
    ]
}
