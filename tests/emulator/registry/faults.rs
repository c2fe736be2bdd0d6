//! Registries that throttle, lie, hang, or are down.

use std::time::{Duration, Instant};

use burstpool::aci::image::{ImageAccess, ImageReadError, ImageReference, RegistryHostGuard};
use futures::future::{join_all, select_all};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::server::{Tenant, login, program};

/// Reads the tag `1` anonymously with a new reader, and expects a failure.
async fn failure(tenant: &Tenant, settings: Value) -> ImageReadError {
    tenant.set(settings.clone()).await;
    let read = tenant
        .reader()
        .read(&tenant.image(":1"), &ImageAccess::Anonymous)
        .await;
    read.expect_err(&settings.to_string())
}

#[tokio::test]
async fn a_registry_that_throttles_is_left_alone_for_the_time_that_it_names() {
    let Some(tenant) = Tenant::new("throttled").await else {
        return;
    };
    tenant.push("1", "/app").await;
    tenant.push("2", "/app").await;
    tenant.set(json!({"status": 429, "retryAfter": "7"})).await;
    let reader = tenant.reader();
    let read = |tag: &'static str| {
        let (reader, tenant) = (&reader, &tenant);
        async move {
            reader
                .read(&tenant.image(tag), &ImageAccess::Anonymous)
                .await
        }
    };
    let first = read(":1").await.unwrap_err();
    assert_eq!(first.requested_wait(), Some(Duration::from_secs(7)));
    // Another image of the same registry: no request, and the rest of the wait.
    let second = read(":2").await.unwrap_err();
    let Some(wait) = second.requested_wait() else {
        panic!("{second:?}");
    };
    assert!(wait <= Duration::from_secs(7), "{second:?}");
    assert_eq!(tenant.lines().await, ["HEAD manifests/1 429"]);
    // A login has a limit of its own.
    let own = reader
        .read(&tenant.image(":2"), &login("a", "b"))
        .await
        .unwrap_err();
    assert_eq!(own.kind(), "throttled");
    assert_eq!(tenant.lines().await.len(), 2);
    tenant.set(json!({})).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(8)).await;
    tokio::time::resume();
    assert_eq!(program(&read(":2").await), "/app");
}

#[tokio::test]
async fn a_failing_registry_is_waited_for() {
    let Some(tenant) = Tenant::new("failing").await else {
        return;
    };
    tenant.push("1", "/app").await;
    for (settings, kind) in [
        (json!({"status": 503}), "failing"),
        (json!({"status": 500, "on": "/blobs/"}), "failing"),
        (json!({"status": 418}), "failing"),
        (json!({"status": 403}), "denied"),
        (json!({"status": 404}), "not_found"),
        (json!({"status": 429, "on": "/blobs/"}), "throttled"),
    ] {
        let error = failure(&tenant, settings).await;
        assert_eq!(error.kind(), kind, "{error:?}");
    }
    // Nothing of a failed read is remembered.
    tenant.set(json!({})).await;
    let read = tenant
        .reader()
        .read(&tenant.image(":1"), &ImageAccess::Anonymous)
        .await;
    assert_eq!(program(&read), "/app");
}

#[tokio::test]
async fn content_with_another_digest_is_not_used() {
    let Some(tenant) = Tenant::new("corrupt").await else {
        return;
    };
    let index = tenant.push("1", "/app").await;
    let other = tenant.push("2", "/other").await;
    for settings in [
        json!({"corrupt": "/manifests/sha256"}),
        json!({"corrupt": "/blobs/"}),
        // Without a digest from HEAD, the tag's content is what counts, and then the rest must fit.
        json!({"corrupt": "/blobs/", "noDigest": true}),
    ] {
        let error = failure(&tenant, settings).await;
        assert_eq!(error.kind(), "corrupt", "{error:?}");
        assert!(error.to_string().contains("another digest"), "{error}");
    }
    // A reference by digest is answered with another digest.
    tenant
        .set(json!({"digest": other.digest.to_string()}))
        .await;
    let reference = tenant.image(&format!("@{}", index.digest));
    let error = tenant
        .reader()
        .read(&reference, &ImageAccess::Anonymous)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), "corrupt", "{error:?}");
}

