//! Bursting on the real scheduler: pods that do not fit on the cluster's own nodes ("home") spill, and are removed
//! first when the peak is over.
//!
//! This table lists the scenarios and the tests that show them. `burst::tests` and other unit tests are
//! pure and in `src`; the others are in this directory.
//!
//! | scenario | shown by |
//! | --- | --- |
//! | pods that fit at home are not granted | `grants_own_nodes::what_finds_room_at_home_is_never_granted` |
//! | a grant follows the hold | `burst::tests::granting::a_refused_pod_is_granted_after_its_hold_and_not_before`, `grants_holds::a_pod_is_granted_at_the_end_of_its_hold_without_other_changes_despite_clock_skew`, `what_home_refuses_spills_and_exactly_that_goes_first` |
//! | long holds, the hold counts from the refusal, gated pods | `grants_holds::a_hold_counts_from_the_refusal_and_not_from_a_gate_and_outlives_the_operator`; a hold of twenty minutes: `burst::tests::granting::a_workloads_own_hold_replaces_the_pools` |
//! | a nominated pod, a pod being deleted, another scheduler's pod | `grants_holds::what_waits_for_its_victims_is_deleted_or_is_another_schedulers_is_not_granted`; a stale nomination: `burst::tests::granting::a_nominated_pod_is_granted_only_when_its_nomination_is_stale` |
//! | a pod that is too large, uses unsupported features, or excludes the virtual node by selector or topology spread | `grants_own_nodes::what_aci_or_its_node_cannot_take_is_refused_by_name`, by zone: `burst::tests::eligible::a_pod_that_fits_no_virtual_node_is_refused_with_the_field_that_prevents_it`; a DaemonSet's pod, which names its node: `burst::facts::node_constraints`; `grants_claims::a_pod_with_a_claim_is_granted_only_if_aci_can_mount_what_is_or_will_be_behind_it`, `a_pod_that_aci_cannot_run_stays_pending_with_an_event_that_says_why` |
//! | pods granted by a deleted pool | `burst::tests::takeover::a_pod_that_a_deleted_pool_granted_is_granted_again_and_counts`, `grants_holds::a_pod_that_a_deleted_pool_granted_is_granted_by_its_present_pool` |
//! | the maximum is exact | `burst::tests::limits::no_more_than_the_maximum_are_granted_of_five_hundred_at_once`, `burst::tests::fence`, `burst::tests::takeover`, `no_more_than_the_maximum_spill_and_the_pool_says_why_others_wait`; across leaders: `leader::a_leader_that_is_killed_while_it_grants_leaves_exactly_as_many_to_be_granted`, `leader::a_leader_that_was_suspended_between_reservation_and_grant_exceeds_no_maximum`, `burst::tests::simulation` |
//! | grants in flight, a granted pod that the scheduler places at home | `grants_own_nodes::grants_on_their_way_count_and_one_that_lands_home_frees_its_slot` |
//! | maximum in percent | `grants_own_nodes::an_hpas_replicas_spill_up_to_a_percentage_and_no_foreign_object_is_written` |
//! | pods with a toleration of virtual nodes, of any form | `grants_own_nodes::tolerations_that_are_there_stay_and_those_of_users_need_no_grant` |
//! | other clients write the pod | `grants_own_nodes::a_pod_that_others_write_all_the_time_is_granted_once`, `grants_api_faults::a_pod_that_changes_between_reservation_and_grant_is_granted_once`; the result of a conflict: `controller::grants::executor::tests::the_result_of_one_grant_does_not_affect_the_others`, `burst::tests::granting::a_pod_that_changed_meanwhile_is_decided_again_when_the_watch_shows_it` |
//! | a policy denies a grant; least privilege | `grants_beside_others::a_grant_that_a_policy_denies_is_reported_and_retried_and_others_go_on`; the pause before the next try: `burst::tests::granting::a_pod_whose_grant_is_denied_is_left_alone_for_a_while_and_the_others_go_on`; denials of every other field: `install_admission::the_operators_account_can_change_only_what_a_burst_is_made_of` |
//! | pods on ACI are removed first | `what_home_refuses_spills_and_exactly_that_goes_first` |
//! | the deletion cost is written once | `node::post_bind_patch::tests`, `install::a_whole_burst_needs_nothing_that_is_forbidden_and_uses_every_rule`: for four pods, across a restart |
//! | a user's deletion cost is kept | `grants_rollouts::a_users_own_cost_is_kept_and_pods_at_home_get_none` |
//! | rollouts | `grants_rollouts::a_rollout_of_both_revisions_never_has_more_than_the_limit`, `grants_rollouts::a_rollout_that_may_only_surge_says_what_it_lacks_and_goes_on_when_it_has_it`; the Deployment controller chooses the old pods to remove by their cost |
//! | pods that never start, a half-open placement, no capacity | `grants_failing_placement::a_placement_without_capacity_closes_its_pods_are_rescued_and_one_probe_opens_it`, `grants_failing_placement::a_pod_without_room_in_a_placement_waits_with_a_reason_until_the_placement_grows`; pure: `burst::leader_state::placement_health`, `burst::select::never_started`, `burst::tests::places` |
//! | a template that Azure always rejects | `grants_failing_placement::a_template_that_azure_refuses_is_not_granted_again_and_others_go_on` |
//! | a cordoned or deleted virtual node | `grants_own_nodes::a_cordoned_virtual_node_gets_nothing_and_its_pods_stay`; a node that is not ready or missing: `burst::facts::placement`. Only unit tests show that nothing is granted while the node is missing |
//! | fairness | `burst::tests::shares::workloads_share_by_weight_and_the_oldest_pods_go_first`, `grants_beside_others::workloads_share_the_pools_maximum_by_weight_and_what_one_leaves_is_lent` |
//! | rate | `burst::tests::shares::five_a_minute_are_five_in_each_minute_also_after_a_restart`, `grants_beside_others::the_rate_limits_grants_and_the_other_pods_wait` |
//! | an HPA scales, and the operator writes no objects of others | `grants_own_nodes::an_hpas_replicas_spill_up_to_a_percentage_and_no_foreign_object_is_written`; no RBAC rule would permit it: `install::a_whole_burst_needs_nothing_that_is_forbidden_and_uses_every_rule`, by the audit log |
//! | two pools with one workload | the older pool gets it: `burst::tests::limits::a_pod_that_two_workloads_or_pools_could_have_has_one_and_the_loser_says_so`, `grants_beside_others::of_two_pools_with_one_workload_the_older_gets_it_and_the_other_reports_that` |
//! | dry run | `burst::tests::granting::a_dry_run_decides_the_same_and_reserves_nothing`, `a_dry_run_shows_what_it_would_do_and_writes_nothing_to_pods` |
//! | the API server goes away | `grants_beside_others::an_api_server_that_goes_away_in_the_middle_leads_to_no_grant_too_many` |
//! | the API server is slow, or answers are lost | `grants_api_faults::an_api_server_that_answers_late_or_not_at_all_leads_to_no_grant_too_many` |
//! | the API server answers 429 or 5xx | `grants_api_faults::writes_that_the_api_server_refuses_are_retried_and_nothing_is_granted_unreserved` |
//! | watches end, get 410 Gone, or fall silent | `grants_api_faults::watches_that_end_are_too_old_or_fall_silent_lead_to_no_grant_too_many`; orders of events: `controller::cache::cluster::tests`; requests and their order: `controller::grants::executor::tests` |
//! | a selector changes | `grants_owners::a_selector_that_changes_decides_on_new_pods_and_those_on_aci_still_count` |
//! | kinds of owners | `grants_owners::pods_of_stateful_sets_replica_sets_jobs_cron_jobs_and_foreign_kinds_spill`; a custom kind with a scale represents CloneSets and Rollouts |

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::own_nodes::deployment;
use crate::support::{objects, wait};
use crate::telemetry;
use crate::world::{World, said};

