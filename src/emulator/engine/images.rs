//! Container images: finds them in the engine or pulls them.
//!
//! In: a group's body. Out: its images in the engine, or the name of the first one that is not
//! accessible. A PUT checks this before it decides anything, because the service rejects such a group
//! at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bollard::auth::DockerCredentials;

use super::client::EngineClient;
use super::error::EngineError;
use crate::emulator::group::model::{Properties, RegistryCredential};

/// How long a PUT waits for an image. If the registry has sent anything by then, the image counts as
/// accessible; the deployment pulls the rest.
const ACCESS_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a deployment waits for an image: the service's default provisioning timeout, 30 minutes.
const PULL_TIMEOUT: Duration = Duration::from_secs(1800);
/// The registry of images whose name has no registry.
const HUB: &str = "docker.io";

/// An image that is missing and cannot be pulled.
#[derive(Debug)]
pub struct InaccessibleImage {
    /// The image's name in the group's body.
    pub image: String,
}

/// Checks that the engine has, or can pull, every image of the group.
pub async fn check_accessible(
    client: &EngineClient,
    properties: &Properties,
) -> Result<(), InaccessibleImage> {
    for image in names(properties) {
        let moved = AtomicBool::new(false);
        let fetched = fetch(client, properties, image, || {
            moved.store(true, Ordering::Relaxed);
        });
        let had = match tokio::time::timeout(ACCESS_TIMEOUT, fetched).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::info!(
                    image,
                    error = error.error_chain(),
                    "an image is not accessible"
                );
                false
            }
            Err(_) => moved.load(Ordering::Relaxed),
        };
        if !had {
            return Err(InaccessibleImage {
                image: image.to_owned(),
            });
        }
    }
    Ok(())
}

/// Pulls every image of the group that the engine does not have.
pub async fn pull(client: &EngineClient, properties: &Properties) -> Result<(), EngineError> {
    for image in names(properties) {
        let call = fetch(client, properties, image, || ());
        let on_timeout = |_| EngineError::TimedOut {
            what: format!("pulling image {image}"),
        };
        tokio::time::timeout(PULL_TIMEOUT, call)
            .await
            .map_err(on_timeout)??;
    }
    Ok(())
}

/// The image's name with a tag. Without a tag, engines pull all tags.
pub fn tagged(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or_default();
    if image.contains('@') || last.contains(':') {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

async fn fetch(
    client: &EngineClient,
    properties: &Properties,
    image: &str,
    progress: impl FnMut(),
) -> Result<(), EngineError> {
    if !is_plain(image) {
        return Err(EngineError::NotAnImage(image.to_owned()));
    }
    let name = tagged(image);
    if client.image(&name).await?.is_some() {
        return Ok(());
    }
    client
        .pull(&name, credentials(properties, image), progress)
        .await
}

fn names(properties: &Properties) -> Vec<&str> {
    let containers = properties
        .init_containers()
        .iter()
        .chain(properties.containers());
    let mut names: Vec<&str> = containers
        .map(|container| container.image().trim())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Whether the name is safe in a URL path without escaping.
fn is_plain(image: &str) -> bool {
    let is_plain_char = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    !image.is_empty()
        && image.chars().all(is_plain_char)
        && image
            .split('/')
            .all(|part| !part.is_empty() && part != "..")
}

/// The registry of an image: the first part of its name if it looks like a host, otherwise Docker Hub.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => HUB,
    }
}

fn credentials(properties: &Properties, image: &str) -> Option<DockerCredentials> {
    let host = |server: &str| {
        let server = server
            .trim_start_matches("https://")
            .trim_start_matches("http://");
        let host = server.split('/').next().unwrap_or_default().to_lowercase();
        let hub_hosts = [
            "index.docker.io",
            "registry-1.docker.io",
            "registry.hub.docker.com",
        ];
        if hub_hosts.contains(&host.as_str()) {
            HUB.to_owned()
        } else {
            host
        }
    };
    let image_host = host(registry(image));
    let is_match = |c: &&RegistryCredential| {
        c.server
            .as_deref()
            .is_some_and(|server| host(server) == image_host)
    };
    let credential = properties
        .image_registry_credentials
        .iter()
        .flatten()
        .find(is_match)?;
    Some(DockerCredentials {
        username: credential.username.clone(),
        password: credential.password.clone(),
        serveraddress: credential.server.clone(),
        ..DockerCredentials::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_a_tag_means_the_latest_one() {
        assert_eq!(tagged("alpine"), "alpine:latest");
        assert_eq!(tagged("host:5000/a"), "host:5000/a:latest");
        assert_eq!(tagged("host:5000/a:1"), "host:5000/a:1");
        assert_eq!(tagged("a@sha256:0"), "a@sha256:0");
    }

    #[test]
    fn credentials_are_those_of_the_images_registry() {
        let credential = |server: &str| RegistryCredential {
            server: Some(server.to_owned()),
            username: Some(server.to_owned()),
            ..RegistryCredential::default()
        };
        let properties = Properties {
            image_registry_credentials: Some(vec![
                credential("Mine.example"),
                credential("index.docker.io"),
            ]),
            ..Properties::default()
        };
        let user = |image| credentials(&properties, image).and_then(|c| c.username);
        assert_eq!(user("mine.example/a:1").as_deref(), Some("Mine.example"));
        assert_eq!(user("library/a").as_deref(), Some("index.docker.io"));
        assert_eq!(user("other.example/a"), None);
    }

    #[test]
    fn a_name_that_would_change_a_url_is_none() {
        for bad in ["", "a b", "a?b", "a/../b", "/a", "a#b"] {
            assert!(!is_plain(bad), "{bad}");
        }
        assert!(is_plain("host:5000/a/b_c.d-e@sha256:0"));
    }
}
