//! The ARM API: handles every request that is not for the emulator itself.
//!
//! In: an HTTP request. Out: the service's response with its headers. Every request takes the same
//! steps: `route` → `faults` → credential → `rights` → `version` → `throttle` → the operation
//! (`groups`, `creation`, `lifecycle`, `containers`, `metrics`, `locations`, `network`, `account`) →
//! headers. An operation locks the store, decides and unlocks it; it never waits while it holds the
//! lock.

pub mod account;
pub mod containers;
pub mod creation;
pub mod entra;
pub mod error;
pub mod groups;
pub mod lifecycle;
pub mod locations;
pub mod metrics;
pub mod network;
pub mod response;
pub mod rights;
pub mod route;
pub mod throttle;
pub mod version;

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use jiff::Timestamp;

use self::error::ArmFailure;
use self::response::ArmResponse;
use self::route::{ArmRoute, NoRoute};
use self::throttle::ThrottleKind;
use self::version::ApiVersion;
use super::faults::FaultOutcome;
use super::server::DropConnection;
use super::state::EmulatorState;

/// The largest request body that ARM accepts: 4 MiB.
const MAX_BODY_BYTES: usize = 4 << 20;

/// A request as the operations see it.
pub struct ArmCall {
    /// The requested API version. The newest one for resources of other providers.
    pub version: ApiVersion,
    /// All other query parameters, by lower-case name.
    pub query: HashMap<String, String>,
    /// The body.
    pub body: Bytes,
    /// Scheme and host under which the client reached the emulator, for URLs in responses.
    pub origin: String,
}

/// Handles a request to ARM.
pub async fn handle(State(shared): State<Arc<EmulatorState>>, request: Request<Body>) -> Response {
    let half = shared.options.rtt / 2;
    tokio::time::sleep(half).await;
    let routed = ArmRoute::parse(request.method(), request.uri().path());
    let operation = routed.as_ref().map_or("unknown", ArmRoute::name);
    let mut response = match routed {
        Ok(route) => handle_with_faults(&shared, route, request).await,
        Err(why) => Err(route_error(why, &request)),
    }
    .unwrap_or_else(IntoResponse::into_response);
    let dropped = response.extensions().get::<DropConnection>().is_some();
    let status = if dropped {
        "dropped".to_owned()
    } else {
        response.status().as_str().to_owned()
    };
    shared.counters.count(operation, &status);
    response::add_common_headers(response.headers_mut());
    tokio::time::sleep(half).await;
    response
}

/// Applies the injected faults to the request, then handles it.
async fn handle_with_faults(
    shared: &Arc<EmulatorState>,
    route: ArmRoute,
    request: Request<Body>,
) -> Result<Response, ArmFailure> {
    let FaultOutcome {
        delay,
        error,
        dropped,
        answer_lost,
        lag,
    } = shared
        .store()
        .faults
        .outcome_for(route.name(), route.resource_group(), route.group());
    tokio::time::sleep(delay).await;
    if dropped {
        return Ok(DropConnection::response());
    }
    if let Some(error) = error {
        return Err(error);
    }
    let lagging = match &route {
        ArmRoute::Group { id, .. } if !lag.is_zero() => Some(id.key()),
        _ => None,
    };
    if let Some(key) = &lagging {
        // Set before the PUT takes effect, so that no other request sees the group in between.
        let until = shared.clock.now().saturating_add(lag);
        let until = until.unwrap_or(Timestamp::MAX);
        shared.store().lagging.insert(key.clone(), until);
    }
    let outcome = handle_checked(shared, route, request).await;
    if let (Some(key), Err(_)) = (&lagging, &outcome) {
        shared.store().lagging.remove(key);
    }
    if answer_lost {
        Ok(DropConnection::response())
    } else {
        outcome
    }
}

async fn handle_checked(
    shared: &Arc<EmulatorState>,
    route: ArmRoute,
    request: Request<Body>,
) -> Result<Response, ArmFailure> {
    let (parts, body) = request.into_parts();
    authenticate(&parts.headers)?;
    rights::require(&shared.store(), &route, parts.uri.path())?;
    let mut query = query(parts.uri.query().unwrap_or_default());
    let version = query.remove("api-version");
    let version = if route.has_service_versions() {
        ApiVersion::parse(version.as_deref(), "containerGroups")?
    } else {
        any_version(version.as_deref())?
    };
    let budget = consume_budget(shared, &route, &parts.method)?;
    let body = axum::body::to_bytes(body, MAX_BODY_BYTES)
        .await
        .map_err(|_| {
            let message = "The request content size exceeds the maximum size of 4 MB.";
            ArmFailure::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "RequestContentTooLarge",
                message,
            )
        })?;
    let origin = origin(&parts.headers, shared.options.tls.is_some());
    let call = ArmCall {
        version,
        query,
        body,
        origin,
    };
    let answer = dispatch(shared, route, call).await?;
    Ok(answer.with_headers(budget).into_response())
}

