//! Tests: variables, and references to them.

use serde_json::{Value, json};

use super::given::Given;

#[test]
fn variables_are_those_of_a_kubelet() {
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
fn a_probes_command_uses_literal_values_of_env_only() {
    let first = Given::container(json!({
        "envFrom": [{"configMapRef": {"name": "m"}}],
        "env": [{"name": "USER", "value": "app"}, {"name": "NESTED", "value": "$(USER)"},
            {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        "livenessProbe": {"exec": {"command":
            ["check", "-U", "$(USER)", "$(NESTED)", "$(KEY).", "$(a)", "$$(USER)", "$(HOSTNAME)"]}},
    }))
    .config_map("m", &[("a", "A")])
    .secret("s", &[("k", "hidden")])
    .first();
    let command = json!([
        "check",
        "-U",
        "app",
        "$(USER)",
        ".",
        "$(a)",
        "$(USER)",
        "$(HOSTNAME)"
    ]);
    assert_eq!(first["livenessProbe"]["exec"]["command"], command);
}

#[test]
fn a_command_can_refer_to_hostname_only_if_the_pod_defines_it() {
    let command = |env: Value| {
        let container = json!({"command": ["app", "--id=$(HOSTNAME)"], "env": env});
        Given::container(container).first()["command"][1].clone()
    };
    assert_eq!(command(json!([])), "--id=$(HOSTNAME)");
    assert_eq!(
        command(json!([{"name": "HOSTNAME", "value": "me"}])),
        "--id=me"
    );
}

#[test]
fn of_services_with_the_same_variable_the_first_counts_everywhere() {
    let service = |name: &str, address: &str, port: u16| {
        json!({"kind": "Service", "metadata": {"name": name},
            "spec": {"clusterIP": address, "ports": [{"port": port}]}})
    };
    let mut container = json!({"env": [{"name": "URL", "value": "$(REDIS_SERVICE_PORT)"}]});
    container["name"] = "web".into();
    let variables = Given::container(container)
        .with(&service("redis", "10.0.0.5", 6379))
        .with(&service("redis-service", "10.0.0.6", 80))
        .variables();
    for expected in ["URL=6379", "REDIS_SERVICE_PORT=6379"] {
        assert!(
            variables.iter().any(|variable| variable == expected),
            "{variables:?}"
        );
    }
}
