//! Which probes the node runs, with which numbers, and how it names the field of one that it cannot run.

use serde_json::{Value, json};

use super::*;

fn decoded(kind: ProbeKind, probe: &Value) -> Result<Option<ProbeSpec>> {
    let container: Container = serde_json::from_value(json!({
        "name": "web", kind.field(): probe,
        "ports": [{"name": "found", "containerPort": 93}],
    }))
    .expect("a container");
    ProbeSpec::of(kind, &container, "spec.containers[0]")
}

fn read(probe: &Value) -> Result<ProbeSpec> {
    decoded(ProbeKind::Readiness, probe).map(|spec| spec.expect("it has a probe"))
}

#[test]
fn a_probe_has_the_defaults_of_kubernetes_and_a_zero_means_the_default() {
    let numbers = |spec: ProbeSpec| {
        let seconds = [spec.initial_delay, spec.period, spec.timeout].map(|d| d.as_secs());
        (seconds, spec.success_threshold, spec.failure_threshold)
    };
    let socket = json!({"port": 80});
    let bare = read(&json!({"tcpSocket": socket})).expect("a probe");
    assert_eq!(numbers(bare), ([0, 10, 1], 1, 3));
    let zero = read(
        &json!({"tcpSocket": socket, "periodSeconds": 0, "timeoutSeconds": 0,
        "successThreshold": 0, "failureThreshold": 0}),
    )
    .expect("a probe");
    assert_eq!(numbers(zero), ([0, 10, 1], 1, 3));
    let given = read(
        &json!({"tcpSocket": socket, "initialDelaySeconds": 5, "periodSeconds": 2,
        "timeoutSeconds": 3, "successThreshold": 4, "failureThreshold": 6}),
    )
    .expect("a probe");
    assert_eq!(numbers(given), ([5, 2, 3], 4, 6));
    let none: Container = serde_json::from_value(json!({"name": "web"})).expect("a container");
    assert_eq!(ProbeSpec::of(ProbeKind::Startup, &none, ""), Ok(None));
}

/// `TestGetURLParts`, `TestGetTCPAddrParts` of `pkg/kubelet/prober/prober_test.go`.
#[test]
fn a_port_is_a_number_or_the_name_of_a_port_of_the_container() {
    for (port, number) in [
        (json!(-1), None),
        (json!(0), None),
        (json!(65536), None),
        (json!(""), None),
        (json!("-1"), None),
        (json!("not-found"), None),
        (json!("found"), Some(93)),
        (json!("8080"), Some(8080)),
        (json!(76), Some(76)),
    ] {
        for handler in ["httpGet", "tcpSocket"] {
            let spec = read(&json!({handler: {"port": port}}));
            match (number, spec) {
                (Some(number), Ok(spec)) => assert_eq!(spec.handler.port(), number),
                (None, Err(error)) => {
                    let field = format!("spec.containers[0].readinessProbe.{handler}.port");
                    assert_eq!(error.field, field);
                }
                (number, spec) => unreachable!("{port}: {number:?}, {spec:?}"),
            }
        }
    }
}