async fn dispatch(
    shared: &Arc<EmulatorState>,
    route: ArmRoute,
    call: ArmCall,
) -> Result<ArmResponse, ArmFailure> {
    match route {
        ArmRoute::GroupsList { subscription } => groups::list(shared, &call, &subscription, None),
        ArmRoute::GroupsListByResourceGroup {
            subscription,
            resource_group,
        } => groups::list(shared, &call, &subscription, Some(&resource_group)),
        ArmRoute::Group { id, verb } => groups::group(shared, &call, id, verb).await,
        ArmRoute::Container {
            id,
            container,
            verb,
        } => containers::container(shared, &call, &id, &container, verb).await,
        ArmRoute::Metrics { id } => metrics::list(shared, &call, &id),
        ArmRoute::Location {
            subscription,
            region,
            list,
        } => Ok(locations::list(shared, &subscription, &region, list)),
        ArmRoute::Operation {
            operation, result, ..
        } => groups::operation(shared, &call, &operation, result),
        ArmRoute::OperationsList => Ok(locations::operations()),
        ArmRoute::ServiceAssociationLinkDelete { .. } => {
            Ok(ArmResponse::empty(StatusCode::NO_CONTENT))
        }
        ArmRoute::Network { id, kind, verb, .. } => {
            network::network(shared, &call, &id, kind, verb)
        }
        ArmRoute::ResourceGroup {
            subscription,
            name,
            verb,
        } => account::resource_group(shared, &call, &subscription, &name, verb),
        ArmRoute::ResourceGroupsList { subscription } => {
            Ok(account::resource_groups(shared, &subscription))
        }
        ArmRoute::SubscriptionsList => Ok(account::subscriptions()),
        ArmRoute::Subscription { subscription } => {
            Ok(ArmResponse::ok(account::subscription(&subscription)))
        }
        ArmRoute::Provider { subscription } => Ok(account::provider(&subscription)),
    }
}

fn consume_budget(
    shared: &EmulatorState,
    route: &ArmRoute,
    method: &Method,
) -> Result<throttle::ThrottleHeaders, ArmFailure> {
    let (now, speed) = (shared.clock.now(), shared.clock.speed());
    let mut store = shared.store();
    let limits = store.limits;
    let subscription = route.subscription().unwrap_or_default();
    store
        .throttle
        .arm(&limits, subscription, ThrottleKind::of(method), now, speed)
}

fn authenticate(headers: &HeaderMap) -> Result<(), ArmFailure> {
    let authorization = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let token = authorization.and_then(|value| value.split_once(' '));
    match token {
        Some((scheme, token))
            if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() =>
        {
            Ok(())
        }
        _ => {
            let why = if authorization.is_none() {
                "header is missing"
            } else {
                "scheme is not supported"
            };
            let message = format!("Authentication failed. The 'Authorization' {why}.");
            let error = ArmFailure::new(StatusCode::UNAUTHORIZED, "AuthenticationFailed", message);
            Err(error
                .with_header("www-authenticate", "Bearer")
                .from_gateway())
        }
    }
}

/// Resources of other providers have their own API versions; the emulator accepts any date.
fn any_version(text: Option<&str>) -> Result<ApiVersion, ArmFailure> {
    let looks_right = |text: &str| {
        let date = text.get(..10).unwrap_or_default();
        date.len() == 10
            && date.bytes().enumerate().all(|(n, b)| match n {
                4 | 7 => b == b'-',
                _ => b.is_ascii_digit(),
            })
    };
    match text.filter(|text| !text.is_empty()) {
        Some(text) if looks_right(text) => Ok(ApiVersion::newest()),
        Some(text) => {
            let message = format!(
                "The api-version '{text}' is invalid. It must be a date such as 2024-11-01."
            );
            Err(ArmFailure::bad_request(
                "InvalidApiVersionParameter",
                message,
            ))
        }
        None => ApiVersion::parse(None, ""),
    }
}

fn route_error(why: NoRoute, request: &Request<Body>) -> ArmFailure {
    let (method, path) = (request.method(), request.uri().path());
    match why {
        NoRoute::UnknownMethod => ArmFailure::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            format!("The requested resource does not support http method '{method}'."),
        ),
        NoRoute::UnknownPath => ArmFailure::new(
            StatusCode::NOT_FOUND,
            "InvalidResourceType",
            format!("The resource type could not be found for the path '{path}'."),
        )
        .from_gateway(),
    }
}

fn query(text: &str) -> HashMap<String, String> {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(text).unwrap_or_default();
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_lowercase(), value))
        .collect()
}

fn origin(headers: &HeaderMap, tls: bool) -> String {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or("localhost");
    format!("{}://{host}", if tls { "https" } else { "http" })
}
