//! Login endpoints: Microsoft Entra ID, the metadata service of virtual machines, App Service, and
//! cloud metadata.
//!
//! The emulator accepts any secret, and any assertion that has not expired. Tokens are unsigned; only
//! their audience and expiry have a meaning. It counts token requests by kind.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::origin;
use crate::emulator::state::EmulatorState;

/// The tenant that all subscriptions and managed identities belong to.
pub const TENANT: &str = "11111111-1111-1111-1111-111111111111";
/// The audience of tokens that are requested without a scope.
const ARM: &str = "https://management.azure.com";
/// The only assertion type that Entra ID knows (RFC 7523).
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The query of `GET /metadata/endpoints`.
#[derive(Debug, Deserialize)]
pub struct MetadataVersion {
    #[serde(rename = "api-version")]
    version: Option<String>,
}

/// `GET /metadata/endpoints`: the endpoints of this cloud. Before 2022-09-01 the response is a list of
/// clouds; from then on it is this cloud alone, which is what the Azure CLI 2.91 expects.
pub async fn metadata(
    State(shared): State<Arc<EmulatorState>>,
    Query(version): Query<MetadataVersion>,
    headers: HeaderMap,
) -> Json<Value> {
    let origin = origin(&headers, shared.options.tls.is_some());
    let cloud = json!({
        "name": "AciEmulator",
        "resourceManager": origin,
        "portal": origin,
        "authentication": {
            "loginEndpoint": origin,
            "audiences": [origin],
            "tenant": "common",
            "identityProvider": "AAD",
        },
        "graphAudience": origin,
        "graph": origin,
        "suffixes": {
            "storage": "core.windows.net",
            "keyVaultDns": "vault.azure.net",
            "acrLoginServer": "azurecr.io",
        },
    });
    let is_old = version
        .version
        .is_some_and(|version| version.as_str() < "2022");
    Json(if is_old { json!([cloud]) } else { cloud })
}

