//! Whether the node reaches the pods of its placement at all.
//!
//! In: which probes the pods answered, with times. Out: what it means when a connection is not answered
//! ([`ProbePathTracker::judge`]), and the state of the placement's path ([`ProbePathTracker::path`]). Pure.
//!
//! A network security group drops packets silently: a connection through it times out, as one to an app that is
//! stuck does. An answer of any kind from the address of any pod of the placement, also a refused connection, shows
//! that packets go both ways. So a connection that times out is the app's failure if some pod answered while it was
//! waiting; if none did, it says nothing about the app. It says nothing either if no pod has ever answered at this
//! port: the group may admit other ports only.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;

use crate::k8s::time::later;

/// How long the last verdict holds while the pod does not answer and the path is not proven. Then the container is
/// not ready.
pub const PROBE_PATH_HOLD: Duration = Duration::from_secs(60);
/// How long no pod must have answered before the path of the placement counts as broken: longer than the default
/// period of a probe and its timeout.
const BROKEN_AFTER: Duration = Duration::from_secs(15);

/// The state of the path from the node to the pods of its placement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProbePath {
    /// No pod has answered yet (at this port), so the path may never have worked.
    #[default]
    Unproven,
    /// A pod has answered, and the answer is recent enough.
    Proven,
    /// Pods have answered before. Since this time, connections are not answered.
    Broken {
        /// When the first probe was sent that no pod answered.
        since: Timestamp,
    },
}

/// The answers of all pods of a placement, as far as they say something about the path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbePathTracker {
    /// When a pod last answered, at any port.
    answered: Option<Timestamp>,
    /// When the first probe after that answer was sent that no pod answered.
    unanswered: Option<Timestamp>,
    /// When an answer last ended a time without answers. Nothing is known of the path before.
    restored: Option<Timestamp>,
    /// The ports at which a pod has ever answered. A network security group admits each port on its own.
    proven_ports: HashSet<u16>,
}

impl ProbePathTracker {
    /// A pod answered at `port` at `now`.
    pub fn answered(&mut self, port: u16, now: Timestamp) {
        self.proven_ports.insert(port);
        self.answered = self.answered.max(Some(now));
        if self.unanswered.take().is_some() {
            self.restored = Some(now);
        }
    }

    /// A probe that was sent at `sent` was not answered.
    pub fn unanswered(&mut self, sent: Timestamp) {
        if self.answered.is_none_or(|answered| answered < sent) {
            self.unanswered.get_or_insert(sent);
        }
    }

    /// What a probe of `port` says that was sent at `sent` and was not answered: if pods have answered at this port,
    /// and the path was proven while the probe waited, the app is at fault.
    pub fn judge(&self, port: u16, sent: Timestamp) -> ProbePath {
        match self.answered {
            Some(answered) if self.proven_ports.contains(&port) => {
                let was_interrupted = self.restored.is_some_and(|restored| sent < restored);
                if answered >= sent && !was_interrupted {
                    ProbePath::Proven
                } else {
                    let since = self.unanswered.unwrap_or(sent);
                    ProbePath::Broken { since }
                }
            }
            _ => ProbePath::Unproven,
        }
    }

    /// The state of the placement's path at `now`, for its condition. It is broken only if no pod has answered for
    /// 15 seconds, so that one app that is stuck does not make it so. `None` if nothing is known.
    pub fn path(&self, now: Timestamp) -> Option<ProbePath> {
        match (self.answered, self.unanswered) {
            (None, None) => None,
            (None, Some(_)) => Some(ProbePath::Unproven),
            (Some(_), Some(since)) if later(since, BROKEN_AFTER) <= now => {
                Some(ProbePath::Broken { since })
            }
            (Some(_), _) => Some(ProbePath::Proven),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("in range")
    }

    #[test]
    fn a_timeout_is_the_apps_failure_only_if_a_pod_answered_while_it_waited() {
        let mut path = ProbePathTracker::default();
        path.unanswered(at(1));
        assert_eq!(path.judge(80, at(1)), ProbePath::Unproven);
        path.answered(80, at(10));
        assert_eq!(path.judge(80, at(9)), ProbePath::Broken { since: at(9) });
        assert_eq!(path.judge(80, at(10)), ProbePath::Proven);
        path.unanswered(at(11));
        path.unanswered(at(12));
        assert_eq!(path.judge(80, at(12)), ProbePath::Broken { since: at(11) });
        // A probe that was sent before the path worked again says nothing about the app.
        path.answered(80, at(13));
        assert_eq!(path.judge(80, at(12)), ProbePath::Broken { since: at(12) });
        assert_eq!(path.judge(80, at(13)), ProbePath::Proven);
    }

    #[test]
    fn an_answer_at_one_port_does_not_prove_the_path_to_another() {
        let mut path = ProbePathTracker::default();
        path.answered(18899, at(10));
        assert_eq!(path.judge(80, at(9)), ProbePath::Unproven);
        assert_eq!(path.path(at(10)), Some(ProbePath::Proven));
        path.answered(80, at(11));
        path.answered(18899, at(20));
        assert_eq!(path.judge(80, at(19)), ProbePath::Proven);
    }

    #[test]
    fn the_path_is_broken_once_no_pod_has_answered_for_a_while_and_proven_by_the_next_answer() {
        let mut path = ProbePathTracker::default();
        assert_eq!(path.path(at(0)), None);
        path.unanswered(at(1));
        assert_eq!(path.path(at(100)), Some(ProbePath::Unproven));
        path.answered(80, at(100));
        // A probe that waited longer than the answer took.
        path.unanswered(at(99));
        assert_eq!(path.path(at(200)), Some(ProbePath::Proven));
        path.unanswered(at(201));
        path.unanswered(at(210));
        assert_eq!(path.path(at(215)), Some(ProbePath::Proven));
        assert_eq!(
            path.path(at(216)),
            Some(ProbePath::Broken { since: at(201) })
        );
        path.answered(80, at(217));
        assert_eq!(path.path(at(300)), Some(ProbePath::Proven));
    }
}
