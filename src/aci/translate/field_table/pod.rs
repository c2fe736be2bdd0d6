//! Rows of the field table for the pod itself. Data only: `walk` checks pods by these rows, and `markdown`
//! prints them.

use super::row::{
    FieldRow, INIT_CONTAINER, meaningless, refused, refused_unless, refused_unless_accepted,
    translated,
};
use crate::api::AcceptedLoss;

const SCHEDULED: &str = "the scheduler has applied it before the pod is bound to the node";
const NO_HOST: &str = "a container group has no host that it could share";

pub(super) const TYPES: &[(&str, &[FieldRow])] = &[
    ("PodSpec", POD_SPEC),
    (
        "PodOS",
        &[refused_unless(
            "name",
            &["linux"],
            "only Linux containers run here",
        )],
    ),
    (
        "PodDNSConfig",
        &[
            translated(
                "nameservers",
                "`dnsConfig.nameServers`, as a kubelet merges them: the first three",
            ),
            translated("searches", "`dnsConfig.searchDomains`"),
            translated("options", "`dnsConfig.options`").with_type("PodDNSConfigOption"),
        ],
    ),
    (
        "PodDNSConfigOption",
        &[
            translated("name", "the option"),
            translated("value", "the option's value"),
        ],
    ),
    (
        "LocalObjectReference",
        &[translated(
            "name",
            "the Secret: its entries that match an image's registry",
        )],
    ),
];

const POD_SPEC: &[FieldRow] = &[
    translated(
        "activeDeadlineSeconds",
        "nothing; the virtual node fails the pod with the reason DeadlineExceeded and deletes its group",
    ),
    meaningless("affinity", SCHEDULED),
    meaningless(
        "automountServiceAccountToken",
        "the API server has turned it into a volume",
    ),
    translated("containers", "`containers`, 60 with the init containers at most").with_type("Container"),
    translated("dnsConfig", "`dnsConfig`; refused without a subnet").with_type("PodDNSConfig"),
    translated(
        "dnsPolicy",
        "`dnsConfig`: ClusterFirst means the placement's `network.dns`, or Azure's resolver without one",
    ),
    translated("enableServiceLinks", "variables of the namespace's Services"),
    meaningless(
        "ephemeralContainers",
        "ACI cannot add a container to a running group; the container's status says so",
    ),
    meaningless(
        "evictionResponders",
        "they respond to the Eviction API, not to the node",
    ),
    refused("hostAliases", "ACI writes no entries into /etc/hosts").until_helper(),
    refused("hostIPC", NO_HOST),
    refused("hostNetwork", NO_HOST),
    refused("hostPID", NO_HOST),
    meaningless(
        "hostUsers",
        "each container group runs in its own virtual machine, so no other pod shares its users",
    ),
    translated(
        "hostname",
        "the variable HOSTNAME, which defaults to the pod's name; ACI chooses the host name of the machine",
    ),
    refused("hostnameOverride", "ACI chooses the host name of the machine"),
    translated("imagePullSecrets", "`imageRegistryCredentials`; a Secret that is missing or has another type is skipped, as by a kubelet")
        .with_type("LocalObjectReference"),
    translated("initContainers", "`initContainers`").with_type(INIT_CONTAINER),
    meaningless("nodeName", SCHEDULED),
    meaningless("nodeSelector", SCHEDULED),
    translated("os", "`osType`").with_type("PodOS"),
    meaningless("overhead", "it belongs to a runtime class, and those are refused"),
    meaningless("preemptionPolicy", SCHEDULED),
    meaningless("priority", SCHEDULED),
    meaningless("priorityClassName", SCHEDULED),
    meaningless("readinessGates", "the node honours them in the pod's status"),
    refused("resourceClaims", "ACI has no devices to claim"),
    translated("resources", "the group's total, whatever its containers request together").with_type("ResourceRequirements"),
    translated("restartPolicy", "`restartPolicy`"),
    refused("runtimeClassName", "ACI has a single runtime of its own"),
    meaningless("schedulerName", SCHEDULED),
    meaningless("schedulingGates", SCHEDULED),
    refused(
        "schedulingGroup",
        "a group of pods that must start together cannot be split between the cluster's own nodes and ACI",
    ),
    translated("securityContext", "the defaults of each container's `securityContext`")
        .with_type("PodSecurityContext"),
    meaningless("serviceAccount", "the old name of serviceAccountName"),
    translated("serviceAccountName", "the service account whose tokens are requested for projected volumes"),
    refused("setHostnameAsFQDN", "ACI chooses the host name of the machine"),
    refused_unless_accepted(
        "shareProcessNamespace",
        AcceptedLoss::ShareProcessNamespace,
        "ACI does not let containers see each other's processes",
    ),
    meaningless("subdomain", "it is a part of names in the cluster's DNS, which come from the Service"),
    translated(
        "terminationGracePeriodSeconds",
        "how long preStop hooks may run; after that, ACI ends containers after its own grace period",
    ),
    meaningless("tolerations", SCHEDULED),
    meaningless("topologySpreadConstraints", SCHEDULED),
    translated("volumes", "`volumes`, 20 at most").with_type("Volume"),
];
