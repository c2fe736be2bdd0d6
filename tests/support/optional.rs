//! Optional software: a test without it is skipped, unless everything is required, as in CI.

use std::fs::OpenOptions;
use std::io::Write as _;

/// Reports on stderr that the running test, or a part of it, is skipped, because `what` is missing;
/// `why` is the reason or the remedy. Appends the line to the file in `BURSTPOOL_SKIPPED`, if set:
/// `make test` counts these lines. Fails if `BURSTPOOL_REQUIRE_ENGINE=1` requires everything.
pub fn skipped(what: &str, why: &str) {
    let is_required = std::env::var("BURSTPOOL_REQUIRE_ENGINE").is_ok_and(|v| v == "1");
    assert!(!is_required, "{what} is required: {why}");
    // The thread of a test has the test's name.
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let line = format!("skipped: {test}: {what} is missing: {why}\n");
    // Not with a macro: libtest captures its output and shows it only if the test fails.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(file) = std::env::var_os("BURSTPOOL_SKIPPED") {
        // One write of a short line, so that lines of several processes do not mix.
        let file = OpenOptions::new().create(true).append(true).open(file);
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        assert!(written.is_ok(), "BURSTPOOL_SKIPPED: {written:?}");
    }
}
