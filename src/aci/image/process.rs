//! The process of a container, as the pod's fields and the image's configuration define it together.
//!
//! In: a container, the security context of its pod, and the configuration of its image. Out: the command for the
//! group's body, and whether the container may run. Pure.
//!
//! ACI's `command` replaces the image's entrypoint and arguments together, and ACI has no field for arguments alone
//! (<https://learn.microsoft.com/azure/container-instances/container-instances-start-command>). Kubernetes keeps the
//! two apart:
//!
//! | the container has | process on a node | `command` for ACI |
//! | --- | --- | --- |
//! | neither | entrypoint and arguments of the image | none: ACI uses the image's |
//! | `command` | `command` | `command` |
//! | `command` and `args` | `command`, `args` | both, joined |
//! | `args` | the image's entrypoint, `args` | both, joined |
//!
//! An image's entrypoint of one empty word counts as none, as for containerd
//! (`WithProcessArgs` in `internal/cri/opts`). Only the pod's part may contain references to variables (`$(NAME)`): the caller expands them before. The image's
//! part is used as it is.

use k8s_openapi::api::core::v1::{Container, PodSecurityContext};

use super::config::ImageConfig;
use super::error::shortened;

/// What a container needs of its image's configuration. Images of containers without needs are not read, so that
/// their pods do not depend on a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RequiredImageField {
    /// `args` without `command`: the entrypoint.
    Entrypoint,
    /// `runAsNonRoot` without `runAsUser`: the user.
    User,
    /// `workingDir`: the image's working directory, to compare.
    WorkingDir,
}

impl RequiredImageField {
    /// The field that causes the need, relative to the container.
    pub const fn field(self) -> &'static str {
        match self {
            Self::Entrypoint => "args",
            Self::User => "securityContext.runAsNonRoot",
            Self::WorkingDir => "workingDir",
        }
    }

    /// What `container` needs. `pod` is its pod's security context, which applies where the container has none.
    pub fn of(container: &Container, pod: Option<&PodSecurityContext>) -> Vec<Self> {
        let has = |list: &Option<Vec<String>>| list.iter().flatten().next().is_some();
        let mut needs = Vec::new();
        if has(&container.args) && !has(&container.command) {
            needs.push(Self::Entrypoint);
        }
        let user = EffectiveUser::of(container, pod);
        if user.run_as_non_root && user.run_as_user.is_none() {
            needs.push(Self::User);
        }
        if container
            .working_dir
            .as_ref()
            .is_some_and(|dir| !dir.is_empty())
        {
            needs.push(Self::WorkingDir);
        }
        needs
    }
}

/// The command for ACI; empty if ACI must use the image's own. `command` and `args` are those of the container, with
/// variables expanded.
pub fn container_command(command: &[String], args: &[String], image: &ImageConfig) -> Vec<String> {
    let is_none = matches!(&image.entrypoint[..], [word] if word.is_empty());
    if command.is_empty() && !args.is_empty() && !is_none {
        return [&image.entrypoint, args].concat();
    }
    [command, args].concat()
}

/// The settings for the user of a container, as the API documents them: those of the container, else the pod's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct EffectiveUser {
    run_as_user: Option<i64>,
    run_as_non_root: bool,
}

impl EffectiveUser {
    fn of(container: &Container, pod: Option<&PodSecurityContext>) -> Self {
        let context = container.security_context.as_ref();
        let user = context.and_then(|context| context.run_as_user);
        let non_root = context.and_then(|context| context.run_as_non_root);
        Self {
            run_as_user: user.or(pod.and_then(|pod| pod.run_as_user)),
            run_as_non_root: non_root
                .or(pod.and_then(|pod| pod.run_as_non_root))
                .unwrap_or(false),
        }
    }
}

/// The kubelet's reason for a container that `runAsNonRoot` forbids.
pub const CREATE_CONTAINER_CONFIG_ERROR: &str = "CreateContainerConfigError";

/// Why `runAsNonRoot` forbids a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NonRootRefusal {
    /// `runAsUser` is 0.
    RunAsRoot,
    /// The image's user is root, or the image names none.
    ImageIsRoot,
    /// The image's user is a name (its beginning). Only the files in the image tell its number.
    ImageUserIsName(String),
    /// The image's user is no valid number of a user.
    ImageUserIsInvalid(i64),
}

