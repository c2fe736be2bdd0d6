//! Faults on demand: errors, delays and lost connections that the admin interface injects.
//!
//! In: rules, each for one operation or all, for some container groups or all, with a rate or a count.
//! Out: for each request, the faults that apply before and after it takes effect. The random numbers
//! are seeded, so a run can be repeated.

use std::time::Duration;

use http::StatusCode;
use jiff::SignedDuration;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use super::arm::error::ArmFailure;
use super::group::script::to_duration;

/// A fault and the requests that it applies to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultRule {
    /// The rule's number, assigned by the emulator.
    #[serde(default, skip_deserializing)]
    pub id: u64,
    /// The operation's name in the specification (`ContainerGroups_Get`), or `*`.
    #[serde(default = "any")]
    pub operation: String,
    /// Apply only to container groups whose names begin with this prefix. Default: all requests.
    #[serde(default)]
    pub group: Option<String>,
    /// Apply only in the resource group with this name (not case-sensitive). Default: all.
    #[serde(default)]
    pub resource_group: Option<String>,
    /// How many more requests the rule applies to; then the emulator removes it. Default: no limit.
    #[serde(default)]
    pub count: Option<u64>,
    /// The probability that the rule applies to a request: 0 to 1. Default: 1.
    #[serde(default = "always")]
    pub rate: f64,
    /// The fault to inject.
    pub fault: Fault,
}

fn any() -> String {
    "*".to_owned()
}

fn always() -> f64 {
    1.0
}

/// A fault that the emulator injects into a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum Fault {
    /// The request has no effect; the emulator answers with this error.
    Error {
        /// HTTP status, 400 to 599.
        status: u16,
        /// ARM error code. Default: the usual code for the status.
        #[serde(default)]
        code: Option<String>,
        /// Error message. Default: a fixed text.
        #[serde(default)]
        message: Option<String>,
        /// Value of the `Retry-After` header, in seconds. Default: no header.
        #[serde(default)]
        retry_after: Option<u64>,
        /// Whether the error comes from ARM's gateway instead of the service (`x-ms-failure-cause:
        /// gateway`).
        #[serde(default)]
        gateway: bool,
    },
    /// The request has no effect; the emulator drops the connection without a response.
    Drop,
    /// The request takes effect; the emulator drops the connection without a response.
    LoseAnswer,
    /// The emulator waits this long before it handles the request (host time).
    Delay(SignedDuration),
    /// A PUT of a container group takes effect, but GET, LIST and DELETE do not find the group for this
    /// long (emulated time). Imitates replicas of Azure Resource Manager that lag behind.
    Lag(SignedDuration),
}

/// The only operation that [`Fault::Lag`] applies to.
const CREATE_OPERATION: &str = "ContainerGroups_CreateOrUpdate";

/// The combined effect of all rules on one request.
#[derive(Debug, Default, PartialEq)]
pub struct FaultOutcome {
    /// Wait this long (host time) before handling the request.
    pub delay: Duration,
    /// Respond with this error; the request has no effect.
    pub error: Option<ArmFailure>,
    /// Drop the connection; the request has no effect.
    pub dropped: bool,
    /// Drop the connection after the request takes effect.
    pub answer_lost: bool,
    /// How long GET, LIST and DELETE do not find the created group (emulated time).
    pub lag: Duration,
}

/// The active rules.
#[derive(Debug)]
pub struct FaultRules {
    rules: Vec<FaultRule>,
    next: u64,
    rng: StdRng,
}

impl Default for FaultRules {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            next: 1,
            rng: StdRng::seed_from_u64(0),
        }
    }
}

impl FaultRules {
    /// Adds a rule and returns its number. Fails with a message if a field of the rule is invalid.
    pub fn add(&mut self, mut rule: FaultRule) -> Result<u64, String> {
        if !(0.0..=1.0).contains(&rule.rate) {
            return Err(format!("rate: {} is not between 0 and 1", rule.rate));
        }
        if let Fault::Error { status, .. } = rule.fault
            && !(400..600).contains(&status)
        {
            return Err(format!(
                "fault.error.status: {status} is not an error; use 400 to 599"
            ));
        }
        let is_of_put =
            rule.operation == "*" || rule.operation.eq_ignore_ascii_case(CREATE_OPERATION);
        if matches!(rule.fault, Fault::Lag(_)) && !is_of_put {
            return Err(format!(
                "fault.lag: only of the operation {CREATE_OPERATION}"
            ));
        }
        rule.id = self.next;
        self.next += 1;
        self.rules.push(rule);
        Ok(self.next - 1)
    }

    /// Restarts the random numbers from this seed.
    pub fn seed(&mut self, seed: u64) {
        self.rng = StdRng::seed_from_u64(seed);
    }

    /// The active rules, oldest first.
    pub fn rules(&self) -> &[FaultRule] {
        &self.rules
    }

    /// Removes one rule, or all if `id` is `None`. Returns how many it removed.
    pub fn remove(&mut self, id: Option<u64>) -> usize {
        let before = self.rules.len();
        self.rules.retain(|rule| id.is_some_and(|id| rule.id != id));
        before - self.rules.len()
    }

