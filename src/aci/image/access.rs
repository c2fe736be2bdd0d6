//! The credentials for reading a pod's images: those of the pod, or the operator's identity.
//!
//! In: the credential for the image in the container group's body. Out: an [`ImageAccess`], and a
//! fingerprint of it for the keys of caches, so that the credential of one pod never opens an image for another
//! pod.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::BoxFuture;
use http::HeaderValue;
use sha2::{Digest as _, Sha256};

use crate::aci::translate::secret_string::SecretString;

/// The scope of tokens of Microsoft Entra ID for Azure Container Registry. A registry can refuse tokens for Azure
/// Resource Manager (`az acr config authentication-as-arm`), so that those are not used.
pub const AZURE_REGISTRY_SCOPE: &str = "https://containerregistry.azure.net/.default";

/// Returns a token of the operator's identity for [`AZURE_REGISTRY_SCOPE`], or why there is none.
pub type RegistryTokenSource =
    Arc<dyn Fn() -> BoxFuture<'static, Result<SecretString, String>> + Send + Sync>;

/// How the operator authenticates to the registry of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageAccess {
    /// Without a credential.
    Anonymous,
    /// With a username and a password from one of the pod's pull secrets.
    Login(RegistryLogin),
    /// With the operator's identity, in Azure Container Registry only. For pods whose group pulls with a managed
    /// identity: the operator cannot use that identity itself. Pods in the namespaces that may use identities can so
    /// learn the platform, the user and whether a tag exists of every image that the operator's role lets it read.
    OperatorIdentity,
}

/// A username and a password. `Debug` hides the password.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryLogin {
    /// The username.
    pub username: String,
    /// The password.
    pub password: SecretString,
}

impl fmt::Debug for RegistryLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryLogin")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl RegistryLogin {
    /// The value of the header `Authorization`, marked as sensitive.
    pub(super) fn basic(&self) -> Option<HeaderValue> {
        let pair = format!("{}:{}", self.username, self.password.expose());
        sensitive(&format!("Basic {}", STANDARD.encode(pair)))
    }
}

/// A header value that `Debug` does not print.
pub(super) fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Stands for an [`ImageAccess`] in the key of a cache. `Debug` hides it, because weak passwords can be guessed from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct AccessFingerprint([u8; 32]);

impl fmt::Debug for AccessFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessFingerprint")
    }
}

impl ImageAccess {
    pub(super) fn fingerprint(&self) -> AccessFingerprint {
        let mut hash = Sha256::new();
        match self {
            Self::Anonymous => hash.update([0]),
            Self::OperatorIdentity => hash.update([1]),
            Self::Login(login) => {
                hash.update([2]);
                // The length keeps the pair `ab`, `c` apart from `a`, `bc`.
                hash.update(login.username.len().to_le_bytes());
                hash.update(&login.username);
                hash.update(login.password.expose());
            }
        }
        AccessFingerprint(hash.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn login(username: &str, password: &str) -> RegistryLogin {
        RegistryLogin {
            username: username.to_owned(),
            password: SecretString::new(password),
        }
    }

    #[test]
    fn each_access_has_a_fingerprint_of_its_own() {
        let all = [
            ImageAccess::Anonymous,
            ImageAccess::OperatorIdentity,
            ImageAccess::Login(login("", "")),
            ImageAccess::Login(login("ab", "c")),
            ImageAccess::Login(login("a", "bc")),
        ];
        let fingerprints: BTreeSet<_> = all.iter().map(ImageAccess::fingerprint).collect();
        assert_eq!(fingerprints.len(), all.len());
        let same = ImageAccess::Login(login("ab", "c"));
        assert_eq!(same.fingerprint(), all[3].fingerprint());
    }

    #[test]
    fn a_password_is_never_printed() {
        let access = ImageAccess::Login(login("robot", "hunter2"));
        let header = login("robot", "hunter2").basic().expect("a header");
        assert_eq!(header, "Basic cm9ib3Q6aHVudGVyMg==");
        let printed = format!("{access:?} {header:?}");
        assert_eq!(format!("{:?}", access.fingerprint()), "AccessFingerprint");
        assert!(
            printed.contains("robot") && !printed.contains("hunter2") && !printed.contains("cm9i"),
            "{printed}"
        );
    }
}
