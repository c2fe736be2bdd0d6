use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// An image, its registry, its repository, what is requested, and the name as the pod has it. `DIGEST` stands for a
/// digest.
const PARTS: [(&str, &str, &str, &str, &str); 15] = [
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
        "nginx@DIGEST",
        "docker.io",
        "library/nginx",
        "DIGEST",
        "nginx",
    ),
    ("a.io/b:1@DIGEST", "a.io", "b", "DIGEST", "a.io/b"),
];

#[test]
fn a_reference_has_the_parts_that_a_container_runtime_sees() {
    for (image, registry, repository, target, written) in PARTS {
        let image = &*image.replace("DIGEST", DIGEST);
        let target = target.replace("DIGEST", DIGEST);
        let parsed = ImageReference::parse("spec.containers[0].image", image).expect(image);
        let parts = (parsed.registry(), parsed.repository(), parsed.target());
        assert_eq!(parts, (registry, repository, target), "{image}");
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

const WRONG: [&str; 36] = [
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
];

#[test]
fn a_wrong_reference_is_refused_with_its_field_and_value() {
    let long = format!("a/{}", "b".repeat(256));
    let long_tag = format!("a:{}", "b".repeat(129));
    let (label, wide) = ("b".repeat(60), "\u{1f600}".repeat(100_000));
    let long_host = format!("{label}.{label}.{label}.{label}.{label}.io/a");
    let composed = [
        &DIGEST[7..],
        &long,
        &long_tag,
        &long_host,
        &format!("{wide}.io/b"),
        &format!("a.io/{wide}"),
        &format!("A.io/{}", "B".repeat(255)),
    ];
    for image in WRONG.into_iter().chain(composed) {
        let error = ImageReference::parse("spec.containers[3].image", image).expect_err(image);
        let text = error.to_string();
        assert!(
            text.starts_with("spec.containers[3].image: couldn't parse image name"),
            "{text}"
        );
        assert!(text.len() < 1000, "{text}");
    }
}
