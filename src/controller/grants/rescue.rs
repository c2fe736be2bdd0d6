//! Deletes or evicts pods that never started, so that their controllers create replacements.
//!
//! In: a plan's rescues. Out: writes to pods, whose answers go to [`LeaderState`](crate::burst::LeaderState);
//! and for a Job's pod, after its Job has been read, an Event with the result.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;

use super::executor::{CALL_TIMEOUT, Executor, answer_for_error};
use super::leadership::PoolLeaderState;
use crate::burst::PodWriteResult;
use crate::burst::facts::jobs;
use crate::burst::facts::jobs::EvictionCost;
use crate::burst::facts::pod::PodOwner;
use crate::burst::leader_state::PodWrite;
use crate::burst::select::never_started::{NeverStarted, RescueAction};
use crate::k8s::call;
use crate::k8s::call::{DeletionOutcome, ObjectTarget};

/// What a Job does when one of its pods is evicted.
enum JobAnswer {
    /// It creates a replacement; an eviction costs this.
    Replaces(EvictionCost),
    /// It creates no replacement, for this reason.
    Keeps(String),
    /// The Job could not be read.
    Unknown,
}

impl Executor {
    /// Executes rescues. For those that are only reported, [`EventPublisher`](super::events::EventPublisher)
    /// publishes the Event.
    pub(super) async fn rescue(&self, rescues: &[NeverStarted], state: &mut PoolLeaderState) {
        for rescue in rescues {
            let answer = match (rescue.action, &rescue.owner) {
                (RescueAction::Delete, _) => self.delete(rescue).await,
                // A later plan tries it again.
                (RescueAction::AskJob, Some(job))
                    if state.leader_state.is_counting(&job.uid, self.steady()) =>
                {
                    PodWriteResult::Unsent
                }
                (RescueAction::AskJob, Some(job)) => {
                    let is_first = !state
                        .leader_state
                        .was_denied(PodWrite::Delete, &rescue.pod.uid);
                    let (answer, cost) = self.evict_if_replaced(rescue, job, is_first).await;
                    // An eviction without an answer may have taken effect.
                    let is_evicted =
                        matches!(answer, PodWriteResult::Granted | PodWriteResult::Lost);
                    if is_evicted && cost == Some(EvictionCost::Failure) {
                        state.leader_state.evicted_from(&job.uid, self.steady());
                    }
                    answer
                }
                (RescueAction::Report | RescueAction::AskJob, _) => continue,
            };
            let (id, now) = (&rescue.pod, self.steady());
            let pod = format!("{}/{}", id.namespace, id.name);
            tracing::info!(%pod, why = %rescue.why, ?answer, "tried to remove a pod that never started");
            state
                .leader_state
                .record_write(id, PodWrite::Delete, &answer, now);
        }
    }

    fn steady(&self) -> Timestamp {
        self.parts.cache.clock.steady()
    }

    async fn delete(&self, rescue: &NeverStarted) -> PodWriteResult {
        match call::delete(
            CALL_TIMEOUT,
            &self.pods_api(rescue),
            &pod_target(rescue),
            None,
        )
        .await
        {
            Ok(DeletionOutcome::Started) => PodWriteResult::Granted,
            Ok(DeletionOutcome::NotFound) => PodWriteResult::Conflict,
            Err(kube::Error::Api(status)) => answer_for_error(*status),
            Err(_) => PodWriteResult::Lost,
        }
    }

    /// Evicts the pod if its Job creates a replacement, and publishes an Event if the result is new. Returns
    /// the answer, and what an eviction costs the Job.
    async fn evict_if_replaced(
        &self,
        rescue: &NeverStarted,
        job: &PodOwner,
        is_first: bool,
    ) -> (PodWriteResult, Option<EvictionCost>) {
        let cost = match self.ask_job(rescue, job).await {
            JobAnswer::Replaces(cost) => cost,
            JobAnswer::Keeps(why) => {
                if is_first {
                    self.notify_stays(rescue, &why);
                }
                return (PodWriteResult::Denied(why), None);
            }
            JobAnswer::Unknown => return (PodWriteResult::Lost, None),
        };
        let answer =
            match call::evict(CALL_TIMEOUT, &self.pods_api(rescue), &pod_target(rescue)).await {
                Ok(()) => PodWriteResult::Granted,
                Err(kube::Error::Api(status)) if call::is_object_not_found(&status) => {
                    PodWriteResult::Conflict
                }
                Err(kube::Error::Api(status)) => answer_for_error(*status),
                Err(_) => PodWriteResult::Lost,
            };
        match &answer {
            PodWriteResult::Granted => {
                let note = format!(
                    "{}; it is evicted, and its Job creates a replacement",
                    rescue.why
                );
                self.grant_sender
                    .notifier
                    .notify_never_started(&rescue.pod, &note);
            }
            PodWriteResult::Denied(why) if is_first => {
                let why = format!("the API server rejects its eviction: {why}");
                self.notify_stays(rescue, &why);
            }
            _ => {}
        }
        (answer, Some(cost))
    }

