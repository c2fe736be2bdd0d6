//! Checks that writes that a policy denies are not repeated with every plan.
//!
//! In: each denied stamp of a pod, and the term in which a leader sent it. The next leader does not know of it, and
//! tries once more.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::burst::facts::pod::PodReference;
use crate::k8s::time::later;

/// How many denied stamps of one pod a leader may send within [`SPAN`]: the pauses between them double.
const MAX_DENIED_STAMPS: usize = 4;
const SPAN: Duration = Duration::from_secs(90);

/// The times of denied stamps, by pod and leader.
#[derive(Default)]
pub struct RefusalCheck(BTreeMap<(String, String), Vec<Timestamp>>);

impl RefusalCheck {
    /// Records a denied stamp, and checks their number.
    pub fn stamp(&mut self, pod: &PodReference, by: &str, now: Timestamp) {
        let key = (pod.uid.clone(), by.to_owned());
        let times = self.0.entry(key).or_default();
        times.retain(|at| now < later(*at, SPAN));
        times.push(now);
        let count = times.len();
        assert!(
            count <= MAX_DENIED_STAMPS,
            "{} refused stamps of {} within {SPAN:?}",
            count,
            pod.name
        );
    }
}