#[tokio::test]
async fn malformed_content_is_an_error_of_the_registry() {
    let Some(tenant) = Tenant::new("malformed").await else {
        return;
    };
    let config = tenant.push_blob(b"{\"config\": 7}").await;
    let config = json!({"digest": config.digest.to_string(), "size": 13});
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": []});
    tenant
        .push_manifest("1", super::server::MANIFEST, &manifest)
        .await;
    assert_eq!(failure(&tenant, json!({})).await.kind(), "corrupt");
    let mut wrong_length = manifest.clone();
    wrong_length["config"]["size"] = json!(12);
    tenant
        .push_manifest("1", super::server::MANIFEST, &wrong_length)
        .await;
    let error = failure(&tenant, json!({})).await;
    assert!(error.to_string().contains("another length"), "{error}");
    for body in [
        "",
        "{}",
        "[]",
        "{\"token\": \"\"}",
        "{\"token\": \"a\\nb\"}",
        "{\"token\": 7}",
    ] {
        let settings =
            json!({"auth": "bearer", "anonymous": true, "tokenBody": format!("{body} ")});
        assert_eq!(failure(&tenant, settings).await.kind(), "corrupt", "{body}");
    }
    let missing = format!(
        "Bearer realm=\"{}/nowhere\",service=\"a\"",
        tenant.addresses.front
    );
    let error = failure(&tenant, json!({"auth": "bearer", "challenge": missing})).await;
    assert!(
        error.to_string().contains("names answers with status 404"),
        "{error}"
    );
    for challenge in ["Bearer", "Negotiate", "Bearer realm=\"\"", "Bearer realm="] {
        let settings = json!({"auth": "bearer", "challenge": challenge});
        assert_eq!(
            failure(&tenant, settings).await.kind(),
            "denied",
            "{challenge}"
        );
    }
}

#[tokio::test]
async fn endless_bodies_are_cut_off() {
    let Some(tenant) = Tenant::new("endless").await else {
        return;
    };
    tenant.push("1", "/app").await;
    for (part, length) in [("/manifests/sha256", "1048576"), ("/blobs/", "1048576")] {
        let error = failure(&tenant, json!({"endless": part})).await;
        assert_eq!(error.kind(), "corrupt", "{error:?}");
        assert!(error.to_string().contains(length), "{error}");
    }
}

#[tokio::test]
async fn a_registry_that_hangs_delays_neither_its_pod_for_long_nor_others() {
    let (Some(slow), Some(quick)) = (Tenant::new("hanging").await, Tenant::new("quick").await)
    else {
        return;
    };
    quick.push("1", "/app").await;
    slow.set(json!({"hang": "/v2/"})).await;
    let timeout = Duration::from_secs(2);
    let reader = slow.reader_with(slow.guard(), timeout);
    let begun = Instant::now();
    let (hanging, other) = (slow.image(":1"), quick.image(":1"));
    let (hung, read) = tokio::join!(
        reader.read(&hanging, &ImageAccess::Anonymous),
        reader.read(&other, &ImageAccess::Anonymous),
    );
    assert_eq!(program(&read), "/app");
    let error = hung.unwrap_err();
    assert_eq!(error.kind(), "unreachable", "{error:?}");
    assert!(begun.elapsed() >= timeout);
}

#[tokio::test]
async fn a_body_that_comes_a_byte_at_a_time_is_given_up() {
    let Some(tenant) = Tenant::new("dripping").await else {
        return;
    };
    tenant.push("1", "/app").await;
    for part in ["/manifests/sha256", "/blobs/"] {
        tenant.set(json!({"drip": part})).await;
        let reader = tenant.reader_with(tenant.guard(), Duration::from_secs(2));
        let image = tenant.image(":1");
        let read = reader.read(&image, &ImageAccess::Anonymous).await;
        let error = read.expect_err(part);
        assert_eq!(error.kind(), "unreachable", "{part}: {error:?}");
    }
}

