//! Files that are kept beside the sources and made from them. For tests.

use std::path::Path;

/// What the file says; with `UPDATE_FIXTURES` set, after it was written anew to say `now`.
pub fn kept(file: &Path, now: &str) -> String {
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        std::fs::write(file, now).expect("the file can be written");
    }
    std::fs::read_to_string(file).unwrap_or_default()
}

/// The file, named from the project's root, says `now`.
pub fn assert_kept(file: &str, now: &str) {
    let same = kept(&Path::new(env!("CARGO_MANIFEST_DIR")).join(file), now) == now;
    assert!(
        same,
        "{file} is old: UPDATE_FIXTURES=1 cargo test --lib writes it"
    );
}
