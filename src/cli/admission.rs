//! Checks whether the admission policies of `config/admission` apply to the operator's own account.
//!
//! In: the API server. Out: a warning in the log and in `/readyz` while they do not apply. The operator has no
//! permission to read policies. Instead, it attempts what they forbid, as a dry run that changes nothing.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A node that the policies never let the operator register: its name does not begin with `burst-`.
const PROBE_NODE: &str = "burstpool-admission-check";
/// The message with which the policy `burstpool-own-nodes` rejects the node.
const POLICY_MESSAGE: &str = "burstpool may register, change and delete only its own nodes";
/// The pause after an attempt that was admitted: policies take effect some seconds after they are applied.
const ADMITTED_RETRY_INTERVAL: Duration = Duration::from_secs(15);
/// The pause after any other attempt.
const PROBE_INTERVAL: Duration = Duration::from_secs(300);
/// Timeout of an attempt.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

const WARNING: &str = "no admission policy narrows the operator's account: it may change any pod and any node. \
    Apply config/admission, and bind the account to the ClusterRole burstpool of config/default: the policies \
    apply to accounts that have its rule for the resource admission";

/// The result of an attempt.
#[derive(Debug, PartialEq, Eq)]
enum PolicyProbeResult {
    /// The policies apply to this account.
    Refused,
    /// The policies do not apply.
    Admitted,
    /// Another error, or no answer.
    Unknown(String),
}

/// The warnings for `/readyz`; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct AdmissionWarnings(Arc<watch::Sender<bool>>);

impl AdmissionWarnings {
    /// The current warnings.
    pub fn warnings(&self) -> Vec<String> {
        let is_unbound = *self.0.borrow();
        is_unbound.then(|| WARNING.to_owned()).into_iter().collect()
    }

    /// Repeats the attempt until `cancel`.
    pub async fn run(&self, client: &Client, cancel: &CancellationToken) {
        let (nodes, mut admitted) = (Api::all(client.clone()), 0_u32);
        loop {
            let result = probe(&nodes).await;
            admitted = match &result {
                PolicyProbeResult::Admitted => admitted.saturating_add(1),
                PolicyProbeResult::Refused => 0,
                PolicyProbeResult::Unknown(why) => {
                    tracing::debug!(
                        why,
                        "checking whether admission policies apply to the operator"
                    );
                    admitted
                }
            };
            self.update(admitted);
            let interval = if result == PolicyProbeResult::Admitted {
                ADMITTED_RETRY_INTERVAL
            } else {
                PROBE_INTERVAL
            };
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = cancel.cancelled() => return,
            }
        }
    }

    /// Updates the warning, given the number of consecutive attempts that were admitted. A single one may precede
    /// the moment when the policies take effect.
    fn update(&self, admitted: u32) {
        let is_unbound = admitted > 1;
        let has_changed = self.0.send_if_modified(|current| {
            let has_changed = *current != is_unbound;
            *current = is_unbound;
            has_changed
        });
        match (has_changed, is_unbound) {
            (true, true) => tracing::warn!("{WARNING}"),
            (true, false) => tracing::info!("admission policies now narrow the operator's account"),
            (false, _) => {}
        }
    }
}

/// Attempts to register a node that is not a virtual node.
async fn probe(nodes: &Api<Node>) -> PolicyProbeResult {
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let node = Node {
        metadata: ObjectMeta {
            name: Some(PROBE_NODE.to_owned()),
            ..ObjectMeta::default()
        },
        ..Node::default()
    };
    match tokio::time::timeout(CALL_TIMEOUT, nodes.create(&params, &node)).await {
        Ok(Ok(_)) => PolicyProbeResult::Admitted,
        Ok(Err(error)) => probe_result(&error),
        Err(_) => PolicyProbeResult::Unknown("the API server does not answer".to_owned()),
    }
}

/// Classifies the API server's error.
fn probe_result(error: &kube::Error) -> PolicyProbeResult {
    match error {
        kube::Error::Api(status) if status.message.contains(POLICY_MESSAGE) => {
            PolicyProbeResult::Refused
        }
        other => PolicyProbeResult::Unknown(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn only_the_policys_own_refusal_counts() {
        let policies = include_str!("../../config/admission/own-objects.yaml");
        assert!(policies.contains(&format!("message: {POLICY_MESSAGE}")));
        let result_for = |message: &str| {
            let status = Status::failure(message, "Invalid").boxed();
            probe_result(&kube::Error::Api(status))
        };
        let message =
            format!("ValidatingAdmissionPolicy 'x' denied request: {POLICY_MESSAGE}, whose names");
        assert_eq!(result_for(&message), PolicyProbeResult::Refused);
        assert!(matches!(
            result_for("nodes is forbidden: User x"),
            PolicyProbeResult::Unknown(_)
        ));
    }

    #[test]
    fn the_warning_lasts_from_the_second_admitted_attempt_until_a_refusal() {
        let admission = AdmissionWarnings::default();
        for (admitted, warnings) in [(0, 0), (1, 0), (2, 1), (3, 1), (0, 0)] {
            admission.update(admitted);
            assert_eq!(admission.warnings().len(), warnings, "{admitted}");
        }
    }
}
