//! The images that must be read before a pod can be translated, and with which access.
//!
//! In: a pod, and its pull secrets as they were read. Out: a request for each container that needs its image's
//! configuration. The access is the credential for the image's registry in the group's body, so that burstpool reads
//! an image with the same credential as ACI. The operator cannot use the managed identity of a group: for a group that
//! pulls with one, the access is the operator's own identity. `node` calls this module before
//! [`translate`](super::translate).

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::annotations;
use super::body::RegistryCredential;
use super::containers::all_containers;
use super::image::parse_location;
use super::pod::TranslationContext;
use super::refusals::{Refusals, Unsupported};
use super::registry::credentials;
use super::resolved_references::{ResolvedReferences, ValueSource};
use super::resources::ContainerSizes;
use super::target::TranslationTarget;
use crate::aci::image::{ImageAccess, RegistryLogin, RequiredImageField};

/// An image to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRequest {
    /// The field's path, such as `spec.containers[0].image`.
    pub field: String,
    /// The field's value.
    pub image: String,
    /// What the container needs of the image's configuration; never empty.
    pub needs: Vec<RequiredImageField>,
    /// The credential with which the image is read.
    pub access: ImageAccess,
}

/// The images of `pod` to read, in the order of its containers, or the pull secrets that cannot be used.
pub fn image_requests(
    pod: &Pod,
    resolved: &ResolvedReferences,
    placement: &TranslationTarget<'_>,
) -> Result<Vec<ImageRequest>, Vec<Unsupported>> {
    if !placement.reads_images() {
        return Ok(Vec::new());
    }
    let empty = PodSpec::default();
    let context = TranslationContext {
        pod,
        spec: pod.spec.as_ref().unwrap_or(&empty),
        values: ValueSource::Resolved(resolved),
        placement,
        sizes: &ContainerSizes::default(),
    };
    let mut refusals = Refusals::default();
    let images: Vec<(String, &str)> = all_containers(&context)
        .filter_map(|(at, c, _)| Some((format!("{at}.image"), c.image.as_deref()?)))
        .collect();
    let identity = annotations::pull_identity(pod, placement, &mut refusals);
    let credentials = credentials(&images, identity, &context, &mut refusals);
    let security = context.spec.security_context.as_ref();
    let requests = all_containers(&context).filter_map(|(at, container, _)| {
        let image = container.image.clone()?;
        let needs = RequiredImageField::of(container, security);
        (!needs.is_empty()).then(|| ImageRequest {
            field: format!("{at}.image"),
            access: access(&image, &credentials),
            image,
            needs,
        })
    });
    let requests = requests.collect();
    refusals.into_result(requests, placement.accepted)
}

