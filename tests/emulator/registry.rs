//! The client that reads images' configurations, against a real registry behind a middleware that demands credentials
//! and makes faults.

mod access;
mod faults;
mod inside;

use std::time::Duration;

use burstpool::aci::image::{ImageAccess, ImageDigest, ImageReadError, ImageReference};
use futures::future::join_all;
use serde_json::json;

use crate::registry_server::{self as server, Tenant, program};

/// The requests of a first read of an index.
const COLD: [&str; 4] = [
    "HEAD manifests/1 200",
    "GET manifests/DIGEST 200",
    "GET manifests/DIGEST 200",
    "GET blobs/DIGEST 200",
];

#[tokio::test]
async fn an_image_is_read_for_acis_platform_and_its_index_is_what_is_pinned() {
    let Some(tenant) = Tenant::new("plain").await else {
        return;
    };
    let index = tenant.push("1", "/app").await;
    let reference = tenant.image(":1");
    let read = tenant
        .reader()
        .read(&reference, &ImageAccess::Anonymous)
        .await
        .unwrap();
    assert_eq!(read.digest, index.digest);
    assert_eq!(read.config.entrypoint, ["/app"]);
    assert_eq!(read.config.cmd, ["serve"]);
    assert_eq!(read.config.user, "65532:65532");
    assert!(read.compressed_bytes > 0);
    assert_eq!(tenant.lines().await, COLD);
    let pinned = format!("{}/plain/app@{}", tenant.host(), index.digest);
    assert_eq!(reference.pinned(read.digest), pinned);
    // The pinned name names the same image.
    let pinned = ImageReference::parse("image", &pinned).unwrap();
    let again = tenant.reader().read(&pinned, &ImageAccess::Anonymous).await;
    assert_eq!(again, Ok(read));
}

#[tokio::test]
async fn an_image_without_an_index_is_read_too_whatever_the_registry_sends_for_head() {
    let Some(tenant) = Tenant::new("single").await else {
        return;
    };
    let image = tenant
        .push_image("1", ("linux", "amd64"), json!({"Cmd": ["/app"]}))
        .await;
    for settings in [
        json!({}),
        json!({"noDigest": true}),
        json!({"noHead": true}),
    ] {
        tenant.set(settings.clone()).await;
        let read = tenant
            .reader()
            .read(&tenant.image(":1"), &ImageAccess::Anonymous)
            .await
            .unwrap();
        assert_eq!(read.digest, image.digest, "{settings}");
        assert_eq!(
            (&read.config.entrypoint[..], &read.config.cmd[..]),
            (&[][..], &["/app".to_owned()][..])
        );
    }
    let lines = tenant.lines().await;
    let gets = ["GET manifests/1 200", "GET blobs/DIGEST 200"];
    assert_eq!(lines[4..6], gets, "{lines:?}");
    assert_eq!(lines[7..], gets, "{lines:?}");
}

#[tokio::test]
async fn five_hundred_pods_cause_one_read() {
    let Some(tenant) = Tenant::new("crowd").await else {
        return;
    };
    tenant.push("1", "/app").await;
    tenant.set(json!({"delay": 20})).await;
    let (reader, reference) = (tenant.reader(), tenant.image(":1"));
    let reads = (0..500).map(|_| reader.read(&reference, &ImageAccess::Anonymous));
    let reads = join_all(reads).await;
    assert!(reads.iter().all(|read| program(read) == "/app"));
    // Later ones too.
    let read = reader.read(&reference, &ImageAccess::Anonymous).await;
    assert_eq!(program(&read), "/app");
    assert_eq!(tenant.lines().await, COLD);
}

#[tokio::test]
async fn a_failed_read_is_shared_and_the_next_one_starts_again() {
    let Some(tenant) = Tenant::new("missing").await else {
        return;
    };
    let (reader, reference) = (tenant.reader(), tenant.image(":1"));
    tenant.set(json!({"delay": 50})).await;
    let reads = join_all((0..20).map(|_| reader.read(&reference, &ImageAccess::Anonymous))).await;
    let not_found = ImageReadError::NotFound {
        image: format!("{}/missing/app:1", tenant.host()),
    };
    assert!(
        reads.iter().all(|read| read.as_ref() == Err(&not_found)),
        "{reads:?}"
    );
    assert_eq!(tenant.lines().await, ["HEAD manifests/1 404"]);
    // The image is pushed while its pods wait.
    tenant.push("1", "/app").await;
    let read = reader.read(&reference, &ImageAccess::Anonymous).await;
    assert_eq!(program(&read), "/app");
}

