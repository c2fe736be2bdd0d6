//! Grants on their way: each by itself, while the next are planned and reserved.
//!
//! In: decisions whose reservations stand. Out: their answers, which [`Memory`] is told of before the next
//! plan. Until then a pod keeps its slot, and is neither granted again nor taken back. A pool whose grants
//! are on their way stays the pool, and in the term, that they were reserved in: only when nothing is in
//! our hands any more is it looked at anew.

use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt as _;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::act::{AT_ONCE, Act, PAUSE, patch_pod};
use super::stores::Waiting;
use super::tell::Granted;
use super::term::leader;
use super::{Context, grant};
use crate::api::{BurstPool, Mode};
use crate::burst::{Answer, Decision, Memory, PodRef};

/// What became of a grant, and when.
type Came = (PodRef, Answer, Timestamp);

/// The grants of a pool that are on their way.
pub(super) struct Granting {
    answer: mpsc::UnboundedSender<Came>,
    answers: mpsc::UnboundedReceiver<Came>,
    turns: Arc<Semaphore>,
    on_their_way: usize,
}

/// Where grants are sent from, and until when.
#[derive(Clone)]
pub(super) struct Sending {
    pub(super) tasks: TaskTracker,
    pub(super) cancel: CancellationToken,
    pub(super) granted: Granted,
}

impl Default for Granting {
    fn default() -> Self {
        let (answer, answers) = mpsc::unbounded_channel();
        Self {
            answer,
            answers,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            on_their_way: 0,
        }
    }
}

impl Granting {
    /// Sends a grant, at the version that is reserved; told to `memory` now, and again by
    /// [`Granting::hear`].
    pub(super) fn send(&mut self, decision: &Decision, act: &Act, memory: &mut Memory) {
        memory.sending(&decision.pod);
        self.on_their_way += 1;
        let grant = Grant {
            context: act.context.clone(),
            pool: act.pool.clone(),
            pod: act.view.waiting.get(&decision.pod.uid).cloned(),
            decision: decision.clone(),
            granted: act.sending.granted.clone(),
        };
        let answering = Answering {
            answer: self.answer.clone(),
            changed: act.context.stores.changed.clone(),
            pod: decision.pod.clone(),
            came: Answer::Lost,
        };
        let turns = self.turns.clone();
        let Sending { tasks, cancel, .. } = act.sending.clone();
        tasks.spawn(cancel.run_until_cancelled_owned(async move {
            // It is never closed.
            let turn = turns.acquire().await;
            let came = grant.carry_out().await;
            if came == Answer::Lost {
                tokio::time::sleep(PAUSE).await;
            }
            drop(turn);
            if came == Answer::Gone {
                // It is seen for a moment still, and would be sent again at once.
                tokio::time::sleep(PAUSE).await;
            }
            answering.tell(came);
        }));
    }

    /// Tells `memory` what was answered since.
    pub(super) fn hear(&mut self, memory: &mut Memory) {
        while let Ok((pod, answer, at)) = self.answers.try_recv() {
            self.on_their_way -= 1;
            memory.answered(&pod, answer, at);
        }
    }

    /// Whether none is on its way, as far as was heard.
    pub(super) fn is_done(&self) -> bool {
        self.on_their_way == 0
    }
}

/// Answers in the end, however that comes: else a pod would be on its way for ever.
struct Answering {
    answer: mpsc::UnboundedSender<Came>,
    changed: Arc<Notify>,
    pod: PodRef,
    came: Answer,
}

impl Answering {
    fn tell(mut self, came: Answer) {
        self.came = came;
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let came = (self.pod.clone(), self.came.clone(), Timestamp::now());
        // A pool that is no more hears nothing.
        drop(self.answer.send(came));
        self.changed.notify_one();
    }
}

/// One grant, and nothing more of what it was planned with.
struct Grant {
    context: Arc<Context>,
    pool: Arc<BurstPool>,
    pod: Option<Waiting>,
    decision: Decision,
    granted: Granted,
}

impl Grant {
    async fn carry_out(&self) -> Answer {
        let (id, name) = (&self.decision.pod, self.pool.name_any());
        let answer = match self.pod.as_ref().and_then(Waiting::pod) {
            Some(_) if !self.is_still_wanted(&name) => Answer::Unsent,
            Some(pod) => {
                let (version, workload) = (&id.resource_version, &self.decision.workload);
                let patch = grant::grant(&pod, version, &name, workload, Timestamp::now());
                patch_pod(&self.context, id, &patch).await
            }
            None => Answer::Conflict,
        };
        tracing::info!(
            pool = name,
            pod = %format!("{}/{}", id.namespace, id.name),
            ?answer,
            "granting"
        );
        self.context.metrics.grant(&name, outcome(&answer));
        if answer == Answer::Granted {
            self.granted.tell(&self.decision);
        }
        answer
    }

