//! Translates containers and init containers.
//!
//! In: the pod's containers, and the names of its volumes in the group. Out: the containers of the group with their
//! ports, or refusals. A native sidecar is an ordinary container of the group.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::body::{self, ContainerProperties, Port};
use super::env::{ContainerEnv, environment};
use super::network::ports;
use super::pod::TranslationContext;
use super::probes::probes;
use super::refusals::Refusals;
use super::resolved_references::KnownImage;
use super::security::security_context;
use super::volumes::{VolumeNames, volume_mounts};
use crate::aci::image::{
    RequiredImageField, WorkingDirMatch, container_command, working_dir_match,
};
use crate::aci::pre_stop::PreStopHook;
use crate::k8s::containers::is_sidecar;

/// The most containers in a group, including init containers (a hard limit; quotas page of 2025-11).
const MAX_CONTAINERS: usize = 60;

/// All containers of a group.
#[derive(Debug, Default)]
pub(super) struct GroupContainers {
    pub(super) init: Vec<body::Container>,
    pub(super) main: Vec<body::Container>,
    /// The ports of all containers.
    pub(super) ports: BTreeSet<Port>,
}

/// All containers, init containers first, each with its field path. The index is the place among the containers that
/// last as long as the pod ([`lasting_containers`](crate::k8s::containers::lasting_containers)); `None` for the init
/// containers that end before these start.
pub(super) fn all_containers<'a>(
    context: &TranslationContext<'a>,
) -> impl Iterator<Item = (String, &'a Container, Option<usize>)> {
    let main = &context.spec.containers;
    let mut lasting = main.len();
    let init = context.spec.init_containers.iter().flatten().enumerate();
    let init = init.map(move |(index, container)| {
        let place = is_sidecar(container).then_some(lasting);
        lasting += usize::from(place.is_some());
        (format!("spec.initContainers[{index}]"), container, place)
    });
    let main = main.iter().enumerate();
    let main = main.map(|(index, c)| (format!("spec.containers[{index}]"), c, Some(index)));
    init.chain(main)
}

/// Translates the containers of a pod. `names` maps the pod's volumes to volume names in the group.
pub(super) fn containers(
    context: &TranslationContext<'_>,
    names: &VolumeNames,
    refusals: &mut Refusals,
) -> GroupContainers {
    let mut containers = GroupContainers::default();
    let count = all_containers(context).count();
    let has_containers = !context.spec.containers.is_empty();
    refusals.require(
        has_containers,
        "spec.containers",
        "the pod has no containers",
    );
    refusals.require(
        count <= MAX_CONTAINERS,
        "spec.containers",
        "a group has 60 containers at most",
    );
    let mut seen = BTreeSet::new();
    for (at, container, index) in all_containers(context) {
        let is_unique = seen.insert(&container.name);
        let why = format!("'{}' is used twice", container.name);
        refusals.require(is_unique, format!("{at}.name"), why);
        let mut properties = common_properties(container, &at, context, names, refusals);
        if let Some(index) = index {
            let in_subnet = context.placement.is_in_subnet();
            let taken = &mut containers.ports;
            properties.ports = ports((container, in_subnet), &at, taken, refusals);
            properties.resources = context.sizes.container_resources(index);
            (properties.liveness_probe, properties.readiness_probe) =
                probes(container, in_subnet, &at, refusals);
            if let Err(error) = PreStopHook::of(container, in_subnet, &at) {
                refusals.refuse(error.field, error.why);
            }
        }
        let list = if index.is_some() {
            &mut containers.main
        } else {
            &mut containers.init
        };
        list.push(body::Container {
            name: container.name.clone(),
            properties,
        });
    }
    containers
}

/// The properties that containers and init containers have in common.
fn common_properties(
    container: &Container,
    at: &str,
    context: &TranslationContext<'_>,
    names: &VolumeNames,
    refusals: &mut Refusals,
) -> ContainerProperties {
    let name = &container.name;
    let why = format!("'{name}': ACI accepts 1 to 63 lower-case letters, digits and inner hyphens");
    refusals.require(is_container_name(name), format!("{at}.name"), why);
    let image = container.image.as_deref().unwrap_or_default();
    refusals.require(
        !image.trim().is_empty(),
        format!("{at}.image"),
        "the image is missing",
    );
    check_restart_policy(container, at, context.spec, refusals);
    let known = known_image(container, context);
    check_working_dir(container, at, known, refusals);
    let environment = environment(container, at, context, refusals);
    ContainerProperties {
        image: match known {
            KnownImage::Read(read) => read.pinned.clone(),
            _ => image.to_owned(),
        },
        command: command_line(container, at, (&environment, known), refusals),
        environment_variables: environment.into_body(),
        volume_mounts: volume_mounts(container, at, names, refusals),
        security_context: security_context(container, at, context, known, refusals),
        ..ContainerProperties::default()
    }
}

