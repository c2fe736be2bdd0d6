//! Grants on their way: each by itself, while the next are planned and reserved.
//!
//! In: decisions whose reservations stand. Out: their answers, which [`Memory`] is told of before the next
//! plan. Until then a pod keeps its slot, and is neither granted again nor taken back. A pool whose grants
//! are on their way stays the pool, and in the term, that they were reserved in: only when nothing is in
//! our hands any more is it looked at anew.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::act::{AT_ONCE, Act, PAUSE};
use super::grant;
use crate::burst::{Answer, Decision, Memory, PodRef};

/// The grants of a pool that are on their way.
pub(super) struct Granting {
    answer: mpsc::UnboundedSender<(PodRef, Answer)>,
    answers: mpsc::UnboundedReceiver<(PodRef, Answer)>,
    turns: Arc<Semaphore>,
    on_their_way: usize,
}

/// Where grants are sent from, and until when.
#[derive(Clone)]
pub(super) struct Sending {
    pub(super) tasks: TaskTracker,
    pub(super) cancel: CancellationToken,
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
    pub(super) fn send(&mut self, decision: &Decision, act: &Arc<Act>, memory: &mut Memory) {
        memory.sending(&decision.pod);
        self.on_their_way += 1;
        let (turns, answer) = (self.turns.clone(), self.answer.clone());
        let (decision, act) = (decision.clone(), act.clone());
        let Sending { tasks, cancel } = act.sending.clone();
        tasks.spawn(cancel.run_until_cancelled_owned(async move {
            // It is never closed.
            let turn = turns.acquire().await;
            let came = one(&decision, &act).await;
            drop(turn);
            if came == Answer::Lost {
                tokio::time::sleep(PAUSE).await;
            }
            // A pool that is no more hears nothing.
            drop(answer.send((decision.pod, came)));
            act.context.stores.changed.notify_one();
        }));
    }

    /// Tells `memory` what was answered since.
    pub(super) fn hear(&mut self, memory: &mut Memory) {
        while let Ok((pod, answer)) = self.answers.try_recv() {
            self.on_their_way -= 1;
            memory.answered(&pod, answer, Timestamp::now());
        }
    }

    /// Whether none is on its way, as far as was heard.
    pub(super) fn is_done(&self) -> bool {
        self.on_their_way == 0
    }
}

async fn one(decision: &Decision, act: &Act) -> Answer {
    let id = &decision.pod;
    let answer = match act.view.waiting_pod(&id.uid) {
        Some(pod) => {
            let (version, workload) = (&id.resource_version, &decision.workload);
            let patch = grant::grant(&pod, version, &act.name, workload, Timestamp::now());
            act.patch(id, &patch).await
        }
        None => Answer::Conflict,
    };
    tracing::info!(
        pool = act.name,
        pod = %format!("{}/{}", id.namespace, id.name),
        ?answer,
        "granting"
    );
    act.context.metrics.grant(&act.name, outcome(&answer));
    answer
}

/// An answer in a metric's word.
fn outcome(answer: &Answer) -> &'static str {
    match answer {
        Answer::Granted => "granted",
        Answer::Conflict => "conflict",
        Answer::Gone => "gone",
        Answer::Denied(_) => "denied",
        Answer::Lost => "lost",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::stores::View;
    use super::super::term::{Pool, Terms};
    use super::*;
    use crate::api::BurstPool;
    use crate::burst::Outcome;
    use crate::burst::memory::Attempt;
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

    #[tokio::test]
    async fn a_pool_is_looked_at_anew_only_when_none_of_its_grants_is_on_its_way() {
        let mut terms = Terms {
            instance: "us".to_owned(),
            begun: 0,
        };
        let (ours, theirs) = (led_by("us-1"), led_by("them-1"));
        let mut state = Pool::of(&ours, &mut terms);
        let context = Arc::new(fixtures::context("http://127.0.0.1:1"));
        let act = Arc::new(Act {
            context: context.clone(),
            // The pod has changed: it waits no more.
            view: Arc::new(View::default()),
            pool: Arc::new(ours.clone()),
            name: "shop".to_owned(),
            sending: Sending {
                tasks: TaskTracker::new(),
                cancel: CancellationToken::new(),
            },
        });
        let pod = PodRef {
            namespace: "default".to_owned(),
            name: "web-1".to_owned(),
            uid: "web-1".to_owned(),
            resource_version: "1".to_owned(),
        };
        let decision = Decision {
            pod: pod.clone(),
            workload: "web".to_owned(),
            outcome: Outcome::Grant {
                placement: "a".to_owned(),
            },
        };
        state.granting.send(&decision, &act, &mut state.memory);
        assert_eq!(state.memory.attempt(&pod), Attempt::Awaited);
        assert!(state.hear(&ours), "others may be granted meanwhile");
        assert!(!state.hear(&theirs));

        context.stores.changed.notified().await;
        assert!(state.hear(&theirs));
        assert!(state.granting.is_done());
    }
}