#[tokio::test]
async fn a_read_goes_on_when_the_first_caller_leaves_and_ends_when_all_have_left() {
    let Some(tenant) = Tenant::new("leaving").await else {
        return;
    };
    tenant.push("1", "/app").await;
    tenant.set(json!({"delay": 100})).await;
    let (reader, reference) = (tenant.reader(), tenant.image(":1"));
    let first = reader.read(&reference, &ImageAccess::Anonymous);
    let second = reader.read(&reference, &ImageAccess::Anonymous);
    let leaves = tokio::time::timeout(Duration::from_millis(150), first);
    let (left, read) = tokio::join!(leaves, second);
    assert!(left.is_err());
    assert_eq!(program(&read), "/app");
    assert_eq!(tenant.lines().await, COLD);
    let other = tenant.image(":arm64");
    let alone = reader.read(&other, &ImageAccess::Anonymous);
    assert!(
        tokio::time::timeout(Duration::from_millis(10), alone)
            .await
            .is_err()
    );
    // A read that was given up leaves nothing behind that a later one waits for.
    let later = reader.read(&other, &ImageAccess::Anonymous).await;
    assert!(
        matches!(later, Err(ImageReadError::Unsupported { .. })),
        "{later:?}"
    );
}

#[tokio::test]
async fn a_moved_tag_is_seen_after_a_minute_and_costs_no_get_if_it_moves_back() {
    let Some(tenant) = Tenant::new("moved").await else {
        return;
    };
    let first = tenant.push("1", "/first").await;
    let (reader, reference) = (tenant.reader(), tenant.image(":1"));
    let read = || async { reader.read(&reference, &ImageAccess::Anonymous).await };
    assert_eq!(program(&read().await), "/first");
    let second = tenant.push("1", "/second").await;
    assert_ne!(first.digest, second.digest);
    // For a minute, pods start with one version.
    assert_eq!(program(&read().await), "/first");
    advance(Duration::from_secs(61)).await;
    assert_eq!(program(&read().await), "/second");
    // The first version by its digest is not affected.
    let pinned = ImageReference::parse("image", &reference.pinned(first.digest)).unwrap();
    assert_eq!(
        program(&reader.read(&pinned, &ImageAccess::Anonymous).await),
        "/first"
    );
    tenant.push("1", "/first").await;
    advance(Duration::from_secs(61)).await;
    assert_eq!(program(&read().await), "/first");
    let lines = tenant.lines().await;
    assert_eq!(
        lines[8..],
        ["HEAD manifests/DIGEST 200", "HEAD manifests/1 200"],
        "{lines:?}"
    );
}

/// Moves the clock of the caches on, and lets it run again for the timeouts of requests.
async fn advance(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_tag_that_moves_between_two_requests_is_read_as_it_was_first() {
    let Some(tenant) = Tenant::new("racing").await else {
        return;
    };
    let first = tenant.push("1", "/first").await;
    tenant.push("1", "/second").await;
    // The registry's answer to HEAD names the version before.
    tenant
        .set(json!({"digest": first.digest.to_string()}))
        .await;
    let read = tenant
        .reader()
        .read(&tenant.image(":1"), &ImageAccess::Anonymous)
        .await;
    assert_eq!(program(&read), "/first");
}

#[tokio::test]
async fn images_for_other_platforms_and_artifacts_are_refused_by_name() {
    let Some(tenant) = Tenant::new("platforms").await else {
        return;
    };
    tenant.push("index", "/app").await;
    tenant
        .push_image("windows", ("windows", "amd64"), json!({}))
        .await;
    let config = tenant.push_blob(b"{}").await;
    let config = json!({
        "mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": config.digest.to_string(), "size": 2,
    });
    let chart = json!({"schemaVersion": 2, "config": config, "layers": []});
    tenant
        .push_manifest("chart", server::MANIFEST, &chart)
        .await;
    let old = json!({"schemaVersion": 1, "name": "app", "fsLayers": [], "history": []});
    let schema1 = "application/vnd.docker.distribution.manifest.v1+json";
    tenant.push_manifest("old", schema1, &old).await;
    for (tag, words) in [
        (":arm64", "its platforms: linux/arm64"),
        (":windows", "its platforms: windows/amd64"),
        (":chart", "application/vnd.cncf.helm.config.v1+json"),
        (":old", "schema 1"),
    ] {
        let read = tenant
            .reader()
            .read(&tenant.image(tag), &ImageAccess::Anonymous)
            .await;
        let Err(ImageReadError::Unsupported { why, .. }) = &read else {
            panic!("{tag}: {read:?}");
        };
        assert!(why.contains(words), "{tag}: {why}");
    }
}

#[tokio::test]
async fn a_digest_that_the_repository_does_not_have_is_not_found() {
    let Some(tenant) = Tenant::new("digests").await else {
        return;
    };
    tenant.push("1", "/app").await;
    let reference = tenant.image(&format!("@{}", ImageDigest::of(b"other")));
    let read = tenant
        .reader()
        .read(&reference, &ImageAccess::Anonymous)
        .await;
    assert!(
        matches!(read, Err(ImageReadError::NotFound { .. })),
        "{read:?}"
    );
}
