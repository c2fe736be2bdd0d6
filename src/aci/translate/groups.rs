//! Whether a pod's additional groups (`fsGroup`, `supplementalGroups`) can have an effect.
//!
//! In: a pod's spec. Out: whether it runs in the same way without these groups, which ACI does not have. The field
//! table then accepts them.
//!
//! A kubelet uses `fsGroup` in two ways (`pkg/volume/volume_linux.go` and `pkg/securitycontext` of Kubernetes
//! 1.37): it gives the files of a volume to the group, and it adds the group to every process. `fsGroupChangePolicy`
//! only says when the kubelet changes the files. By the kind of volume:
//!
//! | volume | on a node | on ACI |
//! | --- | --- | --- |
//! | emptyDir, gitRepo | the group owns the directory, and new files inherit the group | owned by root |
//! | secret, configMap, projected, downwardAPI | the group may read the files, whatever their mode | owned by root |
//! | Azure Files | a mount option; everyone may read and write (mode 0777) | everyone may read and write |
//!
//! So the group of an emptyDir or gitRepo volume matters to every process but root, which owns it on ACI. Files with
//! content matter only where their mode does not let others read them: with 0644, the default, a process reads them
//! with and without the group; a file with 0400 or 0440 is root's, and only the group gives it to another user. The
//! token of a service account has no mode of its own, and every process of the pod may read it in both places. A volume
//! that a container does not mount does not matter to that container.
//!
//! A group also gives access to files of the image, and no field of the pod tells the group of these files. `fsGroup`
//! is for volumes, so it is accepted without regard to them, unless it is 0: many images give group 0 access to their
//! files on purpose, so that they run as any user. `supplementalGroups` has no purpose beyond access to files, so it is
//! accepted only if each container is a member anyway (`runAsGroup`), or is root with the right to pass over
//! permissions (`CAP_DAC_OVERRIDE`).
//!
//! A container counts as root only if the pod says so (`runAsUser: 0`). The user of an image is known only after the
//! grant, which is too late: the pod would fail on ACI although it runs on one of the cluster's own nodes.

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, Container, DownwardAPIVolumeFile, KeyToPath, PodSpec, SecretProjection,
    Volume, VolumeProjection,
};

use super::security::drops_capability;

/// The bit of a file's mode that lets others read it.
const OTHERS_READ: i32 = 0o004;

/// Whether the pod runs in the same way without its `fsGroup`.
pub(super) fn fs_group_has_no_effect(spec: &PodSpec) -> bool {
    let group = spec.security_context.as_ref().and_then(|pod| pod.fs_group);
    group.is_none_or(|group| {
        containers(spec).all(|container| {
            let image_files = group == 0 && !passes_without(group, container, spec);
            !image_files
                && (is_root(container, spec) || !mounted(container, spec).any(depends_on_group))
        })
    })
}

/// Whether the pod runs in the same way without its `supplementalGroups`.
pub(super) fn supplemental_groups_have_no_effect(spec: &PodSpec) -> bool {
    let pod = spec.security_context.as_ref();
    let groups = pod.and_then(|pod| pod.supplemental_groups.as_deref());
    groups
        .unwrap_or_default()
        .iter()
        .all(|group| containers(spec).all(|container| passes_without(*group, container, spec)))
}

fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    let init = spec.init_containers.iter().flatten();
    init.chain(&spec.containers)
}

/// Whether the pod says that the container runs as root.
fn is_root(container: &Container, spec: &PodSpec) -> bool {
    let own = container.security_context.as_ref();
    let own = own.and_then(|own| own.run_as_user);
    let pod = spec.security_context.as_ref();
    own.or(pod.and_then(|pod| pod.run_as_user)) == Some(0)
}

/// Whether the container has the access of members of `group` without an additional group.
fn passes_without(group: i64, container: &Container, spec: &PodSpec) -> bool {
    let own = container.security_context.as_ref();
    let pod = spec.security_context.as_ref();
    let primary = own.and_then(|own| own.run_as_group);
    let primary = primary.or(pod.and_then(|pod| pod.run_as_group));
    let is_root = is_root(container, spec);
    // Without runAsGroup, the group of root is 0.
    let primary = primary.or(is_root.then_some(0));
    let capabilities = own.and_then(|own| own.capabilities.as_ref());
    primary == Some(group) || (is_root && !drops_capability(capabilities, "CAP_DAC_OVERRIDE"))
}

