//! Rows of the field table for users and privileges. Data only: `walk` checks pods by these rows, and `markdown`
//! prints them.
//!
//! A setting that protects the pod or its neighbors, and that ACI cannot honor, refuses the pod: to drop the
//! protection silently would be worse than to wait for one of the cluster's own nodes.

use super::row::{
    FieldEffect, FieldRow, LossRule, meaningless, refused, refused_unless, refused_unless_accepted,
    refused_unless_accepted_values, translated,
};
use crate::api::AcceptedLoss;

const NO_LABELS: &str = "ACI has no SELinux";
const NO_GROUPS: &str = "ACI gives processes and volumes no additional groups";
const NO_FS_GROUP: &str = "ACI gives processes and volumes no additional groups; it has an effect in a container without `runAsUser: 0` that mounts an emptyDir, a gitRepo, or files that others may not read, and group 0 also has one on the image's files";
const NO_SUPPLEMENTAL_GROUPS: &str = "ACI gives processes and volumes no additional groups; they have an effect in a container that has neither `runAsUser: 0` with the capability DAC_OVERRIDE nor the same `runAsGroup`";
const NON_ROOT: &str = "it is met by `runAsUser`; without one, by the image's user, which burstpool reads and writes to `runAsUser` (refused with `readImages: Never`)";

pub(super) const TYPES: &[(&str, &[FieldRow])] = &[
    (
        "PodSecurityContext",
        &[
            translated("appArmorProfile", "nothing, if it requests nothing")
                .with_type("AppArmorProfile"),
            refused_unless_accepted("fsGroup", AcceptedLoss::FsGroup, NO_FS_GROUP)
                .counting_zero()
                .where_it_has(FieldEffect::FsGroup),
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
            refused("supplementalGroups", NO_SUPPLEMENTAL_GROUPS)
                .where_it_has(FieldEffect::SupplementalGroups),
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
            translated(
                "add",
                "`add`, with the prefix CAP_; one that containers do not have by default is refused in the SKU Standard",
            ),
            translated("drop", "`drop`, with the prefix CAP_"),
        ],
    ),
];
