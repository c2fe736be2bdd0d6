//! Login: the operator's credentials with the endpoints of Entra ID and of the machine.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use burstpool::aci::client::{
    self, AciClient, ClientSettings, CloudEndpoints, Credential, GroupScope,
};
use burstpool::aci::error::Error;
use burstpool::emulator::{EmulatorOptions, TlsOptions};
use serde_json::json;

use crate::azure::{Azure, RESOURCE_GROUP, SUBSCRIPTION};

const TENANT: &str = "11111111-1111-1111-1111-111111111111";
const CLIENT: &str = "22222222-2222-2222-2222-222222222222";

/// The Azure SDK's credentials refuse an Entra ID endpoint without TLS.
async fn azure(token_lifetime: Duration) -> Azure {
    Azure::with(EmulatorOptions {
        tls: Some(TlsOptions::default()),
        token_lifetime,
        ..EmulatorOptions::default()
    })
    .await
}

/// The kind of credential that the operator chooses in this environment, and a client with it.
fn login(azure: &Azure, environment: &[(&str, &str)]) -> Result<(String, AciClient), String> {
    let url = azure.emulator.url();
    let cloud = CloudEndpoints::default()
        .with_arm(url.parse().unwrap())
        .with_authority(url);
    let extra_ca = std::fs::read(azure.emulator.ca_file().unwrap()).unwrap();
    let settings = ClientSettings {
        cloud: cloud.clone(),
        extra_ca,
    };
    let http = client::http_client(&settings).unwrap();
    let variables: HashMap<&str, &str> = environment.iter().copied().collect();
    let get = |name: &str| variables.get(name).map(|value| (*value).to_owned());
    let credential = Credential::from_environment(get, &cloud, &http).map_err(|e| e.to_string())?;
    let kind = format!("{credential:?}");
    Ok((kind, AciClient::new(&cloud, credential, http)))
}

async fn call(client: &AciClient) -> Result<(), Error> {
    let scope = GroupScope {
        subscription: SUBSCRIPTION.to_owned(),
        resource_group: RESOURCE_GROUP.to_owned(),
    };
    client.usages(&scope, "westeurope").await.map(drop)
}

/// How many token requests of this kind got this status.
fn asked(azure: &Azure, kind: &str, status: u16) -> usize {
    let text = azure.emulator.shared().counters.text();
    let labels = format!("{{operation=\"{kind}\",status=\"{status}\"}}");
    let line = text.lines().find(|line| line.contains(&labels));
    line.map_or(0, |line| {
        let (_, count) = line.rsplit_once(' ').unwrap();
        count.parse().unwrap()
    })
}

/// A token as a cluster issues it to a pod, valid for this many seconds.
fn federated(seconds: i64) -> tempfile::NamedTempFile {
    let expires = jiff::Timestamp::now().as_second() + seconds;
    let claims = json!({"sub": "system:serviceaccount:burstpool:burstpool", "exp": expires});
    let claims = URL_SAFE_NO_PAD.encode(claims.to_string());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("e30.{claims}.c2ln")).unwrap();
    file
}

fn workload(file: &tempfile::NamedTempFile) -> [(&str, &str); 3] {
    [
        ("AZURE_TENANT_ID", TENANT),
        ("AZURE_CLIENT_ID", CLIENT),
        ("AZURE_FEDERATED_TOKEN_FILE", file.path().to_str().unwrap()),
    ]
}

#[tokio::test]
async fn workload_identity_shows_the_clusters_token_and_keeps_what_it_gets_for_it() {
    let azure = azure(Duration::from_secs(3600)).await;
    let file = federated(3600);
    let (kind, client) = login(&azure, &workload(&file)).unwrap();
    assert_eq!(kind, "WorkloadIdentity");
    for _ in 0..3 {
        call(&client).await.unwrap();
    }
    assert_eq!(asked(&azure, "Token_Assertion", 200), 1);
}

#[tokio::test]
async fn an_expired_federated_token_is_reported_with_the_directorys_message() {
    let azure = azure(Duration::from_secs(3600)).await;
    let file = federated(-1);
    let (_, client) = login(&azure, &workload(&file)).unwrap();
    let error = call(&client).await.unwrap_err();
    assert!(matches!(error, Error::Credential { .. }), "{error:?}");
    assert!(
        error.error_chain().contains("AADSTS700024"),
        "{}",
        error.error_chain()
    );
    assert_eq!(asked(&azure, "Token_Assertion", 200), 0);
}

