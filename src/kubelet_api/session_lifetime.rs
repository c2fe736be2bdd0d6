//! Ends a session of the kubelet API when what it was authorized for is gone.
//!
//! In: the pod for which a session was opened, and the pod's present state. Out: why the session must end. After a
//! container group is gone, Azure gives its address to another pod, and a restarted container is another run; the
//! API server authorized neither.

use std::time::Duration;

use super::nodes::{FoundPod, PodPresence};
use crate::node::pods::PodInfo;

/// The interval between two checks; a check reads only memory.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// For how many checks (10 s) the pod's node may be unserved, which happens while its placement changes.
const MAX_MISSING_CHECKS: u32 = 20;
/// For how many checks (30 s) a session may continue after its container has ended: the last output and the
/// command's exit code are still to come.
const MAX_CLOSING_CHECKS: u32 = 60;

/// What a session was opened to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionTarget {
    /// The pod's address.
    Address,
    /// The current run of this container.
    Container(String),
}

/// Whether a session may continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SessionVerdict {
    /// It may.
    Continue,
    /// It should end soon without help; after [`MAX_CLOSING_CHECKS`] checks it is ended for this reason.
    Closing(&'static str),
    /// It must end at once, for this reason.
    Terminate(&'static str),
}

/// Waits until a session must end; returns the reason, for the log.
pub async fn wait_until_over(found: &FoundPod, opened: &SessionTarget) -> &'static str {
    let mut checks = tokio::time::interval(CHECK_INTERVAL);
    checks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut missing, mut closing) = (0, 0);
    loop {
        checks.tick().await;
        match found.presence() {
            PodPresence::Present(now) => {
                missing = 0;
                match check_session(&found.pod, &now, opened) {
                    SessionVerdict::Continue => {}
                    SessionVerdict::Closing(_) if closing < MAX_CLOSING_CHECKS => closing += 1,
                    SessionVerdict::Closing(why) | SessionVerdict::Terminate(why) => return why,
                }
            }
            PodPresence::Gone => return "the pod is gone",
            PodPresence::Unknown if missing < MAX_MISSING_CHECKS => missing += 1,
            PodPresence::Unknown => return "this process no longer serves the pod's node",
        }
    }
}

/// Whether a session that was opened to `then` may continue, given the pod's present state.
fn check_session(then: &PodInfo, now: &PodInfo, opened: &SessionTarget) -> SessionVerdict {
    if now.uid != then.uid {
        return SessionVerdict::Terminate("another pod has its name");
    }
    if now.is_group_deleted {
        return SessionVerdict::Terminate("its container group is deleted");
    }
    match opened {
        SessionTarget::Address if now.has_ended => SessionVerdict::Terminate("the pod has ended"),
        SessionTarget::Address if now.address != then.address => {
            SessionVerdict::Terminate("the pod has another address")
        }
        SessionTarget::Address => SessionVerdict::Continue,
        SessionTarget::Container(name) => {
            let running_since = |pod: &PodInfo| pod.container(name)?.running_since;
            let is_another_run = running_since(then)
                .zip(running_since(now))
                .is_some_and(|(then, now)| then != now);
            let has_ended = now.container(name).is_none_or(|now| now.has_ended);
            if is_another_run {
                SessionVerdict::Terminate("the container has been started again")
            } else if now.has_ended || has_ended {
                SessionVerdict::Closing("the container has ended")
            } else {
                SessionVerdict::Continue
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet_api::fixtures::{at, pod};

    #[test]
    fn a_session_ends_with_the_pod_the_address_and_the_run_that_it_was_opened_to() {
        type PodChange = fn(&mut PodInfo);
        /// The expected verdicts for a session of an address, and for one of a container.
        #[derive(Debug, PartialEq)]
        enum ExpectedVerdict {
            GoesOn,
            Closes,
            Ends,
        }
        use ExpectedVerdict::{Closes, Ends, GoesOn};
        let cases: [(&str, PodChange, ExpectedVerdict, ExpectedVerdict); 9] = [
            ("nothing", |_| {}, GoesOn, GoesOn),
            ("a pod", |now| now.uid = "other".to_owned(), Ends, Ends),
            ("its end", |now| now.has_ended = true, Ends, Closes),
            ("no group", |now| now.is_group_deleted = true, Ends, Ends),
            (
                "another address",
                |now| now.address = "10.0.0.9".parse().ok(),
                Ends,
                GoesOn,
            ),
            ("no address", |now| now.address = None, Ends, GoesOn),
            (
                "a container's end",
                |now| now.containers[0].has_ended = true,
                GoesOn,
                Closes,
            ),
            (
                "another run",
                |now| now.containers[0].running_since = Some(at(99)),
                GoesOn,
                Ends,
            ),
            (
                "another container's end",
                |now| now.containers[1].has_ended = true,
                GoesOn,
                GoesOn,
            ),
        ];
        let mut then = (*pod("web")).clone();
        then.address = "10.0.0.4".parse().ok();
        let container_target = SessionTarget::Container("a".to_owned());
        for (what, change, address, container) in cases {
            let mut now = then.clone();
            change(&mut now);
            let verdict = |opened: &SessionTarget| match check_session(&then, &now, opened) {
                SessionVerdict::Continue => GoesOn,
                SessionVerdict::Closing(_) => Closes,
                SessionVerdict::Terminate(_) => Ends,
            };
            assert_eq!(verdict(&SessionTarget::Address), address, "{what}");
            assert_eq!(verdict(&container_target), container, "{what}");
        }
        // A container that was not running when the session was opened has started for the first time.
        let mut waits = then.clone();
        waits.containers[0].running_since = None;
        assert_eq!(
            check_session(&waits, &then, &container_target),
            SessionVerdict::Continue
        );
    }
}
