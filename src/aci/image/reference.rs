//! References to images, as a pod's field `image` has them.
//!
//! In: the text of the field. Out: registry, repository, tag and digest, or what is wrong. Pure. The rules are those
//! of `github.com/distribution/reference`, with which the kubelet and container runtimes parse the field: a name
//! without a registry is on Docker Hub, a name without tag and digest has the tag `latest`, and a digest takes
//! precedence over a tag.

use thiserror::Error;

use super::digest::ImageDigest;
use super::error::quoted;

/// The registry of a name that has none.
const DOCKER_HUB: &str = "docker.io";
/// An older name of Docker Hub.
const DOCKER_INDEX: &str = "index.docker.io";
/// The host that serves Docker Hub's API.
const DOCKER_HUB_API: &str = "registry-1.docker.io";
/// The namespace of a name on Docker Hub that has none.
const OFFICIAL: &str = "library/";
/// The tag of a name that has neither tag nor digest.
const LATEST: &str = "latest";
/// The longest name of a repository, in bytes (`github.com/distribution/reference`).
const MAX_REPOSITORY_LENGTH: usize = 255;
/// The longest name of a host, in bytes (RFC 1035).
const MAX_HOST_LENGTH: usize = 253;
/// The longest port, in digits.
const MAX_PORT_LENGTH: usize = 5;
/// The longest tag, in bytes (`github.com/distribution/reference`).
const MAX_TAG_LENGTH: usize = 128;
/// How much of a wrong reference an error quotes, in characters.
const QUOTED: usize = 100;

/// A reference that cannot be parsed. The kubelet's reason for it is `InvalidImageName`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: couldn't parse image name {image:?}: {why}")]
pub struct InvalidImageName {
    /// The field's path, such as `spec.containers[0].image`.
    pub field: String,
    /// The beginning of the field's value.
    pub image: String,
    /// What is wrong.
    pub why: String,
}

/// A reference to an image.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageReference {
    written: String,
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<ImageDigest>,
}

impl ImageReference {
    /// Parses `image`, the value of the field at the path `field`.
    pub fn parse(field: &str, image: &str) -> Result<Self, InvalidImageName> {
        parse(image).map_err(|why| InvalidImageName {
            field: field.to_owned(),
            image: image.chars().take(QUOTED).collect(),
            why,
        })
    }

    /// The registry's name, lower-case, with a port if the reference has one; `docker.io` for Docker Hub.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The host, and the port if there is one, that serves the registry's API.
    pub fn api_host(&self) -> &str {
        if self.registry == DOCKER_HUB {
            DOCKER_HUB_API
        } else {
            &self.registry
        }
    }

    /// The repository's path in the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The digest, if the reference has one.
    pub fn digest(&self) -> Option<ImageDigest> {
        self.digest
    }

    /// What to request from the registry: the digest, else the tag.
    pub fn target(&self) -> String {
        match &self.digest {
            Some(digest) => digest.to_string(),
            None => self.tag.clone().unwrap_or_else(|| LATEST.to_owned()),
        }
    }

    /// The name as the pod has it, with `digest` in place of tag and digest: it names the same content forever.
    pub fn pinned(&self, digest: ImageDigest) -> String {
        format!("{}@{digest}", self.written)
    }

    /// Whether `actual` is this reference with a digest in place of its tag, as [`pinned`](Self::pinned) writes it.
    /// Returns the digest.
    fn pinned_digest(&self, actual: &str) -> Option<ImageDigest> {
        let (_, digest) = actual.split_once('@')?;
        let digest = digest.parse().ok()?;
        let is_other = self.digest.is_some_and(|own| own != digest);
        (!is_other && self.pinned(digest) == actual).then_some(digest)
    }

    /// The `imageID` of a container's status, in the form that containerd reports: the registry is as the pod has it,
    /// because `Shop/web` is on the host `shop`, and `shop/web` on Docker Hub.
    pub fn image_id(&self, digest: ImageDigest) -> String {
        let registry = match split_registry(&self.written) {
            Some((registry, _)) if self.registry != DOCKER_HUB => registry,
            _ => &self.registry,
        };
        format!("{registry}/{}@{digest}", self.repository)
    }
}

