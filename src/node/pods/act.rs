//! Carrying out what was decided for one pod, and what is learned from it.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::keeper::{Keeper, Trouble};
use crate::aci::client::Deletion;
use crate::aci::error::Error;
use crate::aci::failure::{Class, Verdict};
use crate::aci::translate;
use crate::aci::view::Group as View;
use crate::node::environment;
use crate::node::plan::{Action, Group, is_deleting, never_restarts};

/// How long a pod waits for a `ConfigMap`, a Secret or a right that is missing: a kubelet looks about
/// as often.
const MISSING: Duration = Duration::from_secs(10);

impl Keeper {
    /// Carries out `action`; `true` when nothing is left to keep.
    pub async fn act(&mut self, action: Action) -> bool {
        // In boxes: a keeper that waits, as nearly all do, shall not be as large as one that acts.
        match action {
            Action::Create => Box::pin(self.create()).await,
            Action::Delete => Box::pin(self.delete()).await,
            Action::Remove => return Box::pin(self.remove()).await,
            Action::Look | Action::Read | Action::Rest => {}
        }
        false
    }

    async fn create(&mut self) {
        let context = self.context.clone();
        let services = context.services.state();
        let kube_proxy = context.kube_proxy.as_ref();
        let read = environment::resolve(&context.client, &self.pod, &services, kube_proxy).await;
        let resolved = match read {
            Ok(environment) => {
                for missing in environment.warnings {
                    self.warn("FailedToRetrieveImagePullSecret", &missing.to_string());
                }
                environment.resolved
            }
            Err(missing) => {
                self.pause(Action::Create, MISSING);
                let told: Vec<String> = missing.iter().map(ToString::to_string).collect();
                let message = told.join("; ");
                self.wait_for("CreateContainerConfigError", &message);
                self.warn("FailedMount", &message);
                return;
            }
        };
        let placement = translate::Placement {
            spec: &context.placement,
            tags: &context.tags,
            node: &context.owner.node,
            node_address: Some(&context.address),
        };
        let (pod, unknown) = (&self.pod, &self.unknown);
        let group = match translate::translate(pod, unknown, &resolved, &context.owner, &placement)
        {
            Ok(group) => group,
            Err(refusals) => {
                let told: Vec<String> = refusals.iter().map(ToString::to_string).collect();
                let told = told.join("; ");
                if translate::eligible(pod, unknown, &placement).is_ok() {
                    // It is what a Secret or a ConfigMap says, and that may be put right.
                    self.pause(Action::Create, MISSING);
                    self.wait_for("CreateContainerConfigError", &told);
                } else {
                    self.refuse(refusals);
                }
                self.warn("Unsupported", &told);
                return;
            }
        };
        let _turn = context.turns.acquire().await;
        // Whoever leaves in line needs no group any more.
        self.hear();
        if !self.exists || is_deleting(&self.pod) {
            return;
        }
        let sent = Timestamp::now();
        tracing::info!(pod = %self.pod_name(), group = %self.name, "creating a container group");
        match context
            .azure
            .put(&context.scope, self.name.as_str(), &group)
            .await
        {
            Ok(answer) => {
                self.recover();
                context.learn(&self.name, true);
                self.known.is_failed = false;
                self.view = View::read(&answer).map(View::without_tags);
                self.known.group = Group::There {
                    since: sent,
                    read: None,
                    ran: false,
                };
            }
            Err(error) => self.create_failed(&error),
        }
    }

    fn create_failed(&mut self, error: &Error) {
        let verdict = error.verdict();
        tracing::warn!(pod = %self.pod_name(), error = %error.story(), "creating a container group");
        self.not_started(&verdict);
        self.known.group = match error {
            // Nobody knows whether it was done.
            Error::NoAnswer { .. } | Error::Unreadable { .. } => Group::Unknown,
            // Neither here: a gateway that gives up says nothing of what is behind it.
            Error::Refused { failure, .. } if failure.status >= 500 || failure.status == 408 => {
                Group::Unknown
            }
            // Somebody is at work on a group of this name: ours.
            Error::Refused { .. } if verdict.class == Class::Transitioning => Group::Unknown,
            _ => Group::Absent { was_there: false },
        };
        self.warn(verdict.reason, &verdict.message);
    }

    /// Azure did not create the group, or could not start it: whoever closes the placement hears of it.
    fn not_started(&mut self, verdict: &Verdict) {
        self.fail(Action::Create, verdict);
        self.context.trouble.notify_one();
        self.context.ended(Some(verdict.class), &verdict.message);
    }

    /// Finds out whether there is a group.
    pub async fn look(&mut self) {
        let context = self.context.clone();
        let asked = context.azure.get(&context.scope, self.name.as_str());
        match Box::pin(asked).await {
            Ok(answer) => self.found(&answer),
            Err(error) if is_gone(&error) => {
                self.context.learn(&self.name, false);
                self.known.group = Group::Absent { was_there: false };
            }
            Err(error) => {
                self.not_done(Action::Look, &error);
                let verdict = error.verdict();
                self.wait_for(verdict.reason, &verdict.message);
            }
        }
    }

    /// Reads the group.
    pub async fn read(&mut self) {
        let context = self.context.clone();
        let asked = context.azure.get(&context.scope, self.name.as_str());
        match Box::pin(asked).await {
            Ok(answer) => self.found(&answer),
            Err(error) if is_gone(&error) => self.lost(),
            Err(error) => self.not_done(Action::Read, &error),
        }
    }

