//! Scaling beside others: autoscalers, other pools, manual changes; schedules, endpoints that hang, dry
//! runs.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::own_nodes::pool;
use crate::support::monitoring::Load;
use crate::support::wait;
use crate::telemetry::address;
use crate::triggers_prometheus::{requests, scaled, until_replicas, until_trigger};
use crate::world::{World, said};

/// A schedule that is always open and wants this many replicas.
pub fn always(replicas: i32) -> Value {
    json!({"name": "always", "schedule": {"start": "0 * * * *", "duration": "2h",
        "timeZone": "Europe/Berlin", "replicas": replicas}})
}

pub async fn until_conflict(world: &World, pool: &str, status: &str, words: &str) {
    let what = format!("{pool} to say Conflict {status}: {words}");
    let is = |pool: Option<&burstpool::api::BurstPool>| {
        pool.is_some_and(|pool| {
            let (is, message) = said(pool, "Conflict");
            is == status && message.contains(words)
        })
    };
    world.until_pool(pool, &what, is).await;
}

/// Whether the operator has written the Deployment's replicas.
async fn is_written(world: &World) -> bool {
    let web: Deployment = world
        .deployments()
        .get("web")
        .await
        .expect("the Deployment");
    let fields = web.managed_fields();
    fields
        .iter()
        .any(|one| one.manager.as_deref() == Some("burstpool-scale"))
}

async fn scaled_objects(world: &World) -> Api<DynamicObject> {
    let definition = json!({
        "metadata": {"name": "scaledobjects.keda.sh"},
        "spec": {
            "group": "keda.sh", "scope": "Namespaced",
            "names": {"kind": "ScaledObject", "plural": "scaledobjects", "singular": "scaledobject"},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
        },
    });
    let definition: CustomResourceDefinition =
        serde_json::from_value(definition).expect("a definition");
    let definitions: Api<CustomResourceDefinition> = Api::all(world.client.clone());
    let created = definitions
        .create(&PostParams::default(), &definition)
        .await;
    created.expect("a definition");
    let served = |definition: Option<&CustomResourceDefinition>| {
        let status = definition.and_then(|definition| definition.status.as_ref());
        let mut conditions = status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten());
        conditions.any(|one| one.type_ == "Established" && one.status == "True")
    };
    wait::until(
        definitions,
        "scaledobjects.keda.sh",
        "it to be served",
        served,
    )
    .await
    .expect("it is served");
    let kind = GroupVersionKind::gvk("keda.sh", "v1alpha1", "ScaledObject");
    let resource = ApiResource::from_gvk_with_plural(&kind, "scaledobjects");
    Api::namespaced_with(world.client.clone(), "default", &resource)
}

#[tokio::test]
async fn nothing_is_written_while_another_autoscaler_or_an_older_pool_has_the_target() {
    let world = World::start().await;
    for name in ["home-a", "home-b"] {
        world.home_node(name).await;
    }
    world.deploy(2).await;
    let _: HorizontalPodAutoscaler = world
        .make(json!({
            "metadata": {"name": "web"},
            "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "maxReplicas": 5},
        }))
        .await;
    let changes = json!({"workloads": [scaled(&["always"], 1, 8)], "triggers": [always(3)]});
    world.add_pool(&changes).await;
    until_conflict(
        &world,
        "shop",
        "True",
        "HorizontalPodAutoscaler default/web",
    )
    .await;
    let objects = scaled_objects(&world).await;
    let object = json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "web"},
        "spec": {"scaleTargetRef": {"name": "web"}},
    });
    let object: DynamicObject = serde_json::from_value(object).expect("an object");
    let created = objects.create(&PostParams::default(), &object).await;
    created.expect("a ScaledObject");
    let autoscalers: Api<HorizontalPodAutoscaler> =
        Api::namespaced(world.client.clone(), "default");
    let deleted = autoscalers.delete("web", &DeleteParams::default()).await;
    deleted.expect("deleted");
    until_conflict(&world, "shop", "True", "ScaledObject default/web").await;
    assert!(!is_written(&world).await, "nothing was written");

    let deleted = objects.delete("web", &DeleteParams::default()).await;
    deleted.expect("deleted");
    until_conflict(&world, "shop", "False", "").await;
    until_replicas(&world, 3).await;
    assert!(is_written(&world).await);

    let younger = pool(
        "younger",
        &json!({"workloads": [scaled(&["always"], 1, 8)], "triggers": [always(7)]}),
    );
    let created = world.pools().create(&PostParams::default(), &younger).await;
    created.expect("a pool");
    until_conflict(
        &world,
        "younger",
        "True",
        "workload web of the older pool shop",
    )
    .await;
    let said = world.pools().get("shop").await.expect("the pool");
    assert_eq!(crate::world::said(&said, "Conflict").0, "False");
    until_replicas(&world, 3).await;
}

