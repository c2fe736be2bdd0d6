//! Expands `$(VAR)` references as Kubernetes does (`third_party/forked/golang/expansion` in its source).
//!
//! In: a text, and a lookup function. Out: the expanded text. `$$` becomes a dollar sign. A reference to an
//! undefined variable stays as it is, and so does any other text.

/// An expanded text, and whether a secret went into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expanded {
    pub(super) text: String,
    pub(super) is_secret: bool,
}

/// Replaces every reference in `text` with the result of `lookup`: the value, and whether it is secret.
pub(super) fn expand<'a>(text: &str, lookup: impl Fn(&str) -> Option<(&'a str, bool)>) -> Expanded {
    let mut expanded = Expanded {
        text: String::with_capacity(text.len()),
        is_secret: false,
    };
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        expanded.text.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        let reference = rest.strip_prefix('(').and_then(|r| r.split_once(')'));
        if let Some((name, after)) = reference {
            match lookup(name) {
                Some((value, secret)) => {
                    expanded.text.push_str(value);
                    expanded.is_secret |= secret;
                }
                None => expanded.text.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            expanded.text.push('$');
            rest = rest.strip_prefix('$').unwrap_or(rest);
        }
    }
    expanded.text.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases of Kubernetes' own test, and some more.
    #[test]
    fn references_are_expanded_as_kubernetes_does() {
        let lookup = |name: &str| match name {
            "VAR_A" => Some(("A", false)),
            "VAR_B" => Some(("B", false)),
            "VAR_C" => Some(("C", false)),
            "VAR_REF" => Some(("$(VAR_A)", false)),
            "VAR_EMPTY" => Some(("", false)),
            _ => None,
        };
        for (text, expected) in [
            ("$(VAR_A)", "A"),
            ("___$(VAR_B)___", "___B___"),
            ("___$(VAR_C)", "___C"),
            ("$(VAR_A)-$(VAR_B)", "A-B"),
            ("$(VAR_REF)_$(VAR_A)", "$(VAR_A)_A"),
            ("foo\\$(VAR_C)bar", "foo\\Cbar"),
            ("foo$$(VAR_C)bar", "foo$(VAR_C)bar"),
            ("$$$(VAR_A)", "$A"),
            ("$$$$(VAR_A)", "$$(VAR_A)"),
            ("$(VAR_EMPTY)x", "x"),
            ("$(VAR_DNE)", "$(VAR_DNE)"),
            ("$$$$$$$(BAD_VAR)", "$$$$(BAD_VAR)"),
            ("$VAR_A)", "$VAR_A)"),
            ("${VAR_A}", "${VAR_A}"),
            ("$(BAD_SYNTAX_MISSING_BRACE", "$(BAD_SYNTAX_MISSING_BRACE"),
            ("$(VAR_A", "$(VAR_A"),
            ("$(VAR_A$(VAR_B)", "$(VAR_A$(VAR_B)"),
            ("foo$", "foo$"),
            ("$", "$"),
            ("$$", "$"),
            ("$é$(VAR_A)é", "$éAé"),
            ("$()", "$()"),
            ("", ""),
            ("--$($(VAR_A)--", "--$($(VAR_A)--"),
        ] {
            let expanded = expand(text, lookup);
            assert_eq!(expanded.text, expected, "{text}");
            assert!(!expanded.is_secret);
        }
    }

    #[test]
    fn a_text_with_a_secret_expanded_into_it_is_secret() {
        let lookup = |name: &str| match name {
            "PASSWORD" => Some(("x", true)),
            "NOTHING" => Some(("", true)),
            "USER" => Some(("y", false)),
            _ => None,
        };
        assert!(expand("$(USER):$(PASSWORD)", lookup).is_secret);
        assert!(expand("$(NOTHING)", lookup).is_secret);
        assert!(!expand("$(USER):$$(PASSWORD):$(OTHER)", lookup).is_secret);
    }
}
