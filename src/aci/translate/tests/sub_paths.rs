//! Tests: mounts with a `subPath`.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::given::Given;

/// A volume's name and a `subPath` for each mount of a container.
type Mounts<'a> = &'a [(&'a str, &'a str)];

/// A pod with one container for each list of mounts. Each mount is a volume's name and a `subPath`; its `mountPath` is
/// `/m` and its number.
fn pod(volumes: &Value, containers: &[&[(&str, &str)]]) -> Given {
    let containers = containers.iter().enumerate().map(|(index, mounts)| {
        let mounts = mounts.iter().enumerate().map(|(number, (name, sub_path))| {
            json!({"name": name, "mountPath": format!("/m{number}"), "subPath": sub_path})
        });
        json!({"name": format!("c{index}"), "image": "a", "volumeMounts": mounts.collect::<Vec<_>>()})
    });
    let containers: Vec<Value> = containers.collect();
    Given::spec(json!({"containers": containers, "volumes": volumes}))
        .config_map("settings", &[("app", "1"), ("tls", "2")])
        .secret("keys", &[("key", "3")])
}

/// What the mounts of all containers show, in order: the name of an empty directory, or the files.
fn shown(given: Given) -> Vec<Result<BTreeMap<String, String>, String>> {
    let body = given.body();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let volumes = list(&body["properties"]["volumes"]);
    let containers = list(&body["properties"]["containers"]);
    let mounts = containers
        .iter()
        .flat_map(|container| list(&container["properties"]["volumeMounts"]));
    let show = |mount: Value| {
        let volume = volumes
            .iter()
            .find(|volume| volume["name"] == mount["name"]);
        let volume = volume.expect("each mount has its volume");
        let Some(files) = volume["secret"].as_object() else {
            return Err(volume["name"].as_str().expect("a name").to_owned());
        };
        let files = files.iter().map(|(name, content)| {
            let content = STANDARD.decode(content.as_str().unwrap()).unwrap();
            (name.clone(), String::from_utf8(content).unwrap())
        });
        Ok(files.collect())
    };
    mounts.map(show).collect()
}

fn files(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    let files = files
        .iter()
        .map(|(name, content)| ((*name).to_owned(), (*content).to_owned()));
    files.collect()
}

