//! Challenges, credentials, and whose image is opened with whose credential.

use std::time::Duration;

use burstpool::aci::image::{ImageAccess, ImageReadError, RegistryHostGuard};
use serde_json::json;

use super::server::{Request, Tenant, host, login, program};

/// The schemes of the requests to the registry's own API, in order.
fn schemes(requests: &[Request]) -> Vec<&str> {
    let own = requests
        .iter()
        .filter(|request| request.path.starts_with("/v2/"));
    own.map(|request| request.authorization.as_str()).collect()
}

#[tokio::test]
async fn basic_is_sent_only_after_a_challenge_for_it() {
    let Some(tenant) = Tenant::new("basic").await else {
        return;
    };
    tenant.push("1", "/app").await;
    tenant
        .set(json!({"auth": "basic", "user": "robot", "password": "pa:ss"}))
        .await;
    let read = tenant
        .reader()
        .read(&tenant.image(":1"), &login("robot", "pa:ss"))
        .await;
    assert_eq!(program(&read), "/app");
    let requests = tenant.requests().await;
    assert_eq!(schemes(&requests), ["", "Basic", "Basic", "Basic", "Basic"]);
    let read = tenant
        .reader()
        .read(&tenant.image(":1"), &login("robot", "wrong"))
        .await;
    let Err(ImageReadError::Denied { remedy, .. }) = &read else {
        panic!("{read:?}");
    };
    assert!(remedy.contains("imagePullSecrets"), "{remedy}");
    let read = tenant
        .reader()
        .read(&tenant.image(":1"), &ImageAccess::Anonymous)
        .await;
    assert!(
        matches!(read, Err(ImageReadError::Denied { .. })),
        "{read:?}"
    );
}

#[tokio::test]
async fn a_bearer_token_is_fetched_once_with_or_without_a_login() {
    let Some(tenant) = Tenant::new("bearer").await else {
        return;
    };
    tenant.push("1", "/app").await;
    for (settings, access, scheme) in [
        (
            json!({"auth": "bearer", "user": "robot", "password": "1"}),
            login("robot", "1"),
            "Basic",
        ),
        (
            json!({"auth": "bearer", "anonymous": true}),
            ImageAccess::Anonymous,
            "",
        ),
    ] {
        let before = tenant.requests().await.len();
        tenant.set(settings).await;
        let read = tenant.reader().read(&tenant.image(":1"), &access).await;
        assert_eq!(program(&read), "/app");
        let requests = tenant.requests().await.split_off(before);
        assert_eq!(
            schemes(&requests),
            ["", "Bearer", "Bearer", "Bearer", "Bearer"]
        );
        let tokens: Vec<_> = requests
            .iter()
            .filter(|request| request.path == "/token")
            .collect();
        assert_eq!(tokens.len(), 1);
        assert_eq!(tokens[0].authorization, scheme);
        assert!(
            tokens[0].query.contains("repository%3Abearer%2Fapp%3Apull"),
            "{:?}",
            tokens[0]
        );
    }
}

#[tokio::test]
async fn a_refused_login_is_not_tried_in_another_way() {
    let Some(tenant) = Tenant::new("refused").await else {
        return;
    };
    tenant.push("1", "/app").await;
    // Anonymous tokens would do, but the pod has a login, as for a kubelet.
    tenant
        .set(json!({"auth": "bearer", "user": "robot", "password": "1", "anonymous": true}))
        .await;
    let read = tenant
        .reader()
        .read(&tenant.image(":1"), &login("robot", "wrong"))
        .await;
    let Err(error @ ImageReadError::Denied { .. }) = read else {
        panic!("{read:?}");
    };
    let image = format!("{}/refused/app", tenant.host());
    let expected = format!(
        "pull access denied for {image}: incorrect username or password; check the login for"
    );
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert_eq!(tenant.lines().await.len(), 2);
}

