//! What people copy: the code of README.md, and the commands in the comments of `config`.
//!
//! In: those files as they stand. Out: blocks of code, commands as one types them, and inline code.

use std::path::{Path, PathBuf};

/// The project's directory, in which all of them are to be typed.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The README.
pub fn readme() -> String {
    read(&root().join("README.md"))
}

/// A file.
pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a text")
}

/// The README's blocks of code in this language, without their indentation.
pub fn blocks(language: &str) -> Vec<String> {
    let (readme, mut all) = (readme(), Vec::new());
    let mut lines = readme.lines();
    while let Some(line) = lines.next() {
        let Some(named) = line.trim_start().strip_prefix("```") else {
            continue;
        };
        let indent = line.len() - line.trim_start().len();
        let inside = lines
            .by_ref()
            .take_while(|line| line.trim() != "```")
            .map(|line| format!("{}\n", line.get(indent..).unwrap_or_default()));
        let block: String = inside.collect();
        if named == language {
            all.push(block);
        }
    }
    all
}

/// The README's commands, from top to bottom.
pub fn commands() -> Vec<String> {
    let blocks = blocks("console");
    let typed = blocks.iter().flat_map(|block| joined(block.lines()));
    let commands = typed.filter_map(|line| Some(line.strip_prefix("$ ")?.to_owned()));
    commands.map(|command| uncommented(&command)).collect()
}

/// The README's code within sentences.
pub fn spans() -> Vec<String> {
    let text = readme();
    let outside = text.split("```").step_by(2);
    outside
        .flat_map(|text| text.split('`').skip(1).step_by(2))
        .map(|span| span.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

/// The files of `config`.
pub fn manifests() -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut directories = vec![root().join("config")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else {
                all.push(path);
            }
        }
    }
    all
}

/// The commands of kubectl in the comments of `config`.
pub fn commented() -> Vec<String> {
    let mut all = Vec::new();
    for path in manifests() {
        let text = read(&path);
        let comments = text.lines().filter_map(|line| line.strip_prefix('#'));
        let typed = joined(comments.map(str::trim));
        all.extend(
            typed
                .into_iter()
                .filter(|line| line.starts_with("kubectl ")),
        );
    }
    all
}

/// Lines as a shell reads them: one that ends in a backslash goes on in the next.
fn joined<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut all = vec![String::new()];
    for line in lines {
        let last = all.last_mut().expect("there is one always");
        if let Some(begun) = line.strip_suffix('\\') {
            last.push_str(begun.trim());
            last.push(' ');
        } else {
            *last += if last.is_empty() { line } else { line.trim() };
            all.push(String::new());
        }
    }
    all
}

fn uncommented(command: &str) -> String {
    let end = command.find(" # ").unwrap_or(command.len());
    command[..end].trim().to_owned()
}
