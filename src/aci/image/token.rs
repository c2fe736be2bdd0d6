//! Answers to challenges of registries.
//!
//! In: a challenge, and the access with which the image is read. Out: the `Authorization` header to repeat the request
//! with. Tokens come from the endpoint that the challenge names, or, for the operator's identity, from Azure Container
//! Registry's own endpoints on the registry's host
//! (<https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md>): a token of Microsoft Entra ID is exchanged for a
//! refresh token, and that for an access token to the repository. No token is logged, and none outlives the read.

use http::HeaderValue;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use reqwest::RequestBuilder;
use serde::Deserialize;
use url::Url;

use super::access::{ImageAccess, RegistryLogin, sensitive};
use super::challenge::RegistryChallenge;
use super::error::{ImageReadError, shortened};
use super::guard::authority;
use super::session::RegistrySession;

/// The longest answer with a token, in bytes.
const MAX_TOKEN_BYTES: usize = 64 << 10;

/// An answer with a token. Endpoints use one of the first two names; Azure's exchange uses the last.
#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    refresh_token: Option<String>,
}

impl TokenAnswer {
    fn bearer(self) -> Option<String> {
        let tokens = [self.token, self.access_token];
        tokens.into_iter().flatten().find(|token| !token.is_empty())
    }
}

impl RegistrySession<'_> {
    /// The header that answers the challenge of the host in `url`; `None` if there is no credential for it.
    pub(super) async fn authorization_header(
        &self,
        url: &Url,
        challenge: Option<RegistryChallenge>,
    ) -> Result<Option<HeaderValue>, ImageReadError> {
        let access = if self.is_own(url) {
            self.access
        } else {
            &ImageAccess::Anonymous
        };
        match (access, challenge) {
            (_, None) | (ImageAccess::Anonymous, Some(RegistryChallenge::Basic)) => Ok(None),
            (ImageAccess::OperatorIdentity, Some(_)) => self.acr_bearer_header().await,
            (ImageAccess::Login(login), Some(RegistryChallenge::Basic)) => Ok(login.basic()),
            (
                ImageAccess::Login(login),
                Some(RegistryChallenge::Bearer {
                    realm,
                    service,
                    scope,
                }),
            ) => self
                .request_bearer_header(Some(login), &realm, service, scope)
                .await
                .map(Some),
            (
                ImageAccess::Anonymous,
                Some(RegistryChallenge::Bearer {
                    realm,
                    service,
                    scope,
                }),
            ) => self
                .request_bearer_header(None, &realm, service, scope)
                .await
                .map(Some),
        }
    }

    /// Asks the endpoint `realm` for a token.
    async fn request_bearer_header(
        &self,
        login: Option<&RegistryLogin>,
        realm: &str,
        service: Option<String>,
        scope: Option<String>,
    ) -> Result<HeaderValue, ImageReadError> {
        let invalid = |_| self.corrupt("a challenge whose realm is not a URL".to_owned());
        let mut url: Url = realm.parse().map_err(invalid)?;
        let client = self.client(&url)?;
        let scope = scope.unwrap_or_else(|| self.pull_scope());
        let service = service.map(|service| ("service", service));
        let pairs = service.into_iter().chain([("scope", scope)]);
        url.query_pairs_mut().extend_pairs(pairs);
        let mut request = client.get(url.clone());
        if let Some(header) = login.and_then(RegistryLogin::basic) {
            request = request.header(AUTHORIZATION, header);
        }
        let missing = "the token endpoint that the challenge names answers with status 404";
        let answer = self.send_token_request(&url, request, missing).await?;
        self.bearer_header(answer.bearer())
    }

    /// Gets a token for Azure Container Registry with the operator's identity; `None` if the registry is another one.
    async fn acr_bearer_header(&self) -> Result<Option<HeaderValue>, ImageReadError> {
        let host = authority(&self.base);
        if !self.connector.guard.is_azure(&host) {
            return Ok(None);
        }
        let identity = |why: String| ImageReadError::Identity {
            registry: self.registry(),
            why: shortened(&why),
        };
        let token = (self.connector.tokens)().await.map_err(identity)?;
        let form = [
            ("grant_type", "access_token"),
            ("service", &host),
            ("access_token", token.expose()),
        ];
        let exchanged = self.post_form("oauth2/exchange", &form).await?;
        let refresh = exchanged.refresh_token.unwrap_or_default();
        let form = [
            ("grant_type", "refresh_token"),
            ("service", &host),
            ("scope", &self.pull_scope()),
            ("refresh_token", &refresh),
        ];
        let answer = self.post_form("oauth2/token", &form).await?;
        self.bearer_header(answer.bearer()).map(Some)
    }

    /// Posts a form to the registry's own host.
    async fn post_form(
        &self,
        path: &str,
        form: &[(&str, &str)],
    ) -> Result<TokenAnswer, ImageReadError> {
        let mut url = self.base.clone();
        url.set_path(path);
        let body = serde_urlencoded::to_string(form);
        let body = body.map_err(|error| self.corrupt(error.to_string()))?;
        let request = self.client(&url)?.post(url.clone()).body(body);
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let missing = format!("status 404 for /{path}, which every Azure Container Registry has");
        self.send_token_request(&url, request, &missing).await
    }

    /// Sends a request for a token. Redirects are not followed: it may carry a credential. `missing` is the error for
    /// status 404.
    async fn send_token_request(
        &self,
        url: &Url,
        request: RequestBuilder,
        missing: &str,
    ) -> Result<TokenAnswer, ImageReadError> {
        let response = request.header(ACCEPT, "application/json").send().await;
        let response = response.map_err(|error| self.unreachable(url, error))?;
        let response = match self.error_for_status(response).await {
            // The endpoint is missing, not the image.
            Err(ImageReadError::NotFound { .. }) => return Err(self.corrupt(missing.to_owned())),
            checked => checked?,
        };
        let body = self.read_body(response, MAX_TOKEN_BYTES, "a token").await?;
        // The parser's message is left out, because it may quote the token.
        serde_json::from_slice(&body).map_err(|_| {
            self.corrupt("an answer of the token endpoint that is not JSON".to_owned())
        })
    }

    fn bearer_header(&self, token: Option<String>) -> Result<HeaderValue, ImageReadError> {
        let header = token.and_then(|token| sensitive(&format!("Bearer {token}")));
        header.ok_or_else(|| self.corrupt("an answer without a valid token".to_owned()))
    }

    fn pull_scope(&self) -> String {
        format!("repository:{}:pull", self.reference.repository())
    }
}
