//! Tests: fields that depend on the configuration of the container's image.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::resolved_references::ResolvedImage;
use super::super::{TranslationTarget, Unsupported, decode, eligible};
use super::given::Given;
use crate::aci::image::ImageConfig;

const PINNED: &str =
    "nginx@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A pod with one container, whose image has the entrypoint `/entry`, the working directory `/srv` and this user.
fn read(container: Value, user: &str) -> Given {
    let mut given = Given::container(container);
    let config = ImageConfig {
        entrypoint: vec!["/entry".to_owned(), "$(A)".to_owned()],
        cmd: vec!["serve".to_owned()],
        user: user.to_owned(),
        working_dir: "/srv".to_owned(),
        ..ImageConfig::default()
    };
    let image = ResolvedImage {
        pinned: PINNED.to_owned(),
        config: Arc::new(config),
    };
    given.resolved.images.insert("nginx".to_owned(), image);
    given
}

fn refusals(given: Given) -> Vec<Unsupported> {
    given.translate().expect_err("a refusal")
}

#[test]
fn args_follow_the_entrypoint_that_was_read() {
    let env = json!([{"name": "A", "value": "x"}]);
    let first = read(json!({"args": ["a", "$(A)"], "env": env}), "").first();
    // The image's own part is not expanded.
    assert_eq!(first["command"], json!(["/entry", "$(A)", "a", "x"]));
    assert_eq!(first["image"], PINNED);
}

#[test]
fn a_container_that_needs_nothing_of_its_image_keeps_its_image_and_command() {
    let first = read(json!({"command": ["b"], "args": ["a"]}), "0").first();
    assert_eq!(first["command"], json!(["b", "a"]));
    assert_eq!(first["image"], "nginx");
}

#[test]
fn the_user_that_was_read_is_the_one_that_runs() {
    let non_root = json!({"securityContext": {"runAsNonRoot": true}});
    let context = |user: &str| read(non_root.clone(), user).first()["securityContext"].clone();
    assert_eq!(context("101"), json!({"runAsUser": 101}));
    assert_eq!(context("101:0"), json!({"runAsUser": 101, "runAsGroup": 0}));
    let own = json!({"securityContext": {"runAsNonRoot": true, "runAsGroup": 7}});
    let first = read(own, "101:0").first();
    assert_eq!(
        first["securityContext"],
        json!({"runAsUser": 101, "runAsGroup": 7})
    );
}

#[test]
fn an_image_that_runs_as_root_is_refused_in_the_kubelets_words() {
    for (user, words) in [
        ("", "image will run as root"),
        ("0:0", "image will run as root"),
        ("nginx", "non-numeric user (nginx)"),
    ] {
        let refused = refusals(read(
            json!({"securityContext": {"runAsNonRoot": true}}),
            user,
        ));
        let [refusal] = &refused[..] else {
            panic!("{refused:?}");
        };
        assert_eq!(
            refusal.field,
            "spec.containers[0].securityContext.runAsNonRoot"
        );
        assert!(
            refusal.why.contains(words)
                && refusal
                    .why
                    .ends_with("(pod: \"web_shop(u-1)\", container: web)"),
            "{}",
            refusal.why
        );
    }
}

#[test]
fn a_working_directory_passes_only_if_it_is_the_images() {
    let first = read(json!({"workingDir": "/srv/"}), "").first();
    assert_eq!(first["image"], PINNED);
    let refused = refusals(read(json!({"workingDir": "/app"}), ""));
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].field, "spec.containers[0].workingDir");
    assert!(
        refused[0].why.ends_with("which is /srv"),
        "{}",
        refused[0].why
    );
}

#[test]
fn before_the_grant_an_image_that_will_be_read_is_no_reason_to_refuse() {
    for container in [
        json!({"args": ["a"]}),
        json!({"workingDir": "/app"}),
        json!({"securityContext": {"runAsNonRoot": true}}),
    ] {
        for (setting, is_eligible) in [("Auto", true), ("Never", false)] {
            let given = Given::container(container.clone()).placed(&json!({"readImages": setting}));
            let (pod, unknown) = decode(given.pod).unwrap();
            let target = TranslationTarget {
                spec: &given.place,
                tags: &given.tags,
                node: "burst-shop-weu",
                node_address: None,
                identities: &given.identities,
                accepted: &given.accepted,
            };
            let checked = eligible(&pod, &unknown, &target);
            assert_eq!(checked.is_ok(), is_eligible, "{container} {setting}");
        }
        // What was not read is not guessed.
        let refused = Given::container(container.clone()).refused();
        assert_eq!(refused.len(), 1, "{container}");
        // A placement that reads no images does not use what was read for another.
        let never = read(container.clone(), "5").placed(&json!({"readImages": "Never"}));
        assert_eq!(never.refused().len(), 1, "{container}");
    }
}
