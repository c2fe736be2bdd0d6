//! Rows of the field table for containers and their environment variables, resources, ports and probes. Data only:
//! `walk` checks pods by these rows, and `markdown` prints them.

use super::row::{
    FieldRow, INIT_CONTAINER, SIDECAR_CONTAINER, meaningless, refused, refused_unless,
    refused_unless_accepted, translated,
};
use crate::api::AcceptedLoss;

const NO_PROBE_OF_INIT: &str = "an init container on ACI has no probes";
const NO_MESSAGE: &str =
    "ACI gives no access to the file, so the status never has a termination message";

pub(super) const TYPES: &[(&str, &[FieldRow])] = &[
    ("Container", CONTAINER),
    (
        INIT_CONTAINER,
        &[
            refused("lifecycle", "ACI runs no hooks, and an init container has ended when the pod is deleted"),
            refused("livenessProbe", NO_PROBE_OF_INIT),
            refused("readinessProbe", NO_PROBE_OF_INIT),
            refused("startupProbe", NO_PROBE_OF_INIT),
            meaningless("ports", "an init container cannot be reached, and a port is informational"),
            translated(
                "resources",
                "an init container on ACI has no resources of its own: the group's total is at least what it requests",
            )
            .with_type("ResourceRequirements"),
            refused(
                "restartPolicy",
                "ACI restarts all init containers of a group by the group's policy",
            ),
        ],
    ),
    (
        SIDECAR_CONTAINER,
        &[
            refused("lifecycle", "the virtual node runs no hooks of sidecars, which would stop after the containers"),
            refused_unless_accepted(
                "restartPolicy",
                AcceptedLoss::SidecarOrder,
                "ACI has no sidecars: it would start and end together with the containers, as one of them (in a pod that always restarts, if no other init container comes after it)",
            ),
        ],
    ),
    (
        "ContainerPort",
        &[
            translated("containerPort", "`ports`; a port that ACI reserves is left out, so that a public address does not have it, or refused if a probe that ACI runs uses it"),
            meaningless("hostIP", "it belongs to hostPort, which is refused"),
            refused("hostPort", "a container group has no host that could listen on it"),
            translated("name", "the name by which probes can refer to the port"),
            refused_unless("protocol", &["TCP", "UDP"], "ACI has TCP and UDP"),
        ],
    ),
    (
        "EnvVar",
        &[
            translated("name", "the name; refused unless it has 1 to 63 letters, digits and underscores"),
            translated("value", "`value`, or `secureValue` if a secret is expanded into it"),
            translated("valueFrom", "the value").with_type("EnvVarSource"),
        ],
    ),
    (
        "EnvVarSource",
        &[
            translated("configMapKeyRef", "`value`").with_type("ConfigMapKeySelector"),
            translated(
                "fieldRef",
                "`value`; `status.podIP` and `status.podIPs` are refused, because ACI assigns the address later",
            )
            .with_type("ObjectFieldSelector"),
            refused("fileKeyRef", "ACI reads no variables from files"),
            translated("resourceFieldRef", "`value`").with_type("ResourceFieldSelector"),
            translated("secretKeyRef", "`secureValue`").with_type("SecretKeySelector"),
        ],
    ),
    ("ConfigMapKeySelector", KEY),
    ("SecretKeySelector", KEY),
    (
        "ObjectFieldSelector",
        &[
            refused_unless("apiVersion", &["v1"], "paths are those of v1"),
            translated("fieldPath", "the value").until_helper(),
        ],
    ),
    (
        "ResourceFieldSelector",
        &[
            translated("containerName", "the container whose resources are used"),
            translated("divisor", "the unit"),
            translated(
                "resource",
                "the value; a limit that is not set is the whole group's size",
            ),
        ],
    ),
    (
        "EnvFromSource",
        &[
            translated("configMapRef", "`value` for each key").with_type("ConfigMapEnvSource"),
            translated("prefix", "the start of each name"),
            translated("secretRef", "`secureValue` for each key").with_type("SecretEnvSource"),
        ],
    ),
    ("ConfigMapEnvSource", OBJECT),
    ("SecretEnvSource", OBJECT),
    (
        "ResourceRequirements",
        &[
            refused("claims", "ACI has no devices to claim"),
            translated(
                "limits",
                "`limits`: up to the group's total, which is what a container without limits may use; memory is requested up to its limit",
            ),
            translated(
                "requests",
                "`requests`, rounded up to 0.01 CPU and 0.1 GB; the group has at least 1 CPU and 1 GB",
            ),
        ],
    ),
    (
        "Probe",
        &[
            translated("exec", "`exec`").with_type("ExecAction"),
            translated("failureThreshold", "`failureThreshold`"),
            translated(
                "grpc",
                "of a readiness probe in a subnet: the virtual node sends it; refused otherwise, because ACI probes by exec and httpGet",
            )
            .with_type("GRPCAction")
            .until_helper(),
            translated("httpGet", "`httpGet`").with_type("HTTPGetAction"),
            translated("initialDelaySeconds", "`initialDelaySeconds`"),
            translated("periodSeconds", "`periodSeconds`"),
            translated("successThreshold", "`successThreshold`"),
            translated(
                "tcpSocket",
                "of a readiness probe in a subnet: the virtual node sends it; refused otherwise, because ACI probes by exec and httpGet",
            )
            .with_type("TCPSocketAction")
            .until_helper(),
            meaningless(
                "terminationGracePeriodSeconds",
                "ACI ends containers after its own grace period",
            ),
            translated("timeoutSeconds", "`timeoutSeconds`"),
        ],
    ),
    (
        "Lifecycle",
        &[
            refused(
                "postStart",
                "ACI runs no hooks, and starts containers without the virtual node",
            )
            .until_helper(),
            translated("preStop", "a hook that the virtual node runs before it deletes the group")
                .with_type("LifecycleHandler"),
            refused("stopSignal", "ACI has no other stop signals").until_helper(),
        ],
    ),
    (
        "LifecycleHandler",
        &[
            translated("exec", "the virtual node runs it through ACI's exec, which needs a shell in the image")
                .with_type("ExecAction"),
            translated("httpGet", "the virtual node sends it; refused without a subnet")
                .with_type("HTTPGetAction"),
            translated("sleep", "the virtual node waits").with_type("SleepAction"),
            refused("tcpSocket", "no kubelet runs such a hook"),
        ],
    ),
    (
        "SleepAction",
        &[translated("seconds", "how long the virtual node waits, within the grace period")],
    ),
    (
        "ExecAction",
        &[translated("command", "of a probe, `command`; of a hook, what the virtual node runs")],
    ),
    (
        "HTTPGetAction",
        &[
            refused("host", "ACI probes the container itself"),
            translated("httpHeaders", "`httpHeaders`").with_type("HTTPHeader"),
            translated("path", "`path`"),
            translated("port", "`port`; a name is looked up among the container's ports"),
            refused_unless("protocol", &["HTTP1", "HTTP/1.1"], "ACI probes by HTTP/1.1"),
            translated("scheme", "`scheme`"),
        ],
    ),
    (
        "TCPSocketAction",
        &[
            refused("host", "the virtual node probes the pod itself"),
            translated("port", "the port; a name is looked up among the container's ports"),
        ],
    ),
    (
        "GRPCAction",
        &[
            translated("mode", "whether the connection uses TLS"),
            translated("port", "the port"),
            translated("service", "the service to ask for"),
        ],
    ),
    (
        "HTTPHeader",
        &[
            translated("name", "the header's name"),
            translated("value", "the header's value"),
        ],
    ),
];

