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
    #[serde(default, deserialize_with = "json::bounded_list")]
    manifests: Option<Vec<RawDescriptor>>,
    config: Option<RawDescriptor>,
    #[serde(default, deserialize_with = "json::bounded_list")]
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
    #[serde(
        default,
        rename = "os.features",
        deserialize_with = "json::bounded_list"
    )]
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
mod tests;
