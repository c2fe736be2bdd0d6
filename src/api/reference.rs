//! Every field of the resource, for readers without a cluster in which `kubectl explain` shows it.
//!
#![doc = include_str!("../docs/burstpool-fields.md")]
#![allow(
    rustdoc::bare_urls,
    rustdoc::broken_intra_doc_links,
    reason = "the table quotes the fields' descriptions as `kubectl explain` shows them"
)]

use std::fmt::Write as _;

use kube::CustomResourceExt as _;
use serde_json::Value;

use super::BurstPool;

/// All fields as a Markdown table, with one row for each field and its path.
pub fn table() -> String {
    let definition = serde_json::to_value(BurstPool::crd()).expect("a definition is JSON");
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut text =
        String::from("| field | type | default | description |\n| --- | --- | --- | --- |\n");
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
    let description = schema["description"].as_str().unwrap_or_default();
    let description = description.replace('\n', " ").replace('|', "\\|");
    writeln!(text, "| `{path}` | {kind} | {default} | {description} |")
        .expect("writing to a string cannot fail");
    for (name, field) in inside["properties"].as_object().into_iter().flatten() {
        rows(text, &format!("{path}.{name}"), field);
    }
}

/// The type of a schema in one or two words.
fn kind(schema: &Value) -> String {
    let one_of = schema["enum"].as_array().into_iter().flatten();
    let choices: Vec<&str> = one_of.filter_map(Value::as_str).collect();
    if !choices.is_empty() {
        return choices.join(", ");
    }
    if schema["x-kubernetes-int-or-string"] == true {
        let pattern = schema["pattern"].as_str().unwrap_or_default();
        let kind = if pattern.contains('%') {
            "number or percentage"
        } else {
            "quantity"
        };
        return kind.to_owned();
    }
    match (schema["type"].as_str(), &schema["additionalProperties"]) {
        (Some("object"), Value::Object(_)) => "map".to_owned(),
        (Some(name), _) => name.to_owned(),
        (None, _) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The sample pool with every field.
    fn sample() -> String {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = root.join("config/samples/burstpool-every-field.yaml");
        std::fs::read_to_string(path).expect("the sample")
    }

    #[test]
    fn the_file_of_the_table_is_up_to_date() {
        crate::kept::assert_kept("src/docs/burstpool-fields.md", &table());
    }

    #[test]
    fn every_field_has_a_description() {
        for line in table().lines().skip(2) {
            assert!(!line.ends_with("|  |"), "{line}");
        }
    }

    #[test]
    fn the_sample_with_every_field_has_every_field() {
        let sample: Value = serde_yaml::from_str(&sample()).expect("YAML");
        let mut sample_fields = BTreeSet::new();
        fields_of(&mut sample_fields, "spec", &sample["spec"]);
        let table = table();
        let rows = table.lines().filter_map(|line| line.split('`').nth(1));
        let missing: Vec<&str> = rows
            .filter(|path| path.starts_with("spec") && !sample_fields.contains(*path))
            .collect();
        assert!(missing.is_empty(), "the sample lacks {missing:?}");
    }

    #[test]
    fn the_sample_with_every_field_comments_every_line_and_names_every_choice() {
        let sample = sample();
        let spec = sample.lines().skip_while(|line| *line != "spec:").skip(1);
        for line in spec.filter(|line| !line.is_empty()) {
            assert!(line.contains(" # "), "a comment is missing: {line}");
        }
        let definition = serde_json::to_value(BurstPool::crd()).expect("a definition is JSON");
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut choices = BTreeSet::new();
        choices_of(&mut choices, &schema["properties"]["spec"]);
        let words: BTreeSet<&str> = sample.split(|c: char| !c.is_alphanumeric()).collect();
        let missing: Vec<&&str> = choices
            .iter()
            .filter(|choice| !words.contains(**choice))
            .collect();
        assert!(missing.is_empty(), "the sample does not name {missing:?}");
    }

    /// The paths of all fields of a value. As in the table, a path does not show which of its fields are lists.
    fn fields_of(paths: &mut BTreeSet<String>, path: &str, value: &Value) {
        paths.insert(path.to_owned());
        match value {
            Value::Array(items) => items.iter().for_each(|item| fields_of(paths, path, item)),
            Value::Object(fields) => {
                for (name, field) in fields {
                    fields_of(paths, &format!("{path}.{name}"), field);
                }
            }
            _ => {}
        }
    }

    /// All enum values in a schema.
    fn choices_of<'a>(choices: &mut BTreeSet<&'a str>, schema: &'a Value) {
        let values = schema["enum"].as_array().into_iter().flatten();
        choices.extend(values.filter_map(Value::as_str));
        let fields = schema["properties"].as_object().into_iter().flatten();
        fields.for_each(|(_, field)| choices_of(choices, field));
        if let Some(items) = schema.get("items") {
            choices_of(choices, items);
        }
    }
}
