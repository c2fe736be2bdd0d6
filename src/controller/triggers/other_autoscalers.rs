//! Finds other autoscalers of a target.
//!
//! In: a target, the `HorizontalPodAutoscaler`s and KEDA `ScaledObject`s of its namespace, and the other pools.
//! Out: the other autoscaler, as text, or that there is none. If two pools, or two workloads of one pool, have
//! the same target, the older pool and the first workload scale it; the other writes nothing. The same order
//! decides which pool a pod belongs to.

use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::ListParams;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, ObjectList};
use kube::{Api, Client, ResourceExt as _};
use serde_json::Value;

use crate::api::{BurstPool, Target};
use crate::burst::facts::assignment::live_by_age;
use crate::k8s::call;

/// The timeout of a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether another autoscaler sets a target's replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::controller) enum OtherAutoscaler {
    /// No other autoscaler does.
    #[default]
    NoneFound,
    /// This one does, as text.
    Found(String),
    /// Unknown, for this reason.
    Unknown(String),
}

/// The other autoscaler of `target`, if there is one; an error if that cannot be determined.
pub(super) async fn find_autoscaler(
    client: &Client,
    target: &Target,
) -> Result<Option<String>, String> {
    let params = ListParams::default();
    // `DynamicObject` accepts every object: one unusual autoscaler must not hide the others.
    let autoscaler = ApiResource::erase::<HorizontalPodAutoscaler>(&());
    let kind = GroupVersionKind::gvk("keda.sh", "v1alpha1", "ScaledObject");
    let scaled_object = ApiResource::from_gvk_with_plural(&kind, "scaledobjects");
    for (resource, kind, defaults) in [
        (autoscaler, "HorizontalPodAutoscaler", ("", "")),
        (scaled_object, "ScaledObject", ("apps/v1", "Deployment")),
    ] {
        let objects: Api<DynamicObject> =
            Api::namespaced_with(client.clone(), &target.namespace, &resource);
        let listed = call::with_timeout(CALL_TIMEOUT, objects.list(&params)).await;
        if is_not_served(client, &resource.group, &listed).await {
            continue;
        }
        let listed = listed_items(&format!("{kind}s"), &target.namespace, listed)?;
        if let Some(object) = listed
            .iter()
            .find(|object| scales_target(target, object, defaults))
        {
            return Ok(Some(format!(
                "{kind} {}/{} has the same target: remove it, or the workload's scale",
                target.namespace,
                object.name_any()
            )));
        }
    }
    Ok(None)
}

/// Whether the object scales the target; `usual` are the default API version and kind of its `scaleTargetRef`.
fn scales_target(target: &Target, object: &DynamicObject, default: (&str, &str)) -> bool {
    let target_ref = &object.data["spec"]["scaleTargetRef"];
    let text = |field: &str, default: &str| {
        let text = target_ref.get(field).and_then(Value::as_str);
        text.unwrap_or(default).to_owned()
    };
    let (api_version, kind) = (text("apiVersion", default.0), text("kind", default.1));
    is_same_target(target, &api_version, &kind, &text("name", ""))
}

/// Whether the cluster does not serve the kind that was listed. The API server answers in its own format for an
/// unknown kind of a group that it serves. For an unknown group it answers in plain text, as a proxy in between may
/// do for any path, so the groups that it serves must show that this one is not among them.
async fn is_not_served<K: Clone>(
    client: &Client,
    group: &str,
    listed: &ListedAutoscalers<K>,
) -> bool {
    match listed {
        Err(kube::Error::Api(status)) if call::is_object_not_found(status) => true,
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let served = call::with_timeout(CALL_TIMEOUT, client.list_api_groups()).await;
            served.is_ok_and(|served| served.groups.iter().all(|known| known.name != group))
        }
        _ => false,
    }
}

type ListedAutoscalers<K> = kube::Result<ObjectList<K>>;

/// The objects of a list.
fn listed_items<K: Clone>(
    kind: &str,
    namespace: &str,
    listed: ListedAutoscalers<K>,
) -> Result<Vec<K>, String> {
    let why = match listed {
        Ok(list) => return Ok(list.items),
        Err(kube::Error::Api(status)) if status.is_forbidden() => {
            "the operator may not list them; to let it: kubectl apply -k config/scaling".to_owned()
        }
        Err(error) if call::is_timeout(&error) => "the API server does not answer".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(format!(
        "burstpool scales nothing, because it cannot list the {kind} of namespace {namespace}: {why}"
    ))
}

/// Whether this is the target, in any version of its API group.
fn is_same_target(target: &Target, version: &str, kind: &str, name: &str) -> bool {
    let group = |version: &str| version.split_once('/').map(|(group, _)| group.to_owned());
    group(&target.api_version) == group(version) && target.kind == kind && target.name == name
}

/// The pool or workload that takes precedence over this one for the target, if there is one.
pub(super) fn find_earlier_pool<'a>(
    pools: impl Iterator<Item = &'a BurstPool>,
    pool: &str,
    workload: &str,
    target: &Target,
) -> Option<String> {
    let claims = live_by_age(pools).into_iter().flat_map(|pool| {
        let workloads = pool.spec.workloads.iter();
        let scaled = workloads.filter(|workload| workload.scale.is_some());
        scaled.map(move |workload| (pool.name_any(), workload))
    });
    let same_target = claims.filter(|(_, workload)| {
        workload.target.as_ref().is_some_and(|other| {
            other.namespace == target.namespace
                && is_same_target(target, &other.api_version, &other.kind, &other.name)
        })
    });
    let (owner_pool, first) = same_target.into_iter().next()?;
    if owner_pool == pool && first.name == workload {
        return None;
    }
    let owner = if owner_pool == pool {
        format!("workload {}", first.name)
    } else {
        format!("workload {} of the older pool {owner_pool}", first.name)
    };
    Some(format!(
        "{owner} scales the same target: remove the scale of one of them"
    ))
}