#[tokio::test]
async fn an_azure_registry_is_read_with_the_operators_identity() {
    let Some(tenant) = Tenant::new("azure").await else {
        return;
    };
    tenant.push("1", "/app").await;
    tenant.set(json!({"auth": "acr"})).await;
    let read = tenant
        .reader()
        .read(&tenant.image(":1"), &ImageAccess::OperatorIdentity)
        .await;
    assert_eq!(program(&read), "/app");
    let requests = tenant.requests().await;
    let posts = requests.iter().filter(|request| request.method == "POST");
    let posts: Vec<_> = posts
        .map(|request| (request.path.as_str(), request.status))
        .collect();
    assert_eq!(posts, [("/oauth2/exchange", 200), ("/oauth2/token", 200)]);
}

#[tokio::test]
async fn an_azure_registry_that_does_not_know_the_identity_names_the_missing_role() {
    let Some(tenant) = Tenant::new("stranger").await else {
        return;
    };
    tenant.push("1", "/app").await;
    tenant
        .set(json!({"auth": "acr", "tokenBody": "{\"refresh_token\": \"of another registry\"}"}))
        .await;
    let read = tenant
        .reader()
        .read(&tenant.image(":1"), &ImageAccess::OperatorIdentity)
        .await;
    let Err(ImageReadError::Denied { remedy, .. }) = &read else {
        panic!("{read:?}");
    };
    assert!(
        remedy.contains("az role assignment create --role AcrPull"),
        "{remedy}"
    );
}

#[tokio::test]
async fn the_operators_token_is_sent_to_azures_registries_only() {
    let Some(tenant) = Tenant::new("other-cloud").await else {
        return;
    };
    tenant.push("1", "/app").await;
    tenant.set(json!({"auth": "acr"})).await;
    let guard = RegistryHostGuard::for_tests([tenant.host()], []);
    let reader = tenant.reader_with(guard, Duration::from_secs(20));
    let read = reader
        .read(&tenant.image(":1"), &ImageAccess::OperatorIdentity)
        .await;
    assert!(
        matches!(read, Err(ImageReadError::Denied { .. })),
        "{read:?}"
    );
    assert_eq!(tenant.lines().await, ["HEAD manifests/1 401"]);
}

#[tokio::test]
async fn one_pods_credential_never_opens_an_image_for_another_pod() {
    let Some(tenant) = Tenant::new("private").await else {
        return;
    };
    tenant.push("1", "/secret").await;
    tenant
        .set(json!({"auth": "bearer", "user": "owner", "password": "1"}))
        .await;
    let (reader, tag) = (tenant.reader(), tenant.image(":1"));
    let read = reader.read(&tag, &login("owner", "1")).await;
    assert_eq!(program(&read), "/secret");
    let pinned = tenant.image(&format!("@{}", read.unwrap().digest));
    for stranger in [
        ImageAccess::Anonymous,
        login("owner", "2"),
        login("stranger", "1"),
    ] {
        for reference in [&tag, &pinned] {
            let read = reader.read(reference, &stranger).await;
            assert!(
                matches!(read, Err(ImageReadError::Denied { .. })),
                "{read:?}"
            );
        }
    }
    // At the same time too: reads with different accesses are not one.
    let reader = tenant.reader();
    let (owner, owners, stranger) = (
        login("owner", "1"),
        login("owner", "1"),
        ImageAccess::Anonymous,
    );
    let (one, two, three) = tokio::join!(
        reader.read(&tag, &owner),
        reader.read(&tag, &owners),
        reader.read(&tag, &stranger)
    );
    assert_eq!((program(&one), program(&two)), ("/secret", "/secret"));
    assert!(
        matches!(three, Err(ImageReadError::Denied { .. })),
        "{three:?}"
    );
    // Another credential that the registry accepts needs a HEAD of its own, and no GET.
    tenant
        .set(json!({"auth": "bearer", "user": "second", "password": "2"}))
        .await;
    let before = tenant.lines().await.len();
    let read = reader.read(&tag, &login("second", "2")).await;
    assert_eq!(program(&read), "/secret");
    let lines = tenant.lines().await.split_off(before);
    assert_eq!(
        lines,
        [
            "HEAD manifests/1 401",
            "GET /token 200",
            "HEAD manifests/1 200"
        ]
    );
}

