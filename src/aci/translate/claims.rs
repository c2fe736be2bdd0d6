//! Finds the Azure Files share behind a persistent volume claim.
//!
//! In: a claim and the volume that it is bound to. Out: the share and the Secret that holds the account's key, or
//! why ACI cannot mount the volume. `node::environment` reads these objects and the Secret; the translation of the
//! pod uses the resulting [`ClaimBacking`].
//!
//! The rules are those of the CSI driver `file.csi.azure.com` (its function `GetAccountInfo`). Volume attributes
//! take precedence over the volume handle. The Secret is the node stage Secret, else `secretName`, else the one
//! that the driver created for the account. Its namespace comes from the attributes or the handle, else it is the
//! claim's. If there is no such Secret, ACI cannot mount the share: only the driver can ask Azure for the key.
//! Mount options are ignored except `ro`, because ACI mounts shares with its own options.

use k8s_openapi::api::core::v1::{
    AzureFilePersistentVolumeSource, CSIPersistentVolumeSource, PersistentVolume,
    PersistentVolumeClaim, PersistentVolumeSpec,
};
use k8s_openapi::api::storage::v1::StorageClass;

use super::azure_files::AZURE_FILE_CSI_DRIVER;
use super::body::AzureFile;
use super::refusals::Refusals;
use super::resolved_references::{ObjectContent, ValueSource};
use super::secret_string::SecretString;

/// Volume attributes that ACI cannot honor: the name, the values that are harmless, and why ACI does not support
/// others.
const UNSUPPORTED_ATTRIBUTES: [(&str, &[&str], &str); 6] = [
    ("protocol", &["smb"], "ACI mounts shares by SMB"),
    ("fsType", &["cifs", "smb"], "ACI mounts shares by SMB"),
    ("folderName", &[], "ACI mounts whole shares"),
    ("diskName", &[], "ACI mounts shares, no disk images in them"),
    (
        "mountWithManagedIdentity",
        &["false"],
        "ACI mounts with the account's key",
    ),
    (
        "mountWithWorkloadIdentityToken",
        &["false"],
        "ACI mounts with the account's key",
    ),
];
/// The provisioner of the in-tree volume plugin, which preceded the CSI driver.
const IN_TREE_PROVISIONER: &str = "kubernetes.io/azure-file";
/// The advice in messages about a volume that is not an Azure Files share.
const REMEDY: &str = "use a claim of a StorageClass of file.csi.azure.com, or let the pod run on the cluster's nodes";

/// A share as a volume names it, and the Secret that holds its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedShare {
    /// The name of the share.
    pub share: String,
    /// The storage account, if the volume names it. An account name in the Secret takes precedence.
    pub account: Option<String>,
    /// The namespace and the name of the Secret.
    pub secret: (String, String),
    /// Whether the share is mounted read-only.
    pub read_only: bool,
}

/// The volume behind a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimBacking {
    /// An Azure Files share, which ACI can mount.
    Share(AzureFile),
    /// Any other volume: why ACI cannot mount it, and what to do.
    Unsupported(String),
}

impl ClaimedShare {
    /// The share that `claim` is bound to, or an explanation why ACI cannot mount the volume.
    pub fn from_volume(
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
    ) -> Result<Self, String> {
        let none = PersistentVolumeSpec::default();
        let spec = volume.spec.as_ref().unwrap_or(&none);
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
        let modes = claim.spec.iter().flat_map(|spec| spec.access_modes.iter());
        let modes: Vec<&String> = modes.flatten().collect();
        let only_reads = !modes.is_empty() && modes.iter().all(|mode| *mode == "ReadOnlyMany");
        let options = spec.mount_options.iter().flatten();
        let read_only = only_reads || options.into_iter().any(|option| option == "ro");
        let share = match (&spec.azure_file, &spec.csi) {
            (Some(file), _) => Ok(in_tree_share(file, namespace)),
            (None, Some(csi)) if csi.driver == AZURE_FILE_CSI_DRIVER => csi_share(csi, namespace),
            (None, Some(csi)) => Err(format!(
                "spec.csi.driver is {}, and ACI mounts Azure Files only; {REMEDY}",
                csi.driver
            )),
            (None, None) => Err(format!(
                "{} is not an Azure Files share, and ACI mounts nothing else; {REMEDY}",
                volume_source_field(spec)
            )),
        };
        match share {
            Ok(share) => Ok(Self {
                read_only: share.read_only || read_only,
                ..share
            }),
            Err(why) => Err(format!("its PersistentVolume {name}: {why}")),
        }
    }

    /// The share with the key from its Secret, or the name of the Secret's key that is missing.
    pub fn with_key(self, secret: &ObjectContent) -> Result<AzureFile, &'static str> {
        let account = secret_entry(secret, ["azurestorageaccountname", "accountname"]);
        let key = secret_entry(secret, ["azurestorageaccountkey", "accountkey"]);
        Ok(AzureFile {
            share_name: self.share,
            read_only: self.read_only,
            storage_account_name: account.or(self.account).ok_or("azurestorageaccountname")?,
            storage_account_key: SecretString::new(key.ok_or("azurestorageaccountkey")?),
        })
    }
}

/// Checks that volumes of `class` are Azure Files shares; the error explains why ACI cannot mount them.
pub fn provisions_shares(class: &StorageClass) -> Result<(), String> {
    let name = class.metadata.name.as_deref().unwrap_or_default();
    match class.provisioner.as_str() {
        AZURE_FILE_CSI_DRIVER | IN_TREE_PROVISIONER => Ok(()),
        other => Err(format!(
            "its StorageClass {name} has the provisioner {other}, and ACI mounts Azure Files only; {REMEDY}"
        )),
    }
}

