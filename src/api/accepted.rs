//! Property test: the types can read every pool that the schema of the definition accepts.
//!
//! In: the schema in `crds/burstpools.yaml`. Out: random pools, which the types read, write, and read again. The
//! values follow the schema's types, ranges, patterns, formats, null values and missing fields. Of the CEL rules,
//! they follow only the patterns of strings, so the test also includes pools that the other rules reject.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::string::string_regex;
use serde_json::{Map, Value, json};

use super::BurstPool;

/// The schema of a pool, as the API server has it.
fn schema() -> Value {
    let file = include_str!("../../crds/burstpools.yaml");
    let definition: Value = serde_yaml::from_str(file).expect("YAML");
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Generates values that the schema accepts.
fn accepted(schema: &Value) -> BoxedStrategy<Value> {
    let value = if let Some(choices) = schema["enum"].as_array() {
        select(choices.clone()).boxed()
    } else if schema["x-kubernetes-int-or-string"] == true {
        prop_oneof![integer(schema), text(schema)].boxed()
    } else {
        match schema["type"].as_str() {
            Some("object") => object(schema),
            Some("array") => {
                let items = accepted(&schema["items"]);
                let items = vec(items, sizes(schema, "minItems", "maxItems"));
                items.prop_map(Value::Array).boxed()
            }
            Some("string") => text(schema),
            Some("integer") => integer(schema),
            Some("boolean") => any::<bool>().prop_map(Value::Bool).boxed(),
            other => unreachable!("the generator does not know the type {other:?}"),
        }
    };
    if schema["nullable"] == true {
        return prop_oneof![4 => value, 1 => Just(Value::Null)].boxed();
    }
    value
}

/// The sizes of a generated list or map: the smallest size that the schema allows, and up to two more.
fn sizes(schema: &Value, least: &str, most: &str) -> std::ops::RangeInclusive<usize> {
    let bound = |field: &str| {
        schema[field]
            .as_u64()
            .and_then(|size| usize::try_from(size).ok())
    };
    let least = bound(least).unwrap_or_default();
    least..=bound(most).unwrap_or(usize::MAX).min(least + 2)
}

fn object(schema: &Value) -> BoxedStrategy<Value> {
    if schema["additionalProperties"].is_object() {
        let sizes = sizes(schema, "minProperties", "maxProperties");
        let values = btree_map(
            any::<String>(),
            accepted(&schema["additionalProperties"]),
            sizes,
        );
        return values.prop_map(|map| json!(map)).boxed();
    }
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let mut fields = Just(Map::new()).boxed();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let is_required = required.iter().any(|required| required == name);
        let value = accepted(field);
        let value = if is_required {
            value.prop_map(Some).boxed()
        } else {
            proptest::option::weighted(0.6, value).boxed()
        };
        let name = name.clone();
        fields = (fields, value)
            .prop_map(move |(mut fields, value)| {
                fields.extend(value.map(|value| (name.clone(), value)));
                fields
            })
            .boxed();
    }
    fields.prop_map(Value::Object).boxed()
}

fn integer(schema: &Value) -> BoxedStrategy<Value> {
    let (min, max) = match schema["format"].as_str() {
        Some("int32") => (i64::from(i32::MIN), i64::from(i32::MAX)),
        _ => (i64::MIN, i64::MAX),
    };
    #[allow(clippy::cast_possible_truncation, reason = "bounds are whole numbers")]
    let bound = |field: &str| schema[field].as_f64().map(|bound| bound as i64);
    let min = bound("minimum").unwrap_or(min);
    let max = bound("maximum").unwrap_or(max);
    let bounds = select(vec![min, max]);
    prop_oneof![1 => bounds, 3 => min..=max]
        .prop_map(|number| json!(number))
        .boxed()
}