/// The `imageID` of a container whose group has the image `actual`, if that is `wanted`, an image of the pod, pinned to a
/// digest.
pub fn pinned_image_id(actual: &str, wanted: &str) -> Option<String> {
    let reference = ImageReference::parse("image", wanted).ok()?;
    let digest = reference.pinned_digest(actual)?;
    Some(reference.image_id(digest))
}

fn parse(image: &str) -> Result<ImageReference, String> {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if image.len() == 64 && image.bytes().all(is_hex) {
        return Err("64 hexadecimal digits are not a name".to_owned());
    }
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest.parse().map_err(str::to_owned)?)),
        None => (image, None),
    };
    let (written, tag) = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (name, None),
    };
    let (registry, path) = split_registry(written).unwrap_or((DOCKER_HUB, written));
    let registry = check_registry(registry)?;
    let path = if registry == DOCKER_HUB && !path.contains('/') {
        format!("{OFFICIAL}{path}")
    } else {
        path.to_owned()
    };
    check_repository(&path)?;
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    Ok(ImageReference {
        written: written.to_owned(),
        registry,
        repository: path,
        tag: tag.map(str::to_owned),
        digest,
    })
}

/// Splits a name into its registry and the path in it; `None` for a name on Docker Hub. The first part is a registry if
/// it is `localhost`, or if it has a dot, a colon or a capital, which Docker Hub's namespaces cannot have
/// (`splitDockerDomain` in `github.com/distribution/reference`). All code that needs the registry of an image uses this
/// function: a login is sent to the registry that it is for.
pub(in crate::aci) fn split_registry(name: &str) -> Option<(&str, &str)> {
    name.split_once('/').filter(|(first, _)| {
        *first == "localhost" || first.contains(['.', ':']) || first.chars().any(char::is_uppercase)
    })
}

/// Checks the name of a registry, and returns it in lower case.
fn check_registry(registry: &str) -> Result<String, String> {
    let wrong = |what: &str| format!("the registry {} has {what}", quoted(registry));
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (registry, None),
    };
    let is_port = |port: &str| {
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        digits && port.len() <= MAX_PORT_LENGTH && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    if port.is_some_and(|port| !is_port(port)) {
        return Err(wrong("no port from 1 to 65535 after its colon"));
    }
    let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let valid = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(is_host_label),
    };
    if !valid || host.len() > MAX_HOST_LENGTH {
        return Err(wrong("no valid host name"));
    }
    let registry = registry.to_lowercase();
    Ok(if registry == DOCKER_INDEX {
        DOCKER_HUB.to_owned()
    } else {
        registry
    })
}

fn is_host_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !label.is_empty()
        && label.bytes().all(inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn check_repository(path: &str) -> Result<(), String> {
    if path.len() > MAX_REPOSITORY_LENGTH {
        return Err(format!(
            "the repository's name is longer than {MAX_REPOSITORY_LENGTH} bytes"
        ));
    }
    if path.chars().any(char::is_uppercase) {
        return Err(format!(
            "the repository's name {} must be lower-case",
            quoted(path)
        ));
    }
    if !path.split('/').all(is_component) {
        return Err(format!("the repository's name {} is invalid", quoted(path)));
    }
    Ok(())
}

/// Whether this is a component of a repository's name: lower-case letters and digits, with separators between them: a
/// dot, one or two underscores, or any number of hyphens.
fn is_component(component: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_separator =
        |text: &str| matches!(text, "" | "." | "_" | "__") || text.bytes().all(|byte| byte == b'-');
    component.starts_with(is_inner)
        && component.ends_with(is_inner)
        && component.split(is_inner).all(is_separator)
}

fn check_tag(tag: &str) -> Result<(), String> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut bytes = tag.bytes();
    let first = bytes.next().is_some_and(is_word);
    let rest = bytes.all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'));
    if first && rest && tag.len() <= MAX_TAG_LENGTH {
        return Ok(());
    }
    Err("a tag has 1 to 128 letters, digits, '_', '.' and '-', and begins with none of '.-'".into())
}

#[cfg(test)]
mod tests;
