//! Rows of the field table for volumes and volume mounts. Data only: `walk` checks pods by these rows, and `text`
//! prints them.

use super::row::{
    FieldRow, LossRule, refused, refused_unless, refused_unless_accepted_values, translated,
};
use crate::api::AcceptedLoss;

const NOT_HERE: &str = "ACI mounts emptyDir, secret, configMap, projected, downwardAPI, gitRepo, and Azure Files as azureFile, csi or a claim";
const OWN_MODE: &str = "ACI sets the mode of files itself; modes are shown as in JSON, where 420 is 0644, 292 is 0444 and 511 is 0777";
const NO_OWNER: &str = "ACI sets the owner of files itself";
const PARTS: &str = "a file's content";
const NAME: &str = "the name of the object";
const ITEMS: &str = "the keys, and the names of their files";
const OPTIONAL: &str = "no files if it is missing; else the pod waits for it";
const FLAT: &str = "the file's name; a file in a directory is refused unless a mount selects the directory by subPath, because ACI's secret volumes are flat";

/// 0644, which is the default, and 0444: volumes with content are mounted read-only, so that the owner's permission to
/// write has no effect.
const FILE_MODES: &[&str] = &["420", "292"];

/// A row for the mode of files or directories, which only these values do not change.
const fn mode(name: &'static str, harmless: &'static [&'static str]) -> FieldRow {
    let rule = LossRule {
        loss: AcceptedLoss::FileModes,
        harmless,
        acceptable: &[],
    };
    refused_unless_accepted_values(name, rule, OWN_MODE).counting_zero()
}

pub(super) const TYPES: &[(&str, &[FieldRow])] = &[
    (
        "VolumeMount",
        &[
            refused("bindMountOptions", "ACI mounts with its own options"),
            translated("mountPath", "`mountPath`"),
            refused_unless(
                "mountPropagation",
                &["None", "HostToContainer"],
                "a container group has no host to share mounts with",
            ),
            translated("name", "`name`"),
            translated("readOnly", "`readOnly`"),
            refused_unless(
                "recursiveReadOnly",
                &["Disabled", "IfPossible"],
                "ACI does not say whether mounts below it are read-only",
            ),
            translated(
                "subPath",
                "a volume of its own, for a directory of an emptyDir (unless it overlaps another that is mounted) or of a volume with content; for a file of a volume with content, a volume over its directory, refused unless accepted: `subPathHidesDirectory`; refused for other volumes, because ACI mounts whole volumes",
            )
            .until_helper(),
            refused("subPathExpr", "ACI mounts whole volumes").until_helper(),
        ],
    ),
    ("Volume", VOLUME),
    (
        "EmptyDirVolumeSource",
        &[
            refused_unless_accepted_values(
                "medium",
                LossRule {
                    loss: AcceptedLoss::EmptyDirMemory,
                    harmless: &[],
                    acceptable: &["Memory"],
                },
                "ACI's empty directories are on disk",
            ),
            mode("mode", &["511"]),
            translated(
                "sizeLimit",
                "nothing: it protects neighbors, and a group's disk is its own; limits that sum up to more than its 50 GB are refused",
            ),
        ],
    ),
    (
        "SecretVolumeSource",
        &[
            mode("defaultMode", FILE_MODES),
            refused("defaultUser", NO_OWNER),
            translated("items", ITEMS).with_type("KeyToPath"),
            translated("optional", OPTIONAL),
            translated("secretName", NAME),
        ],
    ),
    (
        "ConfigMapVolumeSource",
        &[
            mode("defaultMode", FILE_MODES),
            refused("defaultUser", NO_OWNER),
            translated("items", ITEMS).with_type("KeyToPath"),
            translated("name", NAME),
            translated("optional", OPTIONAL),
        ],
    ),
    (
        "KeyToPath",
        &[
            translated("key", PARTS),
            mode("mode", FILE_MODES),
            translated("path", FLAT),
            refused("user", NO_OWNER),
        ],
    ),
    (
        "ProjectedVolumeSource",
        &[
            mode("defaultMode", FILE_MODES),
            refused("defaultUser", NO_OWNER),
            translated(
                "sources",
                "one `secret` volume with the files of all sources",
            )
            .with_type("VolumeProjection"),
        ],
    ),
    (
        "VolumeProjection",
        &[
            refused("clusterTrustBundle", "trust bundles are not read"),
            translated("configMap", PARTS).with_type("ConfigMapProjection"),
            translated("downwardAPI", PARTS).with_type("DownwardAPIProjection"),
            refused(
                "podCertificate",
                "only a kubelet can request a pod's certificate",
            ),
            translated("secret", PARTS).with_type("SecretProjection"),
            translated("serviceAccountToken", PARTS).with_type("ServiceAccountTokenProjection"),
        ],
    ),
    ("SecretProjection", PROJECTION),
    ("ConfigMapProjection", PROJECTION),
    (
        "DownwardAPIProjection",
        &[translated("items", "the files").with_type("DownwardAPIVolumeFile")],
    ),
    (
        "DownwardAPIVolumeSource",
        &[
            mode("defaultMode", FILE_MODES),
            refused("defaultUser", NO_OWNER),
            translated("items", "the files, as they are at the start")
                .with_type("DownwardAPIVolumeFile"),
        ],
    ),
    (
        "DownwardAPIVolumeFile",
        &[
            translated("fieldRef", PARTS).with_type("ObjectFieldSelector"),
            mode("mode", FILE_MODES),
            translated("path", FLAT),
            translated("resourceFieldRef", PARTS).with_type("ResourceFieldSelector"),
            refused("user", NO_OWNER),
        ],
    ),
    (
        "ServiceAccountTokenProjection",
        &[
            translated("audience", "of the TokenRequest"),
            translated(
                "expirationSeconds",
                "of the TokenRequest; the token is not renewed",
            ),
            translated("path", FLAT),
            refused("user", NO_OWNER),
        ],
    ),
    (
        "AzureFileVolumeSource",
        &[
            translated("readOnly", "`azureFile.readOnly`"),
            translated(
                "secretName",
                "`azureFile.storageAccountName` and `storageAccountKey`",
            ),
            translated("shareName", "`azureFile.shareName`"),
        ],
    ),
    (
        "CSIVolumeSource",
        &[
            refused_unless("driver", &["file.csi.azure.com"], NOT_HERE),
            refused_unless("fsType", &["cifs", "smb"], "ACI mounts shares by SMB"),
            refused(
                "nodePublishSecretRef",
                "name the Secret in the attribute secretName instead",
            ),
            translated("readOnly", "`azureFile.readOnly`"),
            translated(
                "volumeAttributes",
                "`azureFile`: shareName and secretName; every other attribute is refused",
            ),
        ],
    ),
    (
        "PersistentVolumeClaimVolumeSource",
        &[
            translated(
                "claimName",
                "`azureFile`: the share, the account and its key that the claim's volume names; of its mount options, only `ro` is used",
            ),
            translated(
                "readOnly",
                "`azureFile.readOnly`; also set if the volume is read-only or the claim has only ReadOnlyMany",
            ),
        ],
    ),
    (
        "GitRepoVolumeSource",
        &[
            translated("directory", "`gitRepo.directory`"),
            translated("repository", "`gitRepo.repository`"),
            translated("revision", "`gitRepo.revision`"),
        ],
    ),
];

const PROJECTION: &[FieldRow] = &[
    translated("items", ITEMS).with_type("KeyToPath"),
    translated("name", NAME),
    translated("optional", OPTIONAL),
];

const VOLUME: &[FieldRow] = &[
    refused("awsElasticBlockStore", NOT_HERE),
    refused("azureDisk", NOT_HERE),
    translated("azureFile", "`azureFile`").with_type("AzureFileVolumeSource"),
    refused("cephfs", NOT_HERE),
    refused("cinder", NOT_HERE),
    translated(
        "configMap",
        "`secret`, which is ACI's only volume with content",
    )
    .with_type("ConfigMapVolumeSource"),
    translated("csi", "`azureFile`, for the driver file.csi.azure.com").with_type("CSIVolumeSource"),
    translated("downwardAPI", "`secret`").with_type("DownwardAPIVolumeSource"),
    translated("emptyDir", "`emptyDir`").with_type("EmptyDirVolumeSource"),
    refused("ephemeral", NOT_HERE),
    refused("fc", NOT_HERE),
    refused("flexVolume", NOT_HERE),
    refused("flocker", NOT_HERE),
    refused("gcePersistentDisk", NOT_HERE),
    translated("gitRepo", "`gitRepo`").with_type("GitRepoVolumeSource"),
    refused("glusterfs", NOT_HERE),
    refused(
        "hostPath",
        "a container group has no host whose files it could see",
    ),
    refused("image", NOT_HERE),
    refused("iscsi", NOT_HERE),
    translated(
        "name",
        "`name`, or a generated name if ACI does not accept it; mounts use that name",
    ),
    refused("nfs", NOT_HERE),
    translated(
        "persistentVolumeClaim",
        "`azureFile`, for a claim bound to a volume of file.csi.azure.com or azureFile; the pod waits until the claim is bound, and any other volume is refused",
    )
    .with_type("PersistentVolumeClaimVolumeSource"),
    refused("photonPersistentDisk", NOT_HERE),
    refused("portworxVolume", NOT_HERE),
    translated("projected", "`secret`").with_type("ProjectedVolumeSource"),
    refused("quobyte", NOT_HERE),
    refused("rbd", NOT_HERE),
    refused("scaleIO", NOT_HERE),
    translated("secret", "`secret`").with_type("SecretVolumeSource"),
    refused("storageos", NOT_HERE),
    refused("vsphereVolume", NOT_HERE),
];