    fn notify_stays(&self, rescue: &NeverStarted, why: &str) {
        let note = format!("{}; it stays: {why}", rescue.why);
        self.grant_sender
            .notifier
            .notify_never_started(&rescue.pod, &note);
    }

    /// Reads the pod's Job to find out what it does after an eviction.
    async fn ask_job(&self, rescue: &NeverStarted, owner: &PodOwner) -> JobAnswer {
        let client = self.parts.client.clone();
        let jobs: Api<Job> = Api::namespaced(client, &rescue.pod.namespace);
        match call::find(CALL_TIMEOUT, &jobs, &owner.name).await {
            Ok(Some(job)) if job.metadata.uid.as_ref() == Some(&owner.uid) => {
                jobs::eviction_cost(&job).map_or_else(JobAnswer::Keeps, JobAnswer::Replaces)
            }
            Ok(_) => JobAnswer::Keeps("its Job does not exist".to_owned()),
            Err(kube::Error::Api(status)) if status.is_forbidden() => JobAnswer::Keeps(
                "burstpool may not read its Job: its ClusterRole does not allow it to get jobs in batch"
                    .to_owned(),
            ),
            Err(error) => {
                tracing::warn!(job = owner.name, %error, "cannot read a Job");
                JobAnswer::Unknown
            }
        }
    }

    fn pods_api(&self, rescue: &NeverStarted) -> Api<Pod> {
        Api::namespaced(self.parts.client.clone(), &rescue.pod.namespace)
    }
}