    /// Evaluates all rules for one request and counts down the rules that apply.
    pub fn outcome_for(
        &mut self,
        operation: &str,
        resource_group: Option<&str>,
        group: Option<&str>,
    ) -> FaultOutcome {
        let mut fate = FaultOutcome::default();
        for rule in &mut self.rules {
            let concerned = (rule.operation == "*"
                || rule.operation.eq_ignore_ascii_case(operation))
                && rule
                    .group
                    .as_deref()
                    .is_none_or(|prefix| group.is_some_and(|group| group.starts_with(prefix)))
                && rule.resource_group.as_deref().is_none_or(|name| {
                    resource_group.is_some_and(|group| group.eq_ignore_ascii_case(name))
                });
            let concerned = concerned
                && (!matches!(rule.fault, Fault::Lag(_))
                    || operation.eq_ignore_ascii_case(CREATE_OPERATION));
            if !concerned || rule.count == Some(0) || self.rng.random::<f64>() >= rule.rate {
                continue;
            }
            if let Some(count) = &mut rule.count {
                *count -= 1;
            }
            fate.add(&rule.fault);
        }
        self.rules.retain(|rule| rule.count != Some(0));
        fate
    }
}

impl FaultOutcome {
    fn add(&mut self, fault: &Fault) {
        match fault {
            Fault::Drop => self.dropped = true,
            Fault::LoseAnswer => self.answer_lost = true,
            Fault::Delay(by) => self.delay += to_duration(*by),
            Fault::Lag(by) => self.lag = self.lag.max(to_duration(*by)),
            Fault::Error {
                status,
                code,
                message,
                retry_after,
                gateway,
            } => {
                let status =
                    StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let code = code.as_deref().unwrap_or(default_code(status));
                let message = message
                    .clone()
                    .unwrap_or_else(|| "A fault that a rule configures.".to_owned());
                let mut error = ArmFailure::new(status, code, message);
                if let Some(seconds) = retry_after {
                    error = error.with_header("retry-after", &seconds.to_string());
                }
                if *gateway {
                    error = error.from_gateway();
                }
                self.error.get_or_insert(error);
            }
        }
    }
}

fn default_code(status: StatusCode) -> &'static str {
    match status {
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        StatusCode::CONFLICT => "Conflict",
        StatusCode::FORBIDDEN => "AuthorizationFailed",
        StatusCode::NOT_FOUND => "ResourceNotFound",
        status if status.is_server_error() => "InternalServerError",
        _ => "BadRequest",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(json: serde_json::Value) -> FaultRule {
        serde_json::from_value(json).expect("a rule")
    }

    #[test]
    fn a_count_is_used_up_and_a_rate_is_repeatable() {
        let error = serde_json::json!({"error": {"status": 503, "retryAfter": 7}});
        let mut faults = FaultRules::default();
        faults
            .add(rule(serde_json::json!({"count": 2, "fault": error})))
            .expect("a rule");
        let hit = |faults: &mut FaultRules| {
            faults
                .outcome_for("ContainerGroups_Get", None, Some("a"))
                .error
        };
        let first = hit(&mut faults).expect("the first");
        assert_eq!(
            (first.status.as_u16(), first.code.as_str()),
            (503, "ServiceUnavailable")
        );
        assert!(hit(&mut faults).is_some() && hit(&mut faults).is_none());
        let share = |rate: f64| {
            let mut faults = FaultRules::default();
            faults
                .add(rule(serde_json::json!({"rate": rate, "fault": "drop"})))
                .expect("a rule");
            (0..1000)
                .filter(|_| faults.outcome_for("x", None, None).dropped)
                .count()
        };
        assert_eq!((share(0.0), share(1.0), share(0.3)), (0, 1000, share(0.3)));
        assert!((200..400).contains(&share(0.3)));
    }

    #[test]
    fn a_rule_applies_only_to_its_operation_and_groups() {
        let mut faults = FaultRules::default();
        let json = serde_json::json!({"operation": "containergroups_get", "group": "web-", "fault": "loseAnswer"});
        faults.add(rule(json)).expect("a rule");
        assert!(
            faults
                .outcome_for("ContainerGroups_Get", None, Some("web-1"))
                .answer_lost
        );
        assert_eq!(
            faults.outcome_for("ContainerGroups_Get", None, Some("api")),
            FaultOutcome::default()
        );
        assert_eq!(
            faults.outcome_for("ContainerGroups_List", None, None),
            FaultOutcome::default()
        );
        assert_eq!(faults.remove(None), 1);
        let json = serde_json::json!({"resourceGroup": "one", "fault": "drop"});
        faults.add(rule(json)).expect("a rule");
        let list = "ContainerGroups_ListByResourceGroup";
        let mut dropped = |group| faults.outcome_for(list, group, None).dropped;
        assert_eq!(
            [Some("One"), Some("two"), None].map(&mut dropped),
            [true, false, false]
        );
    }

    #[test]
    fn an_invalid_rule_is_refused_with_the_name_of_its_field() {
        let mut faults = FaultRules::default();
        let refused = |faults: &mut FaultRules, json| faults.add(rule(json)).expect_err("refused");
        let lag = serde_json::json!({"operation": "ContainerGroups_Get", "fault": {"lag": "5s"}});
        assert!(refused(&mut faults, lag).starts_with("fault.lag"));
        let low = serde_json::json!({"fault": {"error": {"status": 200}}});
        assert!(refused(&mut faults, low).starts_with("fault.error.status"));
        assert!(
            refused(&mut faults, serde_json::json!({"rate": 2, "fault": "drop"}))
                .starts_with("rate")
        );
    }
}