#[tokio::test]
async fn tokens_are_refreshed_before_they_expire() {
    // The credentials renew a token when it is valid for less than five minutes.
    let azure = azure(Duration::from_secs(299)).await;
    let file = federated(3600);
    let (_, workload) = login(&azure, &workload(&file)).unwrap();
    let url = azure.emulator.url();
    let (_, machine) = login(&azure, &[("AZURE_POD_IDENTITY_AUTHORITY_HOST", url)]).unwrap();
    let secret = [
        ("AZURE_TENANT_ID", TENANT),
        ("AZURE_CLIENT_ID", CLIENT),
        ("AZURE_CLIENT_SECRET", "any"),
    ];
    let (_, secret) = login(&azure, &secret).unwrap();
    for (client, kind) in [
        (workload, "Token_Assertion"),
        (machine, "Token_ManagedIdentity"),
        (secret, "Token_Secret"),
    ] {
        for times in 1..4 {
            call(&client).await.unwrap();
            assert_eq!(asked(&azure, kind, 200), times, "{kind}");
        }
    }
}

/// The audience of a token.
fn audience(header: &http::HeaderValue) -> String {
    let token = header.to_str().unwrap().strip_prefix("Bearer ").unwrap();
    let claims = token.split('.').nth(1).unwrap();
    let claims = URL_SAFE_NO_PAD.decode(claims).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    claims["aud"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn azure_monitor_has_tokens_of_its_own_which_are_kept_and_refreshed_too() {
    let secret = [
        ("AZURE_TENANT_ID", TENANT),
        ("AZURE_CLIENT_ID", CLIENT),
        ("AZURE_CLIENT_SECRET", "any"),
    ];
    for (lives, after) in [(3600, [2, 2]), (299, [2, 3])] {
        let azure = azure(Duration::from_secs(lives)).await;
        let (_, client) = login(&azure, &secret).unwrap();
        call(&client).await.unwrap();
        for tokens in after {
            let header = client.monitor_token().await.unwrap();
            assert!(header.is_sensitive());
            assert_eq!(audience(&header), "https://prometheus.monitor.azure.com");
            assert_eq!(asked(&azure, "Token_Secret", 200), tokens);
        }
    }
}

#[tokio::test]
async fn a_machines_identity_comes_from_its_metadata_service() {
    let azure = azure(Duration::from_secs(3600)).await;
    let url = azure.emulator.url();
    let service = ("AZURE_POD_IDENTITY_AUTHORITY_HOST", url);
    for environment in [vec![service], vec![service, ("AZURE_CLIENT_ID", CLIENT)]] {
        let (kind, client) = login(&azure, &environment).unwrap();
        assert_eq!(kind, "ManagedIdentity");
        call(&client).await.unwrap();
        call(&client).await.unwrap();
    }
    assert_eq!(asked(&azure, "Token_ManagedIdentity", 200), 2);
}

#[tokio::test]
async fn what_is_missing_or_wrong_in_the_environment_is_named() {
    let azure = azure(Duration::from_secs(3600)).await;
    for (environment, expected) in [
        (vec![("AZURE_CLIENT_SECRET", "any")], "AZURE_TENANT_ID"),
        (
            vec![("AZURE_CLIENT_SECRET", "any"), ("AZURE_TENANT_ID", TENANT)],
            "AZURE_CLIENT_ID",
        ),
        (
            vec![("AZURE_POD_IDENTITY_AUTHORITY_HOST", "metadata")],
            "AZURE_POD_IDENTITY_AUTHORITY_HOST",
        ),
        (
            vec![
                ("AZURE_TENANT_ID", TENANT),
                ("AZURE_CLIENT_ID", CLIENT),
                ("AZURE_FEDERATED_TOKEN_FILE", "/nowhere/token"),
            ],
            "/nowhere/token",
        ),
    ] {
        let said = login(&azure, &environment).err().unwrap_or_default();
        assert!(said.contains(expected), "{expected}: {said}");
    }
}
