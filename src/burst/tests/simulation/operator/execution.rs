//! How an instance carries out its plan: patches that are sent and answered, late or never, and crashes.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::Operator;
use super::views::PoolView;
use crate::api::LossSet;
use crate::burst::PodWriteResult;
use crate::burst::decision::SlotState;
use crate::burst::facts::pod::{GrantRecord, PodReference};
use crate::burst::leader_state::{PatchOutcome, PodWrite};
use crate::burst::plan::{BurstPlan, Precondition};
use crate::burst::select::never_started::RescueAction;
use crate::burst::tests::simulation::cluster::Cluster;
use crate::burst::tests::simulation::{Happened, checks};
use crate::k8s::time::later;

impl Operator {
    pub(super) fn carry_out(
        &mut self,
        plan: &BurstPlan,
        pool: &PoolView,
        is_leader: bool,
        (cluster, rng): (&mut Cluster, &mut StdRng),
        happened: &mut Happened,
    ) {
        self.is_clean = false;
        match plan.precondition {
            Precondition::ClaimLeadership => {
                return self.claim(plan, pool, is_leader, (cluster, rng), happened);
            }
            Precondition::CountPods => {
                self.views.count(cluster);
                self.term.is_counted = true;
                self.is_due = true;
                return;
            }
            Precondition::Met => {}
        }
        // A write in flight may take back what is reserved already.
        let stands = !self.term.is_in_doubt(pool);
        self.is_clean = stands && plan.unwatched_reservations.is_empty();
        if stands {
            // Pods with a reservation need not wait for the write.
            self.queue_grants(plan, SlotState::Reserved, pool, cluster, happened);
            let sent = rng.random_range(0..=self.unsent_grants.len());
            self.send_grants(self.unsent_grants.len() - sent, cluster, rng, happened);
        }
        if plan.must_write_reservations && !self.reserve(plan, pool, cluster, rng, happened) {
            (self.is_due, self.is_clean) = (true, false);
            return;
        }
        let may_write = plan.must_write_reservations || stands;
        if may_write {
            self.queue_grants(plan, SlotState::ToReserve, pool, cluster, happened);
        }
        self.look(plan, cluster, happened);
        if !may_write {
            happened.doubts += 1;
            self.is_due = true;
            self.resolve(cluster);
            return;
        }
        self.finish(plan, cluster, rng, happened);
    }

    /// Sends grants and carries out the rest of the plan, unless the instance freezes.
    fn finish(
        &mut self,
        plan: &BurstPlan,
        cluster: &mut Cluster,
        rng: &mut StdRng,
        happened: &mut Happened,
    ) {
        if !cluster.is_calm && !self.unsent_grants.is_empty() && rng.random_bool(0.03) {
            happened.freezes += 1;
            self.is_stale = true;
            let sent = rng.random_range(0..self.unsent_grants.len());
            self.send_grants(self.unsent_grants.len() - sent, cluster, rng, happened);
            self.away_until = Some(cluster.after(rng, 5..200));
            return;
        }
        // Some grants are answered only after the next plan.
        let is_slow = !cluster.is_calm && rng.random_bool(0.3);
        let left = if is_slow {
            self.unsent_grants.len() / 2
        } else {
            0
        };
        self.send_grants(left, cluster, rng, happened);
        self.others(plan, cluster, rng, happened);
    }

    /// Queues the grants whose reservations are in the status, or have just been written.
    pub(super) fn queue_grants(
        &mut self,
        plan: &BurstPlan,
        slot: SlotState,
        pool: &PoolView,
        cluster: &Cluster,
        happened: &mut Happened,
    ) {
        for decision in plan.grants().filter(|decision| decision.slot == slot) {
            let id = &decision.pod;
            if slot == SlotState::Reserved {
                let entries = pool.pool.status.iter().flat_map(|one| &one.reservations);
                let mut entries = entries.filter(|entry| entry.uid == id.uid);
                let is_own = entries.any(|entry| entry.holder == self.identity());
                match (is_own, self.memory.patch_outcome(id)) {
                    (true, PatchOutcome::NotApplied) => happened.ahead += 1,
                    (true, _) => happened.again += 1,
                    (false, _) => happened.inherited += 1,
                }
            }
            if let Some(pod) = cluster.pods.get(&id.uid) {
                let is_triggered = self.views.is_triggered;
                happened.triggered += u64::from(checks::hold(cluster, pod, is_triggered));
                happened.nominated += u64::from(pod.facts.is_nominated);
            }
            let grant = GrantRecord {
                pool: "shop".to_owned(),
                workload: decision.workload.clone(),
                granted_at: Some(self.clocks.api_server(cluster.now)),
                is_expired: false,
                not_kept: LossSet::default(),
                refused: None,
            };
            self.memory.record_patch_sent(id);
            self.unsent_grants.push_back((id.clone(), grant));
        }
    }

