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
const LONGEST_REPOSITORY: usize = 255;
/// The longest name of a host, in bytes (RFC 1035).
const LONGEST_HOST: usize = 253;
/// The longest port, in digits.
const LONGEST_PORT: usize = 5;
/// The longest tag, in bytes (`github.com/distribution/reference`).
const LONGEST_TAG: usize = 128;
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
        digits && port.len() <= LONGEST_PORT && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    if port.is_some_and(|port| !is_port(port)) {
        return Err(wrong("no port from 1 to 65535 after its colon"));
    }
    let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let valid = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(is_host_label),
    };
    if !valid || host.len() > LONGEST_HOST {
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
    if path.len() > LONGEST_REPOSITORY {
        return Err(format!(
            "the repository's name is longer than {LONGEST_REPOSITORY} bytes"
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
    if first && rest && tag.len() <= LONGEST_TAG {
        return Ok(());
    }
    Err("a tag has 1 to 128 letters, digits, '_', '.' and '-', and begins with none of '.-'".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_reference_has_the_parts_that_a_container_runtime_sees() {
        let with_digest = |name: &str| format!("{name}@{DIGEST}");
        for (image, registry, repository, target, written) in [
            ("nginx", "docker.io", "library/nginx", "latest", "nginx"),
            ("nginx:1.27", "docker.io", "library/nginx", "1.27", "nginx"),
            (
                "bitnami/redis:7",
                "docker.io",
                "bitnami/redis",
                "7",
                "bitnami/redis",
            ),
            (
                "docker.io/nginx",
                "docker.io",
                "library/nginx",
                "latest",
                "docker.io/nginx",
            ),
            (
                "index.docker.io/a/b",
                "docker.io",
                "a/b",
                "latest",
                "index.docker.io/a/b",
            ),
            (
                "localhost/app",
                "localhost",
                "app",
                "latest",
                "localhost/app",
            ),
            (
                "localhost:5000/app:1",
                "localhost:5000",
                "app",
                "1",
                "localhost:5000/app",
            ),
            (
                "registry:5000/a/b",
                "registry:5000",
                "a/b",
                "latest",
                "registry:5000/a/b",
            ),
            ("[::1]:5000/a", "[::1]:5000", "a", "latest", "[::1]:5000/a"),
            (
                "[2001:db8::1]/a",
                "[2001:db8::1]",
                "a",
                "latest",
                "[2001:db8::1]/a",
            ),
            (
                "Shop.azurecr.io/web:V1",
                "shop.azurecr.io",
                "web",
                "V1",
                "Shop.azurecr.io/web",
            ),
            ("Shop/web", "shop", "web", "latest", "Shop/web"),
            (
                "quay.io/a__b/c---d/e.f_g:_x.-",
                "quay.io",
                "a__b/c---d/e.f_g",
                "_x.-",
                "quay.io/a__b/c---d/e.f_g",
            ),
            (
                &with_digest("nginx"),
                "docker.io",
                "library/nginx",
                DIGEST,
                "nginx",
            ),
            (&with_digest("a.io/b:1"), "a.io", "b", DIGEST, "a.io/b"),
        ] {
            let parsed = ImageReference::parse("spec.containers[0].image", image).expect(image);
            let parts = (parsed.registry(), parsed.repository(), parsed.target());
            assert_eq!(parts, (registry, repository, target.to_owned()), "{image}");
            let digest = DIGEST.parse().expect(DIGEST);
            assert_eq!(
                parsed.pinned(digest),
                format!("{written}@{DIGEST}"),
                "{image}"
            );
            let id = parsed.image_id(digest);
            assert_eq!(
                id.to_lowercase(),
                format!("{registry}/{repository}@{DIGEST}")
            );
        }
    }

    #[test]
    fn an_image_id_names_the_same_repository() {
        let digest = DIGEST.parse().expect(DIGEST);
        for (image, name) in [
            ("nginx", "docker.io/library/nginx"),
            ("Index.docker.io/a/b:1", "docker.io/a/b"),
            ("Docker.io/nginx", "docker.io/library/nginx"),
            ("Shop.azurecr.io/web:V1", "Shop.azurecr.io/web"),
            // In lower case, this would be the repository `shop/web` on Docker Hub.
            ("Shop/web", "Shop/web"),
        ] {
            let parsed = ImageReference::parse("image", image).expect(image);
            assert_eq!(parsed.image_id(digest), format!("{name}@{DIGEST}"));
        }
    }

    #[test]
    fn a_pinned_name_is_known() {
        let pinned = |name: &str| format!("{name}@{DIGEST}");
        for (actual, wanted, id) in [
            ("nginx", "nginx:1", Some("docker.io/library/nginx")),
            ("nginx", "nginx", Some("docker.io/library/nginx")),
            ("Shop/web", "Shop/web:1", Some("Shop/web")),
            ("nginx", "redis:1", None),
            ("docker.io/library/nginx", "nginx:1", None),
        ] {
            let found = pinned_image_id(&pinned(actual), wanted);
            assert_eq!(found, id.map(pinned), "{actual} {wanted}");
        }
        let same = pinned("nginx:1");
        assert!(pinned_image_id(&pinned("nginx"), &same).is_some());
        let other = format!("nginx@{}", ImageDigest::of(b"other"));
        assert_eq!(pinned_image_id(&other, &same), None);
        assert_eq!(pinned_image_id("nginx:1", "nginx:1"), None);
    }

    #[test]
    fn docker_hub_is_asked_at_its_api_host() {
        let host = |image| {
            ImageReference::parse("image", image)
                .expect(image)
                .api_host()
                .to_owned()
        };
        assert_eq!(host("nginx"), "registry-1.docker.io");
        assert_eq!(host("index.docker.io/a/b"), "registry-1.docker.io");
        assert_eq!(host("quay.io/a/b"), "quay.io");
    }

    #[test]
    fn a_wrong_reference_is_refused_with_its_field_and_value() {
        let long = format!("a/{}", "b".repeat(256));
        let long_tag = format!("a:{}", "b".repeat(129));
        let (label, wide) = ("b".repeat(60), "\u{1f600}".repeat(100_000));
        let long_host = format!("{label}.{label}.{label}.{label}.{label}.io/a");
        for image in [
            "",
            " nginx",
            "nginx ",
            "a b",
            "Nginx",
            "a/B",
            "a//b",
            "/a",
            "a/",
            ":1",
            "nginx:",
            "nginx:a/b:",
            "nginx:-a",
            "nginx@",
            "nginx@sha256:ab",
            "nginx@md5:abc",
            "a..b/c:1",
            "-a.io/b",
            "a.io:x/b",
            "a.io:0/b",
            "a.io:65536/b",
            "a.io:/b",
            "a.io:000443/b",
            "[::g]/a",
            "[::1/a",
            "a___b",
            "a_-b",
            "a.",
            "é",
            "a.io/é",
            "user:pass@a.io/b",
            "https://a.io/b",
            "a.io/../b",
            "a.io/b?c",
            "a.io/b#c",
            "a.io/b%2f",
            &DIGEST[7..],
            &long,
            &long_tag,
            &long_host,
            &format!("{wide}.io/b"),
            &format!("a.io/{wide}"),
            &format!("A.io/{}", "B".repeat(255)),
        ] {
            let error = ImageReference::parse("spec.containers[3].image", image).expect_err(image);
            let text = error.to_string();
            assert!(
                text.starts_with("spec.containers[3].image: couldn't parse image name"),
                "{text}"
            );
            assert!(text.len() < 1000, "{text}");
        }
    }
}