#[test]
fn a_probe_that_the_node_cannot_run_is_an_error_that_names_the_field() {
    let get = |more: Value| {
        let mut get = json!({"port": 80});
        for (key, value) in more.as_object().expect("an object") {
            get[key] = value.clone();
        }
        json!({"httpGet": get})
    };
    let header = |name: &str, value: &str| {
        get(json!({"httpHeaders": [{"name": "X-A", "value": "1"}, {"name": name, "value": value}]}))
    };
    for (probe, field) in [
        (json!({}), ""),
        (json!({"exec": {"command": ["true"]}}), ".exec"),
        (json!({"tcpSocket": {"port": 1}, "grpc": {"port": 1}}), ""),
        (
            json!({"tcpSocket": {"port": 1}, "periodSeconds": -1}),
            ".periodSeconds",
        ),
        (
            json!({"tcpSocket": {"port": 1}, "timeoutSeconds": -1}),
            ".timeoutSeconds",
        ),
        (
            json!({"tcpSocket": {"port": 1}, "failureThreshold": -1}),
            ".failureThreshold",
        ),
        (
            json!({"tcpSocket": {"port": 1, "host": "10.0.0.1"}}),
            ".tcpSocket.host",
        ),
        (get(json!({"host": "other.example"})), ".httpGet.host"),
        (json!({"grpc": {"port": 0}}), ".grpc.port"),
        (json!({"grpc": {"port": 1, "mode": "Mutual"}}), ".grpc.mode"),
        (get(json!({"scheme": "FTP"})), ".httpGet.scheme"),
        (get(json!({"path": "foo:bar/x"})), ".httpGet.path"),
        (get(json!({"protocol": "HTTP3"})), ".httpGet.protocol"),
        (
            get(json!({"protocol": "HTTP2", "scheme": "HTTPS"})),
            ".httpGet.protocol",
        ),
        (header("a b", ""), ".httpGet.httpHeaders[1].name"),
        (header("X-B", "a\nb"), ".httpGet.httpHeaders[1].value"),
    ] {
        let error = read(&probe).expect_err("it cannot be run");
        let at = format!("spec.containers[0].readinessProbe{field}");
        assert_eq!(error.field, at, "{probe}");
        assert!(error.to_string().starts_with(&format!("{at}: ")));
    }
    let startup = json!({"tcpSocket": {"port": 1}, "successThreshold": 2});
    let error = decoded(ProbeKind::Startup, &startup).expect_err("it cannot be run");
    assert_eq!(
        error.field,
        "spec.containers[0].startupProbe.successThreshold"
    );
}

/// `Test_v1HeaderToHTTPHeader`, `TestHeaderConversion` of `pkg/probe/http/request_test.go`.
#[test]
fn headers_may_repeat_and_the_first_host_and_user_agent_count() {
    let headers = [
        ("host", "a.example"),
        ("Host", "b.example"),
        ("User-Agent", "u1"),
        ("user-agent", "u2"),
        ("accept", "application/json"),
        ("Accept", "*/*"),
        ("Content-Length", "5"),
        ("Transfer-Encoding", "chunked"),
    ];
    let headers = headers.map(|(name, value)| json!({"name": name, "value": value}));
    let spec = read(&json!({"httpGet": {"port": 80, "httpHeaders": headers}})).expect("a probe");
    let ProbeHandler::HttpGet(get) = spec.handler else {
        unreachable!("it is an HTTP probe");
    };
    assert_eq!(get.host_header, Some(HeaderValue::from_static("a.example")));
    let sent: Vec<(&str, &str)> = get
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().expect("it is text")))
        .collect();
    let wanted = [
        ("user-agent", "u1"),
        ("accept", "application/json"),
        ("accept", "*/*"),
    ];
    assert_eq!(sent.len(), wanted.len(), "{sent:?}");
    assert!(
        wanted.iter().all(|header| sent.contains(header)),
        "{sent:?}"
    );
}

#[test]
fn a_probe_has_a_hundred_headers_at_most_and_more_are_refused_without_a_panic() {
    let probe = |count: usize, value: &str| {
        let header = |n: usize| json!({"name": format!("x-{n}"), "value": value});
        let headers: Vec<Value> = (0..count).map(header).collect();
        read(&json!({"httpGet": {"port": 80, "host": "", "httpHeaders": headers}}))
    };
    assert!(probe(100, "").is_ok());
    for (count, value, refused) in [
        (101, "", 100),
        (40_000, "", 100),
        (3, &*"x".repeat(40_000), 1),
    ] {
        let error = probe(count, value).expect_err("too many");
        let at = format!("spec.containers[0].readinessProbe.httpGet.httpHeaders[{refused}]");
        assert_eq!(error.field, at, "{count}");
    }
}