#[tokio::test]
async fn a_namespace_whose_registries_hang_does_not_delay_others() {
    let Some(tenant) = Tenant::new("beside").await else {
        return;
    };
    tenant.push("1", "/app").await;
    // They accept connections, and never answer: more than there may be reads.
    let mut listeners = Vec::new();
    for _ in 0..60 {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let hosts = listeners
        .iter()
        .map(|listener| listener.local_addr().unwrap().to_string());
    let mut hosts: Vec<String> = hosts.collect();
    let references: Vec<ImageReference> = hosts
        .iter()
        .map(|host| ImageReference::parse("image", &format!("{host}/a")).unwrap())
        .collect();
    hosts.push(tenant.host().to_owned());
    let guard = RegistryHostGuard::for_tests(hosts.iter().map(String::as_str), []);
    let reader = tenant.reader_with(guard, Duration::from_secs(8));
    let anonymous = ImageAccess::Anonymous;
    let hanging = references.iter();
    let hanging =
        hanging.map(|reference| Box::pin(reader.read_for("hanging", reference, &anonymous)));
    let hanging = select_all(hanging);
    let image = tenant.image(":1");
    let others = reader.read_for("shop", &image, &ImageAccess::Anonymous);
    tokio::select! {
        biased;
        ended = hanging => panic!("{:?}", ended.0),
        read = others => assert_eq!(program(&read), "/app"),
    }
}

#[tokio::test]
async fn many_pods_whose_image_hangs_do_not_delay_others_of_their_namespace() {
    let (Some(slow), Some(quick)) = (Tenant::new("many").await, Tenant::new("few").await) else {
        return;
    };
    quick.push("1", "/app").await;
    slow.set(json!({"hang": "/v2/"})).await;
    let (reader, anonymous) = (slow.reader(), ImageAccess::Anonymous);
    let (hanging, image) = (slow.image(":1"), quick.image(":1"));
    let many = (0..50).map(|_| Box::pin(reader.read_for("shop", &hanging, &anonymous)));
    let many = select_all(many);
    tokio::select! {
        biased;
        ended = many => panic!("{:?}", ended.0),
        read = reader.read_for("shop", &image, &anonymous) => assert_eq!(program(&read), "/app"),
    }
}

#[tokio::test]
async fn many_images_of_a_registry_that_hangs_do_not_delay_others_of_their_namespace() {
    let Some(tenant) = Tenant::new("images").await else {
        return;
    };
    tenant.push("1", "/app").await;
    // It accepts connections, and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let hanging: Vec<ImageReference> = (0..50)
        .map(|n| ImageReference::parse("image", &format!("{host}/a:{n}")).unwrap())
        .collect();
    let guard = RegistryHostGuard::for_tests([host.as_str(), tenant.host()], []);
    let reader = tenant.reader_with(guard, Duration::from_secs(8));
    let (image, anonymous) = (tenant.image(":1"), ImageAccess::Anonymous);
    let many = hanging
        .iter()
        .map(|image| Box::pin(reader.read_for("shop", image, &anonymous)));
    let many = select_all(many);
    tokio::select! {
        biased;
        ended = many => panic!("{:?}", ended.0),
        read = reader.read_for("shop", &image, &anonymous) => assert_eq!(program(&read), "/app"),
    }
}

#[tokio::test]
async fn a_read_that_waits_for_its_turn_does_not_time_out() {
    let Some(tenant) = Tenant::new("turns").await else {
        return;
    };
    let tags: Vec<String> = (0..16).map(|n| n.to_string()).collect();
    for tag in &tags {
        tenant.push(tag, &format!("/{tag}")).await;
    }
    tenant.set(json!({"delay": 300})).await;
    // A read takes four requests, and only some are made at once: together longer than the timeout.
    let reader = tenant.reader_with(tenant.guard(), Duration::from_secs(4));
    let images: Vec<_> = tags
        .iter()
        .map(|tag| tenant.image(&format!(":{tag}")))
        .collect();
    let reads = images
        .iter()
        .map(|image| reader.read(image, &ImageAccess::Anonymous));
    for (tag, read) in tags.iter().zip(join_all(reads).await) {
        assert_eq!(program(&read), format!("/{tag}"));
    }
}

#[tokio::test]
async fn a_registry_that_is_down_is_unreachable() {
    let Some(tenant) = Tenant::new("down").await else {
        return;
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    drop(listener);
    let reader = tenant.reader_with(
        RegistryHostGuard::for_tests([host.as_str()], []),
        Duration::from_secs(20),
    );
    let reference = ImageReference::parse("image", &format!("{host}/app")).unwrap();
    let error = reader
        .read(&reference, &ImageAccess::Anonymous)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), "unreachable", "{error:?}");
}

#[tokio::test]
async fn redirects_without_an_end_are_given_up() {
    let Some(tenant) = Tenant::new("circle").await else {
        return;
    };
    tenant.push("1", "/app").await;
    let error = failure(&tenant, json!({"redirectTo": tenant.addresses.front})).await;
    assert_eq!(error.kind(), "corrupt", "{error:?}");
    assert_eq!(tenant.requests().await.len(), 6);
}
