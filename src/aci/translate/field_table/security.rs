//! Rows of the field table for users and privileges. Data only: `walk` checks pods by these rows, and `markdown`
//! prints them.
//!
//! A setting that protects the pod or its neighbors, and that ACI cannot honor, refuses the pod: to drop the
//! protection silently would be worse than to wait for one of the cluster's own nodes.

use super::row::{
    FieldRow, LossRule, meaningless, refused, refused_unless, refused_unless_accepted,
    refused_unless_accepted_values, translated,
};
use crate::api::AcceptedLoss;

const NO_LABELS: &str = "ACI has no SELinux";
const NO_GROUPS: &str = "ACI gives processes and volumes no additional groups";
const NON_ROOT: &str = "it is met by `runAsUser`; without one, by the image's user, which burstpool reads and writes to `runAsUser` (refused with `readImages: Never`)";

pub(super) const TYPES: &[(&str, &[FieldRow])] = &[
    (
        "PodSecurityContext",
        &[
            translated("appArmorProfile", "nothing, if it requests nothing")
                .with_type("AppArmorProfile"),
            refused_unless_accepted("fsGroup", AcceptedLoss::FsGroup, NO_GROUPS).counting_zero(),
            meaningless(
                "fsGroupChangePolicy",
                "it belongs to fsGroup, which ACI does not have",
            ),
            translated(
                "runAsGroup",
                "`securityContext.runAsGroup` of containers without their own",
            ),
            translated("runAsNonRoot", NON_ROOT),
            translated(
                "runAsUser",
                "`securityContext.runAsUser` of containers without their own",
            ),
            meaningless(
                "seLinuxChangePolicy",
                "it belongs to seLinuxOptions, which are refused",
            ),
            refused("seLinuxOptions", NO_LABELS),
            translated(
                "seccompProfile",
                "ACI's own profile is its runtime's default",
            )
            .with_type("SeccompProfile"),
            refused("supplementalGroups", NO_GROUPS),
            refused_unless("supplementalGroupsPolicy", &["Merge"], NO_GROUPS),
            refused("sysctls", "ACI sets no kernel parameters"),
            meaningless("windowsOptions", "a Linux node ignores them"),
        ],
    ),
    (
        "SecurityContext",
        &[
            translated(
                "allowPrivilegeEscalation",
                "`securityContext.allowPrivilegeEscalation`",
            ),
            translated("appArmorProfile", "nothing, if it requests nothing")
                .with_type("AppArmorProfile"),
            translated("capabilities", "`securityContext.capabilities`").with_type("Capabilities"),
            translated(
                "privileged",
                "`securityContext.privileged`; refused in the SKU Standard, which has no privileged containers",
            ),
            refused_unless("procMount", &["Default"], "ACI mounts /proc in its own way"),
            refused_unless_accepted(
                "readOnlyRootFilesystem",
                AcceptedLoss::ReadOnlyRootFilesystem,
                "the root file system of a container on ACI is writable",
            ),
            translated("runAsGroup", "`securityContext.runAsGroup`"),
            translated("runAsNonRoot", NON_ROOT),
            translated("runAsUser", "`securityContext.runAsUser`"),
            refused("seLinuxOptions", NO_LABELS),
            translated(
                "seccompProfile",
                "ACI's own profile is its runtime's default",
            )
            .with_type("SeccompProfile"),
            meaningless("windowsOptions", "a Linux node ignores them"),
        ],
    ),
    (
        "AppArmorProfile",
        &[
            meaningless(
                "localhostProfile",
                "it belongs to the type Localhost, which is refused",
            ),
            refused_unless("type", &["Unconfined"], "ACI has no AppArmor"),
        ],
    ),
    (
        "SeccompProfile",
        &[
            meaningless("localhostProfile", "it belongs to the type Localhost"),
            refused_unless_accepted_values(
                "type",
                LossRule {
                    loss: AcceptedLoss::Seccomp,
                    harmless: &["RuntimeDefault", "Unconfined"],
                    acceptable: &["Localhost"],
                },
                "the profile is a file on one of the cluster's own nodes",
            ),
        ],
    ),
    (
        "Capabilities",
        &[
            translated("add", "`add`, with the prefix CAP_"),
            translated("drop", "`drop`, with the prefix CAP_"),
        ],
    ),
];