#[tokio::test]
async fn the_same_digest_in_another_repository_is_not_taken_from_memory() {
    let (Some(owner), Some(thief)) = (Tenant::new("owner").await, Tenant::new("thief").await)
    else {
        return;
    };
    let secret = owner.push("1", "/secret").await;
    let reader = owner.reader();
    let read = reader
        .read(&owner.image(":1"), &ImageAccess::Anonymous)
        .await;
    assert_eq!(program(&read), "/secret");
    // This repository claims to have the digest, and has other content.
    thief.push("1", "/other").await;
    thief
        .set(json!({"digest": secret.digest.to_string()}))
        .await;
    let read = reader
        .read(&thief.image(":1"), &ImageAccess::Anonymous)
        .await;
    assert!(
        matches!(read, Err(ImageReadError::NotFound { .. })),
        "{read:?}"
    );
}

#[tokio::test]
async fn blobs_are_read_from_storage_without_the_registrys_credential() {
    let Some(tenant) = Tenant::new("storage").await else {
        return;
    };
    tenant.push("1", "/app").await;
    for (settings, access) in [
        (
            json!({"auth": "basic", "user": "a", "password": "b", "redirect": "storage"}),
            login("a", "b"),
        ),
        (
            json!({"auth": "bearer", "user": "a", "password": "b", "redirect": "storage"}),
            login("a", "b"),
        ),
        (
            json!({"auth": "acr", "redirect": "storage"}),
            ImageAccess::OperatorIdentity,
        ),
    ] {
        tenant.set(settings.clone()).await;
        let read = tenant.reader().read(&tenant.image(":1"), &access).await;
        assert_eq!(program(&read), "/app", "{settings}");
        let last = tenant.requests().await.pop().unwrap();
        let storage = host(&tenant.addresses.storage).to_owned();
        assert_eq!(
            (last.host, last.authorization, last.status),
            (storage, String::new(), 200)
        );
    }
}

#[tokio::test]
async fn a_registry_that_redirects_to_another_gets_anonymous_tokens_there() {
    let Some(tenant) = Tenant::new("front").await else {
        return;
    };
    tenant.push("1", "/app").await;
    // The front redirects everything to the storage, as registry.k8s.io does: no credential follows.
    tenant
        .set(json!({"redirectTo": tenant.addresses.storage}))
        .await;
    let read = tenant
        .reader()
        .read(&tenant.image(":1"), &login("a", "b"))
        .await;
    assert_eq!(program(&read), "/app");
    let requests = tenant.requests().await;
    assert!(
        requests
            .iter()
            .all(|request| request.authorization.is_empty()),
        "{requests:?}"
    );
}

#[tokio::test]
async fn a_credential_answers_the_challenges_of_its_own_registry_only() {
    let Some(tenant) = Tenant::new("elsewhere").await else {
        return;
    };
    tenant.push("1", "/app").await;
    // The same registry by another name is another host, which has challenges of its own.
    let other = tenant.host().replace("127.0.0.1", "localhost");
    let guard = RegistryHostGuard::for_tests([tenant.host(), &other], [tenant.host(), &other]);
    for (auth, access, reads) in [
        ("bearer", login("robot", "1"), true),
        ("basic", login("robot", "1"), false),
        ("acr", ImageAccess::OperatorIdentity, false),
    ] {
        let before = tenant.requests().await.len();
        tenant
            .set(json!({
                "redirectTo": format!("http://{other}"), "redirectFrom": tenant.host(),
                "auth": auth, "user": "robot", "password": "1", "anonymous": true,
            }))
            .await;
        let reader = tenant.reader_with(guard.clone(), Duration::from_secs(20));
        let read = reader.read(&tenant.image(":1"), &access).await;
        assert_eq!(read.is_ok(), reads, "{auth}: {read:?}");
        let requests = tenant.requests().await.split_off(before);
        let sent = |scheme: &str| {
            requests
                .iter()
                .any(|request| request.authorization == scheme)
        };
        assert!(!sent("Basic"), "{requests:?}");
        assert!(
            requests.iter().all(|request| request.method != "POST"),
            "{requests:?}"
        );
        // An anonymous token goes to the host that asked for it.
        let bearers = requests
            .iter()
            .filter(|request| request.authorization == "Bearer");
        assert!(
            bearers.clone().all(|request| request.host == other),
            "{requests:?}"
        );
        assert_eq!(bearers.count() > 0, reads, "{requests:?}");
    }
}
