//! Azure credentials.
//!
//! In: files and environment variables. Out: a token for each request. Logs never contain a token: `Debug` prints
//! only the kind of a credential, and `transport` adds the token below every layer that logs requests.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use azure_core_v1::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core_v1::credentials::{Secret, TokenCredential};
use azure_core_v1::http::{
    AsyncRawResponse, ClientOptions, HttpClient, Method, Request, Transport,
};
use azure_identity::{
    ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions,
    ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId,
    WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use futures::TryStreamExt as _;
use url::Url;

use super::cloud::CloudEndpoints;

/// The address of the metadata service on an Azure virtual machine.
const METADATA_SERVICE: &str = "169.254.169.254";

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A source of tokens.
#[derive(Clone)]
pub enum Credential {
    /// A file that contains a token. It is read for each request, so that it can be replaced.
    File(PathBuf),
    /// An identity of Microsoft Entra ID. It caches its tokens and refreshes them in time.
    Identity(Arc<dyn TokenCredential>, &'static str),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Identity(_, kind) => f.debug_tuple(kind).finish(),
        }
    }
}

impl Credential {
    /// The credential that the environment variables describe. The names are those of Azure's own clients. The
    /// first that is set wins:
    ///
    /// 1. workload identity (`AZURE_FEDERATED_TOKEN_FILE`),
    /// 2. a client secret (`AZURE_CLIENT_SECRET`),
    /// 3. the machine's managed identity. `AZURE_CLIENT_ID` selects one of several; `IDENTITY_ENDPOINT` and
    ///    `IDENTITY_HEADER` select the one of App Service; `AZURE_POD_IDENTITY_AUTHORITY_HOST` replaces the address
    ///    of the metadata service.
    pub fn from_environment(
        environment: impl Fn(&str) -> Option<String>,
        cloud: &CloudEndpoints,
        http: &reqwest::Client,
    ) -> Result<Self, BoxError> {
        let get = |name: &str| environment(name).filter(|value| !value.is_empty());
        let metadata = get("AZURE_POD_IDENTITY_AUTHORITY_HOST").map(|text| metadata_service(&text));
        let options = client_options(cloud, http, metadata.transpose()?);
        let client_id = get("AZURE_CLIENT_ID");
        if let Some(file) = get("AZURE_FEDERATED_TOKEN_FILE") {
            let options = WorkloadIdentityCredentialOptions {
                credential_options: ClientAssertionCredentialOptions {
                    client_options: options,
                },
                client_id,
                tenant_id: get("AZURE_TENANT_ID"),
                token_file_path: Some(PathBuf::from(file)),
            };
            let credential = WorkloadIdentityCredential::new(Some(options))?;
            return Ok(Self::Identity(credential, "WorkloadIdentity"));
        }
        if let Some(secret) = get("AZURE_CLIENT_SECRET") {
            let tenant = get("AZURE_TENANT_ID").ok_or("AZURE_TENANT_ID is not set")?;
            let client = client_id.ok_or("AZURE_CLIENT_ID is not set")?;
            let options = ClientSecretCredentialOptions {
                client_options: options,
            };
            let secret = Secret::new(secret);
            let credential = ClientSecretCredential::new(&tenant, client, secret, Some(options))?;
            return Ok(Self::Identity(credential, "ClientSecret"));
        }
        let options = ManagedIdentityCredentialOptions {
            user_assigned_id: client_id.map(UserAssignedId::ClientId),
            client_options: options,
        };
        Ok(Self::Identity(
            ManagedIdentityCredential::new(Some(options))?,
            "ManagedIdentity",
        ))
    }

    /// Returns a token for `scope`.
    pub(super) async fn token(&self, scope: &str) -> Result<Secret, BoxError> {
        match self {
            Self::File(path) => {
                let text = tokio::fs::read_to_string(path)
                    .await
                    .map_err(|error| format!("reading {}: {error}", path.display()))?;
                let token = text.trim();
                if token.is_empty() {
                    return Err(format!("{} is empty", path.display()).into());
                }
                Ok(Secret::new(token.to_owned()))
            }
            Self::Identity(credential, _) => Ok(credential.get_token(&[scope], None).await?.token),
        }
    }
}

fn metadata_service(text: &str) -> Result<Url, String> {
    let url = text.parse::<Url>().ok().filter(|url| url.host().is_some());
    url.ok_or_else(|| {
        format!(
            "AZURE_POD_IDENTITY_AUTHORITY_HOST is {text}, which is not a URL: write scheme and host"
        )
    })
}

fn client_options(
    cloud: &CloudEndpoints,
    http: &reqwest::Client,
    metadata: Option<Url>,
) -> ClientOptions {
    let mut custom = CustomConfiguration::default();
    custom.authority_host.clone_from(&cloud.authority);
    ClientOptions {
        // Without an explicit transport, azure_core 1 panics at the first request.
        transport: Some(Transport::new(Arc::new(HttpClientAdapter {
            http: http.clone(),
            metadata,
        }))),
        cloud: Some(Arc::new(CloudConfiguration::Custom(custom))),
        ..ClientOptions::default()
    }
}

/// Adapts our HTTP client to the interface of `azure_core` 1, so that the process has only one HTTP client.
#[derive(Debug)]
struct HttpClientAdapter {
    http: reqwest::Client,
    /// The metadata service, if it is not at its usual address; `azure_identity` cannot be configured with another
    /// one.
    metadata: Option<Url>,
}

impl HttpClientAdapter {
    /// The URL to which a request is actually sent.
    fn rewrite_metadata_url(&self, url: &Url) -> Url {
        let mut target = url.clone();
        if let Some(metadata) = &self.metadata
            && url.host_str() == Some(METADATA_SERVICE)
        {
            // These calls fail only for URLs without a host, and both URLs have one.
            let _ = target.set_scheme(metadata.scheme());
            let _ = target.set_host(metadata.host_str());
            let _ = target.set_port(metadata.port());
        }
        target
    }
}

#[async_trait::async_trait]
impl HttpClient for HttpClientAdapter {
    async fn execute_request(&self, request: &Request) -> azure_core_v1::Result<AsyncRawResponse> {
        use azure_core_v1::error::{Error, ErrorKind};
        let io = |error: reqwest::Error| Error::new(ErrorKind::Io, error);
        let method = match request.method() {
            Method::Get => reqwest::Method::GET,
            Method::Head => reqwest::Method::HEAD,
            Method::Put => reqwest::Method::PUT,
            Method::Patch => reqwest::Method::PATCH,
            Method::Delete => reqwest::Method::DELETE,
            // The identities send only GET and POST. The branch covers methods that azure_core may add.
            _ => reqwest::Method::POST,
        };
        let mut sent = self
            .http
            .request(method, self.rewrite_metadata_url(request.url()));
        for (name, value) in request.headers().iter() {
            sent = sent.header(name.as_str(), value.as_str());
        }
        let body: azure_core_v1::Bytes = request.body().into();
        let response = sent.body(body).send().await.map_err(io)?;
        let status = response.status().as_u16().into();
        let headers: Vec<_> = response
            .headers()
            .iter()
            .filter_map(|(name, value)| {
                Some((
                    name.as_str().to_owned().into(),
                    value.to_str().ok()?.to_owned().into(),
                ))
            })
            .collect();
        let headers: std::collections::HashMap<_, _> = headers.into_iter().collect();
        let body = response.bytes_stream().map_err(io);
        Ok(AsyncRawResponse::new(
            status,
            headers.into(),
            Box::pin(body),
        ))
    }
}
