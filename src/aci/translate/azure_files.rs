//! Azure Files shares that a pod names inline, as `azureFile` or through the CSI driver `file.csi.azure.com`.
//!
//! In: a volume. Out: the share and its Secret, or refusals.

use k8s_openapi::api::core::v1::Volume;

use super::body::AzureFile;
use super::refusals::Refusals;
use super::resolved_references::{ReferenceKind, ValueSource};
use super::secret_string::SecretString;

/// The keys of a Secret that holds the credentials of a storage account (both the in-tree plugin and the CSI driver
/// use these names).
pub(super) const SECRET_KEYS: [&str; 2] = [ACCOUNT_NAME_ENTRY, ACCOUNT_KEY_ENTRY];
const ACCOUNT_NAME_ENTRY: &str = "azurestorageaccountname";
const ACCOUNT_KEY_ENTRY: &str = "azurestorageaccountkey";

/// The CSI driver of Azure Files.
pub(super) const AZURE_FILE_CSI_DRIVER: &str = "file.csi.azure.com";

/// A share as a pod's spec names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AzureFilesShare<'a> {
    pub(super) secret: Option<&'a str>,
    name: Option<&'a str>,
    read_only: bool,
}

/// The share that a volume names; `None` if it is another kind of volume.
pub(super) fn volume_share(volume: &Volume) -> Option<AzureFilesShare<'_>> {
    fn some(text: &str) -> Option<&str> {
        (!text.is_empty()).then_some(text)
    }
    if let Some(file) = &volume.azure_file {
        return Some(AzureFilesShare {
            secret: some(&file.secret_name),
            name: some(&file.share_name),
            read_only: file.read_only.unwrap_or(false),
        });
    }
    let csi = volume
        .csi
        .as_ref()
        .filter(|csi| csi.driver == AZURE_FILE_CSI_DRIVER)?;
    let attribute = |name: &str| {
        let mut attributes = csi.volume_attributes.iter().flatten();
        let (_, value) = attributes.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        some(value)
    };
    Some(AzureFilesShare {
        secret: attribute("secretName"),
        name: attribute("shareName"),
        read_only: csi.read_only.unwrap_or(false),
    })
}

/// The volume for a share, with the key from its Secret.
pub(super) fn azure_file(
    volume: &Volume,
    at: &str,
    values: ValueSource<'_>,
    refusals: &mut Refusals,
) -> Option<AzureFile> {
    let share = volume_share(volume)?;
    check_attributes(volume, at, refusals);
    let (Some(secret), Some(name)) = (share.secret, share.name) else {
        refusals.refuse(at, "an Azure Files share needs secretName and shareName");
        return None;
    };
    let mut secret_text =
        |key: &str| match values.file_value(ReferenceKind::Secret, secret, key, None) {
            Ok(value) => value.map(|value| String::from_utf8_lossy(&value).trim().to_owned()),
            Err(why) => {
                refusals.refuse(at, why);
                None
            }
        };
    let (account, account_key) = (
        secret_text(ACCOUNT_NAME_ENTRY)?,
        secret_text(ACCOUNT_KEY_ENTRY)?,
    );
    refusals.require(
        !account.is_empty(),
        at,
        "its Secret names no storage account",
    );
    Some(AzureFile {
        share_name: name.to_owned(),
        read_only: share.read_only,
        storage_account_name: account,
        storage_account_key: SecretString::new(account_key),
    })
}

/// Refuses attributes of the CSI driver that would change what is mounted, or how.
fn check_attributes(volume: &Volume, at: &str, refusals: &mut Refusals) {
    let csi = volume.csi.iter();
    for name in csi.flat_map(|csi| csi.volume_attributes.iter().flatten().map(|(name, _)| name)) {
        let known = ["secretName", "shareName"];
        refusals.require(
            known.iter().any(|known| known.eq_ignore_ascii_case(name)),
            format!("{at}.csi.volumeAttributes.{name}"),
            "ACI supports only the attributes shareName and secretName of a share",
        );
    }
}