#[tokio::test]
async fn what_home_refuses_spills_and_exactly_that_goes_first() {
    let world = World::with_home(&json!({})).await;
    world.deploy(8).await;
    let pods = world.until_spread(4, 4, 0).await;
    let away: Vec<&Pod> = pods
        .iter()
        .filter(|pod| objects::node_of(pod) == Some("burst-shop-weu"))
        .collect();
    for pod in &away {
        assert_eq!(pod.labels()["burstpool.io/pool"], "shop");
        assert_eq!(pod.annotations()["burstpool.io/workload"], "web");
    }
    world
        .until_pool("shop", "the pool to count them", |pool| {
            let status = pool.and_then(|pool| pool.status.as_ref());
            status.is_some_and(|status| {
                let counts = status.pods.unwrap_or_default();
                let web = status.workloads.first().cloned().unwrap_or_default();
                (counts.spilled, counts.running, counts.holding) == (4, 4, 0)
                    && (web.desired, web.home, web.spilled) == (Some(8), Some(4), 4)
                    && status.reservations.is_empty()
            })
        })
        .await;
    let said = world.kubectl(&["get", "bp", "shop"]);
    assert!(said.contains("True"), "{said}");

    world.scale(4).await;
    let left = world.until_spread(4, 0, 0).await;
    let kept: Vec<String> = left.iter().map(kube::ResourceExt::name_any).collect();
    let home = pods
        .iter()
        .filter(|pod| objects::node_of(pod) != Some("burst-shop-weu"));
    for pod in home {
        assert!(kept.contains(&pod.name_any()), "a pod at home was removed");
    }
    let none = |pods: &[Pod]| pods.len() == 4;
    let all = wait::until_all(world.pods(), watcher::Config::default(), "four pods", none);
    all.await.expect("the others are gone");
    assert_eq!(world.groups(), Vec::<String>::new());
}

