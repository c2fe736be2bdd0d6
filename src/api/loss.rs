//! Losses that a pool's author can accept: fields of pods that ACI does not keep, although the pod runs there.
//!
//! In: `spill.accept` of the pool and of its workloads. Out: a [`LossSet`], which also is the content of the
//! annotation [`NOT_KEPT_ANNOTATION`](super::names::NOT_KEPT_ANNOTATION) of a granted pod.

#![allow(
    clippy::doc_markdown,
    reason = "kubectl explain shows these comments as they stand"
)]

use std::collections::BTreeSet;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Something that pods ask for and ACI does not keep.
#[derive(
    JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
#[serde(rename_all = "camelCase")]
pub enum AcceptedLoss {
    /// An emptyDir in memory is a directory on the disk of the container group.
    EmptyDirMemory,
    /// Files of secret, configMap, projected and downwardAPI volumes, and emptyDir
    /// directories, have the mode that ACI gives them.
    FileModes,
    /// Processes and volumes do not get the group fsGroup.
    FsGroup,
    /// The root file system is writable.
    ReadOnlyRootFilesystem,
    /// A seccomp profile of the type Localhost is not applied.
    Seccomp,
    /// Containers do not see each other's processes.
    ShareProcessNamespace,
    /// A native sidecar starts and ends together with the containers, not before and
    /// after them.
    SidecarOrder,
    /// A file that is mounted by subPath comes with a volume that hides what the image has
    /// in the file's directory.
    SubPathHidesDirectory,
}

impl AcceptedLoss {
    /// All losses, in the order of their names.
    pub const ALL: [Self; 8] = [
        Self::EmptyDirMemory,
        Self::FileModes,
        Self::FsGroup,
        Self::ReadOnlyRootFilesystem,
        Self::Seccomp,
        Self::ShareProcessNamespace,
        Self::SidecarOrder,
        Self::SubPathHidesDirectory,
    ];

    /// The name in `spill.accept`.
    pub fn name(self) -> &'static str {
        match self {
            Self::EmptyDirMemory => "emptyDirMemory",
            Self::FileModes => "fileModes",
            Self::FsGroup => "fsGroup",
            Self::ReadOnlyRootFilesystem => "readOnlyRootFilesystem",
            Self::Seccomp => "seccomp",
            Self::ShareProcessNamespace => "shareProcessNamespace",
            Self::SidecarOrder => "sidecarOrder",
            Self::SubPathHidesDirectory => "subPathHidesDirectory",
        }
    }
}

impl fmt::Display for AcceptedLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of losses. `Display` writes it as the annotation has it: the names in alphabetical order, separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LossSet(BTreeSet<AcceptedLoss>);

/// The empty set: nothing is accepted.
pub static NO_LOSSES: LossSet = LossSet(BTreeSet::new());

impl LossSet {
    /// Whether the set has no losses.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `loss` is in the set.
    pub fn contains(&self, loss: AcceptedLoss) -> bool {
        self.0.contains(&loss)
    }

    /// Adds `loss`.
    pub fn insert(&mut self, loss: AcceptedLoss) {
        self.0.insert(loss);
    }

    /// The losses in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = AcceptedLoss> {
        self.0.iter().copied()
    }

    /// The losses in the value of an annotation. Names that this version does not know are left out.
    pub fn from_annotation(value: &str) -> Self {
        let known = |name: &str| {
            AcceptedLoss::ALL
                .into_iter()
                .find(|loss| loss.name() == name)
        };
        value
            .split(',')
            .filter_map(|name| known(name.trim()))
            .collect()
    }
}

impl FromIterator<AcceptedLoss> for LossSet {
    fn from_iter<I: IntoIterator<Item = AcceptedLoss>>(losses: I) -> Self {
        Self(losses.into_iter().collect())
    }
}

impl Extend<AcceptedLoss> for LossSet {
    fn extend<I: IntoIterator<Item = AcceptedLoss>>(&mut self, losses: I) {
        self.0.extend(losses);
    }
}

impl fmt::Display for LossSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, loss) in self.iter().enumerate() {
            write!(f, "{}{loss}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_resource_and_in_alphabetical_order() {
        let names = AcceptedLoss::ALL.map(AcceptedLoss::name);
        assert!(names.is_sorted(), "{names:?}");
        for loss in AcceptedLoss::ALL {
            assert_eq!(serde_json::to_value(loss).expect("a name"), loss.name());
        }
        let mut generator = schemars::SchemaGenerator::default();
        let schema = serde_json::to_string(&AcceptedLoss::json_schema(&mut generator));
        let schema = schema.expect("a schema");
        assert_eq!(
            schema.matches("\"const\"").count(),
            AcceptedLoss::ALL.len(),
            "{schema}"
        );
    }

    #[test]
    fn a_set_is_written_sorted_and_read_back() {
        let all: LossSet = AcceptedLoss::ALL.into_iter().rev().collect();
        assert_eq!(
            all.to_string(),
            "emptyDirMemory,fileModes,fsGroup,readOnlyRootFilesystem,seccomp,shareProcessNamespace,sidecarOrder,subPathHidesDirectory"
        );
        assert_eq!(LossSet::from_annotation(&all.to_string()), all);
        assert_eq!(LossSet::from_annotation(""), NO_LOSSES);
        let known = LossSet::from_annotation("runAsUser, fsGroup,,FsGroup");
        assert_eq!(known.to_string(), "fsGroup");
    }
}
