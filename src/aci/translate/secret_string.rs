//! Secret strings: sent to Azure, never printed.
//!
//! In: a secret text. Out: the text in the serialized body, and a placeholder in `Debug` output.

use std::fmt;

use serde::Serialize;

/// A secret value. It serializes to its text; `Debug` hides it.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct SecretString(String);

impl SecretString {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the secret text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(concealed)")
    }
}
