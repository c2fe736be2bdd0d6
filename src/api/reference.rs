//! Every field of the resource, for people who do not have it in a cluster to ask `kubectl explain`.
//!
#![doc = include_str!("fields.md")]

use std::fmt::Write as _;

use kube::CustomResourceExt as _;
use serde_json::Value;

use super::BurstPool;

/// All fields as Markdown: one row a field, by its path.
pub fn table() -> String {
    let definition = serde_json::to_value(BurstPool::crd()).expect("a definition is JSON");
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut text =
        String::from("| field | type | default | what it says |\n| --- | --- | --- | --- |\n");
    for part in ["spec", "status"] {
        rows(&mut text, part, &schema["properties"][part]);
    }
    text
}

fn rows(text: &mut String, path: &str, schema: &Value) {
    let (inside, kind) = match schema["type"].as_str() {
        Some("array") => (
            &schema["items"],
            format!("list of {}", kind(&schema["items"])),
        ),
        _ => (schema, kind(schema)),
    };
    let default = &schema["default"];
    let default = match default {
        Value::Null | Value::Object(_) => String::new(),
        Value::String(word) => format!("`{word}`"),
        value => format!("`{value}`"),
    };
    let words = schema["description"].as_str().unwrap_or_default();
    let words = words.replace('\n', " ").replace('|', "\\|");
    writeln!(text, "| `{path}` | {kind} | {default} | {words} |")
        .expect("writing to a string cannot fail");
    for (name, field) in inside["properties"].as_object().into_iter().flatten() {
        rows(text, &format!("{path}.{name}"), field);
    }
}

/// A schema's type in a word or two.
fn kind(schema: &Value) -> String {
    let one_of = schema["enum"].as_array().into_iter().flatten();
    let words: Vec<&str> = one_of.filter_map(Value::as_str).collect();
    if !words.is_empty() {
        return words.join(", ");
    }
    if schema["x-kubernetes-int-or-string"] == true {
        return "number or percentage".to_owned();
    }
    match (schema["type"].as_str(), &schema["additionalProperties"]) {
        (Some("object"), Value::Object(_)) => "map".to_owned(),
        (Some(word), _) => word.to_owned(),
        (None, _) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_tables_file_is_as_the_types_say() {
        crate::kept::assert_kept("src/api/fields.md", &super::table());
    }

    #[test]
    fn every_row_has_words() {
        for line in super::table().lines().skip(2) {
            assert!(!line.ends_with("|  |"), "{line}");
        }
    }
}
