//! Volumes and volume mounts.
//!
//! In: the pod's volumes and each container's mounts. Out: the group's volumes and mounts, or refusals. If ACI does
//! not accept a volume's name (it requires 5 to 63 lower-case letters, digits and single hyphens; naming page of
//! 2026-07), the volume gets a generated name, and the mounts use it. A volume without any files becomes an empty
//! directory, because ACI may not accept an empty secret volume. A directory that mounts select by `subPath` is a volume
//! of its own (`sub_paths`), and so are the files that a container mounts into one directory (`file_mounts`).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{self as core, Container, Volume};

use super::azure_files;
use super::body::{self, EmptyObject, GitRepo, VolumeMount};
use super::claims;
use super::file_mounts::{FileVolumes, clean};
use super::files::files;
use super::pod::TranslationContext;
use super::refusals::Refusals;
use super::resolved_references::ValueSource;
use super::resources::GROUP_DISK;
use super::secret_string::SecretString;
use super::sub_paths::{MountedParts, VolumePart};
use crate::api::AcceptedLoss;
use crate::k8s::quantity::NanoAmount;

/// The most volumes of a group (a hard limit; quotas page of 2025-11).
const MAX_VOLUMES: usize = 20;

/// A part of a volume that ACI can mount.
#[derive(Debug)]
enum MountedPart {
    /// A directory: the name of its volume in the group, and whether every mount of it is read-only.
    Directory { volume: String, is_read_only: bool },
    /// A file of a volume with content: the content in base64.
    File(SecretString),
}

/// For each part of the pod's volumes that is mounted, how it is mounted, or why ACI cannot mount it.
#[derive(Debug, Default)]
pub(super) struct VolumeNames {
    parts: BTreeMap<String, BTreeMap<VolumePart, Result<MountedPart, String>>>,
    files: FileVolumes,
}

impl VolumeNames {
    /// The content of the file that the part of a volume is; `None` if it is not a file.
    pub(super) fn file(&self, volume: &str, part: &VolumePart) -> Option<&SecretString> {
        match self.parts.get(volume)?.get(part)? {
            Ok(MountedPart::File(content)) => Some(content),
            _ => None,
        }
    }
}

/// The names of volumes that the group uses already, and those of the pod's volumes.
pub(super) struct UsedNames(BTreeSet<String>);

impl UsedNames {
    fn of(volumes: &[Volume]) -> Self {
        Self(volumes.iter().map(|volume| volume.name.clone()).collect())
    }

    /// Chooses a name for the part with this number of the volume at `index`. A whole volume keeps its name if ACI
    /// accepts it.
    fn choose(
        &mut self,
        volume: &Volume,
        part: &VolumePart,
        index: usize,
        number: usize,
    ) -> String {
        if part.is_whole() && is_volume_name(&volume.name) {
            return volume.name.clone();
        }
        self.unique(if part.is_whole() {
            format!("volume-{index}")
        } else {
            format!("volume-{index}-{number}")
        })
    }

    /// The name, made longer if it is used already.
    pub(super) fn unique(&mut self, mut name: String) -> String {
        while !self.0.insert(name.clone()) {
            name.push('x');
        }
        name
    }
}

fn is_volume_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (5..=63).contains(&name.len())
        && name.bytes().all(plain)
        && !name.contains("--")
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// The group's volumes, and their names.
pub(super) fn volumes(
    context: &TranslationContext<'_>,
    refusals: &mut Refusals,
) -> (Vec<body::Volume>, VolumeNames) {
    let volumes = context.spec.volumes.as_deref().unwrap_or_default();
    let mounted = MountedParts::of(context.spec);
    check_size_limits(volumes, refusals);
    let mut used = UsedNames::of(volumes);
    let mut names = VolumeNames::default();
    let mut seen = BTreeSet::new();
    let mut translated = Vec::new();
    for (index, volume) in volumes.iter().enumerate() {
        let at = format!("spec.volumes[{index}]");
        let is_unique = seen.insert(&volume.name);
        refusals.require(
            is_unique,
            format!("{at}.name"),
            format!("'{}' is used twice", volume.name),
        );
        let parts = mounted.parts_of(volume).into_iter().enumerate();
        let names = names.parts.entry(volume.name.clone()).or_default();
        for (number, (part, mountable)) in parts {
            let body = volume_body((volume, &part), &at, context, refusals);
            let mounted = mountable.and(body).map(|body| match body {
                PartBody::File(content) => MountedPart::File(content),
                PartBody::Directory(body) => {
                    let is_read_only = has_content(volume);
                    let name = used.choose(volume, &part, index, number);
                    translated.push(body::Volume {
                        name: name.clone(),
                        ..*body
                    });
                    MountedPart::Directory {
                        volume: name,
                        is_read_only,
                    }
                }
            });
            names.entry(part).or_insert(mounted);
        }
    }
    names.files = FileVolumes::of(context.spec, &names, &mut used, &mut translated);
    refusals.require(
        translated.len() <= MAX_VOLUMES,
        "spec.volumes",
        "a container group has 20 volumes at most, and each directory that is mounted by subPath, or gets files by subPath, is one",
    );
    (translated, names)
}

