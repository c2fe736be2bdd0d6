//! Translation of arbitrary pods: the service accepts the body, no container gets less than the pod
//! requests, and a reader of the group sees no secret.

mod arbitrary;
mod plausible;

use std::cell::Cell;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use burstpool::aci::names::GroupOwner;
use burstpool::aci::translate::claims::ClaimedShare;
use burstpool::aci::translate::references::pod_references;
use burstpool::aci::translate::resolved_references::ObjectContent;
use burstpool::aci::translate::{
    NO_IDENTITIES, TranslationTarget, Unsupported, accept_losses, decode, eligible, image_requests,
    translate,
};
use burstpool::api::{AcceptedLoss, LossSet, NO_LOSSES};
use burstpool::emulator::group::id::GroupId;
use burstpool::emulator::group::model::GroupBody;
use burstpool::emulator::group::validate::validate;
use burstpool::k8s::quantity::NanoAmount;
use k8s_openapi::api::core::v1::{Container, PersistentVolumeClaim, Pod, ResourceRequirements};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rand::prelude::*;
use serde_json::{Value, json};

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
    let mut asking = Case {
        pod: plain.pod.clone(),
        place: plain.place.clone(),
        tags: plain.tags.clone(),
        seed: plain.seed,
    };
    let spec = &mut asking.pod["spec"];
    let losses: LossSet = AcceptedLoss::ALL
        .into_iter()
        .filter(|_| rng.random_bool(0.3))
        .collect();
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
        }
    }
    (plain, asking, losses)
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
            (eligible, body)
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
        prop_assert!(
            by_value.iter().any(|part| field.contains(part)),
            "refused after and not before: {refusal}"
        );
    }
    Ok(())
}

/// The service knows every field of the body and accepts it.
pub fn accepted(body: &Value) -> Result<(), TestCaseError> {
    let mut unknown = Vec::new();
    let read: Result<GroupBody, _> =
        serde_ignored::deserialize(body.clone(), |path| unknown.push(path.to_string()));
    let read = read.map_err(|error| TestCaseError::fail(format!("{error}: {body}")))?;
    prop_assert!(unknown.is_empty(), "unknown to the service: {unknown:?}");
    let id = GroupId {
        subscription: "s".into(),
        resource_group: "g".into(),
        name: "shop-web-0123456789abcdef".into(),
    };
    let answer = validate(&id, &read);
    prop_assert!(answer.is_ok(), "{answer:?}: {body:#}");
    Ok(())
}

/// Each container is present and gets at least what it requests.
fn kept(pod: &Pod, body: &Value) -> Result<(), TestCaseError> {
    let spec = pod.spec.as_ref().expect("a pod that was translated");
    let list = |name: &str| {
        body["properties"][name]
            .as_array()
            .cloned()
            .unwrap_or_default()
    };
    let (proper, init) = (list("containers"), list("initContainers"));
    prop_assert_eq!(proper.len(), spec.containers.len());
    prop_assert_eq!(
        init.len(),
        spec.init_containers.as_ref().map_or(0, Vec::len)
    );
    let given = |container: &Value, field: &str, unit: f64| {
        let amount = container.pointer(&format!("/properties/resources/{field}"));
        amount.and_then(Value::as_f64).expect("an amount") * unit
    };
    let mut totals = [0.0, 0.0];
    for (asked, container) in spec.containers.iter().zip(&proper) {
        prop_assert_eq!(&container["name"], &Value::from(asked.name.clone()));
        let cpu = given(container, "requests/cpu", 1e3);
        let memory = given(container, "requests/memoryInGB", 1e9);
        let limit = given(container, "limits/memoryInGB", 1e9);
        totals = [totals[0] + cpu, totals[1] + memory];
        prop_assert!(
            cpu + 1e-6 >= asks(asked, "requests", "cpu", 1),
            "{cpu}: {asked:?}"
        );
        prop_assert!(
            memory + 1.0 >= asks(asked, "requests", "memory", 1000),
            "{memory}: {asked:?}"
        );
        if spec.resources.is_none() {
            prop_assert!(
                limit + 1.0 >= asks(asked, "limits", "memory", 1000),
                "{limit}: {asked:?}"
            );
        }
    }
    let whole = |name: &str, by| amount(spec.resources.as_ref(), "requests", name, by);
    prop_assert!(totals[0] + 1e-6 >= whole("cpu", 1), "{:?}", spec.resources);
    prop_assert!(
        totals[1] + 1.0 >= whole("memory", 1000),
        "{:?}",
        spec.resources
    );
    for asked in spec.init_containers.iter().flatten() {
        prop_assert!(totals[0] + 1e-6 >= asks(asked, "requests", "cpu", 1));
        prop_assert!(totals[1] + 1.0 >= asks(asked, "requests", "memory", 1000));
    }
    Ok(())
}

/// A container's request or limit in thousandths, divided by `by`; zero if it has none.
fn asks(container: &Container, list: &str, name: &str, by: u64) -> f64 {
    amount(container.resources.as_ref(), list, name, by)
}

fn amount(resources: Option<&ResourceRequirements>, list: &str, name: &str, by: u64) -> f64 {
    let amounts = resources.and_then(|resources| match list {
        "limits" => resources.limits.as_ref(),
        _ => resources.requests.as_ref(),
    });
    let amount = amounts.and_then(|amounts| NanoAmount::from_quantity(amounts.get(name)?));
    let steps = amount.map_or(0, |amount| amount.in_steps_of(NanoAmount::thousandths(by)));
    f64::from(u32::try_from(steps).expect("small amounts"))
}

/// Secrets occur only in `secureValue`, `password`, a share's key and secret volumes.
fn secrets_are_hidden(body: &Value) -> Result<(), TestCaseError> {
    let mut found = Vec::new();
    search(body, String::new(), &mut found);
    for path in found {
        let volume = path.starts_with("/properties/volumes/") && path.contains("/secret/");
        let fields = [
            "/secureValue",
            "/password",
            "/azureFile/storageAccountKey",
            "/properties/protectedSettings/kubeConfig",
        ];
        let hidden = volume || fields.iter().any(|field| path.ends_with(field));
        prop_assert!(hidden, "a secret is readable at {path}");
    }
    Ok(())
}

/// The paths of all strings that contain a secret, in clear or in base64.
fn search(value: &Value, path: String, found: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            let decoded = STANDARD.decode(text).unwrap_or_default();
            let decoded = String::from_utf8_lossy(&decoded).into_owned();
            if text.contains(SECRET) || decoded.contains(SECRET) {
                found.push(path);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                search(item, format!("{path}/{index}"), found);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                let part = if name.contains(SECRET) {
                    "SECRET"
                } else {
                    name
                };
                search(field, format!("{path}/{part}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn the_search_for_secrets_finds_them() {
    let mut found = Vec::new();
    let encoded = STANDARD.encode(format!("-{SECRET}-"));
    let body = serde_json::json!({"a": [{"b": format!("x{SECRET}")}, "y"], "c": encoded});
    search(&body, String::new(), &mut found);
    assert_eq!(found, ["/a/0/b", "/c"]);
}
