//! Strategies for property tests: JSON of any form with Azure's names in it, container groups, and pods.

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// The names of containers.
const NAMES: &[&str] = &["web", "log", "side"];
/// The names of init containers. They differ from those of containers, because the names in a pod are unique. The last
/// is a native sidecar, which is a container of its group.
const INIT_NAMES: &[&str] = &["setup", "fetch", "proxy"];
/// The names of containers of a group.
const GROUP_NAMES: &[&str] = &["web", "log", "side", "proxy"];

type Names = &'static [&'static str];

/// JSON of any form, in which Azure's own field names and values are frequent.
pub fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((field(), inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn field() -> impl Strategy<Value = String> {
    let names = [
        "name",
        "id",
        "properties",
        "containers",
        "initContainers",
        "instanceView",
        "state",
        "currentState",
        "previousState",
        "restartCount",
        "events",
        "exitCode",
        "startTime",
        "finishTime",
        "detailStatus",
        "provisioningState",
        "ipAddress",
        "ip",
        "count",
        "message",
        "type",
        "firstTimestamp",
        "lastTimestamp",
        "value",
        "tags",
        "image",
        "status",
        "error",
        "code",
        "details",
    ];
    prop::sample::select(names.to_vec()).prop_map(str::to_owned)
}

fn word() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "web",
        "log",
        "setup",
        "Running",
        "Waiting",
        "Terminated",
        "Succeeded",
        "Failed",
        "Pending",
        "Stopped",
        "Creating",
        "Unhealthy",
        "Repairing",
        "Deleting",
        "Error",
        "Completed",
        "CrashLoopBackOff",
        "Pulling",
        "Pulled",
        "Started",
        "InsufficientCapacity.",
        "FailedMount",
        "pulling image \"nginx@sha256:00\"",
        "2023-05-01T16:57:05.78Z",
        "0001-01-01T00:00:00Z",
        "10.0.0.4",
        "10.0.0.04",
        "fd00::1",
        "Warning",
        "Normal",
        "",
    ])
}

fn maybe(value: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Value> {
    prop_oneof![1 => Just(Value::Null), 4 => value].boxed()
}

fn pick(words: &'static [&'static str]) -> BoxedStrategy<Value> {
    maybe(prop::sample::select(words).prop_map(Value::from))
}

fn time() -> BoxedStrategy<Value> {
    maybe((0..60u32).prop_map(|second| json!(format!("2026-11-24T08:00:{second:02}.5Z"))))
}

fn run() -> BoxedStrategy<Value> {
    let states = pick(&["Running", "Waiting", "Terminated", "Terminated", "Odd"]);
    let codes = maybe(
        prop::sample::select(vec![0, 0, 1, 137, 7147, 3_221_225_477_i64, -1]).prop_map(Value::from),
    );
    let details = pick(&[
        "",
        "Error",
        "Completed",
        "CrashLoopBackOff",
        "two words",
        "OOMKilled",
    ]);
    let run =
        (states, codes, details, time(), time()).prop_map(|(state, code, detail, start, end)| {
            json!({"state": state, "exitCode": code, "detailStatus": detail, "startTime": start,
               "finishTime": end})
        });
    maybe(run)
}

fn events() -> BoxedStrategy<Value> {
    let names = pick(&[
        "Pulling",
        "Pulled",
        "Started",
        "Failed",
        "BackOff",
        "FailedMount",
        "InsufficientCapacity.",
        "Killing",
    ]);
    let messages = pick(&[
        "pulling image \"nginx@sha256:00ff\"",
        "Failed to pull image \"x\"",
        "Back-off restarting failed container",
        "%s {}",
        "",
    ]);
    let event = (
        names,
        messages,
        pick(&["Normal", "Warning", "Loud"]),
        time(),
        0..3i64,
    )
        .prop_map(|(name, message, kind, at, count)| {
            json!({"name": name, "message": message, "type": kind, "count": count,
                   "firstTimestamp": at.clone(), "lastTimestamp": at})
        });
    prop::collection::vec(event, 0..4)
        .prop_map(Value::from)
        .boxed()
}

fn container(names: Names) -> impl Strategy<Value = Value> {
    let view = (
        maybe((-1..3i64).prop_map(Value::from)),
        run(),
        run(),
        events(),
    )
        .prop_map(|(restarts, current, previous, events)| {
            json!({"restartCount": restarts, "currentState": current, "previousState": previous,
                   "events": events})
        });
    (prop::sample::select(names), maybe(view)).prop_map(|(name, view)| {
        json!({"name": name, "properties": {"image": "nginx", "instanceView": view}})
    })
}

