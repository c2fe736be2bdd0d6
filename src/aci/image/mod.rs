//! Reads the configurations of images from their registries.
//!
//! In: the image of a container, and the credential with which its container group pulls it. Out: the command and the
//! user of the image, with a digest that names the same content forever; or why the image could not be read, in the
//! words of the kubelet. In Kubernetes, the container runtime combines a pod's fields with the image's configuration.
//! ACI accepts only a whole command, so burstpool must combine them itself.
//!
//! ```text
//! container ─▶ RequiredImageField ─▶ (pull secrets ─▶ ImageAccess) ─▶ ImageReader ◀─ HTTP ─▶ registry
//!                                                                │
//!                      container_command, verify_run_as_non_root, ... ◀─ ImageRead ─▶ pinned name, imageID
//! ```
//!
//! - Pure: `reference`, `digest`, `challenge`, `json`, `manifest` and `config` (decode what registries send), `guard` (hosts
//!   that may be requested), `process` (combines the pod's fields with the image's configuration), `access` (credentials
//!   and their fingerprints), `error` and `backoff` (failures, waits and their messages).
//! - I/O: `session` (one read's requests) with `answer` (bodies and errors) and `token` (answers to challenges), and
//!   `reader` (caches, one read for many callers).
//!
//! # Which credential reads which image
//!
//! A pod's image is read with the credential with which ACI will pull it, or with the operator's identity where ACI will
//! use a managed identity. Every read begins with a request that this access must pass; what was read with another
//! access is used only after that. The credential is sent to the image's registry and to the endpoint that this registry
//! names over TLS, never to hosts that redirects lead to. The operator's own token is sent to hosts of Azure Container
//! Registry only.
//!
//! # Why this project has a client of its own
//!
//! The crate `oci-client` speaks the same protocol. Its versions from 0.16 use `reqwest` 0.13, which would be a second
//! HTTP client in the binary (30 packages, and a TLS provider that the process must install first); the last version for
//! `reqwest` 0.12 writes tokens to the log. What this project needs beyond three GET requests is what no version has:
//! HEAD before GET, Azure Container Registry's exchange of tokens, checks of every host, limits of every body, and caches
//! that keep credentials apart. The crate `http-auth` parses challenges. When the Azure client moves to `reqwest` 0.13,
//! `oci-client` can be considered again.

mod access;
mod answer;
mod backoff;
mod challenge;
mod config;
mod digest;
mod error;
mod guard;
mod json;
mod manifest;
mod process;
#[cfg(test)]
mod properties;
mod reader;
mod reference;
mod session;
mod token;

pub use access::{AZURE_REGISTRY_SCOPE, ImageAccess, RegistryLogin, RegistryTokenSource};
pub use backoff::{
    ERR_IMAGE_PULL, IMAGE_PULL_BACK_OFF, INVALID_IMAGE_NAME, ImagePullBackoff, ImageWaiting,
};
pub use config::ImageConfig;
pub use digest::ImageDigest;
pub use error::ImageReadError;
pub(in crate::aci) use guard::is_azure_registry;
pub use guard::{RegistryHostGuard, RegistryHostRefusal};
pub use process::{
    CREATE_CONTAINER_CONFIG_ERROR, ImageUser, NonRootRefusal, RequiredImageField, WorkingDirMatch,
    container_command, verify_run_as_non_root, working_dir_match,
};
pub use reader::{ImageRead, ImageReader, ImageReaderSettings};
pub(in crate::aci) use reference::split_registry;
pub use reference::{ImageReference, InvalidImageName, pinned_image_id};
