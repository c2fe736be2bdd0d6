//! Files that containers mount by `subPath`: one file of a volume with content, at a path of the image.
//!
//! In: a container's mounts, and what the parts of volumes are. Out: the volumes that show these files, or why ACI cannot
//! mount a file. ACI mounts only directories, so the files that a container mounts into one directory become one secret
//! volume, which is mounted there and hides what the image has in the directory. Only the pool's author can accept that
//! ([`AcceptedLoss::SubPathHidesDirectory`](crate::api::AcceptedLoss)): the pod does not show whether the image has
//! anything there.
//!
//! What cannot work is refused for good: a directory that no image can do without, the directory of the container's own
//! command, and a directory that has another mount in it or is in another mount.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, VolumeMount};

use super::body;
use super::sub_paths::VolumePart;
use super::volumes::{UsedNames, VolumeNames};

/// Directories that no image can do without, or that the container runtime fills.
const ESSENTIAL: &[&str] = &[
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/tmp",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/local",
    "/usr/local/bin",
    "/usr/local/lib",
    "/usr/local/sbin",
    "/usr/sbin",
    "/usr/share",
    "/var",
    "/var/lib",
    "/var/run",
    "/var/tmp",
];
/// Directories that the kernel fills, with everything in them.
const OF_KERNEL: &[&str] = &["/dev", "/proc", "/sys"];

/// The files of a directory: by name, the volume and the part that is the file.
type DirectoryFiles = BTreeMap<String, (String, VolumePart)>;

/// The volumes that show files, by the files that they show. Containers that mount the same files share one.
#[derive(Debug, Default)]
pub(super) struct FileVolumes(BTreeMap<DirectoryFiles, String>);

/// A path without empty segments and `.`; `None` if it is not absolute or has `..`.
pub(super) fn clean(path: &str) -> Option<String> {
    let segments = path.strip_prefix('/')?.split('/');
    let segments: Vec<&str> = segments.filter(|part| !["", "."].contains(part)).collect();
    (!segments.contains(&"..")).then(|| format!("/{}", segments.join("/")))
}

/// The directory and the name of the file that is mounted at `path`.
fn directory_and_name(path: &str) -> Option<(String, String)> {
    let path = clean(path)?;
    let (directory, name) = path.rsplit_once('/')?;
    let directory = if directory.is_empty() { "/" } else { directory };
    (!name.is_empty()).then(|| (directory.to_owned(), name.to_owned()))
}

/// Whether `path` is `directory` or in it.
fn is_within(path: &str, directory: &str) -> bool {
    let below = path.strip_prefix(directory.trim_end_matches('/'));
    below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
}

/// The directory, the name and the part of the file that a mount selects; `None` if it mounts something else, or at an
/// invalid path.
fn mounted_file(mount: &VolumeMount, names: &VolumeNames) -> Option<(String, String, VolumePart)> {
    let part = VolumePart::parse(mount.sub_path.as_deref()).ok()?;
    names.file(&mount.name, &part)?;
    let (directory, name) = directory_and_name(&mount.mount_path)?;
    Some((directory, name, part))
}

/// The directories into which `container` mounts files.
fn directories(container: &Container, names: &VolumeNames) -> BTreeMap<String, DirectoryFiles> {
    let mut directories: BTreeMap<String, DirectoryFiles> = BTreeMap::new();
    for mount in container.volume_mounts.iter().flatten() {
        if let Some((directory, name, part)) = mounted_file(mount, names) {
            let files = directories.entry(directory).or_default();
            files.insert(name, (mount.name.clone(), part));
        }
    }
    directories
}

impl FileVolumes {
    /// The volumes for the files that the pod's containers mount. They are added to `translated`.
    pub(super) fn of(
        spec: &PodSpec,
        names: &VolumeNames,
        used: &mut UsedNames,
        translated: &mut Vec<body::Volume>,
    ) -> Self {
        let mut volumes = Self::default();
        let init = spec.init_containers.iter().flatten();
        let all = init.chain(&spec.containers);
        for files in all.flat_map(|container| directories(container, names).into_values()) {
            if volumes.0.contains_key(&files) {
                continue;
            }
            let name = used.unique(format!("files-{}", volumes.0.len()));
            let content = files.iter().filter_map(|(name, (volume, part))| {
                Some((name.clone(), names.file(volume, part)?.clone()))
            });
            translated.push(body::Volume {
                name: name.clone(),
                secret: Some(content.collect()),
                ..body::Volume::default()
            });
            volumes.0.insert(files, name);
        }
        volumes
    }

    /// The directory of the file that `mount` selects, and the name of the volume that shows it.
    ///
    /// # Errors
    ///
    /// Why ACI cannot mount the file, whatever the image has in that directory.
    pub(super) fn mount(
        &self,
        mount: &VolumeMount,
        container: &Container,
        names: &VolumeNames,
    ) -> Result<(String, String), String> {
        let Some((directory, file, _)) = mounted_file(mount, names) else {
            return Err(format!("'{}' is not a path of a file", mount.mount_path));
        };
        if file.starts_with("..") {
            return Err(format!("'{file}' is not a file name"));
        }
        if let Some(why) = unusable(&directory, container) {
            return Err(format!("ACI mounts whole volumes, and {directory} {why}"));
        }
        let others = container.volume_mounts.iter().flatten();
        let mut others = others.filter_map(|other| match mounted_file(other, names) {
            Some((other, ..)) => Some(other).filter(|other| *other != directory),
            None => clean(&other.mount_path),
        });
        let overlaps =
            |other: &String| is_within(other, &directory) || is_within(&directory, other);
        if let Some(other) = others.find(overlaps) {
            return Err(format!(
                "ACI mounts whole volumes, and {directory} overlaps another mount, {other}"
            ));
        }
        let files = directories(container, names).remove(&directory);
        let volume = files.and_then(|files| self.0.get(&files));
        // Every directory into which a container mounts files has a volume.
        let volume = volume.ok_or_else(|| format!("{directory} has no volume"))?;
        Ok((directory, volume.clone()))
    }
}

/// Why no container, or not this one, can do without what the image has in `directory`.
fn unusable(directory: &str, container: &Container) -> Option<String> {
    let of_kernel = OF_KERNEL.iter().any(|kernel| is_within(directory, kernel));
    if of_kernel || ESSENTIAL.contains(&directory) {
        return Some("is a directory that no image can do without".to_owned());
    }
    let command = container.command.iter().flatten().next();
    let command = command.and_then(|command| clean(command));
    let command = command.filter(|command| is_within(command, directory))?;
    Some(format!("has the container's command in it, {command}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_a_directory_and_a_name() {
        let split = |path| directory_and_name(path);
        let is = |directory: &str, name: &str| Some((directory.to_owned(), name.to_owned()));
        assert_eq!(
            split("/etc/nginx/nginx.conf"),
            is("/etc/nginx", "nginx.conf")
        );
        assert_eq!(split("//app/./conf/a.yaml/"), is("/app/conf", "a.yaml"));
        assert_eq!(split("/a"), is("/", "a"));
        for path in ["", "/", "/.", "a/b", "/a/../b"] {
            assert_eq!(split(path), None, "{path}");
        }
    }

    #[test]
    fn a_directory_contains_itself_and_what_is_below_it() {
        for (path, directory, within) in [
            ("/a", "/a", true),
            ("/a/b", "/a", true),
            ("/ab", "/a", false),
            ("/a", "/a/b", false),
            ("/a", "/", true),
        ] {
            assert_eq!(is_within(path, directory), within, "{path} {directory}");
        }
    }
}
