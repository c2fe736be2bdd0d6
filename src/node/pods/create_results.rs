//! How creates of container groups ended, until the placement's controller takes the results.

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::aci::failure::FailureClass;

/// The most create results that wait to be taken ([`take`](CreateResults::take)); later ones are dropped. The
/// caller takes them several times a second.
const MAX_CREATE_RESULTS: usize = 1000;

/// How the creation of a container group ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateResult {
    /// When it ended.
    pub at: Timestamp,
    /// What was wrong; `None` if the containers started.
    pub class: Option<FailureClass>,
    /// Azure's message; empty if the containers started.
    pub message: String,
}

/// The create results that were not taken yet.
#[derive(Debug, Default)]
pub(super) struct CreateResults(Mutex<Vec<CreateResult>>);

impl CreateResults {
    /// Records a result; `class` is `None` if the containers started.
    pub fn record(&self, class: Option<FailureClass>, message: &str) {
        let mut results = self.0.lock();
        if results.len() < MAX_CREATE_RESULTS {
            results.push(CreateResult {
                at: Timestamp::now(),
                class,
                message: message.to_owned(),
            });
        }
    }

    /// Takes the results since the last call.
    pub fn take(&self) -> Vec<CreateResult> {
        std::mem::take(&mut self.0.lock())
    }
}
