use serde_json::{Value, json};

use super::*;

fn digest(content: &str) -> String {
    ImageDigest::of(content.as_bytes()).to_string()
}

fn entry(os: &str, architecture: &str, more: &Value) -> Value {
    let mut platform = json!({"os": os, "architecture": architecture});
    for (key, value) in more.as_object().expect("an object") {
        platform[key] = value.clone();
    }
    let name = format!("{os}/{architecture}{more}");
    json!({"mediaType": IMAGES[0], "digest": digest(&name), "size": 7, "platform": platform})
}

fn decode(media_type: &str, body: &Value) -> Result<ImageManifest, ImageProblem> {
    ImageManifest::decode(media_type, body.to_string().as_bytes())
}

fn chosen(manifests: &Value) -> Result<ImageManifest, ImageProblem> {
    decode(
        INDEXES[0],
        &json!({"schemaVersion": 2, "manifests": manifests}),
    )
}

fn index_of(entry: &Value) -> ImageManifest {
    let digest = entry["digest"]
        .as_str()
        .expect("a digest")
        .parse()
        .expect("a digest");
    ImageManifest::Index(ImageDescriptor {
        digest,
        size: entry["size"].as_u64(),
    })
}

#[test]
fn the_image_for_linux_on_amd64_is_chosen() {
    let none = json!({});
    let wanted = entry("linux", "amd64", &none);
    let attestation = entry("unknown", "unknown", &none);
    let others = [
        entry("linux", "arm64", &json!({"variant": "v8"})),
        entry("windows", "amd64", &json!({"os.version": "10.0.1"})),
        entry("linux", "amd64", &json!({"variant": "v3"})),
        entry("linux", "amd64", &json!({"os.features": ["future"]})),
    ];
    let mut all = others.to_vec();
    all.extend([
        attestation.clone(),
        wanted.clone(),
        entry("linux", "amd64", &json!({"variant": "v1"})),
    ]);
    assert_eq!(chosen(&json!(all)), Ok(index_of(&wanted)));
    // An entry without a platform is taken only if there is no other.
    let bare = json!({"digest": digest("bare")});
    assert_eq!(chosen(&json!([bare, others[0]])), Ok(index_of(&bare)));
    assert_eq!(chosen(&json!([bare, wanted])), Ok(index_of(&wanted)));
    // Names in other forms are the same platform, and 32-bit code runs on it too.
    let (upper, i386) = (
        entry("Linux", "X86_64", &none),
        entry("linux", "i386", &none),
    );
    assert_eq!(chosen(&json!([i386, bare, upper])), Ok(index_of(&upper)));
    assert_eq!(chosen(&json!([bare, i386])), Ok(index_of(&i386)));
    // An entry that is no manifest is passed over.
    let mut artifact = wanted.clone();
    artifact["mediaType"] = json!("application/vnd.example+json");
    assert_eq!(chosen(&json!([artifact, wanted])), Ok(index_of(&wanted)));
    let refusal = chosen(&json!([others[0], attestation, others[1], others[1]]));
    let why = "it has no image for linux/amd64, which ACI runs; its platforms: linux/arm64/v8, windows/amd64".to_owned();
    assert_eq!(refusal, Err(ImageProblem::Unsupported(why)));
    let nothing = chosen(&json!([]));
    assert!(matches!(nothing, Err(ImageProblem::Unsupported(why)) if why.ends_with("none")));
}

#[test]
fn an_image_leads_to_its_configuration() {
    for (index, media_type) in IMAGES.iter().enumerate() {
        let config = json!({"mediaType": CONFIGS[index], "digest": digest("c"), "size": 3});
        let layers =
            json!([{"digest": "no digest", "size": 5}, {"digest": digest("l"), "size": 6}]);
        let body = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers});
        let expected = ImageManifest::Image {
            config: ImageDescriptor {
                digest: ImageDigest::of(b"c"),
                size: Some(3),
            },
            compressed_bytes: 11,
        };
        // A registry that sends another type does not change what the manifest is.
        for sent in [*media_type, "text/plain; charset=utf-8", ""] {
            assert_eq!(decode(sent, &body), Ok(expected.clone()), "{sent}");
        }
    }
}

#[test]
fn what_is_no_image_is_refused_by_name() {
    let config = |kind: &str| json!({"mediaType": kind, "digest": digest("c")});
    let schema1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    for (media_type, body, word) in [
        (
            schema1,
            json!({"schemaVersion": 1, "fsLayers": []}),
            "schema 1",
        ),
        (schema1, json!({}), "schema 1"),
        (
            IMAGES[0],
            json!({"config": config("application/vnd.cncf.helm.config.v1+json")}),
            "helm",
        ),
        (
            "application/vnd.oci.artifact.manifest.v1+json",
            json!({"blobs": []}),
            "artifact",
        ),
    ] {
        let refusal = decode(media_type, &body);
        assert!(
            matches!(&refusal, Err(ImageProblem::Unsupported(why)) if why.contains(word)),
            "{refusal:?}"
        );
    }
}

#[test]
fn an_error_is_short_whatever_the_manifest_has() {
    let long = "\u{1f600}\n".repeat(100_000);
    let many: Vec<Value> = (0..900)
        .map(|n| {
            entry(
                &format!("{n}{long}").chars().take(99).collect::<String>(),
                &long[..100],
                &json!({}),
            )
        })
        .collect();
    let entries = vec![json!({"digest": digest("x")}); 1_001];
    for body in [
        json!({"manifests": many}),
        json!({"manifests": entries}),
        json!({"layers": entries}),
        json!({"mediaType": long}),
        json!({"config": {"mediaType": long, "digest": digest("c")}}),
        json!({"config": {"digest": long}}),
        json!({"config": {"digest": format!("sha512:{long}")}}),
        json!({"schemaVersion": long}),
        json!({"MediaType": long}),
    ] {
        let problem = decode("", &body).expect_err("a problem");
        let (ImageProblem::Malformed(why) | ImageProblem::Unsupported(why)) = problem;
        assert!(why.len() < 500 && !why.contains('\n'), "{why}");
    }
}

#[test]
fn malformed_manifests_are_told_apart_from_unsupported_ones() {
    let config = json!({"digest": digest("c")});
    for (media_type, body) in [
        (IMAGES[0], json!([])),
        (IMAGES[0], json!({"config": {"digest": "md5:1"}})),
        (IMAGES[0], json!({"config": {}})),
        (IMAGES[0], json!({"manifests": []})),
        (INDEXES[1], json!({"config": config})),
        (INDEXES[1], json!({"manifests": [{"digest": "x"}]})),
        ("", json!({"manifests": [], "config": config})),
        ("", json!({"manifests": [], "layers": []})),
    ] {
        let refusal = decode(media_type, &body);
        assert!(
            matches!(refusal, Err(ImageProblem::Malformed(_))),
            "{body}: {refusal:?}"
        );
    }
    let refusal = ImageManifest::decode(IMAGES[0], b"{");
    assert!(
        matches!(refusal, Err(ImageProblem::Malformed(_))),
        "{refusal:?}"
    );
}
