//! One pod's keeper: it looks, decides, acts, and waits for the next reason to.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use super::{Context, Listing, Observed};
use crate::aci::failure::{Class, Retry, Verdict};
use crate::aci::names::GroupName;
use crate::aci::status::Seen;
use crate::aci::translate::Unsupported;
use crate::aci::view::Group as View;
use crate::node::plan::{self, Action, Decision, Group, Known};

/// The longest wait for which the host's clock is trusted; then it is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

/// Why a pod's group is not there (yet), for people.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Trouble {
    /// None that is known of.
    #[default]
    None,
    /// ACI cannot run the pod.
    Refused(Vec<(String, String)>),
    /// Something failed or is missing, and is tried again.
    Waiting {
        /// One word.
        reason: String,
        /// In words.
        message: String,
    },
    /// The group vanished.
    Vanished,
}

/// What keeps one pod.
pub(super) struct Keeper {
    pub context: Arc<Context>,
    /// The pod as it was seen last; its object may be gone.
    pub pod: Pod,
    pub name: GroupName,
    pub known: Known,
    pub view: Option<View>,
    pub trouble: Trouble,
    /// How often something failed in a row.
    pub tries: u32,
    /// Events that were told, so that each is told once.
    pub told: std::collections::HashSet<(String, i32)>,
    pods: watch::Receiver<Option<Arc<Observed>>>,
}

impl Keeper {
    pub fn new(
        context: Arc<Context>,
        pod: Pod,
        name: GroupName,
        pods: watch::Receiver<Option<Arc<Observed>>>,
    ) -> Self {
        Self {
            context,
            pod,
            name,
            known: Known::default(),
            view: None,
            trouble: Trouble::None,
            tries: 0,
            told: std::collections::HashSet::new(),
            pods,
        }
    }

    /// Keeps the pod until neither it nor its group is left.
    pub async fn keep(mut self) {
        let mut listed = self.context.listed.subscribe();
        loop {
            let observed = self.pods.borrow_and_update().clone();
            if let Some(observed) = &observed {
                self.pod = observed.pod.clone();
            }
            let shown = listed.borrow_and_update().clone();
            self.heed(shown.as_deref());
            if observed.is_some() {
                self.tell().await;
            }
            let now = Timestamp::now();
            let decision = self.decide(observed.as_deref(), now);
            let is_due = decision.action != Action::Rest && decision.at <= now;
            if !is_due {
                self.wait(decision, now, &mut listed).await;
            } else if self.act(decision.action, observed.as_deref()).await {
                return;
            }
        }
    }

    fn decide(&self, observed: Option<&Observed>, now: Timestamp) -> Decision {
        let starts = *self.context.starts();
        plan::plan(
            observed.map(|observed| &observed.pod),
            &self.known,
            &starts,
            now,
        )
    }

    /// Takes in what the last LIST showed. Before the first one nothing is known, and nothing is asked
    /// for each pod by itself: a thousand pods cost one request, not a thousand.
    fn heed(&mut self, listing: Option<&Listing>) {
        let Some(listing) = listing else { return };
        let is_shown = listing.names.contains(self.name.as_str());
        match &self.known.group {
            Group::Unknown if self.tries == 0 && listing.foreign.contains(self.name.as_str()) => {
                self.belongs_to_another();
            }
            Group::Unknown if self.tries == 0 => {
                let now = Timestamp::now();
                self.known.group = if is_shown {
                    Group::There {
                        since: now,
                        read: None,
                        ran: false,
                    }
                } else {
                    Group::Absent { was_there: false }
                };
                self.known.is_stale = is_shown;
            }
            Group::There { since, .. } if !is_shown => {
                // A LIST that was asked for before the PUT does not know of it.
                self.known.is_stale |= *since < listing.asked;
            }
            _ => {}
        }
    }

    /// Waits until the decision is due, or there is a reason to decide anew.
    async fn wait(
        &mut self,
        decision: Decision,
        now: Timestamp,
        listed: &mut watch::Receiver<Option<Arc<Listing>>>,
    ) {
        let left = Duration::try_from(decision.at.duration_since(now)).unwrap_or_default();
        let due = async {
            match decision.action {
                Action::Rest => std::future::pending().await,
                _ => tokio::time::sleep(left.min(LOOK_AGAIN)).await,
            }
        };
        tokio::select! {
            () = due => {}
            changed = self.pods.changed() => if changed.is_err() { std::future::pending().await },
            changed = listed.changed() => if changed.is_err() { std::future::pending().await },
        }
    }

    /// What of the group is known, as the status wants it.
    pub fn seen(&self) -> Seen<'_> {
        match (&self.trouble, &self.view) {
            (Trouble::Refused(fields), _) => Seen::Refused(fields),
            (Trouble::Vanished, _) => Seen::Vanished,
            (Trouble::Waiting { reason, message }, None) => Seen::Waiting { reason, message },
            (_, Some(view)) => Seen::Group(view),
            (Trouble::None, None) => Seen::NotSubmitted,
        }
    }

    /// ACI cannot run the pod: it is not tried.
    pub fn refuse(&mut self, refusals: Vec<Unsupported>) {
        self.known.is_refused = true;
        let fields = refusals
            .into_iter()
            .map(|refusal| (refusal.field, refusal.why));
        self.trouble = Trouble::Refused(fields.collect());
    }

    /// A group of this name is somebody else's: it is neither written to nor deleted. The name is a
    /// hash of the UID, so that is no accident.
    pub fn belongs_to_another(&mut self) {
        if self.known.group == Group::Unknown {
            self.known.group = Group::Absent { was_there: false };
        }
        let message = format!("the container group {} belongs to somebody else", self.name);
        self.fail(&Verdict::new(Class::Permanent, None, message));
    }

    /// Something failed: it is tried again when the verdict says so.
    pub fn fail(&mut self, verdict: &Verdict) {
        let pause = match verdict.retry {
            Retry::After(pause) => Some(pause),
            Retry::Backoff { first, limit } => {
                Some(first.saturating_mul(1 << self.tries.min(16)).min(limit))
            }
            Retry::Never => None,
        };
        self.tries += 1;
        match pause {
            Some(pause) => self.known.not_before = Timestamp::now().checked_add(pause).ok(),
            None => self.known.is_refused = true,
        }
        self.wait_for(verdict.reason, &verdict.message);
    }

    /// The pod waits for something, for a reason.
    pub fn wait_for(&mut self, reason: &str, message: &str) {
        self.trouble = Trouble::Waiting {
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
    }

    /// Nothing is wrong (any more).
    pub fn recover(&mut self) {
        self.tries = 0;
        self.known.not_before = None;
        self.known.is_stale = false;
        self.trouble = Trouble::None;
    }
}