#[test]
fn a_directory_of_a_volume_with_content_shows_its_files_only() {
    let items =
        json!([{"key": "app", "path": "conf/app.ini"}, {"key": "tls", "path": "tls/./crt"}]);
    let volumes = json!([
        {"name": "settings", "configMap": {"name": "settings", "items": items}},
        {"name": "mixed", "projected": {"sources": [
            {"configMap": {"name": "settings", "items": items}},
            {"configMap": {"name": "settings"}},
            {"secret": {"name": "keys", "items": [{"key": "key", "path": "tls/key"}]}},
            {"secret": {"name": "absent", "optional": true, "items": [{"key": "key", "path": "none/key"}]}},
            {"downwardAPI": {"items": [{"path": "pod/name", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}}
    ]);
    let mounts: [&[(&str, &str)]; 2] = [
        &[
            ("settings", "conf"),
            ("settings", "tls/"),
            ("mixed", "tls"),
            ("mixed", "pod"),
        ],
        &[("settings", "./conf"), ("mixed", "none")],
    ];
    let shown = shown(pod(&volumes, &mounts));
    let expected = [
        files(&[("app.ini", "1")]),
        files(&[("crt", "2")]),
        files(&[("crt", "2"), ("key", "3")]),
        files(&[("name", "web")]),
        files(&[("app.ini", "1")]),
    ];
    assert_eq!(shown[..5], expected.map(Ok));
    // Files that are optional and missing leave an empty directory.
    assert!(shown[5].is_err(), "{shown:?}");
}

#[test]
fn a_directory_of_an_empty_dir_is_an_empty_dir_of_all_its_mounts() {
    let volumes = json!([{"name": "data", "emptyDir": {}}, {"name": "whole", "emptyDir": {}}]);
    let mounts: [&[(&str, &str)]; 2] = [
        &[("data", "logs"), ("data", "cache/a"), ("whole", "")],
        &[("data", "logs/"), ("data", "cache/b"), ("whole", ".")],
    ];
    let given = pod(&volumes, &mounts);
    let count = given.clone().body()["properties"]["volumes"]
        .as_array()
        .map(Vec::len);
    assert_eq!(
        count,
        Some(4),
        "the whole volume is mounted by no container"
    );
    let shown: Vec<String> = shown(given)
        .into_iter()
        .map(|shown| shown.expect_err("an emptyDir"))
        .collect();
    assert_eq!([&shown[0], &shown[2]], [&shown[3], &shown[5]]);
    let different: BTreeSet<&String> = [&shown[0], &shown[1], &shown[2], &shown[4]].into();
    assert_eq!(different.len(), 4);
}

#[test]
fn parts_that_would_show_something_else_are_refused() {
    let volumes = json!([
        {"name": "data", "emptyDir": {}},
        {"name": "map", "configMap": {"name": "settings"}},
        {"name": "deep", "configMap": {"name": "settings", "items": [{"key": "app", "path": "a/b/c"}, {"key": "tls", "path": "a/d"}]}},
        {"name": "git", "gitRepo": {"repository": "x"}},
    ]);
    let first = |number: usize| format!("spec.containers[0].volumeMounts[{number}].subPath");
    let cases: [(Mounts<'_>, Vec<String>); 10] = [
        (&[("data", "a"), ("data", "a/b")], vec![first(0), first(1)]),
        (&[("data", "a"), ("data", "ab")], vec![]),
        (&[("data", ""), ("data", "a")], vec![first(1)]),
        (&[("data", "../a")], vec![first(0)]),
        (&[("data", "/a")], vec![first(0)]),
        (&[("map", "app")], vec![first(0)]),
        (
            &[("map", "none")],
            vec![first(0), "spec.volumes[1]".to_owned()],
        ),
        (&[("deep", "a/b")], vec![]),
        (
            &[("deep", "a")],
            vec!["spec.volumes[2].configMap.items[0].path".to_owned()],
        ),
        (&[("git", "a")], vec![first(0)]),
    ];
    for (mounts, mut expected) in cases {
        // Without a mount, the volume would be created whole, and that is refused.
        let deep = mounts.iter().any(|(name, _)| *name == "deep");
        let mut volumes = volumes.clone();
        if !deep {
            volumes[2] = json!({"name": "deep", "emptyDir": {}});
        }
        expected.sort();
        assert_eq!(pod(&volumes, &[mounts]).refused(), expected, "{mounts:?}");
    }
}

#[test]
fn each_part_counts_as_a_volume() {
    let names: Vec<String> = (0..21).map(|number| format!("p{number}")).collect();
    let mounts: Vec<(&str, &str)> = names.iter().map(|name| ("data", name.as_str())).collect();
    let volumes = json!([{"name": "data", "emptyDir": {}}]);
    assert_eq!(
        pod(&volumes, &[&mounts[..20]]).refused(),
        Vec::<String>::new()
    );
    assert_eq!(pod(&volumes, &[&mounts]).refused(), ["spec.volumes"]);
}

proptest! {
    // In Kubernetes, two mounts of an emptyDir show the same files at the same places if they select the same directory,
    // and share some files if one directory contains the other.
    #[test]
    fn mounts_share_a_volume_if_and_only_if_they_share_files(
        paths in proptest::collection::vec("(a|b|ab|\\.)?(/(a|b|\\.))?/?", 1..5),
    ) {
        let directory = |path: &String| -> Vec<String> {
            let segments = path.split('/').filter(|segment| !["", "."].contains(segment));
            segments.map(str::to_owned).collect()
        };
        let mounts: Vec<(&str, &str)> = paths.iter().map(|path| ("data", path.as_str())).collect();
        let given = pod(&json!([{"name": "data", "emptyDir": {}}]), &[&mounts]);
        let nests = |a: &String, b: &String| directory(a) != directory(b) && directory(b).starts_with(&directory(a));
        let overlap = paths.iter().any(|a| paths.iter().any(|b| nests(a, b)));
        if paths.iter().any(|path| path.starts_with('/')) || overlap {
            prop_assert!(!given.refused().is_empty());
        } else {
            let shown = shown(given);
            for (a, shown_a) in paths.iter().zip(&shown) {
                for (b, shown_b) in paths.iter().zip(&shown) {
                    prop_assert_eq!(directory(a) == directory(b), shown_a == shown_b, "{} {}", a, b);
                }
            }
        }
    }
}