/// Refuses a restart policy of a container that is not its pod's, and a sidecar that the others cannot do without.
fn check_restart_policy(container: &Container, at: &str, spec: &PodSpec, refusals: &mut Refusals) {
    let field = format!("{at}.restartPolicy");
    let of_pod = spec.restart_policy.as_deref().unwrap_or("Always");
    let own = container.restart_policy.as_deref().unwrap_or_default();
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let place = init.iter().position(|other| std::ptr::eq(other, container));
    let Some(place) = place.filter(|_| is_sidecar(container)) else {
        refusals.require(
            own == of_pod || own.is_empty(),
            field,
            "ACI restarts all containers of a group by one policy",
        );
        return;
    };
    if of_pod != "Always" {
        let why = format!(
            "the pod ends (its restartPolicy is {of_pod}), and a container group ends only when all of its containers \
             have: the sidecar would keep it running and billed"
        );
        refusals.refuse(field, why);
    } else if let Some(next) = init[place..].iter().find(|next| !is_sidecar(next)) {
        let why = format!(
            "the init container '{}' comes after the sidecar and may need it, and ACI ends all init containers before \
             any other container starts",
            next.name
        );
        refusals.refuse(field, why);
    }
}

/// What is known of the image's configuration, if the container needs it.
fn known_image<'a>(container: &Container, context: &TranslationContext<'a>) -> KnownImage<'a> {
    let needs = RequiredImageField::of(container, context.spec.security_context.as_ref());
    if needs.is_empty() || !context.placement.reads_images() {
        return KnownImage::Nothing;
    }
    let image = container.image.as_deref().unwrap_or_default();
    context.values.image(image)
}

/// Refuses a working directory that is not the image's.
fn check_working_dir(
    container: &Container,
    at: &str,
    known: KnownImage<'_>,
    refusals: &mut Refusals,
) {
    const WHY: &str = "ACI starts a container in its image's working directory";
    let dir = container.working_dir.as_deref().unwrap_or_default();
    let why = match known {
        _ if dir.is_empty() => return,
        KnownImage::ReadLater => return,
        KnownImage::Nothing => WHY.to_owned(),
        KnownImage::Read(read) => match working_dir_match(container, &read.config) {
            WorkingDirMatch::OfImage => return,
            WorkingDirMatch::Differs(of_image) => format!("{WHY}, which is {of_image}"),
        },
    };
    refusals.refuse(format!("{at}.workingDir"), why);
}

/// Joins `command` and `args` to one command line and expands variables in it. If there are only `args`, the image's
/// entrypoint is the start of the line.
fn command_line(
    container: &Container,
    at: &str,
    (environment, known): (&ContainerEnv, KnownImage<'_>),
    refusals: &mut Refusals,
) -> Vec<String> {
    let command = container.command.as_deref().unwrap_or_default();
    let args = container.args.as_deref().unwrap_or_default();
    let is_known = !matches!(known, KnownImage::Nothing);
    refusals.require(
        !command.is_empty() || args.is_empty() || is_known,
        format!("{at}.args"),
        "ACI accepts only a whole command line, which replaces the image's entrypoint: add command",
    );
    let mut expand = |list: &str, parts: &[String]| {
        let mut expanded = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            match environment.expand_command(part) {
                Ok(part) => expanded.push(part),
                Err(why) => refusals.refuse(format!("{at}.{list}[{index}]"), why),
            }
        }
        expanded
    };
    let (command, args) = (expand("command", command), expand("args", args));
    match known {
        KnownImage::Read(read) => container_command(&command, &args, &read.config),
        _ => [command, args].concat(),
    }
}

fn is_container_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&name.len())
        && name.bytes().all(plain)
        && !name.starts_with('-')
        && !name.ends_with('-')
}
