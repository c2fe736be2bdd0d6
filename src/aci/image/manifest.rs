//! Manifests: which image an index offers for ACI's platform, and where an image's configuration is.
//!
//! In: the body of a manifest and its media type. Out: the descriptor to read next, or why the content is not an
//! image that ACI can run. Pure. ACI runs `linux/amd64` in this project, so that one entry of an index is chosen as
//! containerd does for that platform.

use serde::Deserialize;

use super::digest::ImageDigest;
use super::error::quoted;
use super::json::{self, FieldNames};

/// The media types of indexes.
const INDEXES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
/// The media types of images' manifests.
const IMAGES: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
/// The media types of images' configurations.
const CONFIGS: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];
/// The media types of Docker's manifests before schema 2, unsigned and signed.
const SCHEMA_1: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];
/// How many platforms an error lists.
const LISTED: usize = 8;

const PLATFORM_FIELDS: FieldNames = FieldNames(&[
    ("os", None),
    ("architecture", None),
    ("variant", None),
    ("os.features", None),
]);
const DESCRIPTOR_FIELDS: FieldNames = FieldNames(&[
    ("mediaType", None),
    ("digest", None),
    ("size", None),
    ("platform", Some(&PLATFORM_FIELDS)),
]);
const MANIFEST_FIELDS: FieldNames = FieldNames(&[
    ("schemaVersion", None),
    ("mediaType", None),
    ("manifests", Some(&DESCRIPTOR_FIELDS)),
    ("config", Some(&DESCRIPTOR_FIELDS)),
    ("layers", Some(&DESCRIPTOR_FIELDS)),
]);

/// The value of the header `Accept` for requests of manifests.
pub fn accepted_manifests() -> String {
    let media_types = [INDEXES, IMAGES].concat();
    media_types.join(", ")
}

/// Why content that a registry has sent is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageProblem {
    /// The content does not have the form that its media type demands.
    Malformed(String),
    /// ACI cannot run it: it is for another platform, or is not a container image.
    Unsupported(String),
}

/// A manifest's reference to other content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageDescriptor {
    /// The content's digest.
    pub digest: ImageDigest,
    /// The content's length in bytes, if the manifest has it.
    pub size: Option<u64>,
}

/// A manifest, as far as it leads to an image's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageManifest {
    /// An index; the manifest that it offers for ACI's platform.
    Index(ImageDescriptor),
    /// An image.
    Image {
        /// The image's configuration.
        config: ImageDescriptor,
        /// The sum of the layers' lengths in bytes, as the registry stores them.
        compressed_bytes: u64,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawManifest {
    schema_version: Option<u64>,
    media_type: Option<String>,
    #[serde(default, deserialize_with = "json::list")]
    manifests: Option<Vec<RawDescriptor>>,
    config: Option<RawDescriptor>,
    #[serde(default, deserialize_with = "json::list")]
    layers: Option<Vec<RawDescriptor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    media_type: Option<String>,
    digest: String,
    size: Option<u64>,
    platform: Option<RawPlatform>,
}

#[derive(Deserialize)]
struct RawPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
    #[serde(default, rename = "os.features", deserialize_with = "json::list")]
    os_features: Option<Vec<String>>,
}

impl ImageManifest {
    /// Decodes `body`, which came with the media type `content_type`. The manifest's own media type takes precedence,
    /// because its digest covers it.
    pub fn decode(content_type: &str, body: &[u8]) -> Result<Self, ImageProblem> {
        let raw: RawManifest = json::decode(body, &MANIFEST_FIELDS, "the manifest")
            .map_err(ImageProblem::Malformed)?;
        let declared = raw.media_type.clone();
        let declared = declared.filter(|media_type| !media_type.is_empty());
        let sent = content_type.split(';').next().unwrap_or_default().trim();
        let media_type = declared.unwrap_or_else(|| sent.to_owned());
        if raw.schema_version == Some(1) || SCHEMA_1.contains(&media_type.as_str()) {
            return Err(ImageProblem::Unsupported(
                "its manifest has Docker's schema 1, which no container runtime supports now: build and push the \
                 image again"
                    .to_owned(),
            ));
        }
        // Content that could be read as both would let two readers see different images (CVE-2021-41190).
        if raw.manifests.is_some() && (raw.config.is_some() || raw.layers.is_some()) {
            return Err(ImageProblem::Malformed(
                "the manifest is both an index and an image".to_owned(),
            ));
        }
        if let Some(manifests) = raw.manifests {
            return if IMAGES.contains(&media_type.as_str()) {
                Err(ImageProblem::Malformed(format!(
                    "{media_type} has manifests"
                )))
            } else {
                choose(&manifests).map(Self::Index)
            };
        }
        if INDEXES.contains(&media_type.as_str()) {
            return Err(ImageProblem::Malformed(format!(
                "{media_type} has no manifests"
            )));
        }
        image(
            raw.config.as_ref(),
            &raw.layers.unwrap_or_default(),
            &media_type,
        )
    }
}

