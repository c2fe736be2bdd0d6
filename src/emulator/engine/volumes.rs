//! Volumes: directories of this machine that containers see.
//!
//! In: a group's volumes and mounts. Out: directories below the instance's, and bind mounts.
//! Secrets are files that everybody in the container may read and nobody may write: which user a
//! container runs as is its image's business, and nobody outside reaches them, since the
//! instance's directory is closed to all but its owner. Their mount is read-only.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bollard::models::{Mount, MountType};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::fs;

use super::error::Error;
use super::instance::Instance;
use crate::emulator::group::id::GroupKey;
use crate::emulator::group::model::{AzureFile, Container, Properties, Volume, secret_bytes};

/// Makes the directories of all volumes; what is there already stays as it is.
pub async fn make(
    instance: &Instance,
    key: &GroupKey,
    properties: &Properties,
) -> Result<(), Error> {
    for volume in properties.volumes() {
        let path = directory(instance, key, volume);
        let made = match &volume.secret {
            Some(files) => secret(&path, files.iter()).await,
            None => directory_for_all(&path).await,
        };
        made.map_err(|source| Error::Files { path, source })?;
    }
    Ok(())
}

/// What a container mounts.
pub fn mounts(
    instance: &Instance,
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
    let one = |mount: &crate::emulator::group::model::VolumeMount| {
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
    container.mounts().iter().filter_map(one).collect()
}

/// Where a volume is: a share by its account and name, everything else below its group.
fn directory(instance: &Instance, key: &GroupKey, volume: &Volume) -> PathBuf {
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

/// A directory in which every user may write, as the service's volumes are.
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
