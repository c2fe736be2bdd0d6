//! The pod templates that Azure refuses, with a pause for each in which the operator grants no pods of it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;

use super::plan_record::RejectedPod;
use crate::k8s::backoff::doubled;
use crate::k8s::time::later;

/// After Azure refuses a pod, the operator grants no pods of the same template for this long: the first and the
/// longest pause (10 minutes, 1 hour), doubled in between. Azure may fix the cause, and some refusals are
/// temporary.
const TEMPLATE_BACKOFF: (Duration, Duration) =
    (Duration::from_secs(600), Duration::from_secs(3600));

/// The templates with a pod that Azure has refused, by [`PodOwner::template`](super::super::facts::pod::PodOwner).
#[derive(Clone, Debug, Default)]
pub(super) struct TemplateRejections(pub(super) HashMap<String, TemplateRejection>);

/// A pod template with a pod that Azure has refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TemplateRejection {
    until: Timestamp,
    why: String,
    attempts: u32,
    /// UIDs of the refused pods.
    uids: HashSet<String>,
}

impl TemplateRejections {
    /// Records the pods that Azure refuses now. All pods of a template that Azure refuses during its pause count
    /// as one refusal: they were created before the first refusal was known.
    pub(super) fn record(&mut self, pods: &[RejectedPod<'_>], now: Timestamp) {
        let mut templates = HashSet::new();
        for pod in pods {
            templates.insert(pod.template);
            let rejection = self.0.entry(pod.template.to_owned()).or_default();
            if !rejection.uids.insert(pod.uid.to_owned()) || now < rejection.until {
                continue;
            }
            let pause = doubled(TEMPLATE_BACKOFF.0, rejection.attempts, TEMPLATE_BACKOFF.1);
            rejection.until = later(now, pause);
            pod.why.clone_into(&mut rejection.why);
            rejection.attempts = rejection.attempts.saturating_add(1);
        }
        // An old refusal is dropped, so that the next pause is as short as the first. While a refused pod still
        // exists, its template stays, because the pod would only report the same refusal again.
        self.0.retain(|template, rejection| {
            let is_recent = now < later(rejection.until, TEMPLATE_BACKOFF.1);
            is_recent || templates.contains(template.as_str())
        });
    }

    /// The templates whose pause still runs, each with Azure's message.
    pub(super) fn active(&self, now: Timestamp) -> impl Iterator<Item = (&str, &str)> {
        let rejections = self.0.iter();
        let active = rejections.filter(move |(_, rejection)| now < rejection.until);
        active.map(|(template, rejection)| (template.as_str(), rejection.why.as_str()))
    }

    /// When the pauses end.
    pub(super) fn retry_times(&self) -> impl Iterator<Item = Timestamp> {
        self.0.values().map(|rejection| rejection.until)
    }
}