fn is_known(media_type: &str) -> bool {
    IMAGES.contains(&media_type) || INDEXES.contains(&media_type)
}

fn image(
    config: Option<&RawDescriptor>,
    layers: &[RawDescriptor],
    media_type: &str,
) -> Result<ImageManifest, ImageProblem> {
    let no_image = |what: &str| {
        ImageProblem::Unsupported(format!("it is not a container image: {}", quoted(what)))
    };
    let Some(config) = config else {
        return Err(no_image(media_type));
    };
    let kind = config.media_type.as_deref().unwrap_or_default();
    if !kind.is_empty() && !CONFIGS.contains(&kind) {
        return Err(no_image(kind));
    }
    let sizes = layers.iter().filter_map(|layer| layer.size);
    Ok(ImageManifest::Image {
        compressed_bytes: sizes.fold(0, u64::saturating_add),
        config: descriptor(config)?,
    })
}

fn descriptor(raw: &RawDescriptor) -> Result<ImageDescriptor, ImageProblem> {
    if raw.digest.starts_with("sha512:") {
        let why = "its manifest has SHA-512 digests, and burstpool reads SHA-256 digests only";
        return Err(ImageProblem::Unsupported(why.to_owned()));
    }
    let digest = raw.digest.parse();
    let digest = digest.map_err(|why: &str| ImageProblem::Malformed(why.to_owned()))?;
    Ok(ImageDescriptor {
        digest,
        size: raw.size,
    })
}

/// The entry for ACI's platform. An entry for 32-bit processors is second choice, and one without a platform is the
/// third, as for containerd; the configuration then shows the platform.
fn choose(manifests: &[RawDescriptor]) -> Result<ImageDescriptor, ImageProblem> {
    let is_image = |raw: &&RawDescriptor| {
        let kind = raw.media_type.as_deref().unwrap_or_default();
        kind.is_empty() || is_known(kind)
    };
    let images = manifests.iter().filter(is_image);
    let ranked = images.filter_map(|raw| {
        let rank = match &raw.platform {
            Some(platform) => platform.rank()?,
            None => 2,
        };
        Some((rank, raw))
    });
    if let Some((_, chosen)) = ranked.min_by_key(|(rank, _)| *rank) {
        return descriptor(chosen);
    }
    let platforms = manifests.iter().filter_map(|raw| raw.platform.as_ref());
    let mut names: Vec<String> = platforms
        // An attestation of a build has this platform.
        .filter(|platform| platform.os != "unknown")
        .map(RawPlatform::name)
        .filter(|name| !name.is_empty())
        .collect();
    names.dedup();
    names.truncate(LISTED);
    let offered = if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    };
    Err(wrong_platform(&offered))
}

/// The refusal of an image that is for other platforms only.
pub(super) fn wrong_platform(offered: &str) -> ImageProblem {
    ImageProblem::Unsupported(format!(
        "it has no image for linux/amd64, which ACI runs; its platforms: {offered}"
    ))
}

/// The rank of an architecture on processors for `amd64`: the lowest is the best, and `None` does not run there.
/// Names are compared as containerd does (`platforms.Normalize` and `platforms.Only`).
pub(super) fn rank(os: &str, architecture: &str) -> Option<u8> {
    if !matches!(os.to_ascii_lowercase().as_str(), "linux" | "") {
        return None;
    }
    match architecture.to_ascii_lowercase().as_str() {
        "amd64" | "x86_64" | "x86-64" => Some(0),
        "386" | "i386" => Some(1),
        _ => None,
    }
}

/// The name of a platform for an error, at most 40 characters.
pub(super) fn platform_name(os: &str, architecture: &str, variant: &str) -> String {
    let parts = [os, architecture, variant].into_iter();
    let name = parts.filter(|part| !part.is_empty()).collect::<Vec<_>>();
    let name = name.join("/");
    name.chars()
        .filter(char::is_ascii_graphic)
        .take(40)
        .collect()
}

impl RawPlatform {
    /// How well ACI runs this platform. Hardware levels above the first (`v2`, `v3`) and features of an operating
    /// system are not known to be there.
    fn rank(&self) -> Option<u8> {
        let variant = self.variant.as_deref().unwrap_or_default();
        let is_plain = matches!(variant.to_ascii_lowercase().as_str(), "" | "v1")
            && self.os_features.as_ref().is_none_or(Vec::is_empty);
        rank(&self.os, &self.architecture).filter(|_| is_plain)
    }

    fn name(&self) -> String {
        let variant = self.variant.as_deref().unwrap_or_default();
        platform_name(&self.os, &self.architecture, variant)
    }
}

#[cfg(test)]
mod tests {
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
}