/// Refuses size limits of emptyDir volumes that sum up to more than the disk of a group, at the volume that exceeds it.
fn check_size_limits(volumes: &[Volume], refusals: &mut Refusals) {
    let mut sum = NanoAmount::default();
    for (index, volume) in volumes.iter().enumerate() {
        let limit = volume
            .empty_dir
            .as_ref()
            .and_then(|dir| dir.size_limit.as_ref());
        let Some(limit) = limit else { continue };
        let field = format!("spec.volumes[{index}].emptyDir.sizeLimit");
        let Some(amount) = NanoAmount::from_quantity(limit) else {
            refusals.refuse(field, format!("'{}' is not a size in bytes", limit.0));
            continue;
        };
        sum = sum.plus(amount);
        if sum > GROUP_DISK {
            let megabytes = sum.in_steps_of(NanoAmount::whole(1_000_000));
            let why = format!(
                "with it, emptyDir volumes may grow to {}.{:03} GB together, and the disk of a container group has 50 GB",
                megabytes / 1000,
                megabytes % 1000
            );
            refusals.refuse(field, why);
            return;
        }
    }
}

/// A part of a volume as the group's body has it.
enum PartBody {
    /// A volume without its name.
    Directory(Box<body::Volume>),
    /// The content of a file in base64.
    File(SecretString),
}

/// A part of a volume, or why ACI cannot mount the part.
fn volume_body(
    (volume, part): (&Volume, &VolumePart),
    at: &str,
    context: &TranslationContext<'_>,
    refusals: &mut Refusals,
) -> Result<PartBody, String> {
    let given = [
        volume.empty_dir.is_some(),
        volume.secret.is_some(),
        volume.config_map.is_some(),
        volume.downward_api.is_some(),
        volume.projected.is_some(),
        volume.azure_file.is_some(),
        volume.csi.is_some(),
        volume.git_repo.is_some(),
        volume.persistent_volume_claim.is_some(),
    ];
    let kinds = given.iter().filter(|given| **given).count();
    // The field table has already refused a volume of an unsupported kind.
    refusals.require(
        kinds == 1 || (kinds == 0 && refusals.has_refusal_in(&format!("{at}."))),
        at,
        "it must be exactly one kind of volume that ACI supports",
    );
    let mut translated = body::Volume::default();
    if let Some(files) = files((volume, part), at, context, refusals) {
        if let Some(content) = files.selected_file() {
            return Ok(PartBody::File(content));
        }
        if files.is_missing_key() {
            // Before the grant, the keys are not known. A kubelet would mount an empty directory.
            let is_known = matches!(context.values, ValueSource::Resolved(_));
            let why = "it lacks a key that a container mounts by subPath";
            refusals.require(!is_known, at, why);
            return Ok(PartBody::File(SecretString::default()));
        }
        if !files.is_directory() {
            return Err("this volume has no such file or directory".to_owned());
        }
        translated.secret = files.into_body();
        if translated.secret.is_none() {
            translated.empty_dir = Some(EmptyObject::new());
        }
    } else if let Some(repository) = &volume.git_repo {
        let given = !repository.repository.is_empty();
        refusals.require(given, format!("{at}.gitRepo.repository"), "it is empty");
        translated.git_repo = Some(GitRepo {
            repository: repository.repository.clone(),
            revision: repository.revision.clone().filter(|text| !text.is_empty()),
            directory: repository.directory.clone().filter(|text| !text.is_empty()),
        });
    } else if let Some(claim) = &volume.persistent_volume_claim {
        let read_only = claim.read_only.unwrap_or(false);
        let (name, values) = (&claim.claim_name, context.values);
        translated.azure_file = claims::claim_volume(name, read_only, at, values, refusals);
    } else if let Some(share) = azure_files::azure_file(volume, at, context.values, refusals) {
        translated.azure_file = Some(share);
    } else if volume.empty_dir.is_some() {
        translated.empty_dir = Some(EmptyObject::new());
    }
    Ok(PartBody::Directory(Box::new(translated)))
}

