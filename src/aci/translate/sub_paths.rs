//! Parts of volumes: the directories that mounts select by `subPath`.
//!
//! In: a pod's volumes and mounts. Out: for each volume, the parts that the group needs as volumes of their own, or why
//! ACI cannot mount a part. ACI mounts whole volumes only, so a part becomes a volume where that is the same:
//!
//! | volume | part | volume in the group |
//! | --- | --- | --- |
//! | emptyDir | any, unless it overlaps another part that is mounted: the kubelet creates it, so it begins empty | one emptyDir for all mounts of the part |
//! | secret, configMap, projected, downwardAPI | a directory of files | one secret volume with its files |
//! | the same | a file | a secret volume over the file's directory, if the pool accepts that (`file_mounts`) |
//!
//! Two parts overlap if one contains the other (`a` and `a/b`, or the whole volume and `a`): what a container writes
//! into one would be missing in the other. Parts of other volumes exist already, so ACI would have to find them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{PodSpec, Volume};

/// The path of a part within its volume, without empty segments and `.`; empty for the whole volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct VolumePart(Vec<String>);

impl VolumePart {
    /// The part that a mount's `subPath` selects, or why the API server refuses it.
    pub(super) fn parse(sub_path: Option<&str>) -> Result<Self, String> {
        let path = sub_path.unwrap_or_default();
        if path.starts_with('/') {
            return Err(format!("'{path}' must be a relative path"));
        }
        if path.split('/').any(|segment| segment == "..") {
            return Err(format!("'{path}' must not contain '..'"));
        }
        Ok(Self(segments(path).map(str::to_owned).collect()))
    }

    pub(super) fn is_whole(&self) -> bool {
        self.0.is_empty()
    }

    /// The path within the part of a file at `path` in the volume; `None` if the file is elsewhere.
    pub(super) fn path_within(&self, path: &str) -> Option<String> {
        let path: Vec<&str> = segments(path).collect();
        let within = self.0.len() < path.len() && self.0.iter().zip(&path).all(|(a, b)| a == b);
        within.then(|| path[self.0.len()..].join("/"))
    }

    /// Whether the part is what the volume has at `path`.
    pub(super) fn is_path(&self, path: &str) -> bool {
        !self.is_whole() && segments(path).eq(self.0.iter().map(String::as_str))
    }

    /// Whether the part is directly in the volume, as keys are.
    pub(super) fn is_single(&self) -> bool {
        self.0.len() == 1
    }

    /// Whether one of two different parts contains the other.
    fn overlaps(&self, other: &Self) -> bool {
        self != other && self.0.iter().zip(&other.0).all(|(a, b)| a == b)
    }
}

/// The only segment of a path; `None` if it has none or more.
pub(super) fn only_segment(path: &str) -> Option<&str> {
    let mut segments = segments(path);
    let first = segments.next()?;
    segments.next().is_none().then_some(first)
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter(|segment| !matches!(*segment, "" | "."))
}

/// The parts of each volume that containers mount.
#[derive(Debug, Default)]
pub(super) struct MountedParts<'a>(BTreeMap<&'a str, BTreeSet<VolumePart>>);

impl<'a> MountedParts<'a> {
    /// The parts that the mounts of all containers select. Invalid paths are left out.
    pub(super) fn of(spec: &'a PodSpec) -> Self {
        let mut parts: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        let init = spec.init_containers.iter().flatten();
        let mounts = init
            .chain(&spec.containers)
            .flat_map(|container| container.volume_mounts.iter().flatten());
        for mount in mounts {
            if let Ok(part) = VolumePart::parse(mount.sub_path.as_deref()) {
                parts.entry(mount.name.as_str()).or_default().insert(part);
            }
        }
        Self(parts)
    }

    /// The parts of `volume`, each with the reason if ACI cannot mount it. A volume that no container mounts has one
    /// part, the whole.
    pub(super) fn parts_of(&self, volume: &Volume) -> Vec<(VolumePart, Result<(), String>)> {
        let whole = VolumePart::default();
        let mut parts = self
            .0
            .get(volume.name.as_str())
            .cloned()
            .unwrap_or_default();
        let is_empty_dir = volume.empty_dir.is_some();
        if parts.is_empty() || !(is_empty_dir || has_content(volume)) {
            parts.insert(whole);
        }
        let check = |part: &VolumePart| {
            if part.is_whole() || has_content(volume) {
                return Ok(());
            }
            if !is_empty_dir {
                return Err("ACI mounts whole volumes: only directories of emptyDir volumes and of volumes with content become volumes of their own".to_owned());
            }
            match parts.iter().find(|other| part.overlaps(other)) {
                Some(other) if other.is_whole() => Err(
                    "ACI mounts whole volumes, and a container mounts the whole emptyDir too"
                        .to_owned(),
                ),
                Some(other) => Err(format!(
                    "ACI mounts whole volumes, and it overlaps '{}', which is mounted too",
                    other.0.join("/")
                )),
                None => Ok(()),
            }
        };
        parts
            .iter()
            .map(|part| (part.clone(), check(part)))
            .collect()
    }
}

/// Whether it is a volume with content, which is known when the group is created.
fn has_content(volume: &Volume) -> bool {
    volume.secret.is_some()
        || volume.config_map.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(path: &str) -> VolumePart {
        VolumePart::parse(Some(path)).expect("a path")
    }

    #[test]
    fn different_spellings_are_the_same_part() {
        for path in ["a/b", "a//b/", "./a/./b", "a/b/."] {
            assert_eq!(part(path), part("a/b"), "{path}");
        }
        for path in ["", ".", "./"] {
            assert!(part(path).is_whole(), "{path}");
        }
        assert_eq!(VolumePart::parse(None), Ok(VolumePart::default()));
        for (path, why) in [
            ("/a", "'/a' must be a relative path"),
            ("..", "'..' must not contain '..'"),
            ("a/../b", "'a/../b' must not contain '..'"),
        ] {
            assert_eq!(VolumePart::parse(Some(path)), Err(why.to_owned()));
        }
        assert_eq!(part("..a/b.."), part("..a/b../"));
    }

    #[test]
    fn parts_overlap_if_one_contains_the_other() {
        for (one, other, overlaps) in [
            ("a", "a", false),
            ("a", "b", false),
            ("a", "ab", false),
            ("a", "a/b", true),
            ("a/b", "a/c", false),
            ("", "a", true),
        ] {
            assert_eq!(part(one).overlaps(&part(other)), overlaps, "{one} {other}");
            assert_eq!(part(other).overlaps(&part(one)), overlaps, "{one} {other}");
        }
    }

    #[test]
    fn a_file_is_found_in_its_directory() {
        for (directory, path, within) in [
            ("a", "a/f", Some("f")),
            ("a", "./a//f", Some("f")),
            ("a", "a/b/f", Some("b/f")),
            ("a/b", "a/b/f", Some("f")),
            ("a", "a", None),
            ("a", "ab/f", None),
            ("a/b", "a/f", None),
        ] {
            assert_eq!(
                part(directory).path_within(path).as_deref(),
                within,
                "{directory} {path}"
            );
        }
    }
}
