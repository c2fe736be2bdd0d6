//! `maxReplicas`: a number of replicas, or a percentage of the desired replicas.

use std::borrow::Cow;
use std::fmt;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The maximum number of replicas on ACI at once.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(try_from = "IntOrString", into = "IntOrString")]
pub enum MaxReplicas {
    /// This number.
    Count(u32),
    /// This percentage of the desired replicas, rounded up.
    Percent(u32),
}

impl MaxReplicas {
    /// The maximum as a number, for `desired` replicas.
    pub fn resolve(self, desired: u64) -> u64 {
        match self {
            Self::Count(count) => u64::from(count),
            Self::Percent(percent) => desired.saturating_mul(u64::from(percent)).div_ceil(100),
        }
    }
}

impl TryFrom<IntOrString> for MaxReplicas {
    type Error = String;

    fn try_from(value: IntOrString) -> Result<Self, String> {
        let error = |text: &str| {
            format!("maxReplicas: '{text}' must be a number from 0, or a percentage such as 50%")
        };
        match value {
            IntOrString::Int(count) => u32::try_from(count)
                .map(Self::Count)
                .map_err(|_| error(&count.to_string())),
            IntOrString::String(text) => {
                let percent = text.strip_suffix('%').and_then(|n| n.parse().ok());
                percent
                    .filter(|percent| *percent <= 100)
                    .map(Self::Percent)
                    .ok_or_else(|| error(&text))
            }
        }
    }
}

impl From<MaxReplicas> for IntOrString {
    fn from(limit: MaxReplicas) -> Self {
        match limit {
            MaxReplicas::Count(count) => Self::Int(i32::try_from(count).unwrap_or(i32::MAX)),
            MaxReplicas::Percent(_) => Self::String(limit.to_string()),
        }
    }
}

impl fmt::Display for MaxReplicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// The schema has a pattern and no CEL rule: the API server estimates that a CEL rule over a value that is a number
/// or a string reads a string as large as the whole request, and for 64 workloads that exceeds the cost limit.
impl JsonSchema for MaxReplicas {
    fn schema_name() -> Cow<'static, str> {
        "MaxReplicas".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "nullable": false,
            "minimum": 0,
            "maximum": 5000,
            "pattern": "^(100|[1-9]?[0-9])%$",
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_percentage_of_the_desired_replicas_is_rounded_up() {
        for (percent, desired, max) in [
            (30, 7, 3),
            (30, 10, 3),
            (50, 1, 1),
            (1, 1, 1),
            (0, 9, 0),
            (100, 9, 9),
            (50, 0, 0),
        ] {
            let limit = MaxReplicas::Percent(percent);
            assert_eq!(limit.resolve(desired), max, "{percent}% of {desired}");
        }
        assert_eq!(MaxReplicas::Count(5).resolve(1), 5);
    }

    #[test]
    fn only_numbers_and_percentages_are_read_and_written() {
        for (value, limit) in [
            (json!(0), MaxReplicas::Count(0)),
            (json!(12), MaxReplicas::Count(12)),
            (json!("50%"), MaxReplicas::Percent(50)),
        ] {
            let read: MaxReplicas = serde_json::from_value(value.clone()).expect("a limit");
            assert_eq!(read, limit);
            assert_eq!(serde_json::to_value(limit).expect("it is written"), value);
        }
        for invalid in [
            json!(-1),
            json!("50"),
            json!("101%"),
            json!("%"),
            json!("-1%"),
        ] {
            let error =
                serde_json::from_value::<MaxReplicas>(invalid.clone()).expect_err("no limit");
            assert!(
                error.to_string().contains("maxReplicas"),
                "{invalid}: {error}"
            );
        }
    }
}
