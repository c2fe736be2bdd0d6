//! Golden files: files in the repository that are generated from the sources. For tests only.
//!
//! In: a file and its current content. Out: an error if they differ, or an updated file.

use std::path::Path;

/// Returns the content of `file`; empty if it cannot be read. If the environment variable `UPDATE_FIXTURES` is set,
/// writes `now` to the file first.
pub fn kept(file: &Path, now: &str) -> String {
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        std::fs::write(file, now).expect("the file can be written");
    }
    std::fs::read_to_string(file).unwrap_or_default()
}

/// Fails the test unless the file, given as a path from the project's root, contains exactly `now`.
pub fn assert_kept(file: &str, now: &str) {
    let same = kept(&Path::new(env!("CARGO_MANIFEST_DIR")).join(file), now) == now;
    assert!(
        same,
        "{file} is old: the same test with UPDATE_FIXTURES=1 writes it"
    );
}
