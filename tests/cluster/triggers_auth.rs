//! Credentials for Prometheus: they come from a Secret that may change, and never appear in logs or
//! status.

use burstpool::emulator::EmulatorOptions as AzureOptions;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use serde_json::{Value, json};

use crate::support::Options;
use crate::support::monitoring::{Load, Prometheus};
use crate::triggers_prometheus::{requests, until_trigger};
use crate::world::{World, said};

/// The bcrypt hash of SECRET-PASSWORD.
const HASH: &str = "$2b$04$abcdefghijklmnopqrstuuyZOIa4T4nHIMLjoJRPiDWoGBegkb.ZW";

/// A certificate and its key.
struct Pair {
    certificate: String,
    key: String,
}

fn issue(ca: &CertifiedIssuer<'static, KeyPair>, usage: ExtendedKeyUsagePurpose) -> Pair {
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, ca).expect("it is signed");
    Pair {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(params, key).expect("it is signed")
}

/// A trigger with a Secret of the same name.
fn trigger(name: &str, address: &str) -> Value {
    let mut trigger = requests(address);
    trigger["name"] = name.into();
    trigger["prometheus"]["authSecretRef"] = json!({"namespace": "default", "name": name});
    if address.starts_with("http://") {
        trigger["prometheus"]["credentialsOverHTTP"] = true.into();
    }
    trigger
}

/// Runs the `kubectl annotate secret` command from the trigger's message. Without that annotation the
/// operator does not send the Secret's credentials.
async fn allow(world: &World, name: &str) {
    let has_command =
        |one: &burstpool::api::TriggerStatus| one.message.contains("kubectl annotate secret");
    until_trigger(world, name, "its Secret not to agree", has_command).await;
    let is_stalled = |pool: Option<&burstpool::api::BurstPool>| {
        let (status, message) = pool.map(|pool| said(pool, "Stalled")).unwrap_or_default();
        status == "True" && message.contains(name)
    };
    world.until_pool("shop", "it to say so", is_stalled).await;
    let path = format!("jsonpath={{.status.triggers[?(@.name==\"{name}\")].message}}");
    let message = world.kubectl(&["get", "bp", "shop", "-o", &path]);
    let (_, command) = message.split_once("kubectl ").expect("a command");
    let (command, _) = command.split_once(';').expect("what is kept");
    let words: Vec<String> = command
        .split(' ')
        .map(|word| word.replace('\'', ""))
        .collect();
    world.kubectl(&words.iter().map(String::as_str).collect::<Vec<_>>());
}

async fn secret(world: &World, name: &str, data: &Value) {
    let secret = json!({"metadata": {"name": name}, "stringData": data});
    let _: Secret = world.make(secret).await;
}

async fn change(world: &World, name: &str, data: &Value) {
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), "default");
    let patch = Patch::Merge(json!({"stringData": data}));
    let changed = secrets.patch(name, &PatchParams::default(), &patch).await;
    changed.expect("the Secret is changed");
}

/// A Prometheus that demands a certificate and a password, and the directory of its files.
fn demanding(
    load: &Load,
    ca: &CertifiedIssuer<'static, KeyPair>,
) -> (Prometheus, tempfile::TempDir) {
    let files = tempfile::tempdir().expect("a directory");
    let server = issue(ca, ExtendedKeyUsagePurpose::ServerAuth);
    let at = |name: &str, text: &str| {
        let file = files.path().join(name);
        std::fs::write(&file, text).expect("it is written");
        file.display().to_string()
    };
    let web = format!(
        "tls_server_config:\n  cert_file: {}\n  key_file: {}\n  client_ca_file: {}\n  client_auth_type: RequireAndVerifyClientCert\nbasic_auth_users:\n  shop: {HASH}\n",
        at("server.crt", &server.certificate),
        at("server.key", &server.key),
        at("ca.crt", &ca.pem()),
    );
    let real = Prometheus::with_web(load, Some(&web));
    (real, files)
}

async fn until_message(world: &World, name: &str, words: &str) {
    let has_words = |one: &burstpool::api::TriggerStatus| one.message.contains(words);
    until_trigger(world, name, words, has_words).await;
}

/// Neither the log nor an object shows a credential.
fn assert_not_shown(world: &World, key: &str) {
    let log = std::fs::read_to_string(world.log()).expect("a log");
    let told = world.kubectl(&["get", "bp,events", "-A", "-o", "yaml"]);
    let key: Vec<&str> = key.lines().nth(1).into_iter().collect();
    for text in [log, told] {
        assert!(!text.contains("SECRET-B") && !text.contains("SECRET-P"));
        assert!(
            !text.contains("SECRET-TENANT")
                && !text.contains("SECRET-NEW")
                && !text.contains(key[0])
        );
    }
}

