//! Request limits of ARM and of the service.
//!
//! In: each request's kind and time. Out: the remaining budget as response headers, or 429 with
//! `Retry-After`. ARM has one token bucket per subscription for each of reads, writes and deletes
//! (documented since 2024). The service limits creates and deletes of container groups per subscription
//! and region, in windows of 5 minutes and of one hour that start with their first request.

use std::collections::HashMap;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::error::ArmFailure;
use crate::emulator::clock::{between, later};

/// ARM's tenant-wide limit is this many times the limit of a subscription.
const TENANT_FACTOR: f64 = 15.0;

/// The limits. `null` for a bucket or a budget removes that limit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ThrottleLimits {
    /// ARM's bucket for GET, HEAD and OPTIONS.
    pub reads: Option<TokenBucket>,
    /// ARM's bucket for PUT, PATCH and POST.
    pub writes: Option<TokenBucket>,
    /// ARM's bucket for DELETE.
    pub deletes: Option<TokenBucket>,
    /// The service's budget for creating and updating container groups.
    pub group_creates: Option<ThrottleBudget>,
    /// The service's budget for deleting container groups.
    pub group_deletes: Option<ThrottleBudget>,
}

/// A token bucket: each request takes one token.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenBucket {
    /// How many tokens the bucket holds.
    pub size: f64,
    /// How many tokens are added per second.
    pub per_second: f64,
}

/// A budget per fixed time window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ThrottleBudget {
    /// Requests per 5 minutes.
    pub per_5m: u64,
    /// Requests per hour.
    pub per_1h: u64,
}

impl Default for ThrottleLimits {
    fn default() -> Self {
        let budget = Some(ThrottleBudget {
            per_5m: 100,
            per_1h: 300,
        });
        Self {
            reads: Some(TokenBucket {
                size: 250.0,
                per_second: 25.0,
            }),
            writes: Some(TokenBucket {
                size: 200.0,
                per_second: 10.0,
            }),
            deletes: Some(TokenBucket {
                size: 200.0,
                per_second: 10.0,
            }),
            group_creates: budget,
            group_deletes: budget,
        }
    }
}

impl ThrottleLimits {
    /// No limits.
    pub const fn unlimited() -> Self {
        Self {
            reads: None,
            writes: None,
            deletes: None,
            group_creates: None,
            group_deletes: None,
        }
    }
}

/// The kinds of requests that ARM counts separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ThrottleKind {
    /// GET, HEAD and OPTIONS.
    Reads,
    /// PUT, PATCH and POST.
    Writes,
    /// DELETE.
    Deletes,
}

impl ThrottleKind {
    /// The kind of a request with `method`.
    pub fn of(method: &http::Method) -> Self {
        match *method {
            http::Method::GET | http::Method::HEAD | http::Method::OPTIONS => Self::Reads,
            http::Method::DELETE => Self::Deletes,
            _ => Self::Writes,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Reads => "reads",
            Self::Writes => "writes",
            Self::Deletes => "deletes",
        }
    }
}

/// The budgets of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GroupBudget {
    /// Create or update a container group.
    Create,
    /// Delete a container group.
    Delete,
}

/// Response headers.
pub type ThrottleHeaders = Vec<(HeaderName, HeaderValue)>;

/// How much of the limits is used.
#[derive(Debug, Default)]
pub struct Throttle {
    buckets: HashMap<(String, ThrottleKind), (f64, Timestamp)>,
    windows: HashMap<(String, String, GroupBudget, u64), (u64, Timestamp)>,
}

impl Throttle {
    /// Counts a request of `kind` for `subscription`. `speed` converts the emulated wait into host
    /// seconds for `Retry-After`. Fails with 429 if the bucket is empty.
    pub fn arm(
        &mut self,
        limits: &ThrottleLimits,
        subscription: &str,
        kind: ThrottleKind,
        now: Timestamp,
        speed: f64,
    ) -> Result<ThrottleHeaders, ArmFailure> {
        let bucket = match kind {
            ThrottleKind::Reads => limits.reads,
            ThrottleKind::Writes => limits.writes,
            ThrottleKind::Deletes => limits.deletes,
        };
        let Some(bucket) = bucket else {
            return Ok(Vec::new());
        };
        let key = (subscription.to_lowercase(), kind);
        let (level, since) = self.buckets.entry(key).or_insert((bucket.size, now));
        let refill = between(*since, now).as_secs_f64() * bucket.per_second;
        (*level, *since) = ((*level + refill).min(bucket.size), now);
        if *level < 1.0 {
            let wait = Duration::try_from_secs_f64((1.0 - *level) / bucket.per_second);
            let message = format!(
                "Number of '{}' requests for subscription '{subscription}' exceeded the limit. \
                 Please try again after some time.",
                kind.name()
            );
            let error = ArmFailure::new(
                StatusCode::TOO_MANY_REQUESTS,
                "SubscriptionRequestsThrottled",
                message,
            );
            return Err(retry_after(error, wait.unwrap_or(Duration::MAX), speed));
        }
        *level -= 1.0;
        let name = kind.name();
        let global = bucket.size * TENANT_FACTOR - (bucket.size - *level);
        Ok(vec![
            header(
                &format!("x-ms-ratelimit-remaining-subscription-{name}"),
                *level,
            ),
            header(
                &format!("x-ms-ratelimit-remaining-subscription-global-{name}"),
                global,
            ),
        ])
    }

