//! Properties of the parsers: whatever a pod or a registry sends, they return, and what they return is bounded.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::challenge::RegistryChallenge;
use super::config::ImageConfig;
use super::digest::ImageDigest;
use super::guard::RegistryHostGuard;
use super::manifest::{ImageManifest, ImageProblem};
use super::reference::ImageReference;

/// Texts that are nearly references.
fn reference() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[a-z0-9]{1,5}",
        "[A-Za-z0-9._:/@-]{0,8}",
        Just("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".to_owned()),
        Just("[::1]:5000".to_owned()),
        "\\PC{0,3}",
    ];
    (proptest::collection::vec((part, "[/:@.]?"), 0..6))
        .prop_map(|parts| parts.into_iter().map(|(part, end)| part + &end).collect())
}

/// JSON with the names that manifests and configurations have.
fn json_value() -> impl Strategy<Value = Value> {
    let names = prop_oneof![
        Just("schemaVersion"),
        Just("mediaType"),
        Just("manifests"),
        Just("config"),
        Just("layers"),
        Just("digest"),
        Just("size"),
        Just("platform"),
        Just("os"),
        Just("architecture"),
        Just("variant"),
        Just("os.features"),
        Just("Entrypoint"),
        Just("Cmd"),
        Just("Env"),
        Just("User"),
        Just("WorkingDir"),
        Just("ExposedPorts"),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(|number| json!(number)),
        "\\PC{0,8}".prop_map(|text| json!(text)),
        "\\PC{0,4}".prop_map(|text| json!(text.repeat(500))),
        Just(json!("application/vnd.oci.image.index.v1+json")),
        Just(json!("application/vnd.oci.image.manifest.v1+json")),
        Just(json!(ImageDigest::of(b"x").to_string())),
        Just(json!("linux")),
        Just(json!("amd64")),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|list| json!(list)),
            proptest::collection::vec((names.clone(), inner), 0..6).prop_map(|fields| fields
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect()),
        ]
    })
}

fn check_problem(problem: &ImageProblem) -> Result<(), TestCaseError> {
    let (ImageProblem::Malformed(why) | ImageProblem::Unsupported(why)) = problem;
    prop_assert!(why.len() < 1000, "{why}");
    Ok(())
}

proptest! {
    #[test]
    fn a_reference_is_refused_or_safe_to_put_into_a_url(image in reference()) {
        match ImageReference::parse("image", &image) {
            Err(error) => prop_assert!(error.why.len() < 1000 && error.to_string().len() < 2000),
            Ok(reference) => {
                let guard = RegistryHostGuard::default();
                let url = format!("https://{}/v2/{}/manifests/{}", reference.api_host(), reference.repository(), reference.target());
                // A host such as `a.1` is no URL's host.
                let Ok(parsed) = url.parse::<url::Url>() else {
                    return Ok(());
                };
                // Nothing in the reference ends the host or the path early, or climbs out of the API.
                let path = format!("/v2/{}/manifests/{}", reference.repository(), reference.target());
                prop_assert_eq!(parsed.path(), &path, "{}", &image);
                prop_assert!(parsed.query().is_none() && parsed.fragment().is_none() && parsed.username().is_empty());
                let _ = guard.is_azure(reference.api_host());
                // Its own digest form is a reference to the same repository.
                let digest = ImageDigest::of(b"x");
                for name in [reference.pinned(digest), reference.image_id(digest)] {
                    let again = ImageReference::parse("image", &name).expect(&name);
                    prop_assert_eq!(again.registry(), reference.registry());
                    prop_assert_eq!(again.repository(), reference.repository());
                    prop_assert_eq!(again.target(), digest.to_string());
                }
            }
        }
    }

    #[test]
    fn a_challenge_of_any_form_is_parsed_or_ignored(
        header in prop_oneof!["\\PC{0,60}", r#"((Bearer|Basic|basic) ?((realm|service|scope)=("[^"]{0,8}\\?"|[a-z:/]{0,8}),? ?){0,4}){0,3}"#],
    ) {
        if let Some(RegistryChallenge::Bearer { realm, service, scope }) = RegistryChallenge::choose([header.as_str()]) {
            for text in [Some(realm), service, scope].into_iter().flatten() {
                prop_assert!(!text.is_empty() && text.len() <= header.len());
            }
        }
    }

    #[test]
    fn any_json_is_a_manifest_or_a_problem(body in json_value(), media_type in "\\PC{0,20}") {
        let text = body.to_string();
        match ImageManifest::decode(&media_type, text.as_bytes()) {
            Ok(ImageManifest::Index(chosen)) => prop_assert!(text.contains(&chosen.digest.to_string())),
            Ok(ImageManifest::Image { config, .. }) => prop_assert!(text.contains(&config.digest.to_string())),
            Err(problem) => check_problem(&problem)?,
        }
    }

    #[test]
    fn any_json_is_a_configuration_or_a_problem(body in json_value()) {
        let text = body.to_string();
        match ImageConfig::decode(text.as_bytes()) {
            // Each text in it takes a quote, or a brace, of what was sent.
            Ok(config) => prop_assert!(config.weight() <= (text.len() + 5) * (1 + size_of::<String>())),
            Err(problem) => check_problem(&problem)?,
        }
    }

    #[test]
    fn any_bytes_are_a_manifest_or_a_problem(body in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = ImageManifest::decode("", &body);
        let _ = ImageConfig::decode(&body);
    }
}