/// Whether a volume has content from the API server. A kubelet mounts these read-only whatever the mount says
/// (`pkg/kubelet/kubelet_pods.go`).
fn has_content(volume: &Volume) -> bool {
    volume.secret.is_some()
        || volume.config_map.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

/// The volume mounts of `container`, whose field path is `at`.
pub(super) fn volume_mounts(
    container: &Container,
    at: &str,
    names: &VolumeNames,
    refusals: &mut Refusals,
) -> Vec<VolumeMount> {
    let mut paths = BTreeSet::new();
    let mut mounts = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let at = format!("{at}.volumeMounts[{index}]");
        let path = mount.mount_path.as_str();
        let is_valid = path.starts_with('/') && path.len() > 1 && !path.contains(':');
        refusals.require(
            is_valid,
            format!("{at}.mountPath"),
            format!("'{path}' is not absolute, is the root, or has a colon"),
        );
        let is_unique = paths.insert(clean(path).unwrap_or_else(|| path.to_owned()));
        refusals.require(
            is_unique,
            format!("{at}.mountPath"),
            format!("'{path}' is used twice"),
        );
        let Some(parts) = names.parts.get(&mount.name) else {
            refusals.refuse(
                format!("{at}.name"),
                format!("there is no volume '{}'", mount.name),
            );
            continue;
        };
        let part = VolumePart::parse(mount.sub_path.as_deref());
        let mounted = match part.map(|part| parts.get(&part)) {
            Ok(Some(Ok(MountedPart::Directory {
                volume,
                is_read_only,
            }))) => Ok(VolumeMount {
                name: volume.clone(),
                mount_path: path.to_owned(),
                read_only: *is_read_only || mount.read_only.unwrap_or(false),
            }),
            Ok(Some(Ok(MountedPart::File(_)))) => {
                file_mount((mount, container), &at, names, refusals)
            }
            Ok(Some(Err(why))) => Err(why.clone()),
            Err(why) => Err(why),
            // Every part that a mount selects is mounted or has a reason.
            Ok(None) => continue,
        };
        match mounted {
            Ok(mount) if mounts.contains(&mount) => {}
            Ok(mount) => mounts.push(mount),
            Err(why) => refusals.refuse(format!("{at}.subPath"), why),
        }
    }
    mounts
}

/// The mount of the directory of a file, which hides what the image has there.
fn file_mount(
    (mount, container): (&core::VolumeMount, &Container),
    at: &str,
    names: &VolumeNames,
    refusals: &mut Refusals,
) -> Result<VolumeMount, String> {
    let (directory, volume) = names.files.mount(mount, container, names)?;
    let why = format!(
        "ACI mounts whole volumes: the file would come with a volume that hides what the image has in {directory}"
    );
    let loss = AcceptedLoss::SubPathHidesDirectory;
    refusals.refuse_unless_accepted(format!("{at}.subPath"), why, loss);
    Ok(VolumeMount {
        name: volume,
        mount_path: directory,
        read_only: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_aci_does_not_accept_are_replaced_by_unique_ones() {
        let volume = |name: &str| Volume {
            name: name.to_owned(),
            ..Volume::default()
        };
        let long = "a".repeat(64);
        let volumes = [
            "tmp",
            "a--b-c",
            "config",
            "volume-0",
            "volume-1x",
            "volume-1",
            &long,
        ];
        let volumes = volumes.map(volume);
        let mut used = UsedNames::of(&volumes);
        let whole = VolumePart::default();
        let names = volumes.iter().enumerate();
        let names = names.map(|(index, volume)| {
            let name = used.choose(volume, &whole, index, 0);
            (volume.name.as_str(), name)
        });
        let names: BTreeMap<_, _> = names.collect();
        let made = |name: &str| names[name].as_str();
        assert_eq!(made("config"), "config");
        assert_eq!(made("volume-0"), "volume-0");
        assert_eq!(made("tmp"), "volume-0x");
        assert_eq!(made("a--b-c"), "volume-1xx");
        assert_eq!(made(&long), "volume-6");
        let unique: BTreeSet<_> = names.values().collect();
        assert_eq!(unique.len(), volumes.len());
        assert!(names.values().all(|name| is_volume_name(name)));
    }
}
