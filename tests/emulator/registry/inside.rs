//! No registry, proxy, challenge or redirect leads the operator's requests to hosts inside.

use std::time::Duration;

use burstpool::aci::image::{ImageAccess, ImageReference, RegistryHostGuard};
use serde_json::json;
use tokio::net::TcpListener;

use super::server::{Tenant, login, program};

/// A proxy would resolve the names of hosts, and so pass by the check of their addresses.
#[tokio::test]
async fn a_proxy_is_not_used() {
    const IN_CHILD: &str = "BURSTPOOL_TEST_PROXIED";
    if std::env::var_os(IN_CHILD).is_some() {
        let tenant = Tenant::new("proxied")
            .await
            .expect("the parent has checked");
        tenant.push("1", "/app").await;
        let read = tenant.reader();
        let read = read
            .read(&tenant.image(":1"), &ImageAccess::Anonymous)
            .await;
        assert_eq!(program(&read), "/app");
        return;
    }
    if Tenant::new("unproxied").await.is_none() {
        return;
    }
    // Variables of the environment hold for a whole process: the read is made in a process of its own.
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "registry::inside::a_proxy_is_not_used"]);
    child
        .env(IN_CHILD, "1")
        .env("NO_PROXY", "")
        .env("no_proxy", "");
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        // No proxy listens there.
        child
            .env(name, "http://127.0.0.1:1")
            .env(name.to_lowercase(), "http://127.0.0.1:1");
    }
    let output = child.output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

#[tokio::test]
async fn no_request_goes_to_the_machine_itself_unless_a_test_allows_it() {
    let Some(tenant) = Tenant::new("inside").await else {
        return;
    };
    tenant.push("1", "/app").await;
    let port = tenant.host().rsplit_once(':').unwrap().1;
    let reader = tenant.reader_with(RegistryHostGuard::default(), Duration::from_secs(20));
    for host in [
        tenant.host().to_owned(),
        format!("localhost:{port}"),
        format!("[::1]:{port}"),
        format!("[::ffff:7f00:1]:{port}"),
    ] {
        let reference = ImageReference::parse("image", &format!("{host}/inside/app:1")).unwrap();
        let error = reader
            .read(&reference, &ImageAccess::Anonymous)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), "guarded", "{host}: {error:?}");
    }
    assert_eq!(tenant.requests().await, []);
}

#[tokio::test]
async fn neither_a_challenge_nor_a_redirect_leads_to_hosts_inside() {
    let Some(tenant) = Tenant::new("luring").await else {
        return;
    };
    tenant.push("1", "/app").await;
    // A listener on loopback that is no test's registry: it must get no connection.
    let inside = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = inside.local_addr().unwrap();
    let port = address.port();
    for lure in [
        format!("http://{address}"),
        format!("https://{address}"),
        format!("https://localhost:{port}"),
        format!("https://[::ffff:127.0.0.1]:{port}"),
        "http://169.254.169.254/metadata".to_owned(),
        "https://168.63.129.16/".to_owned(),
        "http://quay.io".to_owned(),
        format!("https://user:secret@{address}"),
    ] {
        for settings in [
            json!({"auth": "bearer", "challenge": format!("Bearer realm=\"{lure}\",service=\"a\"")}),
            json!({"redirect": lure}),
            json!({"redirectTo": lure}),
        ] {
            tenant.set(settings.clone()).await;
            let read = tenant
                .reader()
                .read(&tenant.image(":1"), &login("robot", "1"))
                .await;
            let error = read.expect_err(&settings.to_string());
            assert_eq!(error.kind(), "guarded", "{settings}: {error:?}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
    let connected = tokio::time::timeout(Duration::from_millis(50), inside.accept()).await;
    assert!(connected.is_err(), "a request reached a host inside");
}
