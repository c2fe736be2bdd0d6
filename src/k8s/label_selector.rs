//! Parses the text of a label selector, such as `status.selector` of the scale subresource.
//!
//! In: text. Out: a [`Selector`]; kube has the type but no parser for it. The grammar is that of `labels.Parse`
//! (apimachinery): requirements separated by commas, `key`, `!key`, `key=value`, `key==value`, `key!=value`,
//! `key in (a,b)`, `key notin (a,b)`.

use kube::core::{Expression, Selector};

/// Parses a selector. An error contains the text and the part that is invalid.
pub fn parse(text: &str) -> Result<Selector, String> {
    let mut selector = Selector::default();
    for part in split_requirements(text) {
        let requirement = parse_requirement(part)
            .ok_or_else(|| format!("the selector '{text}' is invalid at '{part}'"))?;
        selector.extend(requirement);
    }
    Ok(selector)
}

/// Splits at commas outside of parentheses.
fn split_requirements(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_u32, 0);
    for (index, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(text[start..index].trim());
                start = index + 1;
            }
            _ => {}
        }
    }
    if !text.trim().is_empty() {
        parts.push(text[start..].trim());
    }
    parts
}

fn parse_requirement(part: &str) -> Option<Expression> {
    if let Some(key) = part.strip_prefix('!') {
        return Some(Expression::DoesNotExist(parse_key(key)?));
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Some(Expression::NotEqual(parse_key(key)?, parse_value(value)?));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Some(Expression::Equal(parse_key(key)?, parse_value(value)?));
    }
    let Some((before, values)) = part.split_once('(') else {
        return Some(Expression::Exists(parse_key(part)?));
    };
    let values = values.strip_suffix(')')?.split(',').map(parse_value);
    let values = values.collect::<Option<_>>()?;
    let mut parts = before.split_whitespace();
    let (key, operator) = (parts.next()?.to_owned(), parts.next()?);
    match (operator, parts.next()) {
        ("in", None) => Some(Expression::In(key, values)),
        ("notin", None) => Some(Expression::NotIn(key, values)),
        _ => None,
    }
}

fn parse_key(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty() && is_label_text(text)).then(|| text.to_owned())
}

fn parse_value(text: &str) -> Option<String> {
    let text = text.trim();
    is_label_text(text).then(|| text.to_owned())
}

fn is_label_text(text: &str) -> bool {
    text.chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kube::core::SelectorExt as _;

    use super::*;

    #[test]
    fn selectors_are_parsed_as_in_kubernetes() {
        let labels: BTreeMap<String, String> = [("app", "web"), ("tier", "front"), ("empty", "")]
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        for (text, holds) in [
            ("app=web", true),
            ("app==web", true),
            ("app=web,tier=front", true),
            ("app=web, tier=back", false),
            ("app!=web", false),
            ("other!=web", true),
            ("app", true),
            ("other", false),
            ("!other", true),
            ("!app", false),
            ("tier in (front,back)", true),
            ("tier in (back), app", false),
            ("tier notin (back, side)", true),
            ("tier notin (front)", false),
            ("other notin (front)", true),
            ("empty=", true),
            ("app.kubernetes.io/name!=x", true),
            ("", true),
        ] {
            let selector = parse(text).expect("a selector");
            assert_eq!(selector.matches(&labels), holds, "{text}");
        }
    }

    #[test]
    fn an_invalid_selector_is_an_error_that_quotes_it() {
        for text in [
            "=web",
            "app=web,",
            "tier in front",
            "tier near (a)",
            "a b",
            "tier in (a",
            "!",
        ] {
            let error = parse(text).expect_err("no selector");
            assert!(error.contains(text), "{error}");
        }
    }
}
