//! Translation of arbitrary pods: the service accepts the body, no container gets less than the pod
//! requests, and a reader of the group sees no secret.

mod arbitrary;
mod body;
mod plausible;

use std::cell::Cell;
use std::collections::BTreeMap;

use burstpool::aci::names::GroupOwner;
use burstpool::aci::translate::claims::ClaimedShare;
use burstpool::aci::translate::references::pod_references;
use burstpool::aci::translate::resolved_references::ObjectContent;
use burstpool::aci::translate::{
    NO_IDENTITIES, TranslationTarget, Unsupported, accept_losses, decode, eligible, image_requests,
    translate,
};
use burstpool::api::{AcceptedLoss, LossSet, NO_LOSSES};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rand::prelude::*;
use serde_json::{Value, json};

pub use body::accepted;
use body::{kept, secrets_are_hidden};
use plausible::{Case, SECRET};

/// Checks `cases` random pods. A failure shows the seed.
fn each(cases: u32, make: fn(u64) -> Case, check: impl Fn(&Case) -> Result<(), TestCaseError>) {
    each_seed(cases, |seed| check(&make(seed)));
}

fn each_seed(cases: u32, check: impl Fn(u64) -> Result<(), TestCaseError>) {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let ran = TestRunner::new(config).run(&any::<u64>(), check);
    if let Err(failure) = ran {
        panic!("{failure}");
    }
}

/// The pod and the results for it: its eligibility, and the group's body or the unsupported fields.
type Outcome = (
    Pod,
    Result<(), Vec<Unsupported>>,
    Result<Value, Vec<Unsupported>>,
);

fn outcome(case: &Case) -> Option<Outcome> {
    outcome_accepting(case, &NO_LOSSES)
}

fn outcome_accepting(case: &Case, accepted: &LossSet) -> Option<Outcome> {
    let (pod, unknown) = decode(case.pod.clone()).ok()?;
    let placement = TranslationTarget {
        spec: &case.place,
        tags: &case.tags,
        node: "burst-shop-weu",
        node_address: Some("10.1.2.3"),
        identities: &NO_IDENTITIES,
        accepted,
    };
    let owner = GroupOwner {
        cluster: "c-1".into(),
        pool: "shop".into(),
        node: "burst-shop-weu".into(),
    };
    let mut resolved = case.resolved(&pod_references(&pod));
    if let Ok(requests) = image_requests(&pod, &resolved, &placement) {
        resolved.images = case.images(&requests);
    }
    let group = translate(&pod, &unknown, &resolved, &owner, &placement);
    let shown = format!("{group:?} {resolved:?}");
    assert!(!shown.contains(SECRET), "{shown}");
    let body = group.map(|group| serde_json::to_value(group).expect("a body serialises"));
    let eligible = eligible(&pod, &unknown, &placement);
    Some((pod, eligible, body))
}

#[test]
fn any_pod_is_translated_or_refused_by_name() {
    let decoded = Cell::new(0_u32);
    let cases = 1500;
    each(cases, arbitrary::pod, |case| {
        if let Some((_, eligible, body)) = outcome(case) {
            decoded.set(decoded.get() + 1);
            agree(&eligible, &body)?;
            if let Ok(body) = body {
                accepted(&body)?;
                secrets_are_hidden(&body)?;
            }
        }
        Ok(())
    });
    let decoded = decoded.get();
    assert!(decoded > cases / 2, "only {decoded} of {cases} were pods");
}

#[test]
fn what_is_translated_is_taken_by_the_service() {
    let taken = Cell::new(0_u32);
    let cases = 1500;
    each(cases, plausible::pod, |case| {
        let (pod, eligible, body) = outcome(case).expect("a plausible pod decodes");
        agree(&eligible, &body)?;
        if let Ok(body) = body {
            taken.set(taken.get() + 1);
            accepted(&body)?;
            kept(&pod, &body)?;
            secrets_are_hidden(&body)?;
        }
        Ok(())
    });
    let taken = taken.get();
    assert!(
        taken > cases / 3,
        "only {taken} of {cases} pods were translated"
    );
}

