//! The result of a command, in the formats of the protocol versions.
//!
//! In: an exit code or a failure. Out: the text for the protocol's error stream. Pure.

use serde_json::{Value, json};

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandOutcome {
    /// It exited with this code.
    Exited(i32),
    /// It did not run, or its end is not known; a message.
    Failed(String),
}

impl CommandOutcome {
    /// The text for the error stream of this protocol version.
    pub fn error_stream_text(&self, protocol: &str) -> String {
        match protocol {
            "v4.channel.k8s.io" | "v5.channel.k8s.io" => self.status().to_string(),
            _ => self.message(),
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Exited(0) => String::new(),
            Self::Exited(code) => {
                format!("command terminated with non-zero exit code: exit status {code}")
            }
            Self::Failed(why) => why.clone(),
        }
    }

    /// The result as a `Status` object of Kubernetes.
    fn status(&self) -> Value {
        match self {
            Self::Exited(0) => json!({"metadata": {}, "status": "Success"}),
            Self::Exited(code) => json!({
                "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
                "message": self.message(),
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Self::Failed(why) => json!({
                "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
                "message": why, "details": {"causes": [{"message": why}]},
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_a_cause_for_new_clients_and_text_for_old_ones() {
        let text = CommandOutcome::Exited(3).error_stream_text("v4.channel.k8s.io");
        let status: Value = serde_json::from_str(&text).expect("an object");
        assert_eq!(status["details"]["causes"][0]["message"], "3");
        assert!(
            CommandOutcome::Exited(3)
                .error_stream_text("v2.channel.k8s.io")
                .contains("exit status 3")
        );
        assert_eq!(
            CommandOutcome::Exited(0).error_stream_text("channel.k8s.io"),
            ""
        );
    }
}
