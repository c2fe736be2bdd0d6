//! The resolved references of a pod: the content of the objects that it refers to.
//!
//! In: `node::environment` fills [`ResolvedReferences`] with the objects that it has read. Out: values for the
//! translation. Optional objects that do not exist are absent. Before a grant nothing has been read, and
//! `ValueSource::Placeholders` returns placeholders of the same form.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{self as core, ConfigMap, Secret};

use super::body::AzureFile;
use super::claims::ClaimBacking;
use super::references::TokenNeed;
use super::secret_string::SecretString;
use crate::aci::image::ImageConfig;

/// The content of a Secret or a `ConfigMap`. `Debug` prints only the keys.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ObjectContent {
    /// `data`.
    pub data: BTreeMap<String, Vec<u8>>,
    /// `binaryData` of a `ConfigMap`. It is used for files and not for variables.
    pub binary_data: BTreeMap<String, Vec<u8>>,
}

impl fmt::Debug for ObjectContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.data.keys().chain(self.binary_data.keys());
        f.debug_set().entries(keys).finish()
    }
}

impl ObjectContent {
    /// The content of the file for `key`.
    pub fn file(&self, key: &str) -> Option<&[u8]> {
        let file = self.data.get(key).or_else(|| self.binary_data.get(key));
        file.map(Vec::as_slice)
    }

    /// All keys with their contents.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let entries = self.binary_data.iter().chain(&self.data);
        entries.map(|(key, value)| (key.as_str(), value.as_slice()))
    }
}

impl From<Secret> for ObjectContent {
    fn from(secret: Secret) -> Self {
        let data = secret.data.unwrap_or_default().into_iter();
        Self {
            data: data.map(|(key, value)| (key, value.0)).collect(),
            binary_data: BTreeMap::new(),
        }
    }
}

impl From<ConfigMap> for ObjectContent {
    fn from(map: ConfigMap) -> Self {
        let data = map.data.unwrap_or_default().into_iter();
        let binary = map.binary_data.unwrap_or_default().into_iter();
        Self {
            data: data.map(|(key, value)| (key, value.into_bytes())).collect(),
            binary_data: binary.map(|(key, value)| (key, value.0)).collect(),
        }
    }
}

/// A Service with a cluster IP, for the variables that describe it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAddress {
    /// The Service's name.
    pub name: String,
    /// The Service's cluster IP.
    pub address: String,
    /// The Service's ports: name, protocol and number.
    pub ports: Vec<(Option<String>, String, i32)>,
}

impl ServiceAddress {
    /// Extracts the fields that variables need; `None` if the Service has no cluster IP.
    pub fn from_service(service: &core::Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        let address = spec.cluster_ip.as_deref();
        let address = address.filter(|ip| !ip.is_empty() && *ip != "None")?;
        let ports = spec.ports.iter().flatten().map(|port| {
            let name = port.name.clone().filter(|name| !name.is_empty());
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            (name, protocol, port.port)
        });
        Some(Self {
            name: service.metadata.name.clone()?,
            address: address.to_owned(),
            ports: ports.collect(),
        })
    }
}

/// The content of all objects that a pod refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvedReferences {
    /// Secrets by name.
    pub secrets: BTreeMap<String, ObjectContent>,
    /// `ConfigMap`s by name.
    pub config_maps: BTreeMap<String, ObjectContent>,
    /// The volumes behind persistent volume claims, by the claims' names.
    pub claims: BTreeMap<String, ClaimBacking>,
    /// Tokens of the pod's service account.
    pub tokens: BTreeMap<TokenNeed, SecretString>,
    /// The kubeconfig for ACI's kube-proxy, in base64, if the placement requests kube-proxy.
    pub kube_config: Option<SecretString>,
    /// The Services for which the pod gets variables: those of its namespace if it wants them, and `kubernetes` of
    /// the namespace `default`.
    pub services: Vec<ServiceAddress>,
    /// The images whose configurations the pod needs, by the containers' field `image`.
    pub images: BTreeMap<String, ResolvedImage>,
}

/// An image whose configuration was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedImage {
    /// The image's name with the digest that was read.
    pub pinned: String,
    /// The configuration.
    pub config: Arc<ImageConfig>,
}

/// What is known of the configuration of a container's image.
#[derive(Clone, Copy, Debug)]
pub(super) enum KnownImage<'a> {
    /// Nothing: the container does not depend on it, or the placement reads no images.
    Nothing,
    /// Nothing yet: it is read before the group is created.
    ReadLater,
    /// It was read.
    Read(&'a ResolvedImage),
}

/// The kind of object that holds a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReferenceKind {
    Secret,
    ConfigMap,
}

