//! Grants on their way: each by itself, while the next are planned and reserved.
//!
//! In: decisions whose reservations stand. Out: their answers, which [`Memory`] is told of before the next
//! plan. Until then a pod keeps its slot, and is neither granted again nor taken back. A pool whose grants
//! are on their way stays the pool, and in the term, that they were reserved in: only when nothing is in
//! our hands any more is it looked at anew. A grant whose answer was lost is told of when its pod is seen.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::act::{AT_ONCE, Act, PAUSE, grant_pod};
use super::stores::Waiting;
use super::tell::Granted;
use super::term::leader;
use super::{Context, grant};
use crate::api::{BurstPool, Mode};
use crate::burst::{Answer, Decision, Memory};
use crate::telemetry::Clock;

/// How many grants of a pool may be on their way: the others are planned again once some are answered.
const MOST: usize = 1000;

/// How long a grant without an answer may still turn out to have been done: API servers give up on a request
/// after a minute, and a watch may be late.
const LOST: SignedDuration = SignedDuration::from_secs(120);

/// What became of a grant.
struct Came {
    decision: Decision,
    /// What the pod says of when it was granted, if this was done: no other grant says the same.
    sent: Option<Timestamp>,
    answer: Answer,
    /// When it was answered, by our monotonic clock.
    at: Timestamp,
}

/// The grants of a pool that are on their way.
pub(super) struct Granting {
    answer: mpsc::Sender<Came>,
    answers: mpsc::Receiver<Came>,
    turns: Arc<Semaphore>,
    on_their_way: usize,
    /// Those without an answer, and what they would have written as the time.
    lost: Vec<(Decision, Timestamp)>,
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
        let (answer, answers) = mpsc::channel(MOST);
        Self {
            answer,
            answers,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            on_their_way: 0,
            lost: Vec::new(),
        }
    }
}

impl Granting {
    /// Sends a grant, at the version that is reserved; told to `memory` now, and again by
    /// [`Granting::hear`].
    pub(super) fn send(&mut self, decision: &Decision, act: &Act, memory: &mut Memory) {
        // Each has a place for its answer before it is sent: none is lost, and none waits for one.
        let Ok(place) = self.answer.clone().try_reserve_owned() else {
            return;
        };
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
            answer: Some(place),
            changed: act.context.stores.changed.clone(),
            clock: act.context.stores.clock.clone(),
            decision: decision.clone(),
            sent: None,
            came: Answer::Lost,
        };
        let turns = self.turns.clone();
        let Sending { tasks, cancel, .. } = act.sending.clone();
        tasks.spawn(cancel.run_until_cancelled_owned(async move {
            // It is never closed.
            let turn = turns.acquire().await;
            let sent = grant.context.stores.clock.now();
            let came = grant.carry_out(sent).await;
            if came == Answer::Lost {
                tokio::time::sleep(PAUSE).await;
            }
            drop(turn);
            if came == Answer::Gone {
                // It is seen for a moment still, and would be sent again at once.
                tokio::time::sleep(PAUSE).await;
            }
            answering.tell(came, sent);
        }));
    }

    /// Tells `memory` what was answered since.
    pub(super) fn hear(&mut self, memory: &mut Memory) {
        while let Ok(came) = self.answers.try_recv() {
            self.on_their_way -= 1;
            if let Some(sent) = came.sent.filter(|_| came.answer == Answer::Lost) {
                self.lost.push((came.decision.clone(), sent));
            }
            if let Answer::Unmarked(why) = &came.answer {
                memory.leaves_no_marks(&came.decision.workload, why.clone(), came.at);
            }
            memory.answered(&came.decision.pod, came.answer, came.at);
        }
    }

    /// Tells of those whose answers were lost, and whose pods are seen to have been granted by them.
    pub(super) fn find(&mut self, act: &Act) {
        let now = act.context.stores.clock.now();
        self.lost.retain(|(decision, sent)| {
            let seen = act.view.labelled.get(&decision.pod.uid);
            let at = seen.and_then(|pod| pod.grant.as_ref()?.at);
            let is_done = at == Some(*sent);
            if is_done {
                act.sending.granted.tell(decision);
            }
            // Another grant that is seen may be an older one.
            !is_done && now.duration_since(*sent) < LOST
        });
    }

    /// Whether none is on its way, as far as was heard.
    pub(super) fn is_done(&self) -> bool {
        self.on_their_way == 0
    }
}

/// Answers in the end, however that comes: else a pod would be on its way for ever.
struct Answering {
    /// Its place among the answers, until it is told.
    answer: Option<mpsc::OwnedPermit<Came>>,
    changed: Arc<Notify>,
    clock: Arc<Clock>,
    decision: Decision,
    sent: Option<Timestamp>,
    came: Answer,
}

