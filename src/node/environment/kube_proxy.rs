//! The kubeconfig of ACI's kube-proxy: the API server's address, and a token of the service account that is
//! reserved for it.
//!
//! In: the account's name and the API server's address. Out: one kubeconfig per container group, or what is
//! missing.

use std::fmt;
use std::str::FromStr;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client};
use thiserror::Error;

use super::missing::MissingObject;
use super::reader::{ReadFailure, is_object_name, request_token};
use crate::aci::translate::kube_proxy::ApiServer;
use crate::aci::translate::secret_string::SecretString;

/// The name of the service account in the operator's namespace, unless a flag names another.
pub const SERVICE_ACCOUNT: &str = "burstpool-kube-proxy";
/// The lifetime to request for a token, in seconds: a year. A running group cannot get a new token, so it must last
/// as long as the group. The API server may shorten it to its own limit.
const TOKEN_LIFETIME_SECONDS: i64 = 365 * 24 * 3600;
/// How to create the account and the operator's permission to request its tokens.
const REMEDY: &str = "to create the service account, its permissions, and burstpool's permission to request its tokens: kubectl apply -k config/kube-proxy";

/// A service account by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A text that is not of the form NAMESPACE/NAME.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0} is not a service account: write NAMESPACE/NAME")]
pub struct AccountNameError(String);

impl FromStr for AccountName {
    type Err = AccountNameError;

    fn from_str(text: &str) -> Result<Self, AccountNameError> {
        match text.split_once('/') {
            Some((namespace, name)) if is_object_name(namespace) && is_object_name(name) => {
                Ok(Self {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                })
            }
            _ => Err(AccountNameError(text.to_owned())),
        }
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// How kube-proxies on ACI reach the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeProxy {
    /// The service account whose tokens they get.
    pub account: AccountName,
    /// The API server's address, as seen from ACI.
    pub api_server: ApiServer,
}

impl KubeProxy {
    /// The kubeconfig for one container group. Its token is not bound to the pod: Kubernetes binds tokens only to
    /// pods of the same service account.
    pub(super) async fn kube_config(&self, client: &Client) -> Result<SecretString, MissingObject> {
        let AccountName { namespace, name } = &self.account;
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
        let wanted = TokenRequest {
            spec: Some(TokenRequestSpec {
                expiration_seconds: Some(TOKEN_LIFETIME_SECONDS),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        match request_token(&accounts, name, &wanted).await {
            Ok(token) => Ok(self.api_server.kube_config(&token)),
            Err(failure) => Err(self.missing_account(&failure)),
        }
    }

    fn missing_account(&self, failure: &ReadFailure) -> MissingObject {
        let account = format!("the ServiceAccount {} of network.kubeProxy", self.account);
        match failure {
            ReadFailure::Absent => MissingObject {
                remedy: Some(REMEDY.to_owned()),
                ..MissingObject::not_read(account, failure, REMEDY)
            },
            _ => {
                MissingObject::token_not_requested(format!("a token of {account}"), failure, REMEDY)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::missing::MissingReason;
    use super::*;

    #[test]
    fn an_account_is_a_namespace_and_a_name() {
        let account: AccountName = "burstpool/kube-proxy".parse().expect("an account");
        assert_eq!(account.to_string(), "burstpool/kube-proxy");
        for wrong in ["", "a", "a/", "/a", "a/b/c", "A/b", "a/../b"] {
            assert_eq!(
                wrong.parse::<AccountName>(),
                Err(AccountNameError(wrong.to_owned()))
            );
        }
    }

    #[test]
    fn a_missing_account_comes_with_the_command_that_creates_it() {
        let proxy = KubeProxy {
            account: "burstpool/proxy".parse().expect("an account"),
            api_server: ApiServer {
                url: "https://api.example".to_owned(),
                certificate_authority: Vec::new(),
            },
        };
        let message = |failure: &ReadFailure| proxy.missing_account(failure).to_string();
        let account = "the ServiceAccount burstpool/proxy of network.kubeProxy";
        let remedy = "kubectl apply -k config/kube-proxy";
        let absent = message(&ReadFailure::Absent);
        assert!(
            absent.starts_with(&format!("{account} does not exist; ")),
            "{absent}"
        );
        assert!(absent.ends_with(remedy), "{absent}");
        let forbidden = message(&ReadFailure::Forbidden);
        assert!(
            forbidden.starts_with(&format!("a token of {account} may not be requested; ")),
            "{forbidden}"
        );
        assert!(forbidden.ends_with(remedy), "{forbidden}");
        let unreadable = proxy.missing_account(&ReadFailure::Unreadable("slow".into()));
        assert_eq!(unreadable.reason, MissingReason::Unreadable);
        assert_eq!(
            unreadable.to_string(),
            format!("a token of {account} could not be requested: slow")
        );
    }
}