impl NonRootRefusal {
    /// The kubelet's message. `pod` is written as `name_namespace(uid)`.
    pub fn message(&self, pod: &str, container: &str) -> String {
        let container_id = format!("(pod: {pod:?}, container: {container})");
        match self {
            Self::RunAsRoot => {
                format!("container's runAsUser breaks non-root policy {container_id}")
            }
            Self::ImageIsRoot => {
                format!("container has runAsNonRoot and image will run as root {container_id}")
            }
            Self::ImageUserIsName(name) => {
                format!(
                    "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is \
                     non-root {container_id}"
                )
            }
            Self::ImageUserIsInvalid(number) => format!(
                "container has runAsNonRoot and image has an invalid user id ({number}). (Must be 1-({max})): must be \
                 between 0 and {max}, inclusive {container_id}",
                max = i32::MAX
            ),
        }
    }
}

/// The user of an image, by number. The group's body gets it, so that ACI runs the container as the user that was
/// checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageUser {
    /// The user, from 1 to 2147483647.
    pub user: i32,
    /// The group, from 0 to 2147483647, if the image has one as a number.
    pub group: Option<i32>,
}

/// Decides `runAsNonRoot` as the kubelet does (`verifyRunAsNonRoot` in `pkg/kubelet/kuberuntime` of Kubernetes 1.37).
/// `image` is the configuration of the container's image; it is used only where [`RequiredImageField::User`] is a need. Returns
/// the image's user if it decided.
pub fn verify_run_as_non_root(
    container: &Container,
    pod: Option<&PodSecurityContext>,
    image: &ImageConfig,
) -> Result<Option<ImageUser>, NonRootRefusal> {
    let user = EffectiveUser::of(container, pod);
    match (user.run_as_non_root, user.run_as_user) {
        (true, Some(0)) => Err(NonRootRefusal::RunAsRoot),
        (false, _) | (true, Some(_)) => Ok(None),
        (true, None) => check_image_user(&image.user).map(Some),
    }
}

/// Parses the user as containerd's CRI plugin does: the part before the colon, as a decimal number if it is one.
fn check_image_user(user: &str) -> Result<ImageUser, NonRootRefusal> {
    let mut parts = user.split(':');
    let user = parts.next().unwrap_or_default();
    let group = parts.next().and_then(|group| group.parse::<i32>().ok());
    let group = group.filter(|group| *group >= 0);
    match user.parse::<i64>() {
        Ok(0) => Err(NonRootRefusal::ImageIsRoot),
        Ok(number) => match i32::try_from(number) {
            Ok(user) if user > 0 => Ok(ImageUser { user, group }),
            _ => Err(NonRootRefusal::ImageUserIsInvalid(number)),
        },
        Err(_) if user.is_empty() => Err(NonRootRefusal::ImageIsRoot),
        Err(_) => Err(NonRootRefusal::ImageUserIsName(shortened(user))),
    }
}

/// How a container's `workingDir` relates to the image's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkingDirMatch {
    /// The container starts in the image's working directory: ACI needs no setting.
    OfImage,
    /// The container starts elsewhere, which ACI has no setting for. This is the beginning of the image's working
    /// directory.
    Differs(String),
}

/// Compares a container's `workingDir` with the image's.
pub fn working_dir_match(container: &Container, image: &ImageConfig) -> WorkingDirMatch {
    let wanted = container.working_dir.as_deref().unwrap_or_default();
    let of_image = image.working_dir();
    // A runtime does not start a container in a relative directory.
    let is_same =
        wanted.starts_with('/') == of_image.starts_with('/') && clean(wanted) == clean(of_image);
    if wanted.is_empty() || is_same {
        return WorkingDirMatch::OfImage;
    }
    WorkingDirMatch::Differs(shortened(of_image))
}

/// The parts of a path without empty ones and `.`. `..` stays: what it leads to depends on links in the image.
fn clean(path: &str) -> Vec<&str> {
    let parts = path.split('/');
    parts.filter(|part| !matches!(*part, "" | ".")).collect()
}

#[cfg(test)]
mod tests;