const KEY: &[FieldRow] = &[
    translated("key", "the key of the value"),
    translated("name", "the name of the object"),
    translated(
        "optional",
        "no variable if it is missing; else the pod waits for it",
    ),
];

const OBJECT: &[FieldRow] = &[
    translated("name", "the name of the object"),
    translated(
        "optional",
        "no variables if it is missing; else the pod waits for it",
    ),
];

const CONTAINER: &[FieldRow] = &[
    translated(
        "args",
        "the end of `command`; without `command`, after the entrypoint that burstpool reads from the image (refused with `readImages: Never`)",
    ),
    translated(
        "command",
        "the start of `command`; refused if a secret would be expanded into it, because ACI shows it to every reader of the group",
    ),
    translated("env", "`environmentVariables`, in order").with_type("EnvVar"),
    translated("envFrom", "`environmentVariables`, before those of `env`")
        .with_type("EnvFromSource"),
    translated("image", "`image`"),
    refused_unless(
        "imagePullPolicy",
        &["Always", "IfNotPresent"],
        "no image is on the machine before it is pulled",
    ),
    translated("lifecycle", "nothing; the virtual node runs preStop")
        .with_type("Lifecycle"),
    translated("livenessProbe", "`livenessProbe`").with_type("Probe"),
    translated("name", "`name`"),
    translated(
        "ports",
        "`ports`, and the group's public address without a subnet",
    )
    .with_type("ContainerPort"),
    translated(
        "readinessProbe",
        "in a subnet, the virtual node runs it, except for exec; otherwise `readinessProbe`",
    )
    .with_type("Probe"),
    meaningless(
        "resizePolicy",
        "the pod's status reports a resize as infeasible",
    ),
    translated("resources", "`resources`").with_type("ResourceRequirements"),
    translated(
        "restartPolicy",
        "the group's; refused if it differs from the pod's",
    ),
    refused("restartPolicyRules", "ACI restarts by one policy for all"),
    translated("securityContext", "`securityContext`").with_type("SecurityContext"),
    translated(
        "startupProbe",
        "the virtual node runs it, and `livenessProbe` begins only when it may have failed for good; refused without a subnet, and unless livenessProbe has the same httpGet",
    )
    .with_type("Probe")
    .until_helper(),
    refused(
        "stdin",
        "nothing can be written to a container's input on ACI",
    ),
    meaningless("stdinOnce", "it belongs to stdin, which is refused"),
    meaningless("terminationMessagePath", NO_MESSAGE),
    meaningless("terminationMessagePolicy", NO_MESSAGE),
    refused("tty", "ACI gives a container no terminal"),
    refused("volumeDevices", "ACI has no block devices"),
    translated("volumeMounts", "`volumeMounts`").with_type("VolumeMount"),
    translated(
        "workingDir",
        "nothing; refused unless it is the image's, because ACI starts a container there (refused with `readImages: Never`)",
    )
    .until_helper(),
];