/// The source of values.
#[derive(Clone, Copy, Debug)]
pub(super) enum ValueSource<'a> {
    /// The objects have been read.
    Resolved(&'a ResolvedReferences),
    /// The objects have not been read; placeholders are used.
    Placeholders,
}

/// The placeholder for a value.
const PLACEHOLDER: &[u8] = b"placeholder";

/// The result of a lookup: `None` if the value is optional and missing. The error says what is missing.
pub(super) type Lookup<T> = Result<Option<T>, String>;

impl<'a> ValueSource<'a> {
    /// The content of a whole object.
    pub(super) fn object(
        self,
        kind: ReferenceKind,
        name: &str,
        optional: Option<bool>,
    ) -> Lookup<Cow<'a, ObjectContent>> {
        let Self::Resolved(resolved) = self else {
            return Ok(Some(Cow::Owned(ObjectContent::default())));
        };
        let (objects, kind) = match kind {
            ReferenceKind::Secret => (&resolved.secrets, "Secret"),
            ReferenceKind::ConfigMap => (&resolved.config_maps, "ConfigMap"),
        };
        match objects.get(name) {
            Some(content) => Ok(Some(Cow::Borrowed(content))),
            None if optional.unwrap_or(false) => Ok(None),
            None => Err(format!("the {kind} '{name}' has not been read")),
        }
    }

    /// The value of one key for a variable. A `ConfigMap`'s binary data is not used.
    pub(super) fn variable_value(
        self,
        kind: ReferenceKind,
        name: &str,
        key: &str,
        optional: Option<bool>,
    ) -> Lookup<Vec<u8>> {
        let content = self.object(kind, name, optional)?;
        let content = content.map(|content| ObjectContent {
            data: content.data.clone(),
            ..ObjectContent::default()
        });
        self.key_value(content.as_ref(), name, key, optional)
    }

    /// The value of one key for a file.
    pub(super) fn file_value(
        self,
        kind: ReferenceKind,
        name: &str,
        key: &str,
        optional: Option<bool>,
    ) -> Lookup<Vec<u8>> {
        let content = self.object(kind, name, optional)?;
        self.key_value(content.as_deref(), name, key, optional)
    }

    fn key_value(
        self,
        content: Option<&ObjectContent>,
        name: &str,
        key: &str,
        optional: Option<bool>,
    ) -> Lookup<Vec<u8>> {
        let Some(content) = content else {
            return Ok(None);
        };
        match (self, content.file(key)) {
            (Self::Placeholders, _) => Ok(Some(PLACEHOLDER.to_vec())),
            (_, Some(value)) => Ok(Some(value.to_vec())),
            (_, None) if optional.unwrap_or(false) => Ok(None),
            (_, None) => Err(format!("'{name}' has no key '{key}'")),
        }
    }

    /// The token of the pod's service account that `need` describes.
    pub(super) fn token(self, need: &TokenNeed) -> Result<Vec<u8>, String> {
        let Self::Resolved(resolved) = self else {
            return Ok(PLACEHOLDER.to_vec());
        };
        let token = resolved.tokens.get(need);
        let token = token.map(|token| token.expose().as_bytes().to_vec());
        token.ok_or_else(|| "the token has not been requested".to_owned())
    }

    /// The volume behind a claim.
    pub(super) fn claim(self, name: &str) -> Result<ClaimBacking, String> {
        let Self::Resolved(resolved) = self else {
            return Ok(ClaimBacking::Share(AzureFile::default()));
        };
        let claim = resolved.claims.get(name).cloned();
        claim.ok_or_else(|| format!("the PersistentVolumeClaim '{name}' has not been read"))
    }

    /// The kubeconfig for ACI's kube-proxy.
    pub(super) fn kube_config(self) -> Result<SecretString, String> {
        let Self::Resolved(resolved) = self else {
            return Ok(SecretString::default());
        };
        let kube_config = resolved.kube_config.clone();
        kube_config.ok_or_else(|| "no token for kube-proxy has been requested".to_owned())
    }

    /// What is known of an image whose configuration a container needs.
    pub(super) fn image(self, image: &str) -> KnownImage<'a> {
        match self {
            Self::Resolved(resolved) => resolved
                .images
                .get(image)
                .map_or(KnownImage::Nothing, KnownImage::Read),
            Self::Placeholders => KnownImage::ReadLater,
        }
    }

    /// The Services for which the pod gets variables.
    pub(super) fn services(self) -> &'a [ServiceAddress] {
        match self {
            Self::Resolved(resolved) => &resolved.services,
            Self::Placeholders => &[],
        }
    }
}