/// The access that corresponds to the group's credential for the registry of `image`.
fn access(image: &str, credentials: &[RegistryCredential]) -> ImageAccess {
    let registry = parse_location(image).registry;
    let mut credentials = credentials.iter();
    match credentials.find(|credential| credential.server == registry) {
        Some(RegistryCredential {
            username: Some(username),
            password: Some(password),
            ..
        }) => ImageAccess::Login(RegistryLogin {
            username: username.clone(),
            password: password.clone(),
        }),
        Some(RegistryCredential {
            identity: Some(_), ..
        }) => ImageAccess::OperatorIdentity,
        _ => ImageAccess::Anonymous,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::resolved_references::ObjectContent;
    use super::super::secret_string::SecretString;
    use super::super::target::{IdentityNamespaces, NO_IDENTITIES};
    use super::*;
    use crate::aci::image::ImageReference;
    use crate::api;

    const IDENTITY: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i";

    fn requests(
        pod: Value,
        secrets: &[(&str, Value)],
        identities: &IdentityNamespaces,
    ) -> Result<Vec<ImageRequest>, Vec<Unsupported>> {
        let secrets = secrets.iter().map(|(name, config)| {
            let data = BTreeMap::from([(
                ".dockerconfigjson".to_owned(),
                config.to_string().into_bytes(),
            )]);
            (
                name.to_string(),
                ObjectContent {
                    data,
                    ..ObjectContent::default()
                },
            )
        });
        let resolved = ResolvedReferences {
            secrets: secrets.collect(),
            ..ResolvedReferences::default()
        };
        let spec: api::Placement =
            serde_json::from_value(json!({"name": "weu", "region": "westeurope"}))
                .expect("a placement");
        let placement = TranslationTarget {
            spec: &spec,
            tags: &BTreeMap::new(),
            node: "burst-shop-weu",
            node_address: None,
            identities,
            accepted: &api::NO_LOSSES,
        };
        image_requests(
            &serde_json::from_value(pod).expect("a pod"),
            &resolved,
            &placement,
        )
    }

    fn login(username: &str, password: &str) -> ImageAccess {
        ImageAccess::Login(RegistryLogin {
            username: username.to_owned(),
            password: SecretString::new(password),
        })
    }

    fn args(image: &str) -> Value {
        json!({"name": "a", "image": image, "args": ["a"]})
    }

    #[test]
    fn an_image_is_read_with_the_credential_with_which_aci_pulls_it() {
        let config = json!({"auths": {
            "a.io": {"username": "whole", "password": "1"},
            "a.io/team": {"username": "team", "password": "2"},
            "https://index.docker.io/v1/": {"username": "hub", "password": "3"},
            "quay.io": {},
        }});
        for (image, expected) in [
            ("a.io/web:1", login("whole", "1")),
            ("a.io/team/web:1", login("team", "2")),
            ("A.io/web", login("whole", "1")),
            ("nginx", login("hub", "3")),
            ("docker.io/bitnami/redis", login("hub", "3")),
            ("quay.io/team/web", ImageAccess::Anonymous),
            ("b.io/web", ImageAccess::Anonymous),
            ("shop.azurecr.io/web", ImageAccess::Anonymous),
            // A host with a capital: the login for Docker Hub is not for it.
            ("Hub/web", ImageAccess::Anonymous),
        ] {
            let pod = json!({"spec": {"containers": [args(image)], "imagePullSecrets": [{"name": "p"}, {"name": "none"}]}});
            let found = requests(pod, &[("p", config.clone())], &NO_IDENTITIES).expect(image);
            assert_eq!(found.len(), 1);
            assert_eq!(
                (&found[0].access, found[0].image.as_str()),
                (&expected, image)
            );
        }
    }

    #[test]
    fn the_operators_identity_is_used_only_where_the_pod_may_choose_an_identity() {
        let pod = |image: &str| {
            json!({
                "metadata": {"namespace": "shop", "annotations": {"burstpool.io/image-pull-identity": IDENTITY}},
                "spec": {"containers": [args(image), args("nginx")], "imagePullSecrets": [{"name": "p"}]},
            })
        };
        let allowed: IdentityNamespaces = ["shop".to_owned()].into_iter().collect();
        let found = requests(pod("shop.azurecr.io/web"), &[], &allowed).expect("allowed");
        let access: Vec<_> = found.iter().map(|request| request.access.clone()).collect();
        assert_eq!(
            access,
            [ImageAccess::OperatorIdentity, ImageAccess::Anonymous]
        );
        // A login in a pull secret takes precedence, as in the group's body.
        let config = json!({"auths": {"shop.azurecr.io": {"username": "robot", "password": "1"}}});
        let found =
            requests(pod("shop.azurecr.io/web"), &[("p", config)], &allowed).expect("allowed");
        assert_eq!(found[0].access, login("robot", "1"));
        let refused =
            requests(pod("shop.azurecr.io/web"), &[], &NO_IDENTITIES).expect_err("not allowed");
        assert!(
            refused[0].field.contains("image-pull-identity"),
            "{refused:?}"
        );
    }

    #[test]
    fn only_containers_with_a_need_are_requested_by_their_fields() {
        let pod = json!({"spec": {
            "securityContext": {"runAsUser": 5},
            "initContainers": [args("a.io/init")],
            "containers": [
                {"name": "a", "image": "a.io/a"},
                {"name": "b", "image": "a.io/b", "workingDir": "/b", "command": ["b"]},
            ],
        }});
        let found = requests(pod, &[], &NO_IDENTITIES).expect("requests");
        let found: Vec<_> = found
            .iter()
            .map(|request| (request.field.as_str(), request.needs.clone()))
            .collect();
        assert_eq!(
            found,
            [
                (
                    "spec.initContainers[0].image",
                    vec![RequiredImageField::Entrypoint]
                ),
                (
                    "spec.containers[1].image",
                    vec![RequiredImageField::WorkingDir]
                ),
            ]
        );
    }

    #[test]
    fn a_placement_that_reads_no_images_requests_none() {
        let pod = json!({"spec": {"containers": [args("a.io/web")]}});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        for (setting, count) in [("Auto", 1), ("Never", 0)] {
            let spec = json!({"name": "weu", "region": "westeurope", "readImages": setting});
            let spec: api::Placement = serde_json::from_value(spec).expect("a placement");
            let target = TranslationTarget {
                spec: &spec,
                tags: &BTreeMap::new(),
                node: "burst-shop-weu",
                node_address: None,
                identities: &NO_IDENTITIES,
                accepted: &api::NO_LOSSES,
            };
            let found = image_requests(&pod, &ResolvedReferences::default(), &target);
            assert_eq!(found.map(|found| found.len()), Ok(count));
        }
    }

    proptest! {
        // Credentials are chosen by one parser and images are read by another: both must see the same registry.
        #[test]
        fn both_parsers_of_references_find_the_same_registry(
            image in "([A-Za-z]{1,3}(\\.[A-Za-z]{2})?(:[0-9]{2})?/)?([a-z]{1,3}/)?[a-z]{1,4}(:[A-Za-z0-9.]{1,4})?",
        ) {
            if let Ok(reference) = ImageReference::parse("image", &image) {
                let registry = reference.registry().replace("docker.io", "index.docker.io");
                prop_assert_eq!(parse_location(&image).registry, registry);
            }
        }
    }
}