#[cfg(test)]
mod tests {
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    /// Returns what `find_autoscaler` finds if the lists of the API groups, of `HorizontalPodAutoscaler`s and of
    /// `ScaledObject`s get these responses (status and body).
    async fn find_with_responses(
        groups: (u16, &'static str),
        autoscalers: (u16, &'static str),
        scaled_objects: (u16, &'static str),
    ) -> Result<Option<String>, String> {
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let path = request.uri().path();
            let (code, body) = if path == "/apis" {
                groups
            } else if path.contains("scaledobjects") {
                scaled_objects
            } else {
                autoscalers
            };
            let response = http::Response::builder().status(code);
            std::future::ready(response.body(Body::from(body.as_bytes().to_vec())))
        });
        let target = Target {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
        };
        find_autoscaler(&Client::new(service, "default"), &target).await
    }

    /// The cluster serves the group `autoscaling` only.
    const GROUPS: &str =
        r#"{"kind": "APIGroupList", "groups": [{"name": "autoscaling", "versions": []}]}"#;
    const NONE: &str = r#"{"metadata": {}, "items": []}"#;
    const UNKNOWN_KIND: &str = r#"{"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404,
        "message": "the server could not find the requested resource"}"#;
    const TEXT: &str = "404 page not found";

    #[tokio::test]
    async fn the_404_of_a_proxy_does_not_mean_that_nothing_else_scales_a_target() {
        for (autoscalers, scaled_objects, is_known) in [
            ((200, NONE), (200, NONE), true),
            ((200, NONE), (404, TEXT), true),
            ((200, NONE), (404, UNKNOWN_KIND), true),
            // The group is served, so this is not the API server's answer.
            ((404, TEXT), (404, TEXT), false),
            ((404, "<html>"), (200, NONE), false),
            ((200, NONE), (502, TEXT), false),
        ] {
            let found = find_with_responses((200, GROUPS), autoscalers, scaled_objects).await;
            let expected = if is_known { Some(None) } else { None };
            assert_eq!(found.ok(), expected, "{autoscalers:?} {scaled_objects:?}");
        }
        let unlisted = find_with_responses((502, TEXT), (200, NONE), (404, TEXT)).await;
        assert!(unlisted.is_err(), "the groups are not known");
    }

    fn pool(name: &str, created: &str, workloads: &[&str]) -> BurstPool {
        let workloads = workloads.iter().map(|name| {
            json!({"name": name, "scale": {"maxReplicas": 5, "triggers": ["a"]},
                "target": {"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "shop", "name": "web"}})
        });
        let pool = json!({
            "apiVersion": "burstpool.io/v1alpha1", "kind": "BurstPool",
            "metadata": {"name": name, "creationTimestamp": created},
            "spec": {"azure": {}, "placements": [{"name": "a", "region": "westeurope"}],
                "workloads": workloads.collect::<Vec<_>>()},
        });
        serde_json::from_value(pool).expect("a pool")
    }

    #[test]
    fn the_older_pool_and_its_first_workload_scale_the_target() {
        let younger = pool("a", "2026-11-24T10:00:00Z", &["web"]);
        let older = pool("b", "2026-11-23T10:00:00Z", &["one", "two"]);
        let target = older.spec.workloads[0].target.clone().expect("a target");
        let owner = |pool, workload| {
            find_earlier_pool([&younger, &older].into_iter(), pool, workload, &target)
        };
        assert_eq!(owner("b", "one"), None);
        let two = owner("b", "two").expect("an owner");
        assert!(two.starts_with("workload one scales"), "{two}");
        let web = owner("a", "web").expect("an owner");
        assert!(web.contains("of the older pool b"), "{web}");
    }

    #[test]
    fn a_target_is_the_same_in_every_version_of_its_group() {
        let target = Target {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
        };
        assert!(is_same_target(&target, "apps/v1beta1", "Deployment", "web"));
        assert!(!is_same_target(
            &target,
            "extensions/v1beta1",
            "Deployment",
            "web"
        ));
        assert!(!is_same_target(&target, "v1", "Deployment", "web"));
        assert!(!is_same_target(&target, "apps/v1", "StatefulSet", "web"));
    }

    #[test]
    fn an_autoscaler_is_recognized_by_its_scale_target_ref_alone() {
        let target = Target {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
        };
        let is_scaled_by = |target_ref: Value, defaults: (&str, &str)| {
            let object = json!({"metadata": {"name": "a"}, "spec": {
                "scaleTargetRef": target_ref, "minReplicas": "a novelty"}});
            let object: DynamicObject = serde_json::from_value(object).expect("an object");
            scales_target(&target, &object, defaults)
        };
        let (autoscaler, scaled_object) = (("", ""), ("apps/v1", "Deployment"));
        let full_ref = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
        assert!(
            is_scaled_by(full_ref.clone(), autoscaler) && is_scaled_by(full_ref, scaled_object)
        );
        let short_ref = json!({"name": "web"});
        assert!(
            !is_scaled_by(short_ref.clone(), autoscaler) && is_scaled_by(short_ref, scaled_object)
        );
        assert!(!is_scaled_by(json!({"name": "other"}), scaled_object));
        assert!(!is_scaled_by(Value::Null, scaled_object));
    }
}