    /// Counts a create or delete of a container group in `region`. Fails with 429 if a window is used
    /// up.
    pub fn group(
        &mut self,
        limits: &ThrottleLimits,
        (subscription, region): (&str, &str),
        which: GroupBudget,
        now: Timestamp,
        speed: f64,
    ) -> Result<ThrottleHeaders, ArmFailure> {
        let budget = match which {
            GroupBudget::Create => limits.group_creates,
            GroupBudget::Delete => limits.group_deletes,
        };
        let Some(budget) = budget else {
            return Ok(Vec::new());
        };
        let windows = [(300, budget.per_5m, "pt5m"), (3600, budget.per_1h, "pt1h")];
        let key = |seconds| {
            (
                subscription.to_lowercase(),
                region.to_owned(),
                which,
                seconds,
            )
        };
        let mut remaining = Vec::new();
        for (seconds, limit, name) in windows {
            let (used, since) = self.windows.entry(key(seconds)).or_insert((0, now));
            let window_end = later(*since, Duration::from_secs(seconds));
            if now >= window_end {
                (*used, *since) = (0, now);
            } else if *used >= limit {
                let wait = between(now, window_end);
                return Err(retry_after(used_up(limit, name, region), wait, speed));
            }
            remaining.push((name, limit - *used - 1));
        }
        for (seconds, _, _) in windows {
            self.windows
                .entry(key(seconds))
                .and_modify(|(used, _)| *used += 1);
        }
        let name = |window: &str| {
            format!("x-ms-ratelimit-remaining-subscription-resource-requests-{window}")
        };
        Ok(remaining
            .into_iter()
            .map(|(window, remaining)| header(&name(window), remaining))
            .collect())
    }

    /// Refills all buckets and budgets.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

/// The error when the window `name` of a region's budget is used up.
fn used_up(limit: u64, name: &str, region: &str) -> ArmFailure {
    let message = format!(
        "The request is being throttled: the limit of {limit} requests in {name} for container groups in '{region}' is \
         reached."
    );
    ArmFailure::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message)
}

fn retry_after(error: ArmFailure, wait: Duration, speed: f64) -> ArmFailure {
    let seconds = (wait.as_secs_f64() / speed).ceil().clamp(1.0, 86_400.0);
    error.with_header("retry-after", &format!("{seconds:.0}"))
}

/// A header with a number. Fractions are rounded down: a fraction of a token permits no request.
fn header(name: &str, value: impl Into<HeaderNumber>) -> (HeaderName, HeaderValue) {
    let name = HeaderName::try_from(name).expect("the names above are header names");
    let value = HeaderValue::try_from(value.into().0).expect("digits are a header value");
    (name, value)
}

struct HeaderNumber(String);

impl From<f64> for HeaderNumber {
    fn from(value: f64) -> Self {
        Self(format!("{:.0}", value.floor().max(0.0)))
    }
}

impl From<u64> for HeaderNumber {
    fn from(value: u64) -> Self {
        Self(value.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("in range")
    }

    #[test]
    fn a_bucket_counts_down_refuses_when_empty_and_refills() {
        let limits = ThrottleLimits {
            reads: Some(TokenBucket {
                size: 2.0,
                per_second: 0.5,
            }),
            ..ThrottleLimits::default()
        };
        let mut throttle = Throttle::default();
        let mut read =
            |second, speed| throttle.arm(&limits, "S", ThrottleKind::Reads, at(second), speed);
        assert_eq!(read(0, 1.0).expect("allowed")[0].1, "1");
        assert_eq!(read(0, 1.0).expect("allowed")[0].1, "0");
        let refused = read(0, 1.0).expect_err("empty");
        assert_eq!(
            (refused.status.as_u16(), &refused.headers[0].1),
            (429, &HeaderValue::from(2))
        );
        assert_eq!(
            read(0, 2.0).expect_err("empty").headers[0].1,
            HeaderValue::from(1)
        );
        assert_eq!(read(2, 1.0).expect("refilled")[0].1, "0");
    }

    #[test]
    fn the_services_budgets_are_300_an_hour_and_100_in_5_minutes_for_each_region() {
        let (limits, mut throttle) = (ThrottleLimits::default(), Throttle::default());
        let mut create = |region: &str, second| {
            throttle.group(&limits, ("s", region), GroupBudget::Create, at(second), 1.0)
        };
        let first = create("westus", 0).expect("allowed");
        assert_eq!(
            (&first[0].1, &first[1].1),
            (&HeaderValue::from(99), &HeaderValue::from(299))
        );
        for _ in 1..100 {
            create("westus", 1).expect("allowed");
        }
        assert_eq!(
            create("westus", 1).expect_err("used up").headers[0].1,
            HeaderValue::from(299)
        );
        create("eastus", 1).expect("another region has its own");
        for window in 1..3 {
            for _ in 0..100 {
                create("westus", 300 * window).expect("a new window");
            }
        }
        assert_eq!(
            create("westus", 900).expect_err("the hour's").headers[0].1,
            HeaderValue::from(2700)
        );
    }
}
