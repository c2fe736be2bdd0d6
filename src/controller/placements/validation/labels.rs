//! Checks labels, as the API server does. Pure.

use std::collections::BTreeMap;

use super::InvalidSpec;

/// Checks that these are valid labels of a node (apimachinery `pkg/util/validation`).
pub(super) fn check_labels(
    labels: &BTreeMap<String, String>,
    field: &str,
) -> Result<(), InvalidSpec> {
    for (key, value) in labels {
        let (prefix, name) = match key.split_once('/') {
            Some((prefix, name)) => (Some(prefix), name),
            None => (None, key.as_str()),
        };
        if !is_label_value(name) || name.is_empty() || !prefix.is_none_or(is_subdomain) {
            return Err(InvalidSpec(format!(
                "{field}: '{key}' is not a valid label key: write a name of at most 63 letters, digits, '-', '_' \
                 and '.' that begins and ends with a letter or digit, after a DNS name and '/' if it has a \
                 prefix, such as example.com/tier"
            )));
        }
        if !is_label_value(value) {
            return Err(InvalidSpec(format!(
                "{field}: '{value}' of {key} is not a valid label value: write at most 63 letters, digits, '-', \
                 '_' and '.', and begin and end with a letter or digit"
            )));
        }
    }
    Ok(())
}

/// Whether the text is empty, or at most 63 letters, digits, `-`, `_` and `.`, beginning and ending with a
/// letter or digit.
fn is_label_value(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.len() <= 63
        && text.bytes().all(is_inner)
        && !text.starts_with(['-', '_', '.'])
        && !text.ends_with(['-', '_', '.'])
}

/// Whether the text is a DNS name in lower case.
fn is_subdomain(text: &str) -> bool {
    let is_label = |label: &str| {
        let is_inner =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty()
            && label.bytes().all(is_inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}