#[tokio::test]
async fn no_more_than_the_maximum_spill_and_the_pool_says_why_others_wait() {
    let world = World::with_home(&json!({"spill": {"maxReplicas": 2}})).await;
    world.deploy(9).await;
    world.until_spread(4, 2, 3).await;
    world
        .until_pool("shop", "the pool to say why", |pool| {
            pool.is_some_and(|pool| {
                said(pool, "CapacityLimited").0 == "True" && said(pool, "Spilling").0 == "True"
            })
        })
        .await;
    let labelled = ListParams::default().labels("burstpool.io/pool");
    let granted = world.pods().list(&labelled).await.expect("a list").items;
    assert_eq!(granted.len(), 2);
    let patch = Patch::Merge(json!({"spec": {"spill": {"maxReplicas": 4}}}));
    let raised = world
        .pools()
        .patch("shop", &PatchParams::default(), &patch)
        .await;
    raised.expect("the maximum is raised");
    world.until_spread(4, 4, 1).await;
}

#[tokio::test]
async fn what_the_pool_accepts_that_pods_lose_is_on_the_pod_and_in_its_event() {
    let world = World::with_home(&json!({})).await;
    let mut web = deployment("web", 6);
    let spec = web.spec.template.spec.as_mut().expect("a pod");
    let context = json!({"readOnlyRootFilesystem": true});
    spec.containers[0].security_context = Some(serde_json::from_value(context).expect("a context"));
    let created = world
        .deployments()
        .create(&PostParams::default(), &web)
        .await;
    created.expect("a Deployment");
    world.until_spread(4, 0, 2).await;
    world
        .until_pool("shop", "the pool to name the remedy", |pool| {
            let status = pool.and_then(|pool| pool.status.as_ref());
            let web = status.and_then(|status| status.workloads.first());
            web.map(|web| web.message.as_str()).is_some_and(|why| {
                why.contains("or accept it: spill.accept: [readOnlyRootFilesystem]")
            })
        })
        .await;

    let accept = |losses: &[&str]| json!({"spill": {"accept": losses}});
    let both = ["fsGroup", "readOnlyRootFilesystem"];
    world.change_pool(&accept(&both)).await;
    let pods = world.until_spread(4, 2, 0).await;
    let (away, home): (Vec<&Pod>, Vec<&Pod>) = pods
        .iter()
        .partition(|pod| objects::node_of(pod) == Some("burst-shop-weu"));
    for pod in home {
        assert_eq!(pod.annotations().get("burstpool.io/not-kept"), None);
    }
    for pod in &away {
        let not_kept = &pod.annotations()["burstpool.io/not-kept"];
        assert_eq!(not_kept, "readOnlyRootFilesystem");
    }
    let name = away.first().expect("two are on ACI").name_any();
    let events: Api<Event> = Api::namespaced(world.client.clone(), "default");
    let told = |events: &[Event]| {
        events.iter().any(|event| {
            let about = event.regarding.as_ref();
            let about = about.and_then(|about| about.name.as_deref());
            let note = event.note.as_deref().unwrap_or_default();
            about == Some(name.as_str())
                && event.reason.as_deref() == Some("Granted")
                && note.ends_with(
                    "; not kept, as the pool accepts (spill.accept): readOnlyRootFilesystem",
                )
        })
    };
    wait::until_all(events, watcher::Config::default(), "an Event", told)
        .await
        .expect("it is told");
    assert_eq!(world.groups().len(), 2);
}

