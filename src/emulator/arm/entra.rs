//! The directory's endpoints that clients log in with, and the cloud's metadata.
//!
//! Any credential is accepted. Tokens are unsigned and say nothing true but when they expire.

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
use crate::emulator::shared::Shared;

/// The tenant that everything belongs to.
pub const TENANT: &str = "11111111-1111-1111-1111-111111111111";
/// How long a token is good for, in seconds.
const TOKEN_LIVES: i64 = 3600;

/// The query of [`metadata`].
#[derive(Debug, Deserialize)]
pub struct MetadataVersion {
    #[serde(rename = "api-version")]
    version: Option<String>,
}

/// `GET /metadata/endpoints`: what a client is told about this cloud. Older versions answer a list of
/// clouds, 2022-09-01 this cloud alone (the Azure CLI 2.91 reads it so).
pub async fn metadata(
    State(shared): State<Arc<Shared>>,
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
    State(shared): State<Arc<Shared>>,
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
pub async fn token(Path(tenant): Path<String>, body: Bytes) -> Response {
    let form: HashMap<String, String> = serde_urlencoded::from_bytes(&body).unwrap_or_default();
    if !form.contains_key("grant_type") {
        let error = json!({
            "error": "invalid_request",
            "error_description": "AADSTS900144: The request body must contain the following parameter: 'grant_type'.",
        });
        return (StatusCode::BAD_REQUEST, Json(error)).into_response();
    }
    let client = form.get("client_id").map_or("emulator", String::as_str);
    let token = jwt(&tenant, client);
    Json(json!({
        "token_type": "Bearer",
        "expires_in": TOKEN_LIVES,
        "ext_expires_in": TOKEN_LIVES,
        "access_token": token,
    }))
    .into_response()
}

/// `GET /metadata/identity/oauth2/token`: the instance metadata service of a virtual machine.
pub async fn managed_identity() -> Json<Value> {
    let expires = jiff::Timestamp::now().as_second() + TOKEN_LIVES;
    Json(json!({
        "token_type": "Bearer",
        "access_token": jwt(TENANT, "managed-identity"),
        "expires_in": TOKEN_LIVES.to_string(),
        "expires_on": expires.to_string(),
    }))
}

/// An unsigned token.
fn jwt(tenant: &str, client: &str) -> String {
    let now = jiff::Timestamp::now().as_second();
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(json!({"typ": "JWT", "alg": "none"}));
    let claims = part(json!({
        "aud": "https://management.azure.com/",
        "iss": format!("https://sts.windows.net/{tenant}/"),
        "tid": tenant,
        "oid": "22222222-2222-2222-2222-222222222222",
        "sub": "22222222-2222-2222-2222-222222222222",
        "appid": client,
        "iat": now,
        "nbf": now,
        "exp": now + TOKEN_LIVES,
    }));
    format!("{header}.{claims}.")
}
