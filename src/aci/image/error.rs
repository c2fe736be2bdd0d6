//! Why the configuration of an image could not be read, in the words of the kubelet.
//!
//! In: what went wrong between the client and a registry. Out: an [`ImageReadError`] with a message for the pod's
//! events and what to do about it. An error says nothing about the content of other pods' images, and quotes only a
//! short part of what a registry sends.

use std::time::Duration;

use thiserror::Error;

use super::guard::RegistryHostRefusal;

/// The longest part of a foreign text that an error quotes, in characters.
const QUOTED: usize = 100;
/// The longest time for which a registry can ask for no requests.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(600);

/// Why an image's configuration could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ImageReadError {
    /// No connection, no answer in time, or an answer that breaks off.
    #[error("the registry {registry} does not answer: {why}")]
    Unreachable {
        /// The registry.
        registry: String,
        /// What the connection reports.
        why: String,
    },
    /// The registry limits the rate of requests. The request may not have been sent.
    #[error("toomanyrequests: the registry {registry} limits requests; the next is in {} s", .wait.as_secs())]
    Throttled {
        /// The registry.
        registry: String,
        /// How long to wait.
        wait: Duration,
    },
    /// The registry answers with an error of its own.
    #[error("the registry {registry} answers with status {status}{quote}")]
    Failing {
        /// The registry.
        registry: String,
        /// The status.
        status: u16,
        /// The registry's message, after a colon; empty if there is none.
        quote: String,
    },
    /// The registry does not let this credential read the image.
    #[error("pull access denied for {image}{quote}; {remedy}")]
    Denied {
        /// The image's registry and repository.
        image: String,
        /// The registry's message, after a colon; empty if there is none.
        quote: String,
        /// What to do about it.
        remedy: String,
    },
    /// The registry does not have the image.
    #[error("{image}: not found")]
    NotFound {
        /// The image.
        image: String,
    },
    /// The registry is, or leads to, a host that the operator sends no requests to.
    #[error("{image}: {refusal}")]
    Guarded {
        /// The image's registry and repository.
        image: String,
        /// The host.
        refusal: RegistryHostRefusal,
    },
    /// The registry's answer cannot be used: it has other content than its digest says, or is too long.
    #[error("the registry {registry} sent an unusable answer: {why}")]
    Corrupt {
        /// The registry.
        registry: String,
        /// What is wrong.
        why: String,
    },
    /// The operator's identity has no token for Azure Container Registry.
    #[error("the operator's identity has no token for {registry}: {why}")]
    Identity {
        /// The registry.
        registry: String,
        /// The reason.
        why: String,
    },
    /// ACI cannot run the image.
    #[error("{image}: {why}")]
    Unsupported {
        /// The image's registry and repository.
        image: String,
        /// The reason.
        why: String,
    },
}

impl ImageReadError {
    /// The value of a metric label: one word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::Throttled { .. } => "throttled",
            Self::Failing { .. } => "failing",
            Self::Denied { .. } => "denied",
            Self::NotFound { .. } => "not_found",
            Self::Guarded { .. } => "guarded",
            Self::Corrupt { .. } => "corrupt",
            Self::Identity { .. } => "identity",
            Self::Unsupported { .. } => "unsupported",
        }
    }

    /// How long to wait before the next attempt at least, if the registry asks for it. All errors are worth another
    /// attempt, as for a kubelet: a registry can be repaired, an image pushed, and a permission granted while the pod
    /// waits.
    pub fn requested_wait(&self) -> Option<Duration> {
        match self {
            Self::Throttled { wait, .. } => Some(*wait),
            _ => None,
        }
    }
}

/// The beginning of a foreign text in one line, without control characters.
pub(super) fn shortened(text: &str) -> String {
    let parts = text.split(|c: char| c.is_control() || c.is_whitespace());
    let mut short = String::new();
    for part in parts.filter(|part| !part.is_empty()) {
        if !short.is_empty() {
            short.push(' ');
        }
        short.extend(part.chars().take(QUOTED));
        if short.len() > 4 * QUOTED {
            break;
        }
    }
    short.chars().take(QUOTED).collect()
}

/// A registry's message for an error: a colon, and the beginning of the text. Empty if there is no text.
pub(super) fn quote(text: &str) -> String {
    let text = shortened(text);
    if text.is_empty() {
        text
    } else {
        format!(": {text}")
    }
}

/// The beginning of a foreign text in quotes, with escapes for what cannot be printed.
pub(super) fn quoted(text: &str) -> String {
    let escaped: String = text.escape_debug().take(QUOTED).collect();
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_registry_that_throttles_asks_for_a_wait() {
        let registry = || "a.io".to_owned();
        let (image, why) = (|| "a.io/b".to_owned(), || "w".to_owned());
        let wait = Duration::from_secs(7);
        let refusal = RegistryHostRefusal {
            host: registry(),
            why: "w",
        };
        for (error, kind, requested) in [
            (
                ImageReadError::Unreachable {
                    registry: registry(),
                    why: why(),
                },
                "unreachable",
                None,
            ),
            (
                ImageReadError::Throttled {
                    registry: registry(),
                    wait,
                },
                "throttled",
                Some(wait),
            ),
            (
                ImageReadError::Failing {
                    registry: registry(),
                    status: 503,
                    quote: why(),
                },
                "failing",
                None,
            ),
            (
                ImageReadError::Denied {
                    image: image(),
                    quote: why(),
                    remedy: why(),
                },
                "denied",
                None,
            ),
            (
                ImageReadError::NotFound { image: image() },
                "not_found",
                None,
            ),
            (
                ImageReadError::Guarded {
                    image: image(),
                    refusal,
                },
                "guarded",
                None,
            ),
            (
                ImageReadError::Corrupt {
                    registry: registry(),
                    why: why(),
                },
                "corrupt",
                None,
            ),
            (
                ImageReadError::Identity {
                    registry: registry(),
                    why: why(),
                },
                "identity",
                None,
            ),
            (
                ImageReadError::Unsupported {
                    image: image(),
                    why: why(),
                },
                "unsupported",
                None,
            ),
        ] {
            assert_eq!((error.kind(), error.requested_wait()), (kind, requested));
        }
    }

    #[test]
    fn a_quote_is_short_and_in_one_line() {
        assert_eq!(quote("  no\r\n\tsuch \u{7}image "), ": no such image");
        assert_eq!(quote(" \n"), "");
        assert_eq!(quote(&"é".repeat(1000)).chars().count(), 2 + QUOTED);
        assert_eq!(quote(&"a ".repeat(1000)).chars().count(), 2 + QUOTED);
        assert_eq!(quoted("a\n\"b\""), r#""a\n\"b\"""#);
        assert_eq!(
            quoted(&"\u{1f600}\n".repeat(1000)).chars().count(),
            2 + QUOTED
        );
    }
}
