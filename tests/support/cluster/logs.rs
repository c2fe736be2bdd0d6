//! The last lines of the components' logs, for a failed start or a failed test.
//!
//! In: a cluster's directory. Out: text; and once per process, that text on a panic.

use std::{
    fmt::Write,
    fs, panic,
    path::{Path, PathBuf},
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;

/// How many lines of a log are shown, and how many characters of a line.
const LINES: usize = 12;
const WIDTH: usize = 300;

/// The last lines of every component's log.
pub fn tails(directory: &Path) -> String {
    let mut logs: Vec<PathBuf> = fs::read_dir(directory.join("logs"))
        .map(|entries| {
            entries
                .filter_map(Result::ok)
                .map(|entry| entry.path())
                .collect()
        })
        .unwrap_or_default();
    logs.sort();
    let mut text = String::new();
    for log in logs {
        let name = log.file_stem().unwrap_or_default().display();
        let whole = String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = whole.lines().collect();
        let _ = writeln!(text, "--- {name}"); // writing to a string never fails
        for line in &lines[lines.len().saturating_sub(LINES)..] {
            let _ = writeln!(text, "{}", line.chars().take(WIDTH).collect::<String>());
        }
    }
    text
}

/// Makes the first panic of this process, usually that of a failed test, also show the last lines of
/// the logs in this directory and in those registered before.
pub fn show_on_panic(directory: &Path) {
    static DIRECTORIES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    static HOOK: Once = Once::new();
    static SHOWN: AtomicBool = AtomicBool::new(false);
    DIRECTORIES.lock().push(directory.to_owned());
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            before(info);
            if SHOWN.swap(true, Ordering::Relaxed) {
                return;
            }
            let directories = DIRECTORIES.lock().clone();
            for directory in directories.iter().filter(|directory| directory.exists()) {
                eprintln!("The cluster's logs end:\n{}", tails(directory));
            }
        }));
    });
}