/// A pod that loses nothing, and the same pod with some losses.
fn lossy(seed: u64) -> (Case, Case, LossSet) {
    let mut rng = StdRng::seed_from_u64(!seed);
    let mut plain = plausible::pod(seed);
    let volumes = plain.pod["spec"]["volumes"].as_array_mut().expect("a list");
    volumes.push(json!({"name": "ram", "emptyDir": {}}));
    volumes.push(json!({"name": "modes", "configMap": {"name": "settings", "optional": true}}));
    let (ram, modes) = (volumes.len() - 2, volumes.len() - 1);
    // fsGroup matters to a user other than root who has an emptyDir, so the plain pod has none.
    plain.pod["spec"]["securityContext"]["fsGroup"] = Value::Null;
    let first = &mut plain.pod["spec"]["containers"][0];
    first["securityContext"]["runAsUser"] = 1000.into();
    let mount = json!({"name": "ram", "mountPath": "/mnt/ram"});
    match first["volumeMounts"].as_array_mut() {
        Some(mounts) => mounts.push(mount),
        None => first["volumeMounts"] = json!([mount]),
    }
    let losses: LossSet = AcceptedLoss::ALL
        .into_iter()
        .filter(|_| rng.random_bool(0.3))
        .collect();
    if losses.contains(AcceptedLoss::SubPathHidesDirectory) {
        let items = json!([{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]);
        let volumes = plain.pod["spec"]["volumes"].as_array_mut();
        let volume = json!({"name": "files-0", "downwardAPI": {"items": items}});
        volumes.expect("a list").push(volume);
        let mounts = plain.pod["spec"]["containers"][0]["volumeMounts"].as_array_mut();
        let mount = json!({"name": "files-0", "mountPath": "/hidden", "readOnly": true});
        mounts.expect("a list").push(mount);
    }
    if losses.contains(AcceptedLoss::SidecarOrder) {
        let proxy =
            json!({"name": "proxy", "image": "envoy", "securityContext": {"runAsNonRoot": false}});
        let containers = plain.pod["spec"]["containers"].as_array_mut();
        containers.expect("a list").push(proxy);
        plain.pod["spec"]["restartPolicy"] = "Always".into();
    }
    let mut asking = Case {
        pod: plain.pod.clone(),
        place: plain.place.clone(),
        tags: plain.tags.clone(),
        seed: plain.seed,
    };
    let spec = &mut asking.pod["spec"];
    for loss in losses.iter() {
        let context = "securityContext";
        match loss {
            AcceptedLoss::EmptyDirMemory => {
                spec["volumes"][ram]["emptyDir"]["medium"] = "Memory".into();
            }
            AcceptedLoss::FileModes => {
                spec["volumes"][modes]["configMap"]["defaultMode"] = 0o700.into();
            }
            AcceptedLoss::FsGroup => spec[context]["fsGroup"] = 2000.into(),
            AcceptedLoss::ReadOnlyRootFilesystem => {
                spec["containers"][0][context]["readOnlyRootFilesystem"] = true.into();
            }
            AcceptedLoss::Seccomp => {
                spec["containers"][0][context]["seccompProfile"] =
                    json!({"type": "Localhost", "localhostProfile": "a"});
            }
            AcceptedLoss::ShareProcessNamespace => spec["shareProcessNamespace"] = true.into(),
            AcceptedLoss::SubPathHidesDirectory => {
                let mounts = spec["containers"][0]["volumeMounts"].as_array_mut();
                let mounts = mounts.expect("a list").iter_mut();
                for mount in mounts.filter(|mount| mount["name"] == "files-0") {
                    *mount =
                        json!({"name": "pod-name", "mountPath": "/hidden/name", "subPath": "name"});
                }
                let volumes = spec["volumes"].as_array_mut().expect("a list");
                volumes.last_mut().expect("the files")["name"] = "pod-name".into();
            }
            AcceptedLoss::SidecarOrder => {
                let containers = spec["containers"].as_array_mut().expect("a list");
                let mut proxy = containers.pop().expect("the proxy");
                proxy["restartPolicy"] = "Always".into();
                match spec["initContainers"].as_array_mut() {
                    Some(init) => init.push(proxy),
                    None => spec["initContainers"] = json!([proxy]),
                }
            }
        }
    }
    (plain, asking, losses)
}

/// The body with its containers in the order of their names: a sidecar comes first.
fn with_sorted_containers(mut body: Value) -> Value {
    let containers = body["properties"]["containers"].as_array_mut();
    let name = |container: &Value| container["name"].to_string();
    containers.expect("a list").sort_by_key(name);
    body
}

/// A pod is translated only if everything that it loses is accepted, and then to the group of a pod that does not ask
/// for it. What a pool accepts changes nothing else.
#[test]
fn what_a_pod_loses_is_accepted_by_name_or_refused_and_changes_nothing_else() {
    let taken = Cell::new(0_u32);
    let cases = 400;
    each_seed(cases, |seed| {
        let (plain, asking, losses) = lossy(seed);
        let all: LossSet = AcceptedLoss::ALL.into_iter().collect();
        let of = |case: &Case, accepted: &LossSet| {
            let (_, eligible, body) = outcome_accepting(case, accepted).expect("it decodes");
            (eligible, body.map(with_sorted_containers))
        };
        let (eligible, body) = of(&plain, &NO_LOSSES);
        prop_assert_eq!(&of(&plain, &all), &(eligible.clone(), body.clone()));
        prop_assert_eq!(&of(&asking, &losses), &(eligible.clone(), body.clone()));
        prop_assert_eq!(&of(&asking, &all), &(eligible.clone(), body.clone()));
        let (refused, untranslated) = of(&asking, &NO_LOSSES);
        prop_assert_eq!(
            refused.is_err() && untranslated.is_err(),
            !losses.is_empty() || eligible.is_err()
        );
        // The check before a grant finds exactly these losses, which the grant's annotation then lists.
        if eligible.is_ok() {
            let found = refused.err().unwrap_or_default();
            prop_assert_eq!(accept_losses(&found, &all), Ok(losses.clone()));
            let recorded = LossSet::from_annotation(&losses.to_string());
            prop_assert_eq!(&recorded, &losses);
            taken.set(taken.get() + u32::from(body.is_ok() && !losses.is_empty()));
        }
        for missing in losses.iter() {
            let fewer: LossSet = losses.iter().filter(|loss| *loss != missing).collect();
            let (refused, untranslated) = of(&asking, &fewer);
            prop_assert!(
                refused.is_err() && untranslated.is_err(),
                "{} is not accepted",
                missing
            );
        }
        Ok(())
    });
    let taken = taken.get();
    assert!(
        taken > cases / 4,
        "only {taken} of {cases} pods were translated with a loss"
    );
}

#[test]
fn any_volume_is_a_share_or_refused_by_its_name_and_shows_no_key() {
    let shares = Cell::new(0_u32);
    let cases = 1500;
    let check = |seed: u64| {
        let Ok(volume) = serde_json::from_value(arbitrary::volume(seed)) else {
            return Ok(());
        };
        let content = ObjectContent {
            data: BTreeMap::from([("azurestorageaccountkey".to_owned(), SECRET.into())]),
            ..ObjectContent::default()
        };
        match ClaimedShare::from_volume(&PersistentVolumeClaim::default(), &volume) {
            Ok(share) => {
                shares.set(shares.get() + 1);
                let shown = format!("{:?}", share.with_key(&content));
                prop_assert!(!shown.contains(SECRET), "{shown}");
            }
            Err(why) => prop_assert!(why.starts_with("its PersistentVolume "), "{why}"),
        }
        Ok(())
    };
    each_seed(cases, check);
    let shares = shares.get();
    assert!(shares > cases / 50, "only {shares} of {cases} were shares");
}

/// Whatever the check before a grant refuses, the translation refuses, too. The translation refuses
/// more only because of values that are not known before.
fn agree(
    eligible: &Result<(), Vec<Unsupported>>,
    body: &Result<Value, Vec<Unsupported>>,
) -> Result<(), TestCaseError> {
    let before = eligible.as_ref().err().cloned().unwrap_or_default();
    let after = body.as_ref().err().cloned().unwrap_or_default();
    for refusal in &before {
        prop_assert!(
            after.contains(refusal),
            "refused before and not after: {refusal}"
        );
    }
    for refusal in after.iter().filter(|refusal| !before.contains(refusal)) {
        let by_value = [
            ".envFrom[",
            ".command[",
            ".args",
            ".imagePullSecrets[",
            ".image",
            ".runAsNonRoot",
            ".workingDir",
            ".persistentVolumeClaim",
        ];
        let field = &refusal.field;
        let is_key = refusal.why == "it lacks a key that a container mounts by subPath";
        prop_assert!(
            is_key || by_value.iter().any(|part| field.contains(part)),
            "refused after and not before: {refusal}"
        );
    }
    Ok(())
}