/// The volumes that the container mounts.
fn mounted<'a>(container: &'a Container, spec: &'a PodSpec) -> impl Iterator<Item = &'a Volume> {
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    let volumes = spec.volumes.iter().flatten();
    volumes.filter(move |volume| mounts.iter().any(|mount| mount.name == volume.name))
}

/// Whether a user other than root may need the group for this volume.
fn depends_on_group(volume: &Volume) -> bool {
    let is_share = volume.azure_file.is_some()
        || volume.csi.is_some()
        || volume.persistent_volume_claim.is_some();
    match content_modes(volume) {
        Some(modes) => modes.iter().any(|mode| mode & OTHERS_READ == 0),
        None => !is_share,
    }
}

/// The modes that a volume with content sets; `None` for other volumes. Where it sets none, the mode is 0644.
fn content_modes(volume: &Volume) -> Option<Vec<i32>> {
    let (default, items) = if let Some(secret) = &volume.secret {
        (secret.default_mode, key_modes(secret.items.as_ref()))
    } else if let Some(map) = &volume.config_map {
        (map.default_mode, key_modes(map.items.as_ref()))
    } else if let Some(downward) = &volume.downward_api {
        (downward.default_mode, file_modes(downward.items.as_ref()))
    } else {
        let projected = volume.projected.as_ref()?;
        let sources = projected.sources.iter().flatten();
        (
            projected.default_mode,
            sources.flat_map(source_modes).collect(),
        )
    };
    Some(default.into_iter().chain(items).collect())
}

fn source_modes(source: &VolumeProjection) -> Vec<i32> {
    let secret = source.secret.as_ref();
    let secret = secret.and_then(|SecretProjection { items, .. }| items.as_ref());
    let map = source.config_map.as_ref();
    let map = map.and_then(|ConfigMapProjection { items, .. }| items.as_ref());
    let downward = source.downward_api.as_ref();
    let downward = downward.and_then(|downward| downward.items.as_ref());
    [key_modes(secret), key_modes(map), file_modes(downward)].concat()
}

fn key_modes(items: Option<&Vec<KeyToPath>>) -> Vec<i32> {
    items
        .into_iter()
        .flatten()
        .filter_map(|item| item.mode)
        .collect()
}

