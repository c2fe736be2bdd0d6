//! How an emulator marks what it creates: labels on containers, and a directory.
//!
//! In: this process. Out: names, labels and paths; and whether the process that created other
//! containers is still alive. The kernel reuses process ids, so the mark includes the process's start
//! time. Both are only meaningful within one boot and process namespace, so the labels name these, too.
//! The emulator never touches what was created in another namespace or boot.

use std::collections::HashMap;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use uuid::Uuid;

use super::error::EngineError;
use super::listing::ListedContainer;
use crate::emulator::group::id::GroupKey;

/// `<process id>-<start time>` of the emulator that created the container.
pub const OWNER: &str = "burstpool.aci-emulator.owner";
/// Where that process id is valid: `<boot id>-<process namespace>`.
pub const PLACE: &str = "burstpool.aci-emulator.place";
/// The emulator's directory.
pub const DIRECTORY: &str = "burstpool.aci-emulator.directory";
/// The emulator's id. One process may run several emulators.
pub const INSTANCE: &str = "burstpool.aci-emulator.instance";
/// A hash of the container group's key.
pub const GROUP: &str = "burstpool.aci-emulator.group";
/// The container's name in the group; empty for the infra container.
pub const CONTAINER: &str = "burstpool.aci-emulator.container";

/// The prefix of the directories' names.
const PREFIX: &str = "aci-emulator-engine-";
/// The file in a directory that names its owner: process and place.
const OWNER_FILE: &str = "owner";

/// One emulator's identity. Drop removes its directory.
#[derive(Debug)]
pub struct EmulatorInstance {
    id: Uuid,
    owner: InstanceOwner,
    directory: PathBuf,
}

/// The process that created something.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InstanceOwner {
    /// `<process id>-<start time>`.
    pub process: String,
    /// `<boot id>-<process namespace>`. Empty if unknown.
    pub place: String,
}

impl EmulatorInstance {
    /// Creates an id and a directory for an emulator in this process.
    pub fn new() -> Result<Self, EngineError> {
        let (id, pid) = (Uuid::new_v4(), std::process::id());
        let started = started(pid).unwrap_or_default();
        let owner = InstanceOwner {
            process: format!("{pid}-{started}"),
            place: place(),
        };
        let directory = std::env::temp_dir().join(format!("{PREFIX}{}", id.simple()));
        let instance = Self {
            id,
            owner,
            directory,
        };
        let path = &instance.directory;
        // Volumes contain secrets: only the owner and the engine may enter the directory.
        fs::DirBuilder::new()
            .mode(0o700)
            .create(path)
            .and_then(|()| fs::write(path.join(OWNER_FILE), instance.owner.line()))
            .map_err(|source| EngineError::Files {
                path: path.clone(),
                source,
            })?;
        Ok(instance)
    }

    /// The emulator's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory of a group. Its name is a hash, because a group's name may contain any character.
    pub fn group_directory(&self, key: &GroupKey) -> PathBuf {
        self.directory
            .join("groups")
            .join(hash(key).simple().to_string())
    }

    /// A label filter that matches all containers of this emulator.
    pub fn label(&self) -> String {
        format!("{INSTANCE}={}", self.id)
    }

    /// A label filter that matches all containers of a group.
    pub fn group_label(key: &GroupKey) -> String {
        format!("{GROUP}={}", hash(key))
    }

    /// The name of a group's infra container. The names of the group's other containers start with it.
    pub fn infra_name(&self, key: &GroupKey) -> String {
        let (instance, group) = (self.id.simple().to_string(), hash(key).simple().to_string());
        // Leave out unusual characters; the hash keeps the name unique.
        let plain: String = key
            .name
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
            .collect();
        format!("aci.{}.{plain}.{}", &instance[..8], &group[..8])
    }

    /// The name of a container of a group.
    pub fn container_name(&self, key: &GroupKey, container: &str) -> String {
        format!("{}.{container}", self.infra_name(key))
    }

