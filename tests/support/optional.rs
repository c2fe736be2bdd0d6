//! Parts that a test can do without, unless everything is required, as in CI.

use std::fs::OpenOptions;
use std::io::Write as _;

/// Says on stderr that the running test is skipped, or a part of it, because `what` is missing, and what the
/// reason or the remedy is. Where `BURSTPOOL_SKIPPED` names a file, a line there says so too: `make test`
/// counts them. Fails where `BURSTPOOL_REQUIRE_ENGINE=1` requires everything.
pub fn skipped(what: &str, why: &str) {
    let is_required = std::env::var("BURSTPOOL_REQUIRE_ENGINE").is_ok_and(|v| v == "1");
    assert!(!is_required, "{what} is required: {why}");
    // A test's thread has its name.
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let line = format!("skipped: {test}: {what} is missing: {why}\n");
    // Not by a macro: what a macro writes is shown only when a test fails.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(file) = std::env::var_os("BURSTPOOL_SKIPPED") {
        // One write of a short line: tests of several processes append without mixing.
        let file = OpenOptions::new().create(true).append(true).open(file);
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        assert!(written.is_ok(), "BURSTPOOL_SKIPPED: {written:?}");
    }
}