impl Answering {
    fn tell(mut self, came: Answer, sent: Timestamp) {
        self.came = came;
        self.sent = Some(sent);
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let came = Came {
            decision: self.decision.clone(),
            sent: self.sent,
            answer: self.came.clone(),
            at: self.clock.steady(),
        };
        if let Some(answer) = self.answer.take() {
            // A pool that is no more hears nothing.
            drop(answer.send(came));
        }
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
    async fn carry_out(&self, now: Timestamp) -> Answer {
        let (id, name) = (&self.decision.pod, self.pool.name_any());
        let answer = match self.pod.as_ref().and_then(Waiting::pod) {
            Some(_) if !self.is_still_wanted(&name) => Answer::Unsent,
            Some(pod) => {
                let (version, workload) = (&id.resource_version, &self.decision.workload);
                let patch = grant::grant(&pod, version, &name, workload, now);
                grant_pod(&self.context, id, &patch, &name).await
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
        match &answer {
            Answer::Granted => self.granted.tell(&self.decision),
            Answer::Unmarked(why) => self.granted.tell_incomplete(&self.decision, why),
            _ => {}
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
        Answer::Unmarked(_) => "unmarked",
        Answer::Lost => "lost",
        Answer::Unsent => "unsent",
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{Server, act, decision, patched, pool, terms};
    use super::super::term::Pool;
    use super::*;
    use crate::api::names::GRANTED_AT_ANNOTATION;
    use crate::burst::memory::Attempt;
    use crate::burst::plan::Slot;
    use crate::burst::{Plan, PodFacts};

    #[tokio::test]
    async fn a_pool_is_looked_at_anew_only_when_none_of_its_grants_is_on_its_way() {
        let (ours, theirs) = (pool("1", "us-1"), pool("1", "them-1"));
        let mut state = Pool::of(&ours, &mut terms());
        // The pod has changed: it waits no more.
        let act = act(&ours, &[], &Server::new().1);
        let decision = decision("web-1", Slot::Reserved);
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
        let ours = pool("1", "us-1");
        let mut state = Pool::of(&ours, &mut terms());
        let act = act(&ours, &["web-1"], &Server::new().1);
        act.sending.cancel.cancel();
        let decision = decision("web-1", Slot::Reserved);
        state.granting.send(&decision, &act, &mut state.memory);
        act.context.stores.changed.notified().await;
        assert!(state.hear(&ours) && state.granting.is_done());
        assert_eq!(state.memory.attempt(&decision.pod), Attempt::Unknown);

        let grant = |pool: BurstPool| Grant {
            context: act.context.clone(),
            pool: Arc::new(pool),
            pod: None,
            decision: decision.clone(),
            granted: act.sending.granted.clone(),
        };
        assert!(grant(ours).is_still_wanted("shop"));
        assert!(!grant(pool("1", "them-1")).is_still_wanted("shop"));
        assert!(!grant(pool("1", "us-1")).is_still_wanted("another"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_grant_whose_answer_was_lost_is_told_once_if_its_pod_is_seen_to_have_it() {
        let ours = pool("1", "us-1");
        let mut state = Pool::of(&ours, &mut terms());
        let (mut server, client) = Server::new();
        let mut act = act(&ours, &["done", "undone", "again"], &client);
        let mut labelled = std::collections::HashMap::new();
        for name in ["done", "undone", "again"] {
            let decision = decision(name, Slot::Reserved);
            state.granting.send(&decision, &act, &mut state.memory);
            let mut asked = server.expect(&format!("PATCH pods/{name}")).await;
            if name == "again" {
                // Somebody else's comes to it.
                let notes = &mut asked.body[3]["value"];
                notes[GRANTED_AT_ANNOTATION] = "2026-01-01T00:00:00Z".into();
            }
            let pod = patched(name, &asked.body);
            if name != "undone" {
                let facts = PodFacts::of(&pod).expect("a pod");
                labelled.insert(name.to_owned(), Arc::new(facts));
            }
            drop(asked);
            act.context.stores.changed.notified().await;
            assert!(state.hear(&ours));
        }
        act.carry_out(&Plan::default(), &mut state).await;
        assert_eq!(server.told().await, Vec::<String>::new());
        let mut view = (*act.view).clone();
        view.labelled = labelled;
        act.view = Arc::new(view);
        for _ in 0..2 {
            act.carry_out(&Plan::default(), &mut state).await;
            assert_eq!(server.told().await, ["Granted done"]);
        }
    }
}