    /// The labels of a container. For the infra container, `container` is empty.
    pub fn labels(&self, key: &GroupKey, container: &str) -> HashMap<String, String> {
        [
            (OWNER, self.owner.process.clone()),
            (PLACE, self.owner.place.clone()),
            (DIRECTORY, self.directory.to_string_lossy().into_owned()),
            (INSTANCE, self.id.to_string()),
            (GROUP, hash(key).to_string()),
            (CONTAINER, container.to_owned()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }
}

impl Drop for EmulatorInstance {
    fn drop(&mut self) {
        remove_directory(&self.directory);
    }
}

impl InstanceOwner {
    /// The owner of a container, from its labels. `None` if they are missing.
    pub fn of(container: &ListedContainer) -> Option<Self> {
        let label = |name| container.label(name).map(str::to_owned);
        Some(Self {
            process: label(OWNER)?,
            place: label(PLACE)?,
        })
    }

    /// Whether the process has certainly ended. `false` if this cannot be decided.
    pub fn is_dead(&self) -> bool {
        let parts = self.process.split_once('-');
        let Some((Ok(pid), Ok(start))) =
            parts.map(|(pid, start)| (pid.parse(), start.parse::<u64>()))
        else {
            return false;
        };
        !self.place.is_empty() && self.place == place() && started(pid) != Some(start)
    }

    fn line(&self) -> String {
        format!("{} {}", self.process, self.place)
    }

    fn read(directory: &Path) -> Option<Self> {
        let text = fs::read_to_string(directory.join(OWNER_FILE)).ok()?;
        let (process, place) = text.split_once(' ')?;
        Some(Self {
            process: process.to_owned(),
            place: place.to_owned(),
        })
    }
}

/// Directories whose emulator has ended without removing them: those in the temporary directory, and
/// those in `named`.
pub fn orphaned_directories(named: impl Iterator<Item = PathBuf>) -> Vec<PathBuf> {
    let temporary = fs::read_dir(std::env::temp_dir()).into_iter().flatten();
    let mut directories: Vec<PathBuf> = temporary
        .filter_map(|entry| Some(entry.ok()?.path()))
        .chain(named)
        .collect();
    directories.sort();
    directories.dedup();
    // A label can contain any path: accept only directories with the right name and owner file.
    directories.retain(|path| {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        name.starts_with(PREFIX) && InstanceOwner::read(path).is_some_and(|owner| owner.is_dead())
    });
    directories
}

/// Removes a directory, and logs if this fails: an emulator that does not run as root may not be
/// allowed to remove files of a container's user.
pub fn remove_directory(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %path.display(), "cannot remove a directory");
        }
        _ => {}
    }
}

fn hash(key: &GroupKey) -> Uuid {
    let text = format!("{}/{}/{}", key.subscription, key.resource_group, key.name);
    Uuid::new_v5(&Uuid::NAMESPACE_URL, text.as_bytes())
}

/// The start time of a live process, in clock ticks since the boot: field 22 of `proc_pid_stat(5)`.
/// `None` for a process that has ended, including zombies.
fn started(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the program's name in brackets, may contain blanks and brackets.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    match fields.first() {
        Some(&("Z" | "X")) | None => None,
        Some(_) => fields.get(19)?.parse().ok(),
    }
}

/// This process's boot id and process namespace. Empty if they cannot be read.
fn place() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let namespace = fs::read_link("/proc/self/ns/pid");
    match (boot, namespace) {
        (Ok(boot), Ok(namespace)) => {
            let digits = |c: &char| c.is_ascii_digit();
            let namespace: String = namespace.to_string_lossy().chars().filter(digits).collect();
            format!("{}-{namespace}", boot.trim())
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_with_a_different_start_time_on_this_machine_is_dead() {
        let pid = std::process::id();
        let start = started(pid).expect("this process runs");
        let owner = |process: String, place: String| InstanceOwner { process, place };
        assert!(!owner(format!("{pid}-{start}"), place()).is_dead());
        assert!(owner(format!("{pid}-{}", start + 1), place()).is_dead());
        assert!(!owner(format!("{pid}-{}", start + 1), "elsewhere".into()).is_dead());
        assert!(!owner("nonsense".into(), place()).is_dead());
    }

    #[test]
    fn only_the_directory_of_a_dead_owner_is_found() {
        let living = EmulatorInstance::new().expect("a directory");
        let dead = EmulatorInstance::new().expect("a directory");
        let line = InstanceOwner {
            process: "1-1".into(),
            place: place(),
        }
        .line();
        fs::write(dead.directory.join(OWNER_FILE), line).expect("the file is written");
        let found = orphaned_directories(std::iter::once(PathBuf::from("/")));
        assert!(found.contains(&dead.directory) && !found.contains(&living.directory));
        assert!(!found.contains(&PathBuf::from("/")));
    }
}
