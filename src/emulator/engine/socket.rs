//! Finds the engine's unix socket.
//!
//! In: the option and the environment. Out: a client for the first socket that answers, or an error
//! that lists all sockets that were tried.

use std::env;
use std::path::PathBuf;

use super::client::EngineClient;
use super::error::EngineError;
use crate::emulator::options::EngineSocket;

/// The socket that the error message suggests: podman's default for root.
const SUGGESTION: &str = "/run/podman/podman.sock";

/// Connects to the first engine that answers.
pub async fn connect(socket: &EngineSocket) -> Result<EngineClient, EngineError> {
    let mut tried = Vec::new();
    for path in &candidates(socket)? {
        if !path.exists() {
            tried.push(format!("{}: does not exist", path.display()));
            continue;
        }
        match EngineClient::connect(path).await {
            Ok(client) => return Ok(client),
            Err(error) => tried.push(format!("{}: {}", path.display(), error.error_chain())),
        }
    }
    Err(EngineError::NoEngine {
        tried: tried.join("; "),
        suggestion: match socket {
            EngineSocket::At(path) => path.display().to_string(),
            EngineSocket::Usual => SUGGESTION.to_owned(),
        },
    })
}

/// The sockets to try, in this order.
///
/// # Errors
///
/// Fails if `DOCKER_HOST` is not a unix socket.
pub fn candidates(socket: &EngineSocket) -> Result<Vec<PathBuf>, EngineError> {
    match socket {
        EngineSocket::At(path) => Ok(vec![path.clone()]),
        EngineSocket::Usual => default_candidates(
            env::var("DOCKER_HOST").ok(),
            env::var("XDG_RUNTIME_DIR").ok(),
        ),
    }
}

/// Only `DOCKER_HOST` if it is set. Otherwise Docker's socket, podman's for root, podman's for this
/// user.
fn default_candidates(
    host: Option<String>,
    runtime: Option<String>,
) -> Result<Vec<PathBuf>, EngineError> {
    if let Some(host) = host.filter(|host| !host.is_empty()) {
        return match host.strip_prefix("unix://") {
            Some(path) => Ok(vec![path.into()]),
            None => Err(EngineError::NotAUnixSocket(host)),
        };
    }
    let mut paths: Vec<PathBuf> = vec!["/var/run/docker.sock".into(), SUGGESTION.into()];
    if let Some(runtime) = runtime.filter(|runtime| !runtime.is_empty()) {
        paths.push(PathBuf::from(runtime).join("podman/podman.sock"));
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_host_is_the_only_candidate_when_set_and_must_be_a_unix_socket() {
        let paths = default_candidates(Some("unix:///a/b.sock".into()), None).expect("a candidate");
        assert_eq!(paths, [PathBuf::from("/a/b.sock")]);
        assert!(default_candidates(Some("tcp://host:2375".into()), None).is_err());
        let defaults = default_candidates(Some(String::new()), Some("/run/user/7".into()))
            .expect("candidates");
        assert_eq!(defaults.len(), 3);
        assert_eq!(defaults[2], PathBuf::from("/run/user/7/podman/podman.sock"));
    }
}
