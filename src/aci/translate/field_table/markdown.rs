//! The field table as Markdown.
//!
//! In: the rows of all types. Out: the text of `src/docs/pod-fields.md`, which a test compares with that file.

use std::fmt::Write as _;

use super::row::{FieldDecision, LossRule, is_like_container, types};

/// The whole table as Markdown: one line for each field, grouped by type.
pub fn markdown_table() -> String {
    let mut text = String::from("| field | on ACI | how, or why not |\n| --- | --- | --- |\n");
    for (kind, rows) in types() {
        for row in rows {
            let (decision, words) = match row.decision {
                FieldDecision::Translated(how) => ("translated".to_owned(), how),
                FieldDecision::Meaningless(why) => ("meaningless".to_owned(), why),
                FieldDecision::Refused(why) => ("refused".to_owned(), why),
                FieldDecision::RefusedUnless(harmless, why) => {
                    (format!("refused unless {}", harmless.join(" or ")), why)
                }
                FieldDecision::RefusedUnlessAccepted(rule, why) => (accepted_words(&rule), why),
            };
            let decision = match row.effect {
                Some(_) => format!("{decision} where it has an effect"),
                None => decision,
            };
            writeln!(text, "| `{kind}.{}` | {decision} | {words} |", row.name)
                .expect("writing to a string cannot fail");
        }
        if is_like_container(kind) {
            writeln!(text, "| `{kind}`, all else | | as `Container` |")
                .expect("writing to a string cannot fail");
        }
    }
    text
}

/// The cell of a field whose loss a pool's author can accept.
fn accepted_words(rule: &LossRule) -> String {
    let loss = rule.loss;
    let harmless = rule.harmless.iter().map(|value| format!("{value}, or "));
    let harmless: String = harmless.collect();
    let mut words = format!("refused unless {harmless}accepted: `{loss}`");
    if !rule.acceptable.is_empty() {
        let _ = write!(words, " (only {})", rule.acceptable.join(" and "));
    }
    words
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_file_of_the_table_matches_the_rows() {
        crate::kept::assert_kept("src/docs/pod-fields.md", &super::markdown_table());
    }

    #[test]
    fn the_table_has_rows_of_three_cells() {
        let table = super::markdown_table();
        assert!(table.contains("| `Container.tty` | refused | "));
        assert!(table.contains("| `PodSpec.priority` | meaningless | "));
        for line in table.lines() {
            assert_eq!(line.matches('|').count(), 4, "{line}");
        }
    }
}