#[tokio::test]
async fn a_schedule_scales_also_after_a_restart_and_undoes_a_manual_change() {
    let mut world = World::with_home(&json!({
        "workloads": [scaled(&["always"], 1, 8)],
        "triggers": [always(3)],
        "mode": "DryRun",
    }))
    .await;
    world.deploy(1).await;
    world
        .until_pool("shop", "the dry run to say what it would do", |pool| {
            let status = pool.and_then(|pool| pool.status.as_ref());
            let scale = status.and_then(|status| status.workloads.first()?.scale.clone());
            scale.is_some_and(|scale| scale.message.contains("would be set from 1 to 3"))
        })
        .await;
    assert!(!is_written(&world).await, "a dry run writes nothing");
    world.change_pool(&json!({"mode": "Active"})).await;
    until_replicas(&world, 3).await;
    until_trigger(&world, "always", "open", |one| {
        one.active && one.message.contains("open until")
    })
    .await;
    let since = |pool: &burstpool::api::BurstPool| {
        crate::triggers_prometheus::trigger(Some(pool), "always")
            .since
            .map(|time| time.0)
    };
    let before = since(&world.pools().get("shop").await.expect("the pool"));

    world.scale(6).await;
    until_replicas(&world, 3).await;
    world.scale(2).await;
    until_replicas(&world, 3).await;
    world.kill_and_forget().await;
    world.scale(5).await;
    world.run();
    // During its stabilization window (here 0) a new leader removes no replicas that it did not see
    // being requested.
    until_replicas(&world, 3).await;
    assert_eq!(
        since(&world.pools().get("shop").await.expect("the pool")),
        before
    );

    world.scale(0).await;
    world
        .until_pool("shop", "the pool to say that scaling is off", |pool| {
            let status = pool.and_then(|pool| pool.status.as_ref());
            let scale = status.and_then(|status| status.workloads.first()?.scale.clone());
            scale.is_some_and(|scale| scale.message.contains("switches scaling off"))
        })
        .await;
    until_replicas(&world, 0).await;
}

/// Triggers, whether each is active if that is checked, and a part of the message.
const REASONS: [(&str, Option<bool>, &str); 7] = [
    ("hangs", Some(false), "did not answer within 1s"),
    ("nobody", Some(false), "cannot query Prometheus"),
    ("nowhere", None, "status 404"),
    ("declared", Some(true), "the trigger is Active"),
    ("warns", Some(true), "a store is away"),
    ("never", Some(false), "never occurs"),
    ("lost", Some(false), "is not a time zone"),
];

