//! Tests: each `tests/fixtures/pods/*.yaml`, a pod with the objects that it refers to, is translated and compared
//! with the body in the file beside it.
//!
//! `UPDATE_FIXTURES=1 cargo test` rewrites the bodies; review the difference afterwards.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use serde_json::Value;

use super::given::Given;

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pods");
    let files = fs::read_dir(folder).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let mut files: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    files
}

fn given(path: &Path) -> Given {
    let text = fs::read_to_string(path).unwrap();
    let documents = serde_yaml::Deserializer::from_str(&text);
    let mut documents = documents.map(|document| Value::deserialize(document).unwrap());
    let pod = documents.next().unwrap();
    documents.fold(Given::pod(pod), |given, object| given.with(&object))
}

/// The result for a fixture: the body, or the refusals.
fn outcome(path: &Path) -> Value {
    match given(path).translate() {
        Ok(group) => serde_json::to_value(group).unwrap(),
        Err(refused) => {
            let refused = refused.iter().map(ToString::to_string);
            serde_json::json!({"refused": refused.collect::<Vec<_>>()})
        }
    }
}

#[test]
fn pods_are_translated_to_the_bodies_of_their_fixtures() {
    let mut wrong = Vec::new();
    let paths = fixtures();
    assert!(paths.len() > 5, "{paths:?}");
    for path in paths {
        let outcome = format!("{:#}\n", outcome(&path));
        let file = path.with_extension("group.json");
        let expected = crate::kept::kept(&file, &outcome);
        wrong.extend(difference(&expected, &outcome).map(|at| format!("{}: {at}", file.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The first lines that differ.
fn difference(expected: &str, found: &str) -> Option<String> {
    if expected == found {
        return None;
    }
    let lines = expected.lines().zip(found.lines());
    let same = lines.take_while(|(a, b)| a == b).count();
    let line = |text: &str| {
        text.lines()
            .nth(same)
            .unwrap_or("(the end)")
            .trim()
            .to_owned()
    };
    Some(format!(
        "line {}: {} became {}",
        same + 1,
        line(expected),
        line(found)
    ))
}