/// The pod in the version that the plan was made from: it may have started since.
fn pod_target(rescue: &NeverStarted) -> ObjectTarget {
    ObjectTarget {
        name: rescue.pod.name.clone(),
        uid: rescue.pod.uid.clone(),
        version: Some(rescue.pod.resource_version.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::fixtures::{ScriptedServer, executor, pool, term_counter};
    use super::*;
    use crate::burst::PodReference;
    use crate::burst::facts::pod::OwnerKind;
    use crate::burst::plan::BurstPlan;

    fn of_a_job(name: &str) -> NeverStarted {
        NeverStarted {
            pod: PodReference {
                namespace: "default".to_owned(),
                name: name.to_owned(),
                uid: format!("uid-{name}"),
                resource_version: "7".to_owned(),
            },
            action: RescueAction::AskJob,
            owner: Some(PodOwner {
                kind: OwnerKind::Job,
                name: "batch".to_owned(),
                uid: "j".to_owned(),
                template: "j/".to_owned(),
            }),
            why: "no room".to_owned(),
            template_fault: None,
        }
    }

    fn job(uid: &str, limit: i32) -> Value {
        json!({"metadata": {"name": "batch", "uid": uid}, "spec": {"template": {}, "backoffLimit": limit}})
    }

    #[tokio::test(start_paused = true)]
    async fn pods_of_a_job_that_replaces_them_are_evicted_in_the_planned_version_one_at_a_time() {
        let own_pool = pool("1", "us-1");
        let (mut server, client) = ScriptedServer::new();
        let executor = executor(&own_pool, &[], &client);
        let mut state = PoolLeaderState::new(&own_pool, &mut term_counter());
        let rescues = ["a", "b"].map(of_a_job);
        let answers = async {
            server.expect("GET jobs/batch").await.respond(&job("j", 1));
            let call = server.expect("POST pods/a/eviction").await;
            let preconditions = &call.body["deleteOptions"]["preconditions"];
            assert_eq!(
                preconditions,
                &json!({"uid": "uid-a", "resourceVersion": "7"})
            );
            call.respond(&json!({"kind": "Status", "status": "Success"}));
            server.expect_nothing().await;
        };
        tokio::join!(executor.rescue(&rescues, &mut state), answers);
        assert!(
            state
                .leader_state
                .write_retry_at(PodWrite::Delete, "uid-a")
                .is_none()
        );
        assert!(
            state
                .leader_state
                .write_retry_at(PodWrite::Delete, "uid-b")
                .is_some()
        );
        assert_eq!(server.events().await, ["NeverStarted a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_replaced_pod_is_deleted_in_the_planned_version_but_not_in_a_dry_run() {
        let own_pool = pool("1", "us-1");
        let (mut server, client) = ScriptedServer::new();
        let executor = executor(&own_pool, &[], &client);
        let mut state = PoolLeaderState::new(&own_pool, &mut term_counter());
        let rescue = NeverStarted {
            action: RescueAction::Delete,
            ..of_a_job("a")
        };
        let mut plan = BurstPlan {
            never_started: vec![rescue],
            is_dry_run: true,
            ..BurstPlan::default()
        };
        executor.execute(&plan, &mut state).await;
        server.expect_nothing().await;
        plan.is_dry_run = false;
        let answers = async {
            let call = server.expect("DELETE pods/a").await;
            let preconditions = &call.body["preconditions"];
            assert_eq!(
                preconditions,
                &json!({"uid": "uid-a", "resourceVersion": "7"})
            );
            call.respond(&json!({"kind": "Status", "status": "Success"}));
        };
        tokio::join!(executor.execute(&plan, &mut state), answers);
        assert!(
            state
                .leader_state
                .write_retry_at(PodWrite::Delete, "uid-a")
                .is_none()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_loses_no_second_pod_before_its_status_can_count_the_first() {
        let own_pool = pool("1", "us-1");
        // The eviction is accepted; it has no answer; it is rejected.
        for (code, is_counting) in [(200, true), (500, true), (409, false)] {
            let (mut server, client) = ScriptedServer::new();
            let executor = executor(&own_pool, &[], &client);
            let mut state = PoolLeaderState::new(&own_pool, &mut term_counter());
            let answers = async {
                server.expect("GET jobs/batch").await.respond(&job("j", 1));
                let call = server.expect("POST pods/a/eviction").await;
                if code == 200 {
                    call.respond(&json!({"kind": "Status", "status": "Success"}));
                } else {
                    call.respond_error(code);
                }
            };
            let first = [of_a_job("a")];
            tokio::join!(executor.rescue(&first, &mut state), answers);
            let answers = async {
                if !is_counting {
                    server.expect("GET jobs/batch").await.respond(&job("j", 0));
                }
                server.expect_nothing().await;
            };
            let later = [of_a_job("b")];
            tokio::join!(executor.rescue(&later, &mut state), answers);
            assert!(
                state
                    .leader_state
                    .write_retry_at(PodWrite::Delete, "uid-b")
                    .is_some(),
                "{code}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_earlier_denial_silences_the_event_of_a_pod_that_stays() {
        let own_pool = pool("1", "us-1");
        let (mut server, client) = ScriptedServer::new();
        let executor = executor(&own_pool, &[], &client);
        let mut state = PoolLeaderState::new(&own_pool, &mut term_counter());
        let rescues = [of_a_job("a")];
        // The Job cannot be read at first; then the API server rejects the eviction.
        for rejected in [
            "GET jobs/batch",
            "POST pods/a/eviction",
            "POST pods/a/eviction",
        ] {
            let answers = async {
                let call = server.expect("GET jobs/batch").await;
                if call.what == rejected {
                    return call.respond_error(500);
                }
                call.respond(&job("j", 6));
                server.expect(rejected).await.respond_error(403);
            };
            tokio::join!(executor.rescue(&rescues, &mut state), answers);
        }
        assert_eq!(server.events().await, ["NeverStarted a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_pod_of_a_job_that_does_not_replace_it_stays_and_gets_one_event() {
        let own_pool = pool("1", "us-1");
        for (answer, code) in [
            (job("j", 0), 200),
            (job("another", 6), 200),
            (Value::Null, 403),
            (Value::Null, 404),
        ] {
            let (mut server, client) = ScriptedServer::new();
            let executor = executor(&own_pool, &[], &client);
            let mut state = PoolLeaderState::new(&own_pool, &mut term_counter());
            let rescues = [of_a_job("a")];
            for _ in 0..2 {
                let answers = async {
                    let call = server.expect("GET jobs/batch").await;
                    if code == 200 {
                        call.respond(&answer);
                    } else {
                        call.respond_error(code);
                    }
                    server.expect_nothing().await;
                };
                tokio::join!(executor.rescue(&rescues, &mut state), answers);
            }
            assert!(
                state
                    .leader_state
                    .write_retry_at(PodWrite::Delete, "uid-a")
                    .is_some()
            );
            assert_eq!(server.events().await, ["NeverStarted a"], "{code} {answer}");
        }
    }
}