    /// Carries out everything except grants: releases, stamps, expiries and rescues.
    fn others(
        &mut self,
        plan: &BurstPlan,
        cluster: &mut Cluster,
        rng: &mut StdRng,
        happened: &mut Happened,
    ) {
        for pod in &plan.releases {
            let answer = cluster.release(pod, rng);
            happened.releases += u64::from(answer == PodWriteResult::Granted);
            let now = self.clocks.own(cluster.now);
            self.memory
                .record_write(pod, PodWrite::Release, &answer, now);
        }
        for stamp in &plan.refused_since_stamps {
            let identity = self.identity();
            let answer = cluster.stamp(stamp, &identity, rng);
            happened.refused_stamps += u64::from(matches!(answer, PodWriteResult::Denied(_)));
            let now = self.clocks.own(cluster.now);
            self.memory
                .record_write(&stamp.pod, PodWrite::RefusedSince, &answer, now);
        }
        for expiry in &plan.expiries {
            self.expire(&expiry.pod, cluster, happened);
        }
        for rescue in &plan.never_started {
            let pod = cluster.pods.get(&rescue.pod.uid);
            let pod = pod.filter(|pod| !pod.facts.is_deleting);
            if let (RescueAction::Delete, Some(pod)) = (rescue.action, pod) {
                checks::rescue(pod, cluster.now);
                happened.rescues += 1;
                cluster.delete(&rescue.pod.uid, rng);
            }
        }
    }

    fn expire(&mut self, id: &PodReference, cluster: &mut Cluster, happened: &mut Happened) {
        let is_same = cluster
            .pods
            .get(&id.uid)
            .is_some_and(|pod| pod.facts.id == *id);
        let answer = if is_same {
            PodWriteResult::Granted
        } else {
            PodWriteResult::Conflict
        };
        if is_same {
            happened.expiries += 1;
            cluster.change(&id.uid, |facts| {
                facts.grant.as_mut().expect("it is granted").is_expired = true;
            });
        }
        let now = self.clocks.own(cluster.now);
        self.memory.record_write(id, PodWrite::Expire, &answer, now);
    }

    /// Reads reserved pods that are in no watch.
    fn look(&mut self, plan: &BurstPlan, cluster: &Cluster, happened: &mut Happened) {
        for unseen in &plan.unwatched_reservations {
            let found = cluster.pods.get(&unseen.uid).map(|pod| pod.facts.clone());
            happened.homecomings += u64::from(
                found
                    .as_ref()
                    .is_some_and(|pod| pod.is_done_without_grant()),
            );
            self.memory.record_lookup(unseen, found.as_deref());
        }
    }

    pub(super) fn send_grants(
        &mut self,
        left: usize,
        cluster: &mut Cluster,
        rng: &mut StdRng,
        happened: &mut Happened,
    ) {
        while self.unsent_grants.len() > left {
            if let Some((pod, grant)) = self.unsent_grants.pop_front() {
                self.send(&pod, grant, cluster, rng, happened);
            }
        }
    }

    pub(super) fn send(
        &mut self,
        pod: &PodReference,
        grant: GrantRecord,
        cluster: &mut Cluster,
        rng: &mut StdRng,
        happened: &mut Happened,
    ) {
        let answer = if !cluster.is_calm && rng.random_bool(0.05) {
            cluster.lose(pod, grant, rng);
            PodWriteResult::Lost
        } else {
            cluster.grant(pod, &grant)
        };
        match answer {
            PodWriteResult::Granted => happened.grants += 1,
            PodWriteResult::Conflict => happened.conflicts += 1,
            PodWriteResult::Denied(_) => happened.denials += 1,
            PodWriteResult::Lost => happened.lost += 1,
            PodWriteResult::Gone | PodWriteResult::Unsent | PodWriteResult::Unmarked(_) => {}
        }
        self.answers.push_back((pod.clone(), answer));
        let is_slow = !cluster.is_calm && rng.random_bool(0.3);
        if !is_slow {
            self.receive_answers(0, cluster);
        }
    }

    /// Receives all answers except the last `outstanding`.
    pub(super) fn receive_answers(&mut self, outstanding: usize, cluster: &Cluster) {
        while self.answers.len() > outstanding {
            let Some((pod, answer)) = self.answers.pop_front() else {
                return;
            };
            self.is_clean &= answer == PodWriteResult::Granted;
            self.is_due = true;
            let now = self.clocks.own(cluster.now);
            self.memory.record_grant_answer(&pod, answer, now);
        }
    }

    /// Restarts the instance: with empty memory, no queued grants, and a new identity.
    pub(super) fn crash(
        &mut self,
        cluster: &mut Cluster,
        rng: &mut StdRng,
        happened: &mut Happened,
    ) {
        happened.crashes += 1;
        *self = Self {
            run: self.run + 1,
            away_until: Some(cluster.after(rng, 1..120)),
            ..Self::new(self.number, cluster.now, rng)
        };
        cluster.disturbed = later(cluster.now, Duration::from_secs(1));
    }
}