/// `GET /{tenant}/v2.0/.well-known/openid-configuration`.
pub async fn configuration(
    State(shared): State<Arc<EmulatorState>>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
) -> Json<Value> {
    let base = format!(
        "{}/{tenant}",
        origin(&headers, shared.options.tls.is_some())
    );
    Json(json!({
        "token_endpoint": format!("{base}/oauth2/v2.0/token"),
        "authorization_endpoint": format!("{base}/oauth2/v2.0/authorize"),
        "device_authorization_endpoint": format!("{base}/oauth2/v2.0/devicecode"),
        "jwks_uri": format!("{base}/discovery/v2.0/keys"),
        "issuer": format!("{base}/v2.0"),
        "response_types_supported": ["code", "id_token", "token"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "tenant_region_scope": "EU",
    }))
}

/// `POST /{tenant}/oauth2/v2.0/token`.
pub async fn token(
    State(shared): State<Arc<EmulatorState>>,
    Path(tenant): Path<String>,
    body: Bytes,
) -> Response {
    let form: HashMap<String, String> = serde_urlencoded::from_bytes(&body).unwrap_or_default();
    let (kind, refusal) = check_token_request(&form);
    let status = refusal
        .as_ref()
        .map_or(StatusCode::OK, |(status, _)| *status);
    shared.counters.count(kind, status.as_str());
    if let Some((status, refusal)) = refusal {
        return (status, Json(refusal)).into_response();
    }
    let client = form.get("client_id").map_or("emulator", String::as_str);
    let lives = lifetime(&shared);
    Json(json!({
        "token_type": "Bearer",
        "expires_in": lives,
        "ext_expires_in": lives,
        "access_token": jwt(&tenant, client, audience(&form), lives),
    }))
    .into_response()
}

/// The kind of the token request, for the counters, and the error if it is invalid.
fn check_token_request(
    form: &HashMap<String, String>,
) -> (&'static str, Option<(StatusCode, Value)>) {
    let refused = |status, error: &str, why: &str| {
        Some((status, json!({"error": error, "error_description": why})))
    };
    let Some(grant) = form.get("grant_type") else {
        let why =
            "AADSTS900144: The request body must contain the following parameter: 'grant_type'.";
        return (
            "Token",
            refused(StatusCode::BAD_REQUEST, "invalid_request", why),
        );
    };
    let filled = |name: &str| form.get(name).filter(|value| !value.is_empty());
    if let Some(assertion) = filled("client_assertion") {
        let known = form
            .get("client_assertion_type")
            .is_some_and(|kind| kind == JWT_BEARER);
        let refusal = if known && is_valid(assertion) {
            None
        } else {
            let why = "AADSTS700024: Client assertion is not within its valid time range.";
            refused(StatusCode::UNAUTHORIZED, "invalid_client", why)
        };
        return ("Token_Assertion", refusal);
    }
    if grant == "client_credentials" && filled("client_secret").is_none() {
        let why = "AADSTS7000216: 'client_assertion', 'client_secret' or 'request' is required for the 'client_credentials' grant type.";
        return (
            "Token_Secret",
            refused(StatusCode::UNAUTHORIZED, "invalid_client", why),
        );
    }
    ("Token_Secret", None)
}

/// Whether an assertion is a JWT that has not expired. The signature is not checked.
fn is_valid(assertion: &str) -> bool {
    let claims = assertion.trim().split('.').nth(1);
    let claims = claims.and_then(|claims| URL_SAFE_NO_PAD.decode(claims).ok());
    let claims: Option<Value> = claims.and_then(|claims| serde_json::from_slice(&claims).ok());
    let expires = claims.and_then(|claims| claims["exp"].as_i64());
    expires.is_some_and(|expires| expires > jiff::Timestamp::now().as_second())
}

/// The query of a machine's token endpoint.
#[derive(Debug, Deserialize)]
pub struct MachineToken {
    resource: Option<String>,
    client_id: Option<String>,
}

/// `GET /metadata/identity/oauth2/token`: the instance metadata service of a virtual machine. It
/// requires the header `Metadata: true`.
pub async fn managed_identity(
    State(shared): State<Arc<EmulatorState>>,
    Query(query): Query<MachineToken>,
    headers: HeaderMap,
) -> Response {
    let allowed = headers.get("metadata").is_some_and(|value| value == "true");
    machine_token(&shared, "Token_ManagedIdentity", allowed, query)
}

/// `GET /msi/token`: the endpoint that App Service puts into `IDENTITY_ENDPOINT`. It requires a secret
/// in `X-IDENTITY-HEADER`; the emulator accepts any.
pub async fn app_service(
    State(shared): State<Arc<EmulatorState>>,
    Query(query): Query<MachineToken>,
    headers: HeaderMap,
) -> Response {
    let allowed = headers
        .get("x-identity-header")
        .is_some_and(|value| !value.is_empty());
    machine_token(&shared, "Token_AppService", allowed, query)
}

fn machine_token(
    shared: &EmulatorState,
    kind: &str,
    allowed: bool,
    query: MachineToken,
) -> Response {
    let resource = query.resource.filter(|resource| !resource.is_empty());
    let Some(resource) = resource.filter(|_| allowed) else {
        shared.counters.count(kind, "400");
        let error = json!({
            "error": "invalid_request",
            "error_description": "Required query variable 'resource' or the required header is missing",
        });
        return (StatusCode::BAD_REQUEST, Json(error)).into_response();
    };
    shared.counters.count(kind, "200");
    let client = query
        .client_id
        .unwrap_or_else(|| "managed-identity".to_owned());
    let lives = lifetime(shared);
    let expires = jiff::Timestamp::now().as_second() + lives;
    Json(json!({
        "token_type": "Bearer",
        "access_token": jwt(TENANT, &client, &resource, lives),
        "client_id": client,
        "resource": resource,
        "expires_in": lives.to_string(),
        "expires_on": expires.to_string(),
    }))
    .into_response()
}

/// How long a token is valid, in seconds.
fn lifetime(shared: &EmulatorState) -> i64 {
    i64::try_from(shared.options.token_lifetime.as_secs()).unwrap_or(i64::MAX)
}

/// A token's audience: the scope without `/.default`.
fn audience(form: &HashMap<String, String>) -> &str {
    let scope = form.get("scope").map_or(ARM, String::as_str);
    scope.strip_suffix("/.default").unwrap_or(scope)
}

/// An unsigned token.
fn jwt(tenant: &str, client: &str, audience: &str, lives: i64) -> String {
    let now = jiff::Timestamp::now().as_second();
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(json!({"typ": "JWT", "alg": "none"}));
    let claims = part(json!({
        "aud": audience,
        "iss": format!("https://sts.windows.net/{tenant}/"),
        "tid": tenant,
        "oid": "22222222-2222-2222-2222-222222222222",
        "sub": "22222222-2222-2222-2222-222222222222",
        "appid": client,
        "iat": now,
        "nbf": now,
        "exp": now + lives,
    }));
    format!("{header}.{claims}.")
}