/// A wrong password, and a new token that Prometheus wants.
async fn assert_changes_are_noticed(world: &World, load: &Load) {
    change(world, "mutual", &json!({"password": "SECRET-WRONG"})).await;
    until_message(world, "mutual", "status 401").await;
    load.want("bearer", "authorization", "Bearer SECRET-NEW");
    until_message(world, "bearer", "status 401").await;
    change(world, "bearer", &json!({"token": "SECRET-NEW"})).await;
    until_trigger(world, "bearer", "active again", |one| {
        one.unknown_since.is_none()
    })
    .await;
}

#[tokio::test]
async fn each_kind_of_credential_works_changes_without_a_restart_and_is_never_shown() {
    if !Prometheus::is_found() {
        return;
    }
    let load = Load::start().await;
    load.set(300.0);
    let ca = authority();
    let client = issue(&ca, ExtendedKeyUsagePurpose::ClientAuth);
    let (real, _files) = demanding(&load, &ca);
    load.want("bearer", "authorization", "Bearer SECRET-BEARER");
    load.want("header", "x-scope-orgid", "SECRET-TENANT");
    let address = format!("https://127.0.0.1:{}", real.port());
    // Over plain HTTP, and the user has not permitted that.
    let mut plain = trigger("plain", &load.address("bearer"));
    plain["prometheus"]["credentialsOverHTTP"] = false.into();
    let world = World::with_home(&json!({"triggers": [
        plain,
        trigger("mutual", &address),
        trigger("bearer", &load.address("bearer")),
        trigger("header", &load.address("header")),
    ]}))
    .await;
    until_message(&world, "bearer", "does not exist").await;

    let everything = json!({"username": "shop", "password": "SECRET-PASSWORD", "ca.crt": ca.pem(),
        "tls.crt": client.certificate, "tls.key": client.key});
    let mut untrusting = everything.clone();
    untrusting["ca.crt"] = authority().pem().into();
    secret(&world, "mutual", &untrusting).await;
    secret(&world, "bearer", &json!({"token": "SECRET-OLD"})).await;
    secret(
        &world,
        "header",
        &json!({"headerName": "X-Scope-OrgID", "headerValue": "SECRET-TENANT"}),
    )
    .await;
    for name in ["mutual", "bearer", "header"] {
        allow(&world, name).await;
    }
    until_trigger(&world, "header", "active", |one| one.active).await;
    until_message(&world, "plain", "credentialsOverHTTP: true").await;
    until_message(&world, "bearer", "status 401").await;
    until_message(&world, "mutual", "certificate").await;

    change(&world, "bearer", &json!({"token": "SECRET-BEARER\n"})).await;
    change(&world, "mutual", &everything).await;
    until_trigger(&world, "bearer", "active", |one| one.active).await;
    until_trigger(&world, "mutual", "active", |one| {
        one.active && one.value.as_deref() == Some("300")
    })
    .await;
    assert_changes_are_noticed(&world, &load).await;
    assert_not_shown(&world, &client.key);
}

#[tokio::test]
async fn azure_monitor_is_asked_as_the_operator_itself_with_the_token_of_the_moment() {
    let load = Load::start().await;
    load.set(300.0);
    let (address, ca) = load.secure().await;
    let files = tempfile::tempdir().expect("a directory");
    let trusted = files.path().join("ca.crt");
    std::fs::write(&trusted, ca).expect("it is written");
    let azure = AzureOptions {
        speed: 20.0,
        ..AzureOptions::default()
    };
    let mut world = World::without_operator(Options::default(), azure).await;
    world.arguments = vec!["--arm-ca-file".into(), trusted.display().to_string()];
    let monitor = ["--azure-monitor-host", "127.0.0.1"];
    world.arguments.extend(monitor.map(str::to_owned));
    world.run();
    let mut managed = requests(&format!("{address}/managed"));
    managed["prometheus"]["azureCredential"] = true.into();
    load.want("managed", "authorization", "Bearer SECRET-TOKEN");
    // The same server by another name.
    let mut astray = managed.clone();
    astray["name"] = "astray".into();
    let elsewhere = address.replace("127.0.0.1", "localhost");
    astray["prometheus"]["serverAddress"] = elsewhere.into();
    world.furnish(&json!({"triggers": [managed, astray]})).await;
    until_trigger(&world, "astray", "without a token", |one| {
        one.message.contains("--azure-monitor-host")
    })
    .await;
    until_trigger(&world, "requests", "active", |one| {
        one.active && one.value.as_deref() == Some("300")
    })
    .await;
    load.want("managed", "authorization", "Bearer SECRET-NEXT");
    until_trigger(&world, "requests", "refused", |one| {
        one.message.contains("status 401") && one.message.contains("azureCredential")
    })
    .await;
    std::fs::write(world.token(), "SECRET-NEXT").expect("it is written");
    until_trigger(&world, "requests", "known again", |one| {
        one.active && one.unknown_since.is_none()
    })
    .await;
    let log = std::fs::read_to_string(world.log()).expect("a log");
    assert!(!log.contains("SECRET-"), "no token is told");
}
