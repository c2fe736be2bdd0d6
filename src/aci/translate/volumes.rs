//! Volumes and volume mounts.
//!
//! In: the pod's volumes and each container's mounts. Out: the group's volumes and mounts, or refusals. If ACI does
//! not accept a volume's name (it requires 5 to 63 lower-case letters, digits and single hyphens; naming page of
//! 2026-07), the volume gets a generated name, and the mounts use it. A volume without any files becomes an empty
//! directory, because ACI may not accept an empty secret volume.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, Volume};

use super::azure_files;
use super::body::{self, EmptyObject, GitRepo, VolumeMount};
use super::claims;
use super::files::files;
use super::pod::TranslationContext;
use super::refusals::Refusals;

/// The most volumes of a group (a hard limit; quotas page of 2025-11).
const MAX_VOLUMES: usize = 20;

/// The name in the group for each of the pod's volumes.
#[derive(Debug, Default)]
pub(super) struct VolumeNames(BTreeMap<String, String>);

impl VolumeNames {
    /// Chooses names for `volumes`. A volume keeps its name if ACI accepts it.
    fn new(volumes: &[Volume]) -> Self {
        let mut taken: BTreeSet<String> = volumes.iter().map(|v| v.name.clone()).collect();
        let mut names = BTreeMap::new();
        for (index, volume) in volumes.iter().enumerate() {
            let mut name = volume.name.clone();
            if !is_volume_name(&name) {
                name = format!("volume-{index}");
                while !taken.insert(name.clone()) {
                    name.push('x');
                }
            }
            names.entry(volume.name.clone()).or_insert(name);
        }
        Self(names)
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
    let names = VolumeNames::new(volumes);
    refusals.require(
        volumes.len() <= MAX_VOLUMES,
        "spec.volumes",
        "a container group has 20 volumes at most",
    );
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
        translated.push(body::Volume {
            name: names.0.get(&volume.name).cloned().unwrap_or_default(),
            ..volume_body(volume, &at, context, refusals)
        });
    }
    (translated, names)
}

/// The type-specific part of a volume, without its name.
fn volume_body(
    volume: &Volume,
    at: &str,
    context: &TranslationContext<'_>,
    refusals: &mut Refusals,
) -> body::Volume {
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
    if let Some(files) = files(volume, at, context, refusals) {
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
    translated
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
        let is_unique = paths.insert(path);
        refusals.require(
            is_unique,
            format!("{at}.mountPath"),
            format!("'{path}' is used twice"),
        );
        let Some(name) = names.0.get(&mount.name) else {
            refusals.refuse(
                format!("{at}.name"),
                format!("there is no volume '{}'", mount.name),
            );
            continue;
        };
        mounts.push(VolumeMount {
            name: name.clone(),
            mount_path: path.to_owned(),
            read_only: mount.read_only.unwrap_or(false),
        });
    }
    mounts
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
        let names = VolumeNames::new(&volumes.map(volume)).0;
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