/// The value of a Secret under either of two key names. The driver accepts keys in any case.
fn secret_entry(secret: &ObjectContent, names: [&str; 2]) -> Option<String> {
    let entries = secret.files().filter(|(key, _)| matches_any(key, &names));
    let mut values = entries.map(|(_, value)| String::from_utf8_lossy(value).trim().to_owned());
    values.find(|value| !value.is_empty())
}

fn in_tree_share(file: &AzureFilePersistentVolumeSource, claim_namespace: &str) -> ClaimedShare {
    let namespace = non_empty(file.secret_namespace.as_deref()).unwrap_or(claim_namespace);
    ClaimedShare {
        share: file.share_name.clone(),
        account: None,
        secret: (namespace.to_owned(), file.secret_name.clone()),
        read_only: file.read_only.unwrap_or(false),
    }
}

fn csi_share(
    csi: &CSIPersistentVolumeSource,
    claim_namespace: &str,
) -> Result<ClaimedShare, String> {
    let attribute = |name: &str| {
        let mut attributes = csi.volume_attributes.iter().flatten();
        let (_, value) = attributes.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        non_empty(Some(value))
    };
    let by_field = |name: &str| match name {
        "fsType" => non_empty(csi.fs_type.as_deref()),
        _ => None,
    };
    for (name, harmless, why) in UNSUPPORTED_ATTRIBUTES {
        let value = attribute(name).or_else(|| by_field(name));
        if let Some(value) = value.filter(|value| !matches_any(value, harmless)) {
            return Err(format!(
                "its attribute {name} is {value}, and {why}; {REMEDY}"
            ));
        }
    }
    let handle = VolumeHandle::parse(&csi.volume_handle);
    if let Some(disk) = handle.disk {
        return Err(format!(
            "it is the disk image {disk} in a share, and ACI mounts shares; {REMEDY}"
        ));
    }
    let share = attribute("shareName").or(handle.share);
    let share = share.ok_or("it names no share: set its attribute shareName")?;
    let account = attribute("storageAccount").or(handle.account);
    Ok(ClaimedShare {
        share: share.to_owned(),
        account: account.map(str::to_owned),
        secret: match &csi.node_stage_secret_ref {
            Some(staged) => {
                let namespace = non_empty(staged.namespace.as_deref()).unwrap_or(claim_namespace);
                let name = staged.name.clone().unwrap_or_default();
                (namespace.to_owned(), name)
            }
            None => account_secret(&attribute, &handle, account, claim_namespace)?,
        },
        read_only: csi.read_only.unwrap_or(false),
    })
}

/// The Secret for a volume without a node stage Secret: the one that the volume's attributes name, or the one that
/// the driver created for the account.
fn account_secret<'a>(
    attribute: &dyn Fn(&str) -> Option<&'a str>,
    handle: &VolumeHandle<'_>,
    account: Option<&str>,
    claim_namespace: &str,
) -> Result<(String, String), String> {
    const NONE: &str = "it names no Secret with the account's key: set nodeStageSecretRef, or its attribute secretName";
    let by_account = || Some(format!("azure-storage-account-{}-secret", account?));
    let name = attribute("secretName").map(str::to_owned);
    let name = name.or_else(by_account).ok_or(NONE)?;
    let namespace = attribute("secretNamespace").or(handle.namespace);
    Ok((namespace.unwrap_or(claim_namespace).to_owned(), name))
}

fn matches_any(value: &str, candidates: &[&str]) -> bool {
    candidates
        .iter()
        .any(|candidate| candidate.eq_ignore_ascii_case(value))
}

fn non_empty(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// The parts of a volume handle that the driver writes for volumes that it provisions:
/// `group#account#share#disk#uuid#namespace#subscription`. The handles of other volumes have no defined format.
#[derive(Default)]
struct VolumeHandle<'a> {
    account: Option<&'a str>,
    share: Option<&'a str>,
    disk: Option<&'a str>,
    namespace: Option<&'a str>,
}

impl<'a> VolumeHandle<'a> {
    fn parse(handle: &'a str) -> Self {
        let parts: Vec<&str> = handle.split('#').collect();
        if parts.len() < 3 {
            return Self::default();
        }
        let part = |index: usize| non_empty(parts.get(index).copied());
        Self {
            account: part(1),
            share: part(2),
            disk: part(3),
            // Handles of volumes that were migrated from the in-tree plugin have an empty group and one part less.
            namespace: part(if parts[0].is_empty() { 4 } else { 5 }),
        }
    }
}

/// The name of the spec field that holds the volume's type.
fn volume_source_field(spec: &PersistentVolumeSpec) -> String {
    let ordinary = [
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    ];
    let fields = serde_json::to_value(spec).unwrap_or_default();
    let mut names = fields
        .as_object()
        .into_iter()
        .flat_map(|fields| fields.keys());
    match names.find(|name| !ordinary.contains(&name.as_str())) {
        Some(name) => format!("spec.{name}"),
        None => "its spec".to_owned(),
    }
}

/// The share for the claim called `name`.
pub(super) fn claim_volume(
    name: &str,
    read_only: bool,
    at: &str,
    values: ValueSource<'_>,
    refusals: &mut Refusals,
) -> Option<AzureFile> {
    match values.claim(name) {
        Ok(ClaimBacking::Share(share)) => Some(AzureFile {
            read_only: share.read_only || read_only,
            ..share
        }),
        Ok(ClaimBacking::Unsupported(why)) | Err(why) => {
            refusals.refuse(format!("{at}.persistentVolumeClaim"), why);
            None
        }
    }
}

#[cfg(test)]
mod tests;
