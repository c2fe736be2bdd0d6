//! One emulator's mark on what it makes: labels of containers, and its directory.
//!
//! In: this process. Out: names, labels and paths, and whether the process that made other things
//! is still alive. A process id alone says nothing, as it is used again: its start time goes with
//! it. Both mean something only to whoever sees the same processes, so the labels also name the
//! machine's boot and the process namespace; things of another place are never judged.

use std::collections::HashMap;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use uuid::Uuid;

use super::error::Error;
use super::listing::Listed;
use crate::emulator::group::id::GroupKey;

/// `<process id>-<its start time>` of the emulator that made a container.
pub const OWNER: &str = "burstpool.aci-emulator.owner";
/// Which processes that emulator sees: `<boot id>-<process namespace>`.
pub const PLACE: &str = "burstpool.aci-emulator.place";
/// The directory of that emulator.
pub const DIRECTORY: &str = "burstpool.aci-emulator.directory";
/// Which emulator it is, as a process may have several.
pub const INSTANCE: &str = "burstpool.aci-emulator.instance";
/// The container group.
pub const GROUP: &str = "burstpool.aci-emulator.group";
/// The container's name in the group; empty for the infra container.
pub const CONTAINER: &str = "burstpool.aci-emulator.container";

/// How the directories' names begin.
const PREFIX: &str = "aci-emulator-engine-";
/// The file in a directory that says whose it is: owner and place.
const OWNER_FILE: &str = "owner";

/// One emulator. Its directory goes with the value.
#[derive(Debug)]
pub struct Instance {
    id: Uuid,
    owner: Owner,
    directory: PathBuf,
}

/// Whose something is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Process id and start time.
    pub process: String,
    /// Which processes it sees.
    pub place: String,
}

impl Instance {
    /// This process, with a new directory.
    pub fn new() -> Result<Self, Error> {
        let (id, pid) = (Uuid::new_v4(), std::process::id());
        let started = started(pid).unwrap_or_default();
        let owner = Owner {
            process: format!("{pid}-{started}"),
            place: place(),
        };
        let directory = std::env::temp_dir().join(format!("{PREFIX}{}", id.simple()));
        let made = Self {
            id,
            owner,
            directory,
        };
        let path = &made.directory;
        // Only the engine, and through it the containers, reach below: volumes hold secrets.
        fs::DirBuilder::new()
            .mode(0o700)
            .create(path)
            .and_then(|()| fs::write(path.join(OWNER_FILE), made.owner.line()))
            .map_err(|source| Error::Files {
                path: path.clone(),
                source,
            })?;
        Ok(made)
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory of a group, whose name may hold anything.
    pub fn group_directory(&self, key: &GroupKey) -> PathBuf {
        self.directory
            .join("groups")
            .join(hash(key).simple().to_string())
    }

    /// The label that all its containers carry.
    pub fn label(&self) -> String {
        format!("{INSTANCE}={}", self.id)
    }

    /// The label that all containers of a group carry.
    pub fn group_label(key: &GroupKey) -> String {
        format!("{GROUP}={}", hash(key))
    }

    /// The name of a group's infra container, with which those of the others begin.
    pub fn infra_name(&self, key: &GroupKey) -> String {
        let (instance, group) = (self.id.simple().to_string(), hash(key).simple().to_string());
        // Validated names are plain; what is not is left out, the hash tells groups apart.
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

    /// The labels of a container; the infra container's has no name.
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

impl Drop for Instance {
    fn drop(&mut self) {
        remove_directory(&self.directory);
    }
}

impl Owner {
    /// Whose a container is, by its labels.
    pub fn of(container: &Listed) -> Option<Self> {
        let label = |name| container.label(name).map(str::to_owned);
        Some(Self {
            process: label(OWNER)?,
            place: label(PLACE)?,
        })
    }

    /// Whether it is certain that the process has ended.
    pub fn is_dead(&self) -> bool {
        let parts = self.process.split_once('-');
        let Some((Ok(pid), Ok(began))) =
            parts.map(|(pid, began)| (pid.parse(), began.parse::<u64>()))
        else {
            return false;
        };
        !self.place.is_empty() && self.place == place() && started(pid) != Some(began)
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

/// Directories of emulators that have ended without removing them: those in the temporary
/// directory, and those that labels name.
pub fn orphaned_directories(named: impl Iterator<Item = PathBuf>) -> Vec<PathBuf> {
    let here = fs::read_dir(std::env::temp_dir()).into_iter().flatten();
    let mut found: Vec<PathBuf> = here
        .filter_map(|entry| Some(entry.ok()?.path()))
        .chain(named)
        .collect();
    found.sort();
    found.dedup();
    // A label is only text: a directory without the right name and owner is nobody's.
    found.retain(|path| {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        name.starts_with(PREFIX) && Owner::read(path).is_some_and(|owner| owner.is_dead())
    });
    found
}

/// Removes a directory and says so if it cannot be: files of a container's user may be beyond an
/// emulator that is not root.
pub fn remove_directory(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %path.display(), "removing a directory");
        }
        _ => {}
    }
}

fn hash(key: &GroupKey) -> Uuid {
    let text = format!("{}/{}/{}", key.subscription, key.resource_group, key.name);
    Uuid::new_v5(&Uuid::NAMESPACE_URL, text.as_bytes())
}

/// When a living process started, in clock ticks since the boot: field 22 of `proc_pid_stat(5)`. A
/// zombie has ended.
fn started(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets, and may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    match fields.first() {
        Some(&("Z" | "X")) | None => None,
        Some(_) => fields.get(19)?.parse().ok(),
    }
}

/// Which processes this one sees; nothing where it cannot be told.
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
    fn only_a_process_of_this_place_whose_start_differs_is_dead() {
        let pid = std::process::id();
        let began = started(pid).expect("this process runs");
        let owner = |process: String, place: String| Owner { process, place };
        assert!(!owner(format!("{pid}-{began}"), place()).is_dead());
        assert!(owner(format!("{pid}-{}", began + 1), place()).is_dead());
        assert!(!owner(format!("{pid}-{}", began + 1), "elsewhere".into()).is_dead());
        assert!(!owner("nonsense".into(), place()).is_dead());
    }

    #[test]
    fn a_directory_of_a_dead_owner_is_found_and_a_living_ones_is_not() {
        let living = Instance::new().expect("a directory");
        let dead = Instance::new().expect("a directory");
        let line = Owner {
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
