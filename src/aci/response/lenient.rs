//! Lenient deserialization: a value of an unexpected form counts as absent.
//!
//! In: JSON. Out: the value, or its default.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The value, or its default if it cannot be parsed.
pub fn lenient<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

/// The elements of a list that can be parsed.
pub fn each<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let Value::Array(values) = Value::deserialize(deserializer)? else {
        return Ok(Vec::new());
    };
    let read = values
        .into_iter()
        .filter_map(|value| serde_json::from_value(value).ok());
    Ok(read.collect())
}

/// The entries of a map whose values can be parsed.
pub fn each_of_map<'de, D, T>(deserializer: D) -> Result<BTreeMap<String, T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let Value::Object(entries) = Value::deserialize(deserializer)? else {
        return Ok(BTreeMap::new());
    };
    let read = entries
        .into_iter()
        .filter_map(|(key, value)| Some((key, serde_json::from_value(value).ok()?)));
    Ok(read.collect())
}

/// A time with 0 to 9 fractional digits, with or without an offset (without one, it is UTC).
///
/// A time before 1970 counts as absent: .NET and Go write `0001-01-01T00:00:00Z` for a time that is not set, and
/// the API server rejects a whole status if it contains a time with a sign.
pub fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let Value::String(text) = Value::deserialize(deserializer)? else {
        return Ok(None);
    };
    let text = text.trim();
    let without_offset = || {
        let civil = text.parse::<DateTime>().ok()?;
        civil
            .to_zoned(TimeZone::UTC)
            .ok()
            .map(|zoned| zoned.timestamp())
    };
    let time = text.parse::<Timestamp>().ok().or_else(without_offset);
    Ok(time.filter(|time| *time >= Timestamp::UNIX_EPOCH))
}