    /// The group is there: what it says is kept, and a start that was seen is learned from.
    fn found(&mut self, answer: &Value) {
        let now = Timestamp::now();
        let Some(view) = View::read(answer) else {
            return self.not_readable();
        };
        if !self.context.owner.owns(&view.tags) {
            return self.belongs_to_another();
        }
        let going = view.is_being_deleted();
        let started = started(&view);
        let before = self.known.group.clone();
        let was_going = matches!(before, Group::Going { .. });
        if was_going {
            // What it is made anew for, and when, stands.
            self.known.is_stale = false;
            self.known.pauses.set(Action::Read, None);
        } else {
            self.recover();
        }
        self.known.group = match before {
            Group::There { since, ran, .. } if !going => {
                if let (false, Some(started)) = (ran, started) {
                    self.learn(since, started);
                    self.context.ended(None, "");
                }
                there(since, ran || started.is_some(), now)
            }
            _ if !going && !was_going => there(now, started.is_some(), now),
            Group::Going { since, .. } => still_going(since, now),
            _ => still_going(now, now),
        };
        // Between two starts the group looks as if it had ended.
        let runs_again = never_restarts(&self.pod) && view.was_restarted();
        self.known.is_alive = runs_again || !view.is_terminal();
        let failed = Verdict::of_group(&view).filter(|_| started.is_none() && !was_going);
        self.note_events(&view);
        // A pod that waits for another group says why until it has it.
        let is_replaced = was_going && self.exists && !is_deleting(&self.pod);
        if !is_replaced || self.trouble == Trouble::None {
            self.view = Some(view.without_tags());
        }
        if let Some(verdict) = failed {
            tracing::warn!(pod = %self.pod_name(), message = %verdict.message, "a container group did not start");
            self.not_started(&verdict);
            self.known.is_failed = true;
        }
    }

    fn learn(&self, since: Timestamp, started: Timestamp) {
        // Azure's clock is not ours: a start is never learned to take longer than it took to be seen.
        let started = started.min(Timestamp::now());
        // A group that was adopted after a restart began before we knew of it.
        if let Ok(took) = Duration::try_from(started.duration_since(since)) {
            self.context.starts().learn(took);
        }
    }

    /// The group is not there (any more).
    fn lost(&mut self) {
        let was_going = matches!(self.known.group, Group::Going { .. });
        self.context.learn(&self.name, false);
        self.known.group = Group::Absent { was_there: true };
        if was_going || is_deleting(&self.pod) {
            return;
        }
        tracing::warn!(pod = %self.pod_name(), group = %self.name, "the container group vanished");
        self.recover();
        self.view = None;
    }

    /// A read or a delete failed, which changes nothing about the pod.
    fn not_done(&mut self, action: Action, error: &Error) {
        let doing = match action {
            Action::Delete => "deleting a container group",
            _ => "reading a container group",
        };
        tracing::warn!(pod = %self.pod_name(), error = %error.story(), "{doing}");
        self.context.trouble.notify_one();
        let (trouble, refused) = (self.trouble.clone(), self.known.is_refused);
        // Also where the same would happen again: a group must not be forgotten.
        self.pause(action, MISSING);
        self.fail(action, &error.verdict());
        (self.trouble, self.known.is_refused) = (trouble, refused);
    }

    fn not_readable(&mut self) {
        let message = "Azure's answer cannot be read".to_owned();
        let verdict = Verdict::new(Class::Transient, None, message);
        self.fail(Action::Read, &verdict);
    }

    async fn delete(&mut self) {
        let context = self.context.clone();
        let _turn = context.turns.acquire().await;
        tracing::info!(pod = %self.pod_name(), group = %self.name, "deleting a container group");
        match context
            .azure
            .delete(&context.scope, self.name.as_str())
            .await
        {
            Ok(deletion) => {
                if self.known.is_failed {
                    // Another is made when it may be; until then the pod says why.
                    (self.known.is_failed, self.view) = (false, None);
                    self.known.pauses.set(Action::Delete, None);
                } else {
                    self.recover();
                }
                self.known.group = match deletion {
                    Deletion::Gone => {
                        context.learn(&self.name, false);
                        Group::Absent { was_there: true }
                    }
                    Deletion::Begun => Group::Going {
                        since: Timestamp::now(),
                        read: None,
                    },
                };
            }
            Err(error) => self.not_done(Action::Delete, &error),
        }
    }

    /// The pod's name, for people.
    pub fn pod_name(&self) -> String {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        format!(
            "{}/{}",
            text(&self.pod.metadata.namespace),
            text(&self.pod.metadata.name)
        )
    }
}

/// A group that was read now, and is there.
fn there(since: Timestamp, ran: bool, now: Timestamp) -> Group {
    Group::There {
        since,
        read: Some(now),
        ran,
    }
}

/// A group that was read now, and is going.
fn still_going(since: Timestamp, now: Timestamp) -> Group {
    Group::Going {
        since,
        read: Some(now),
    }
}

/// Whether Azure says that there is no such group. That it cannot find the resource group or the
/// subscription says nothing about what runs in them.
fn is_gone(error: &Error) -> bool {
    error.verdict().class == Class::Gone
}

/// When the last of the group's containers started, once all of them have.
fn started(view: &View) -> Option<Timestamp> {
    let containers = &view.properties.containers;
    let times = containers.iter().map(|container| {
        let run = container.view()?.current_state.as_ref()?;
        run.start_time
    });
    let times: Option<Vec<Timestamp>> = times.collect();
    times?.into_iter().max()
}
