//! Volumes: directories of this machine that containers mount.
//!
//! In: a group's volumes and mounts. Out: directories below the emulator's directory, and bind mounts.
//! All users in a container can read secret files and none can write them, because the image decides
//! which user a container runs as. Outside of containers the files are protected: only the owner can
//! enter the emulator's directory. Secret mounts are read-only.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bollard::models::{Mount, MountType};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::fs;

use super::error::EngineError;
use super::instance::EmulatorInstance;
use crate::emulator::group::id::GroupKey;
use crate::emulator::group::model::{AzureFile, Container, Properties, Volume, secret_bytes};

/// Creates the directories of all volumes. Existing ones are left unchanged.
pub async fn make(
    instance: &EmulatorInstance,
    key: &GroupKey,
    properties: &Properties,
) -> Result<(), EngineError> {
    for volume in properties.volumes() {
        let path = directory(instance, key, volume);
        let result = match &volume.secret {
            Some(files) => secret(&path, files.iter()).await,
            None => directory_for_all(&path).await,
        };
        result.map_err(|source| EngineError::Files { path, source })?;
    }
    Ok(())
}

/// The bind mounts of a container.
pub fn mounts(
    instance: &EmulatorInstance,
    key: &GroupKey,
    properties: &Properties,
    container: &Container,
) -> Vec<Mount> {
    let volume = |name: Option<&str>| {
        properties
            .volumes()
            .iter()
            .find(|v| v.name.as_deref() == name)
    };
    let to_mount = |mount: &crate::emulator::group::model::VolumeMount| {
        let volume = volume(mount.name.as_deref())?;
        let read_only = mount.read_only.unwrap_or(false)
            || volume.secret.is_some()
            || volume
                .azure_file
                .as_ref()
                .is_some_and(|files| files.read_only.unwrap_or(false));
        Some(Mount {
            typ: Some(MountType::BIND),
            source: Some(
                directory(instance, key, volume)
                    .to_string_lossy()
                    .into_owned(),
            ),
            target: mount.mount_path.clone(),
            read_only: Some(read_only),
            ..Mount::default()
        })
    };
    container.mounts().iter().filter_map(to_mount).collect()
}

/// The directory of a volume. Azure file shares are identified by account and share; others belong to
/// the group.
fn directory(instance: &EmulatorInstance, key: &GroupKey, volume: &Volume) -> PathBuf {
    let plain = |text: &Option<String>| {
        utf8_percent_encode(text.as_deref().unwrap_or_default(), NON_ALPHANUMERIC).to_string()
    };
    match &volume.azure_file {
        Some(AzureFile {
            storage_account_name,
            share_name,
            ..
        }) => {
            let shares = instance.directory().join("shares");
            shares
                .join(plain(storage_account_name))
                .join(plain(share_name))
        }
        None => instance.group_directory(key).join(plain(&volume.name)),
    }
}

/// Creates a directory that every user can write, as in the service's volumes.
async fn directory_for_all(path: &Path) -> std::io::Result<()> {
    if fs::try_exists(path).await? {
        return Ok(());
    }
    fs::create_dir_all(path).await?;
    fs::set_permissions(path, PermissionsExt::from_mode(0o777)).await
}

async fn secret(
    path: &Path,
    files: impl Iterator<Item = (&String, &String)>,
) -> std::io::Result<()> {
    if fs::try_exists(path).await? {
        return Ok(());
    }
    fs::create_dir_all(path).await?;
    for (name, value) in files {
        let file = path.join(name);
        fs::write(&file, secret_bytes(value).unwrap_or_default()).await?;
        fs::set_permissions(&file, PermissionsExt::from_mode(0o444)).await?;
    }
    fs::set_permissions(path, PermissionsExt::from_mode(0o755)).await
}