    /// Whether the pool is there and led as it was: a grant may have waited long for its turn.
    fn is_still_wanted(&self, name: &str) -> bool {
        self.context.stores.pool(name).is_some_and(|pool| {
            pool.uid() == self.pool.uid()
                && pool.metadata.deletion_timestamp.is_none()
                && pool.spec.mode != Mode::DryRun
                && leader(&pool) == leader(&self.pool)
        })
    }
}

/// An answer in a metric's word.
fn outcome(answer: &Answer) -> &'static str {
    match answer {
        Answer::Granted => "granted",
        Answer::Conflict => "conflict",
        Answer::Gone => "gone",
        Answer::Denied(_) => "denied",
        Answer::Lost => "lost",
        Answer::Unsent => "unsent",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::stores::View;
    use super::super::tell::Teller;
    use super::super::term::{Pool, Terms};
    use super::*;
    use crate::burst::Outcome;
    use crate::burst::memory::Attempt;
    use crate::burst::plan::Slot;
    use crate::controller::fixtures;

    fn led_by(leader: &str) -> BurstPool {
        let pool = json!({
            "apiVersion": "burstpool.io/v1alpha1", "kind": "BurstPool",
            "metadata": {"name": "shop", "uid": "u"},
            "spec": {"azure": {}, "placements": [{"name": "a", "region": "westeurope"}]},
            "status": {"leader": leader},
        });
        serde_json::from_value(pool).expect("a pool")
    }

    fn teller() -> Teller {
        let client = fixtures::context("http://127.0.0.1:1").client.clone();
        Teller::new(client, "us").0
    }

    fn terms() -> Terms {
        Terms {
            instance: "us".to_owned(),
            begun: 0,
        }
    }

    fn act(pool: &BurstPool) -> Act {
        Act {
            context: Arc::new(fixtures::context("http://127.0.0.1:1")),
            // The pod has changed: it waits no more.
            view: Arc::new(View::default()),
            pool: Arc::new(pool.clone()),
            name: "shop".to_owned(),
            sending: Sending {
                tasks: TaskTracker::new(),
                cancel: CancellationToken::new(),
                granted: teller().granted(),
            },
        }
    }

    fn decision() -> Decision {
        Decision {
            pod: PodRef {
                namespace: "default".to_owned(),
                name: "web-1".to_owned(),
                uid: "web-1".to_owned(),
                resource_version: "1".to_owned(),
            },
            workload: "web".to_owned(),
            outcome: Outcome::Grant {
                placement: "a".to_owned(),
            },
            slot: Slot::Reserved,
            start: None,
        }
    }

    #[tokio::test]
    async fn a_pool_is_looked_at_anew_only_when_none_of_its_grants_is_on_its_way() {
        let (ours, theirs) = (led_by("us-1"), led_by("them-1"));
        let mut state = Pool::of(&ours, &mut terms());
        let (act, decision) = (act(&ours), decision());
        state.granting.send(&decision, &act, &mut state.memory);
        assert_eq!(state.memory.attempt(&decision.pod), Attempt::Awaited);
        assert!(state.hear(&ours), "others may be granted meanwhile");
        assert!(!state.hear(&theirs));

        act.context.stores.changed.notified().await;
        assert!(state.hear(&theirs));
        assert!(state.granting.is_done());
    }

    #[tokio::test]
    async fn a_grant_that_ends_in_the_middle_or_is_wanted_no_more_is_answered_too() {
        let ours = led_by("us-1");
        let mut state = Pool::of(&ours, &mut terms());
        let act = act(&ours);
        act.sending.cancel.cancel();
        let decision = decision();
        state.granting.send(&decision, &act, &mut state.memory);
        act.context.stores.changed.notified().await;
        assert!(state.hear(&ours) && state.granting.is_done());
        assert_eq!(state.memory.attempt(&decision.pod), Attempt::Unknown);

        // No pool of this name is known any more.
        let grant = Grant {
            context: act.context.clone(),
            pool: act.pool.clone(),
            pod: None,
            decision,
            granted: teller().granted(),
        };
        assert!(!grant.is_still_wanted("shop"));
    }
}
