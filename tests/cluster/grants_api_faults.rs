//! An API server that is slow or refuses, or whose watches end, between reservation and grant: the
//! operator never grants more than the maximum, and after the trouble grants each allowed pod once.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams};
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::leader::{Slots, count, exactly, refused};
use crate::own_nodes::{grants, is_granted};
use crate::support::between::{Between, Calls, Fault};
use crate::support::wait::by_and_by;
use crate::support::{OPERATOR, wait};
use crate::world::World;
use crate::world::process::Instance;

/// Pods that the scheduler has refused: more than are ever granted.
const PODS: usize = 20;
/// By how much each case raises the pool's maximum.
const STEP: usize = 3;
/// Longer than the operator's call timeout of 5 s.
const PAST: Duration = Duration::from_secs(7);
/// Long enough for another event between two calls.
const WHILE: Duration = Duration::from_secs(2);

/// An operator that reaches its API server only through [`Between`].
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
        // Boxed, because the future is large and every test would contain it.
        let world = Box::pin(refused(PODS)).await;
        let between = Between::start(&world.cluster).await;
        let operator = world.cluster.operator().expect("its token");
        let kubeconfig = world.cluster.kubeconfig_of(OPERATOR, &operator);
        between.redirect(&kubeconfig.expect("a file"));
        // This watches the API server directly.
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

    /// Raises the maximum by [`STEP`] while these calls meet these faults.
    async fn raise(&mut self, faults: &[(Calls, Fault)]) {
        self.between.put(faults);
        self.most += STEP;
        self.world.raise(self.most).await;
    }

    /// Asserts how many pods use a slot. Lists from the API server directly.
    async fn assert_held(&self, number: usize) {
        assert_eq!(self.world.held().await, number, "{}", self.operator.tail());
    }

    async fn exactly_the_most(&mut self) {
        exactly(self.most, &mut self.slots, &self.operator).await;
    }

    /// Deletes a pod that uses a slot.
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

    /// Ends all faults: exactly the maximum is granted, and stays so, even when delayed calls arrive.
    async fn heal(&mut self) {
        self.between.be_well();
        self.exactly_the_most().await;
        self.between.until_idle().await;
        self.world.until_settled(self.most).await;
        self.exactly_the_most().await;
    }

    /// Asserts that each pod was granted once, with one Event.
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

/// How often an Event reports the grant of each pod.
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
async fn writes_that_the_api_server_refuses_are_retried_and_nothing_is_granted_unreserved() {
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
    // Only a list shows the change. The second watch from here on follows such a list.
    stage.between.put(&gone);
    stage.between.until_met(Calls::WatchingGranted, 2).await;
    stage.heal().await;

    stage.raise(&slow).await;
    stage.between.until_met(Calls::Granting, 1).await;
    stage.between.silence_watches();
    stage.exactly_the_most().await;
    // No watch shows it until the watches work again.
    stage.free_one().await;
    stage.heal().await;
    stage.end().await;
}

/// The operator's patch meets a conflict (409). It sends another one for the changed pod.
#[tokio::test]
async fn a_pod_that_changes_between_reservation_and_grant_is_granted_once() {
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
