//! Which registry an image comes from, and which entries of a pull secret are for it.

/// Docker Hub, as ACI calls it (its error messages say `index.docker.io`).
pub(super) const DOCKER_HUB: &str = "index.docker.io";

/// Names that all mean Docker Hub.
const HUB_NAMES: [&str; 4] = [
    "docker.io",
    DOCKER_HUB,
    "registry-1.docker.io",
    "registry.hub.docker.com",
];

/// Where an image is: its registry, and its path there without tag and digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) registry: String,
    path: String,
}

/// Where `image` is, as Docker reads a reference: the first part is a registry if it looks like a host.
pub(super) fn location(image: &str) -> Location {
    let image = image.split('@').next().unwrap_or_default();
    let (first, rest) = image.split_once('/').unwrap_or(("", image));
    let is_host = first.contains(['.', ':']) || first == "localhost";
    let (registry, path) = if is_host {
        (first, rest)
    } else {
        (DOCKER_HUB, image)
    };
    let path = match path.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => path,
        _ => path,
    };
    let registry = normalised(registry);
    let path = if registry == DOCKER_HUB && !path.contains('/') {
        format!("library/{path}")
    } else {
        path.to_owned()
    };
    Location { registry, path }
}

/// A registry's name in one spelling.
fn normalised(registry: &str) -> String {
    let registry = registry.to_lowercase();
    if HUB_NAMES.contains(&registry.as_str()) {
        DOCKER_HUB.to_owned()
    } else {
        registry
    }
}

/// How well the entry `key` of a pull secret fits `location`: none if not at all, else the length of
/// the path it names. A key is a registry, perhaps with a scheme, with a path that the image's path
/// begins with, and with `*` in parts of the host's name (as a kubelet matches them).
pub(super) fn fit(key: &str, location: &Location) -> Option<usize> {
    let key = key.trim();
    let key = key.split_once("://").map_or(key, |(_, rest)| rest);
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    // The paths of registries' APIs are no paths of images.
    let path = match path.trim_matches('/') {
        "v1" | "v2" => "",
        path => path,
    };
    let host = normalised(host);
    let host_fits = host == location.registry || matches(&host, &location.registry);
    let below = location.path.strip_prefix(path)?;
    let path_fits = path.is_empty() || below.is_empty() || below.starts_with('/');
    (host_fits && path_fits).then_some(path.len())
}

/// Whether `pattern`, part for part and with the same port, is `host`; `*` is any letters of a part.
fn matches(pattern: &str, host: &str) -> bool {
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

/// Whether an image at `registry` can be pulled by a managed identity: Azure's own registries.
pub(super) fn is_azures(registry: &str) -> bool {
    let host = registry.split(':').next().unwrap_or_default();
    [".azurecr.io", ".azurecr.us", ".azurecr.cn"]
        .iter()
        .any(|domain| host.ends_with(domain))
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
            ("localhost/app", "localhost", "app"),
            ("localhost:5000/app:1", "localhost:5000", "app"),
            ("registry:5000/a/b", "registry:5000", "a/b"),
            ("", DOCKER_HUB, "library/"),
        ] {
            let found = location(image);
            assert_eq!(
                (found.registry.as_str(), found.path.as_str()),
                (registry, path),
                "{image}"
            );
        }
    }

    #[test]
    fn a_key_fits_its_registry_and_the_path_it_names() {
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
            ("quay.io/team", "quay.io/team/web", Some(4)),
            ("quay.io/team/web", "quay.io/team/web:1", Some(8)),
            ("quay.io/te", "quay.io/team/web", None),
            ("quay.io/other", "quay.io/team/web", None),
            ("", "nginx", None),
        ] {
            assert_eq!(fit(key, &location(image)), fits, "{key} for {image}");
        }
    }

    #[test]
    fn azures_registries_are_known_by_their_domains() {
        assert!(is_azures("shop.azurecr.io") && is_azures("shop.azurecr.cn"));
        assert!(!is_azures("azurecr.io.evil.example") && !is_azures(DOCKER_HUB));
    }
}
