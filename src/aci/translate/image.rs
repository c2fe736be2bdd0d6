//! Matches images and registry credentials: the registry of an image, and the entries of a pull secret that apply
//! to it.
//!
//! In: an image reference and the key of a pull secret's entry. Out: the image's registry, and how well the entry
//! matches.

use crate::aci::image::split_registry;

/// The name of Docker Hub in ACI (its error messages contain `index.docker.io`).
pub(super) const DOCKER_HUB: &str = "index.docker.io";

/// All names of Docker Hub.
const HUB_NAMES: [&str; 4] = [
    "docker.io",
    DOCKER_HUB,
    "registry-1.docker.io",
    "registry.hub.docker.com",
];

/// The location of an image: its registry, and its path in the registry without tag and digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ImageLocation {
    pub(super) registry: String,
    path: String,
}

/// Parses an image reference as container runtimes do. A reference that they refuse has a location too.
pub(super) fn parse_location(image: &str) -> ImageLocation {
    let image = image.split('@').next().unwrap_or_default();
    let (registry, path) = split_registry(image).unwrap_or((DOCKER_HUB, image));
    let path = match path.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => path,
        _ => path,
    };
    let registry = normalized_registry(registry);
    let path = if registry == DOCKER_HUB && !path.contains('/') {
        format!("library/{path}")
    } else {
        path.to_owned()
    };
    ImageLocation { registry, path }
}

/// Normalizes the name of a registry.
fn normalized_registry(registry: &str) -> String {
    let registry = registry.to_lowercase();
    if HUB_NAMES.contains(&registry.as_str()) {
        DOCKER_HUB.to_owned()
    } else {
        registry
    }
}

/// How well the entry `key` of a pull secret matches `location`: `None` if it does not match, else the length of
/// the path in the key. A key is a registry with an optional scheme, an optional prefix of the image's path, and
/// `*` as a wildcard within parts of the host name (the kubelet's rules).
pub(super) fn match_length(key: &str, location: &ImageLocation) -> Option<usize> {
    let key = key.trim();
    let key = key.split_once("://").map_or(key, |(_, rest)| rest);
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    // These are paths of registry APIs, not of images.
    let path = match path.trim_matches('/') {
        "v1" | "v2" => "",
        path => path,
    };
    let host = normalized_registry(host);
    let host_fits = host == location.registry || host_matches(&host, &location.registry);
    let below = location.path.strip_prefix(path)?;
    let path_fits = path.is_empty() || below.is_empty() || below.starts_with('/');
    (host_fits && path_fits).then_some(path.len())
}

/// Whether `pattern` matches `host`: the same port, and every part matches. `*` stands for any characters within
/// one part.
fn host_matches(pattern: &str, host: &str) -> bool {
    fn split(name: &str) -> (&str, Option<&str>) {
        name.split_once(':')
            .map_or((name, None), |(h, p)| (h, Some(p)))
    }
    let ((pattern, port), (host, host_port)) = (split(pattern), split(host));
    let (parts, host_parts) = (pattern.split('.'), host.split('.'));
    port == host_port
        && parts.clone().count() == host_parts.clone().count()
        && parts
            .zip(host_parts)
            .all(|(pattern, part)| part_matches(pattern, part))
}

fn part_matches(pattern: &str, part: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == part;
    };
    let Some(mut part) = part.strip_prefix(start) else {
        return false;
    };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let end = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let Some(found) = part.find(piece) else {
            return false;
        };
        part = &part[found + piece.len()..];
    }
    part.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_where_docker_looks_for_it() {
        for (image, registry, path) in [
            ("nginx", DOCKER_HUB, "library/nginx"),
            ("nginx:1.27", DOCKER_HUB, "library/nginx"),
            ("library/nginx@sha256:ab", DOCKER_HUB, "library/nginx"),
            ("docker.io/bitnami/redis:7", DOCKER_HUB, "bitnami/redis"),
            (
                "Shop.azurecr.io/web/app:1@sha256:ab",
                "shop.azurecr.io",
                "web/app",
            ),
            // Docker Hub's namespaces have no capitals: this is a host.
            ("Shop/web:1", "shop", "web"),
            ("localhost/app", "localhost", "app"),
            ("localhost:5000/app:1", "localhost:5000", "app"),
            ("registry:5000/a/b", "registry:5000", "a/b"),
            ("", DOCKER_HUB, "library/"),
        ] {
            let found = parse_location(image);
            assert_eq!(
                (found.registry.as_str(), found.path.as_str()),
                (registry, path),
                "{image}"
            );
        }
    }

    #[test]
    fn a_key_matches_its_registry_and_path() {
        for (key, image, fits) in [
            ("shop.azurecr.io", "shop.azurecr.io/web", Some(0)),
            ("https://shop.azurecr.io", "shop.azurecr.io/web", Some(0)),
            (
                "https://SHOP.azurecr.io/v2/",
                "shop.azurecr.io/web",
                Some(0),
            ),
            ("shop.azurecr.io", "shop.azurecr.us/web", None),
            ("azurecr.io", "shop.azurecr.io/web", None),
            ("*.azurecr.io", "shop.azurecr.io/web", Some(0)),
            ("s*p.azurecr.io", "shop.azurecr.io/web", Some(0)),
            ("*.io", "shop.azurecr.io/web", None),
            ("*.azurecr.io:443", "shop.azurecr.io/web", None),
            ("registry:5000", "registry:5000/web", Some(0)),
            ("registry", "registry:5000/web", None),
            ("https://index.docker.io/v1/", "nginx", Some(0)),
            ("docker.io", "bitnami/redis", Some(0)),
            ("registry-1.docker.io", "nginx", Some(0)),
            ("quay.io", "nginx", None),
            ("docker.io", "Shop/web", None),
            ("shop", "Shop/web", Some(0)),
            ("quay.io/team", "quay.io/team/web", Some(4)),
            ("quay.io/team/web", "quay.io/team/web:1", Some(8)),
            ("quay.io/te", "quay.io/team/web", None),
            ("quay.io/other", "quay.io/team/web", None),
            ("", "nginx", None),
        ] {
            assert_eq!(
                match_length(key, &parse_location(image)),
                fits,
                "{key} for {image}"
            );
        }
    }
}