#[tokio::test]
async fn a_pod_that_aci_cannot_run_stays_pending_with_an_event_that_says_why() {
    let world = World::with_home(&json!({})).await;
    let mut bound_to_home = deployment("web", 6);
    let template = &mut bound_to_home.spec.template;
    let spec = template.spec.as_mut().expect("a pod");
    let volume = json!({"name": "host", "hostPath": {"path": "/var/log"}});
    spec.volumes = Some(vec![serde_json::from_value(volume).expect("a volume")]);
    let created = world
        .deployments()
        .create(&PostParams::default(), &bound_to_home)
        .await;
    created.expect("a Deployment");
    let pods = world.until_spread(4, 0, 2).await;
    world
        .until_pool("shop", "the pool to count them as refused", |pool| {
            let status = pool.and_then(|pool| pool.status.as_ref());
            let counts = status.and_then(|status| status.pods).unwrap_or_default();
            (counts.refused, counts.spilled, counts.granted) == (2, 0, 0)
        })
        .await;
    let waiting = pods.iter().find(|pod| objects::node_of(pod).is_none());
    let name = waiting.expect("one waits").name_any();
    let events: Api<k8s_openapi::api::events::v1::Event> =
        Api::namespaced(world.client.clone(), "default");
    let told = |events: &[k8s_openapi::api::events::v1::Event]| {
        events.iter().any(|event| {
            let about = event
                .regarding
                .as_ref()
                .and_then(|about| about.name.as_deref());
            let note = event.note.as_deref().unwrap_or_default();
            about == Some(name.as_str()) && note.contains("hostPath")
        })
    };
    wait::until_all(events, watcher::Config::default(), "an Event", told)
        .await
        .expect("it is told");
}

#[tokio::test]
async fn a_dry_run_shows_what_it_would_do_and_writes_nothing_to_pods() {
    let world = World::with_home(&json!({"mode": "DryRun"})).await;
    world.deploy(6).await;
    let pods = world.until_spread(4, 0, 2).await;
    world
        .until_pool("shop", "the pool to say so", |pool| {
            pool.is_some_and(|pool| said(pool, "Spilling").1.contains("DryRun"))
        })
        .await;
    let mut waiting = pods.iter().filter(|pod| objects::node_of(pod).is_none());
    let name = waiting.next().expect("one waits").name_any();
    world
        .until_told(&name, "Granted", "dry run, nothing is written: ")
        .await;
    let written = |pods: &[Pod]| -> BTreeSet<_> {
        let waiting = pods.iter().filter(|pod| objects::node_of(pod).is_none());
        let meta = waiting.map(|pod| {
            let meta = &pod.metadata;
            let words = (meta.labels.clone(), meta.annotations.clone());
            (meta.name.clone(), meta.generation, words)
        });
        meta.collect()
    };
    let now = world.until_spread(4, 0, 2).await;
    assert_eq!(written(&now), written(&pods));
    assert!(
        now.iter()
            .all(|pod| !pod.labels().contains_key("burstpool.io/pool"))
    );
    let lines = [
        "burstpool_pods{pool=\"shop\",state=\"holding\"} 2",
        "burstpool_pods{pool=\"shop\",state=\"granted\"} 0",
    ];
    let url = telemetry::address(&world).await;
    telemetry::until_measured(&url, &lines).await;
    world.end().await;
}