/// A container group, as Azure might answer it, or nearly so.
pub fn group() -> impl Strategy<Value = Value> {
    let containers = |names| prop::collection::vec(container(names), 0..4).prop_map(Value::from);
    let states = pick(&[
        "Pending",
        "Running",
        "Stopped",
        "Succeeded",
        "Failed",
        "Odd",
    ]);
    let provisioning = pick(&[
        "Pending",
        "Creating",
        "Succeeded",
        "Succeeded",
        "Unhealthy",
        "Repairing",
        "Failed",
        "Deleting",
        "Odd",
    ]);
    let view =
        (states, events()).prop_map(|(state, events)| json!({"state": state, "events": events}));
    let right = (
        containers(GROUP_NAMES),
        containers(INIT_NAMES),
        maybe(view),
        provisioning,
        pick(&["10.0.0.4", "odd"]),
    )
        .prop_map(|(containers, init, view, provisioning, ip)| {
            json!({"name": "a", "properties": {
                "containers": containers, "initContainers": init, "instanceView": view,
                "provisioningState": provisioning, "ipAddress": {"ip": ip}}})
        });
    let odd = json().prop_map(|properties| json!({"name": "a", "properties": properties}));
    prop_oneof![5 => right, 1 => odd]
}

/// A pod status that another writer may have written.
fn status() -> BoxedStrategy<Value> {
    let state = prop_oneof![
        Just(json!({})),
        Just(json!({"running": {"startedAt": "2026-11-24T08:00:01Z"}})),
        Just(json!({"waiting": {"reason": "ContainerCreating"}})),
        prop::sample::select(vec![0, 1, 137])
            .prop_map(|code| json!({"terminated": {"exitCode": code, "reason": "Error"}})),
    ];
    let run = (state.clone(), state, 0..3i64);
    let statuses = |names: Names| {
        let run = prop::collection::vec(run.clone(), names.len());
        (prop::sample::subsequence(names, 0..=names.len()), run).prop_map(|(names, runs)| {
            let status = |(name, (state, last, restarts))| {
                json!({"name": name, "image": "nginx", "imageID": "", "ready": false,
                       "restartCount": restarts, "state": state, "lastState": last})
            };
            names.into_iter().zip(runs).map(status).collect::<Value>()
        })
    };
    let condition = (
        prop::sample::select(vec![
            "Ready",
            "PodScheduled",
            "gate",
            "DisruptionTarget",
            "Initialized",
        ]),
        pick(&["True", "False", "Unknown"]),
        time(),
    );
    let condition = condition.prop_map(|(kind, status, since)| {
        json!({"type": kind, "status": status.as_str().unwrap_or("True"), "lastTransitionTime": since})
    });
    let conditions = prop::collection::vec(condition, 0..4).prop_map(Value::from);
    let phases = pick(&["Pending", "Running", "Succeeded", "Failed", "Unknown"]);
    (phases, statuses(NAMES), statuses(INIT_NAMES), conditions, pick(&["", "10.0.0.9"]), pick(&["", "NodeLost"]))
        .prop_map(|(phase, containers, init, conditions, ip, reason)| {
            json!({"phase": phase, "containerStatuses": containers, "initContainerStatuses": init,
                   "conditions": conditions, "podIP": ip, "reason": reason, "qosClass": "Burstable"})
        })
        .boxed()
}

/// A pod, with or without a status.
pub fn pod() -> impl Strategy<Value = Pod> {
    let probes = prop::collection::vec(any::<bool>(), NAMES.len());
    let containers = prop::sample::subsequence(NAMES, 0..=NAMES.len());
    let containers = (containers, probes).prop_map(|(names, probes)| {
        let container = |(name, probed): (&str, bool)| {
            let probe = probed.then(|| json!({"exec": {"command": ["true"]}}));
            json!({"name": name, "image": "nginx", "readinessProbe": probe,
                   "resources": {"requests": {"cpu": "1"}}})
        };
        names
            .into_iter()
            .zip(probes)
            .map(container)
            .collect::<Value>()
    });
    let init = prop::sample::subsequence(INIT_NAMES, 0..=INIT_NAMES.len());
    let init = init.prop_map(|names| {
        let container = |name| {
            let policy = (name == "proxy").then_some("Always");
            json!({"name": name, "image": "busybox", "restartPolicy": policy})
        };
        names.into_iter().map(container).collect::<Value>()
    });
    let spec = (
        containers,
        init,
        pick(&["Always", "OnFailure", "Never"]),
        any::<bool>(),
    );
    let spec = spec.prop_map(|(containers, init, policy, gated)| {
        let gates = if gated {
            json!([{"conditionType": "gate"}])
        } else {
            json!([])
        };
        json!({"containers": containers, "initContainers": init, "restartPolicy": policy,
               "readinessGates": gates, "ephemeralContainers": [{"name": "debug"}]})
    });
    (
        maybe(spec),
        maybe(status()),
        maybe((1..4i64).prop_map(Value::from)),
    )
        .prop_map(|(spec, status, generation)| {
            let pod = json!({"metadata": {"name": "p", "uid": "u", "generation": generation},
                             "spec": spec, "status": status});
            serde_json::from_value(pod).expect("a pod")
        })
}

/// The status as the API server returns it.
pub fn stored(status: &PodStatus) -> PodStatus {
    let text = serde_json::to_string(status).expect("a status is JSON");
    serde_json::from_str(&text).expect("a status")
}
