//! An API server that is slow, refuses, or whose watches end, between reserving and granting (E78): at no
//! moment is more granted than may be, and once it is well again all that may be granted is, once.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams};
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::home::{grants, is_granted};
use crate::leader::{Slots, count, exactly, refused};
use crate::support::between::{Between, Calls, Fault};
use crate::support::wait::by_and_by;
use crate::support::{OPERATOR, wait};
use crate::world::World;
use crate::world::process::Instance;

/// How many pods home has refused: more than are ever granted.
const PODS: usize = 20;
/// By how much the pool's maximum is raised for each trouble.
const STEP: usize = 3;
/// Longer than the operator waits for an answer, which is 5 s.
const PAST: Duration = Duration::from_secs(7);
/// Long enough to put something between two calls.
const WHILE: Duration = Duration::from_secs(2);

/// An operator that reaches its API server only through what is in between.
struct Stage {
    world: World,
    between: Between,
    operator: Instance,
    slots: watch::Receiver<Slots>,
    counting: JoinHandle<()>,
    most: usize,
}

impl Stage {
    async fn set() -> Self {
        // A start is large, and would be so in every test.
        let world = Box::pin(refused(PODS)).await;
        let between = Between::start(&world.cluster).await;
        let operator = world.cluster.operator().expect("its token");
        let kubeconfig = world.cluster.kubeconfig_of(OPERATOR, &operator);
        between.redirect(&kubeconfig.expect("a file"));
        // Counts at the API server itself.
        let (slots, counting) = count(world.pods());
        let operator = world.instance("log-0");
        world.add_empty_pool().await;
        Self {
            world,
            between,
            operator,
            slots,
            counting,
            most: 0,
        }
    }

    /// Lets so many more be granted, when these calls meet their faults.
    async fn raise(&mut self, faults: &[(Calls, Fault)]) {
        self.between.put(faults);
        self.most += STEP;
        self.world.raise(self.most).await;
    }

    /// How many hold a slot, by the API server's own word.
    async fn assert_held(&self, number: usize) {
        assert_eq!(self.world.held().await, number, "{}", self.operator.tail());
    }

    async fn exactly_the_most(&mut self) {
        exactly(self.most, &mut self.slots, &self.operator).await;
    }

    /// One that holds a slot goes, and its slot is free.
    async fn free_one(&mut self) {
        let first = self.slots.borrow().held.first().cloned();
        let gone = first.expect("one holds a slot");
        let at_once = DeleteParams::default().grace_period(0);
        let deleted = self.world.pods().delete(&gone, &at_once).await;
        deleted.expect("it is deleted");
        let freed = self.slots.wait_for(|slots| !slots.held.contains(&gone));
        let freed = tokio::time::timeout(wait::DEADLINE, freed).await;
        assert!(freed.is_ok_and(|seen| seen.is_ok()), "its slot is free");
    }

    /// All is well again: as many are granted as may be, and remain, whatever comes late.
    async fn heal(&mut self) {
        self.between.be_well();
        self.exactly_the_most().await;
        self.between.until_idle().await;
        self.world.until_settled(self.most).await;
        self.exactly_the_most().await;
    }

    /// Each was granted once, and told so once.
    async fn end(self) {
        let pods = self.world.pods().list(&ListParams::default()).await;
        let pods = pods.expect("a list").items;
        let granted: Vec<_> = pods.iter().filter(|pod| is_granted(pod)).collect();
        assert_eq!(granted.len(), self.most);
        assert!(granted.iter().all(|pod| grants(pod) == 1));
        let once = granted.iter().map(|pod| (pod.name_any(), 1)).collect();
        let events: Api<Event> = Api::namespaced(self.world.client.clone(), "default");
        let is_told = |events: &[Event]| told(events).len() >= granted.len();
        let config = watcher::Config::default();
        let events = wait::until_all(events, config, "an Event of each", is_told).await;
        let mut told = told(&events.expect("all are told"));
        told.retain(|name, _| granted.iter().any(|pod| pod.name_any() == *name));
        assert_eq!(told, once);
        self.counting.abort();
        drop(self.operator);
        self.world.end().await;
    }
}