fn file_modes(items: Option<&Vec<DownwardAPIVolumeFile>>) -> Vec<i32> {
    items
        .into_iter()
        .flatten()
        .filter_map(|item| item.mode)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A pod with the pod-level context `pod` and one container with `container`, which mounts `volume`.
    fn spec(pod: &Value, container: &Value, volume: &Value) -> PodSpec {
        let mut mounted = container.clone();
        mounted["name"] = "a".into();
        let mut volumes = vec![];
        if !volume.is_null() {
            mounted["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
            let mut volume = volume.clone();
            volume["name"] = "v".into();
            volumes.push(volume);
        }
        // This volume is mounted by no container.
        volumes.push(json!({"name": "unused", "emptyDir": {}}));
        let spec = json!({"securityContext": pod, "containers": [mounted], "volumes": volumes});
        serde_json::from_value(spec).expect("a pod")
    }

    fn root() -> Value {
        json!({"securityContext": {"runAsUser": 0}})
    }

    #[test]
    fn a_volume_decides_whether_the_group_matters_to_a_user_other_than_root() {
        let token = json!({"serviceAccountToken": {"path": "token"}});
        let items = |mode: i32| json!([{"key": "k", "path": "k", "mode": mode}]);
        for (volume, has_no_effect) in [
            (Value::Null, true),
            (json!({"emptyDir": {}}), false),
            (json!({"gitRepo": {"repository": "x"}}), false),
            (
                json!({"azureFile": {"secretName": "s", "shareName": "x"}}),
                true,
            ),
            (json!({"csi": {"driver": "file.csi.azure.com"}}), true),
            (json!({"persistentVolumeClaim": {"claimName": "c"}}), true),
            (json!({"hostPath": {"path": "/"}}), false),
            (json!({"secret": {"secretName": "s"}}), true),
            (
                json!({"secret": {"secretName": "s", "defaultMode": 0o644}}),
                true,
            ),
            (
                json!({"secret": {"secretName": "s", "defaultMode": 0o444}}),
                true,
            ),
            (
                json!({"secret": {"secretName": "s", "defaultMode": 0o400}}),
                false,
            ),
            (
                json!({"secret": {"secretName": "s", "defaultMode": 0o440}}),
                false,
            ),
            (
                json!({"secret": {"secretName": "s", "defaultMode": 0}}),
                false,
            ),
            (
                json!({"secret": {"secretName": "s", "items": items(0o400)}}),
                false,
            ),
            (
                json!({"configMap": {"name": "m", "items": items(0o600)}}),
                false,
            ),
            (
                json!({"configMap": {"name": "m", "items": items(0o755)}}),
                true,
            ),
            (
                json!({"downwardAPI": {"items": [{"path": "p", "mode": 0o400}]}}),
                false,
            ),
            (json!({"downwardAPI": {"defaultMode": 0o640}}), false),
            (json!({"projected": {"sources": [token]}}), true),
            (
                json!({"projected": {"defaultMode": 0o400, "sources": [token]}}),
                false,
            ),
            (
                json!({"projected": {"sources": [{"secret": {"name": "s", "items": items(0o400)}}]}}),
                false,
            ),
            (
                json!({"projected": {"sources": [{"configMap": {"name": "m", "items": items(0o400)}}]}}),
                false,
            ),
            (
                json!({"projected": {"sources": [{"downwardAPI": {"items": [{"path": "p", "mode": 0o400}]}}]}}),
                false,
            ),
        ] {
            let pod = json!({"runAsUser": 1000, "fsGroup": 2000});
            let other = spec(&pod, &json!({}), &volume);
            assert_eq!(fs_group_has_no_effect(&other), has_no_effect, "{volume}");
            let unknown = spec(&json!({"fsGroup": 2000}), &json!({}), &volume);
            assert_eq!(fs_group_has_no_effect(&unknown), has_no_effect, "{volume}");
            assert!(
                fs_group_has_no_effect(&spec(&pod, &root(), &volume)),
                "{volume}"
            );
        }
    }

    #[test]
    fn one_container_that_is_not_root_suffices() {
        let volume = json!({"emptyDir": {}});
        let mut two = spec(&json!({"fsGroup": 5, "runAsUser": 0}), &json!({}), &volume);
        assert!(fs_group_has_no_effect(&two));
        let mut init = two.containers[0].clone();
        init.security_context = serde_json::from_value(json!({"runAsUser": 7})).expect("a context");
        two.init_containers = Some(vec![init]);
        assert!(!fs_group_has_no_effect(&two));
        two.init_containers.as_mut().expect("one")[0].volume_mounts = None;
        assert!(fs_group_has_no_effect(&two));
    }

    #[test]
    fn group_0_and_supplemental_groups_matter_to_files_of_the_image() {
        let context = |context: Value| json!({"securityContext": context});
        for (container, group, has_no_effect) in [
            (json!({}), 0, false),
            (context(json!({"runAsUser": 7})), 0, false),
            (context(json!({"runAsUser": 7, "runAsGroup": 0})), 0, true),
            (context(json!({"runAsUser": 7, "runAsGroup": 5})), 5, true),
            (context(json!({"runAsUser": 7, "runAsGroup": 6})), 5, false),
            (root(), 0, true),
            (root(), 5, true),
            (
                context(
                    json!({"runAsUser": 0, "runAsGroup": 6, "capabilities": {"drop": ["all"]}}),
                ),
                0,
                false,
            ),
            (
                context(json!({"runAsUser": 0, "capabilities": {"drop": ["DAC_OVERRIDE"]}})),
                5,
                false,
            ),
            (
                context(
                    json!({"runAsUser": 0, "capabilities": {"drop": ["ALL"], "add": ["CAP_DAC_OVERRIDE"]}}),
                ),
                5,
                true,
            ),
            (
                context(
                    json!({"runAsUser": 0, "capabilities": {"drop": ["DAC_OVERRIDE"], "add": ["dac_override"]}}),
                ),
                5,
                false,
            ),
            (
                context(json!({"runAsUser": 0, "capabilities": {"drop": ["ALL"], "add": ["ALL"]}})),
                5,
                false,
            ),
            (
                context(
                    json!({"runAsUser": 0, "capabilities": {"drop": ["CHOWN"], "add": ["ALL"]}}),
                ),
                5,
                true,
            ),
        ] {
            let pod = json!({"fsGroup": group, "supplementalGroups": [group]});
            let pod = spec(&pod, &container, &Value::Null);
            assert_eq!(
                supplemental_groups_have_no_effect(&pod),
                has_no_effect,
                "{container} {group}"
            );
            // A group of volumes other than 0 does not matter to a pod that mounts none.
            assert_eq!(
                fs_group_has_no_effect(&pod),
                has_no_effect || group != 0,
                "{container} {group}"
            );
        }
    }
}