#[tokio::test]
async fn an_endpoint_that_hangs_delays_no_other_trigger_and_each_status_has_the_reason() {
    let load = Load::start().await;
    load.set(400.0);
    let named = |name: &str, address: &str| {
        let mut trigger = requests(address);
        trigger["name"] = name.into();
        trigger
    };
    let mut declared = named("declared", "http://127.0.0.1:1");
    declared["onError"] = json!({"keepFor": "0s", "then": "Active"});
    let world = World::with_home(&json!({
        "workloads": [scaled(&["requests"], 1, 8)],
        "triggers": [
            named("hangs", &load.address("hangs")),
            named("nobody", "http://127.0.0.1:1"),
            named("nowhere", &load.address("x/y")),
            declared,
            named("warns", &load.address("warns")),
            requests(&load.address("ok")),
            {"name": "never", "schedule": {"start": "0 8 30 2 *", "duration": "1h", "timeZone": "UTC"}},
            {"name": "lost", "schedule": {"start": "0 8 * * *", "duration": "1h", "timeZone": "Europe/Atlantis"}},
        ],
    }))
    .await;
    world.deploy(1).await;
    until_replicas(&world, 4).await;
    for (name, is_active, words) in REASONS {
        until_trigger(&world, name, words, |one| {
            is_active.is_none_or(|is_active| one.active == is_active) && one.message.contains(words)
        })
        .await;
    }
    world
        .until_pool("shop", "the conditions", |pool| {
            pool.is_some_and(|pool| {
                let (healthy, unhealthy) = said(pool, "TriggersHealthy");
                let (stalled, why) = said(pool, "Stalled");
                healthy == "False"
                    && unhealthy.contains("hangs")
                    && !unhealthy.contains("warns")
                    && stalled == "True"
                    && why.contains("never")
                    && why.contains("lost")
                    && said(pool, "Ready").0 == "True"
            })
        })
        .await;
    until_measured(&world).await;
    world
        .change_pool(&json!({"triggers": [requests(&load.address("ok"))]}))
        .await;
    world
        .until_pool("shop", "the pool to be well again", |pool| {
            pool.is_some_and(|pool| {
                said(pool, "TriggersHealthy").0 == "True" && said(pool, "Stalled").0.is_empty()
            })
        })
        .await;
}

/// Waits until every metric of triggers has a plausible value.
async fn until_measured(world: &World) {
    let url = format!("{}/metrics", address(world).await);
    wait::by_and_by("what is measured of triggers", async || {
        let text = reqwest::get(&url).await.expect("an answer").text().await;
        let text = text.expect("text");
        let of = |metric: &str, trigger: &str| -> f64 {
            let name =
                format!("burstpool_trigger_{metric}{{pool=\"shop\",trigger=\"{trigger}\"}} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&name));
            line.map_or(f64::NAN, |value| value.parse().expect("a number"))
        };
        of("active", "requests") > 0.5
            && of("active", "hangs") < 0.5
            && (of("value", "requests") - 400.0).abs() < 0.5
            && of("value", "hangs").is_nan()
            && of("errors_total", "requests") < 0.5
            && of("errors_total", "hangs") > 0.5
            // An answer takes nearly no time, a missing one the timeout of a second.
            && of("latency_seconds_count", "requests") > 0.5
            && of("latency_seconds_sum", "hangs") >= of("latency_seconds_count", "hangs")
    })
    .await;
}

#[tokio::test]
async fn the_samples_of_triggers_are_accepted_and_say_what_they_wait_for() {
    let world = World::start().await;
    world.home_node("home-a").await;
    for sample in ["triggers-prometheus.yaml", "triggers-schedule.yaml"] {
        let file = format!("{}/config/samples/{sample}", env!("CARGO_MANIFEST_DIR"));
        world.kubectl(&["apply", "-f", &file]);
    }
    // Nothing answers at the sample's address: the pool says so, and removes nothing.
    world
        .until_pool(
            "requests",
            "the pool to say that Prometheus is not there",
            |pool| {
                let requests = crate::triggers_prometheus::trigger(pool, "requests");
                !requests.active && requests.message.contains("cannot query Prometheus")
            },
        )
        .await;
    world
        .until_pool(
            "office",
            "the pool to say when its window opens or closes",
            |pool| {
                let hours = crate::triggers_prometheus::trigger(pool, "office-hours");
                let word = if hours.active {
                    "open until"
                } else {
                    "opens at"
                };
                hours.message.contains(word)
            },
        )
        .await;
}