/// How often each pod is said to be granted.
fn told(events: &[Event]) -> BTreeMap<String, i32> {
    let mut told = BTreeMap::new();
    for event in events {
        if event.reason.as_deref() == Some("Granted") {
            let about = event
                .regarding
                .as_ref()
                .and_then(|about| about.name.clone());
            let series = event.series.as_ref().map_or(1, |series| series.count);
            *told.entry(about.unwrap_or_default()).or_default() += series;
        }
    }
    told
}

#[tokio::test]
async fn an_api_server_that_answers_late_or_not_at_all_leads_to_no_grant_too_many() {
    let mut stage = Stage::set().await;
    for fault in [
        Fault::DoneLate(PAST),
        Fault::AnsweredLate(PAST),
        Fault::AnswerLost,
        Fault::Done(504),
    ] {
        let writes = [Calls::Reserving, Calls::Telling, Calls::Granting];
        stage.raise(&writes.map(|calls| (calls, fault))).await;
        stage.between.until_met(Calls::Reserving, 1).await;
        stage.between.until_met(Calls::Granting, STEP).await;
        stage.heal().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn an_api_server_that_refuses_to_write_is_asked_again_and_nothing_is_granted_unreserved() {
    let mut stage = Stage::set().await;
    for code in [429, 500, 503] {
        let before = stage.most;
        let refused = |calls| (calls, Fault::Refused(code));
        stage
            .raise(&[refused(Calls::Reserving), refused(Calls::Telling)])
            .await;
        stage.between.until_met(Calls::Reserving, 3).await;
        stage.assert_held(before).await;
        stage.between.put(&[refused(Calls::Granting)]);
        stage.between.lift(&[Calls::Reserving, Calls::Telling]);
        stage.between.until_met(Calls::Granting, 2 * STEP).await;
        stage.assert_held(before).await;
        stage.heal().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn watches_that_end_are_too_old_or_fall_silent_lead_to_no_grant_too_many() {
    let mut stage = Stage::set().await;
    let slow = [(Calls::Granting, Fault::DoneLate(WHILE))];
    stage.raise(&slow).await;
    stage.between.until_met(Calls::Granting, 1).await;
    stage.between.end_watches();
    stage.heal().await;

    stage.raise(&slow).await;
    stage.between.until_met(Calls::Granting, 1).await;
    let gone = [Calls::Watching, Calls::WatchingGranted].map(|calls| (calls, Fault::Gone));
    stage.between.put(&gone);
    stage.between.end_watches();
    stage.between.until_met(Calls::WatchingGranted, 2).await;
    stage.exactly_the_most().await;
    stage.free_one().await;
    // Only a list tells of it: the second watch from here on is after one that has.
    stage.between.put(&gone);
    stage.between.until_met(Calls::WatchingGranted, 2).await;
    stage.heal().await;

    stage.raise(&slow).await;
    stage.between.until_met(Calls::Granting, 1).await;
    stage.between.silence_watches();
    stage.exactly_the_most().await;
    // Nobody is told of it until watches say something again.
    stage.free_one().await;
    stage.heal().await;
    stage.end().await;
}

/// Scenario A21: its patch is answered 409, and another is sent for the pod as it is then.
#[tokio::test]
async fn a_pod_that_somebody_writes_between_reserving_and_granting_is_granted_once() {
    let mut stage = Stage::set().await;
    stage
        .raise(&[(Calls::Granting, Fault::DoneLate(WHILE))])
        .await;
    stage.between.until_met(Calls::Granting, 1).await;
    let note = json!({"metadata": {"annotations": {"example.com/n": "1"}}});
    let all = stage.world.pods().list(&ListParams::default()).await;
    let all = all.expect("a list").items.into_iter();
    let writes = all.map(|pod| {
        let (world, note) = (&stage.world, &note);
        async move { world.change_pod(&pod.name_any(), note).await }
    });
    futures::future::join_all(writes).await;
    by_and_by("a grant to conflict", async || {
        stage.operator.tail().contains("\"answer\":\"Conflict\"")
    })
    .await;
    stage.heal().await;
    stage.end().await;
}
