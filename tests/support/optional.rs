//! What a test can do without, unless everything is required, as in CI.

use std::io::Write as _;

/// Says aloud that `what` is missing, and what the reason or the remedy is; a failure where
/// `BURSTPOOL_REQUIRE_ENGINE=1` requires everything.
pub fn skipped(what: &str, why: &str) {
    let is_required = std::env::var("BURSTPOOL_REQUIRE_ENGINE").is_ok_and(|v| v == "1");
    assert!(!is_required, "{what} is required: {why}");
    // Not by a macro: those are heard only when a test fails.
    let _ = writeln!(std::io::stderr(), "skipped: {what} is missing: {why}");
}