fn text(schema: &Value) -> BoxedStrategy<Value> {
    let rules = schema["x-kubernetes-validations"].as_array();
    let mut rules = rules
        .into_iter()
        .flatten()
        .filter_map(|rule| rule["rule"].as_str());
    let rule = rules
        .find(|rule| rule.starts_with("self.matches('"))
        .unwrap_or_default();
    let pattern = rule.split('\'').nth(1).or(schema["pattern"].as_str());
    let max_chars = schema["maxLength"].as_u64();
    let max_chars = max_chars.and_then(|max_chars| usize::try_from(max_chars).ok());
    let max_chars = max_chars.unwrap_or(usize::MAX);
    let text = if schema["format"] == "date-time" {
        time()
    } else if rule.contains("duration(self)") {
        duration(pattern.expect("a pattern"))
    } else if let Some(pattern) = pattern {
        let pattern = string_regex(&without_anchors(pattern));
        pattern.expect("a pattern that can be inverted").boxed()
    } else {
        let text = any::<String>();
        text.prop_map(move |text| text.chars().take(max_chars).collect())
            .boxed()
    };
    let is_short_enough = move |text: &String| text.chars().count() <= max_chars;
    text.prop_filter("it is too long", is_short_enough)
        .prop_map(Value::String)
        .boxed()
}

/// Points in time in the format of RFC 3339.
fn time() -> BoxedStrategy<String> {
    let zone = select(vec!["Z", "z", "+00:00", "-11:30", "+14:00"]);
    let fraction = select(vec!["", ".5", ".123456", ".123456789"]);
    let mark = select(vec!["T", "t"]);
    let day = (1_u32..=9999, 1_u32..=12, 1_u32..=28);
    let hour = (0_u32..=23, 0_u32..=59, 0_u32..=59);
    (day, mark, hour, fraction, zone)
        .prop_map(|((year, month, day), mark, (hour, minute, second), fraction, zone)| {
            format!("{year:04}-{month:02}-{day:02}{mark}{hour:02}:{minute:02}:{second:02}{fraction}{zone}")
        })
        .boxed()
}

/// Durations in the units that the pattern names. The CEL function `duration` rejects those that are too long for it.
fn duration(pattern: &str) -> BoxedStrategy<String> {
    let units = pattern.rsplit('(').next().unwrap_or_default();
    let units = units.split(')').next().unwrap_or_default();
    let units: Vec<String> = units.split('|').map(str::to_owned).collect();
    vec((0_u32..=999_999, select(units)), 1..=3)
        .prop_map(|parts| {
            let parts = parts.into_iter();
            let parts: Vec<String> = parts
                .map(|(number, unit)| format!("{number}{unit}"))
                .collect();
            parts.concat()
        })
        .boxed()
}

/// The pattern without its anchors, which the generator does not support. It generates strings that match the whole
/// pattern.
fn without_anchors(pattern: &str) -> String {
    let mut is_class = false;
    let kept = pattern.chars().filter(|character| {
        match character {
            '[' => is_class = true,
            ']' => is_class = false,
            _ => {}
        }
        is_class || !matches!(character, '^' | '$')
    });
    kept.collect()
}

fn pools() -> impl Strategy<Value = Value> {
    accepted(&schema()).prop_map(|mut pool| {
        pool["apiVersion"] = json!("burstpool.io/v1alpha1");
        pool["kind"] = json!("BurstPool");
        pool["metadata"] = json!({"name": "shop"});
        pool
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_pool_that_the_schema_accepts_is_read_written_and_read_again(pool in pools()) {
        let text = pool.to_string();
        let deserializer = &mut serde_json::Deserializer::from_str(&text);
        let read: Result<BurstPool, _> = serde_path_to_error::deserialize(deserializer);
        let read = match read {
            Ok(read) => read,
            Err(error) => return Err(TestCaseError::fail(format!("{error}"))),
        };
        let written = serde_json::to_value(&read).expect("it is written");
        let reread = serde_json::from_value::<BurstPool>(written);
        prop_assert!(reread.is_ok(), "{:?}", reread);
    }
}
