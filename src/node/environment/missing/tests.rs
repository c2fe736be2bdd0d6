use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::*;
use crate::aci::translate::references::{TokenNeed, pod_references};
use crate::aci::translate::secret_string::SecretString;

fn pod() -> Pod {
    let from = |name: &str, key: &str, optional: bool| json!({"name": "A", "valueFrom": {"secretKeyRef": {"name": name, "key": key, "optional": optional}}});
    let pod = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {
        "imagePullSecrets": [{"name": "pull"}],
        "containers": [{"name": "a", "env": [from("db", "user", false), from("db", "extra", true), from("maybe", "x", true)]}],
        "volumes": [{"name": "t", "projected": {"sources": [
            {"serviceAccountToken": {"path": "t", "audience": "vault"}}, {"configMap": {"name": "conf"}}]}}],
    }});
    serde_json::from_value(pod).expect("a pod")
}

type Answers<'a> = &'a [(&'a str, Result<&'a [&'a str], ReadFailure>)];

fn objects(answers: Answers<'_>) -> ReadObjects<ObjectContent> {
    let answers = answers.iter().map(|(name, answer)| {
        let content = answer.clone().map(|keys| ObjectContent {
            data: keys
                .iter()
                .map(|key| ((*key).to_owned(), b"hidden".to_vec()))
                .collect(),
            ..ObjectContent::default()
        });
        ((*name).to_owned(), content)
    });
    ReadObjects(answers.collect())
}

fn read(
    secrets: Answers<'_>,
    maps: Answers<'_>,
    token: Result<&str, ReadFailure>,
) -> ReadReferences {
    let need = TokenNeed {
        audience: "vault".into(),
        seconds: 3600,
    };
    ReadReferences {
        namespace: "shop".into(),
        secrets: objects(secrets),
        config_maps: objects(maps),
        claims: BTreeMap::new(),
        token_requests: vec![(need, token.map(SecretString::new))],
        kube_config: None,
    }
}

fn messages(read: &ReadReferences) -> Vec<String> {
    let missing = missing_required(&pod_references(&pod()), read);
    missing.iter().map(ToString::to_string).collect()
}

#[test]
fn a_required_object_is_reported_as_missing_and_an_optional_one_is_not() {
    let absent = || Err(ReadFailure::Absent);
    let all = read(
        &[
            ("db", Ok(&["user"])),
            ("maybe", absent()),
            ("pull", absent()),
        ],
        &[("conf", Ok(&[]))],
        Ok("hidden"),
    );
    assert_eq!(messages(&all), Vec::<String>::new());
    let warnings = missing_pull_secrets(&pod_references(&pod()), &all);
    assert_eq!(
        warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["Secret shop/pull of imagePullSecrets does not exist"]
    );
    let none = read(
        &[
            ("db", Ok(&["other"])),
            ("maybe", absent()),
            ("pull", absent()),
        ],
        &[("conf", absent())],
        Err(ReadFailure::Absent),
    );
    assert_eq!(
        messages(&none),
        [
            "Secret shop/db has no key 'user'",
            "ConfigMap shop/conf does not exist",
            "ServiceAccount shop/default does not exist",
        ]
    );
}

#[test]
fn an_object_that_may_not_be_read_comes_with_the_command_that_permits_it() {
    let no = || Err(ReadFailure::Forbidden);
    let token = Err(ReadFailure::Forbidden);
    let read = read(
        &[("db", no()), ("maybe", no()), ("pull", no())],
        &[("conf", Ok(&[]))],
        token,
    );
    let missing = missing_required(&pod_references(&pod()), &read);
    let names: Vec<&str> = missing
        .iter()
        .map(|object| object.object.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "Secret shop/db",
            "Secret shop/maybe",
            "a token for vault of the ServiceAccount shop/default",
            "Secret shop/pull",
        ]
    );
    assert!(
        missing
            .iter()
            .all(|object| object.reason == MissingReason::Forbidden)
    );
    let messages: Vec<String> = missing.iter().map(ToString::to_string).collect();
    let messages = messages.join("; ");
    let remedy = "kubectl apply -k config/namespace -n shop";
    assert_eq!(messages.matches(remedy).count(), 1, "{messages}");
    assert!(messages.ends_with(remedy), "{messages}");
}

#[test]
fn claims_and_the_token_of_kube_proxy_are_reported_as_missing() {
    let mut read = read(&[("db", Ok(&["user"]))], &[("conf", Ok(&[]))], Ok("hidden"));
    read.secrets
        .0
        .insert("maybe".into(), Err(ReadFailure::Absent));
    let remedy = namespace_access_remedy("shop");
    let claim = MissingObject::not_read(
        "PersistentVolumeClaim shop/data".into(),
        &ReadFailure::Forbidden,
        remedy,
    );
    read.claims.insert("data".into(), Err(claim));
    let token =
        MissingObject::token_not_requested("a token".into(), &ReadFailure::Forbidden, "do this");
    read.kube_config = Some(Err(token));
    let command = namespace_access_remedy("shop");
    assert_eq!(
        messages(&read),
        [
            format!("PersistentVolumeClaim shop/data may not be read; {command}"),
            "a token may not be requested; do this".to_owned(),
        ]
    );
}

#[test]
fn an_optional_object_without_an_answer_is_reported_as_missing() {
    let slow = || Err(ReadFailure::Unreadable("slow".into()));
    let read = read(
        &[("db", Ok(&["user"])), ("maybe", slow()), ("pull", slow())],
        &[("conf", Ok(&[]))],
        Ok("hidden"),
    );
    assert_eq!(
        messages(&read),
        [
            "Secret shop/maybe could not be read: slow",
            "Secret shop/pull could not be read: slow",
        ]
    );
    assert!(!format!("{read:?}").contains("hidden"));
}
