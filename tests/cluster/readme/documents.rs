//! Text for users to copy: the code of the documents, and the commands in the comments of `config`.
//!
//! In: these files, unchanged. Out: code blocks, single commands, inline code, and the files that they
//! name.

use std::path::{Path, PathBuf};

/// The documents in the order in which a newcomer follows them: the following pages need what the
/// README installs and applies, until the installation guide removes it.
const DOCUMENTS: [&str; 12] = [
    README,
    "src/docs/operations.md",
    "src/docs/triggers.md",
    "src/docs/networking.md",
    "src/docs/kubectl.md",
    "src/docs/coexistence.md",
    "src/docs/reference.md",
    "src/docs/glossary.md",
    "src/docs/design.md",
    "config/README.md",
    "src/emulator/README.md",
    "tests/README.md",
];
/// Tables that are generated from the code and contain no commands.
pub const GENERATED: [&str; 3] = [
    "src/docs/burstpool-fields.md",
    "src/docs/coverage.md",
    "src/docs/pod-fields.md",
];
/// The first document.
pub const README: &str = "README.md";
/// The directories with documents, and with files that they name.
const ROOMS: [&str; 5] = ["src", "tests", "config", "crds", ".ci"];

/// A document.
pub struct Document {
    /// Its path from the project's directory.
    pub path: &'static str,
    /// Its text.
    pub text: String,
}

/// The project's directory, in which users run all commands.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All documents that are written by hand.
pub fn all() -> Vec<Document> {
    let read = |path: &'static str| Document {
        path,
        text: read(&root().join(path)),
    };
    DOCUMENTS.into_iter().map(read).collect()
}

/// The text of a file.
pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a text")
}

impl Document {
    /// The code blocks in this language, without indentation.
    pub fn blocks(&self, language: &str) -> Vec<String> {
        let mut all = Vec::new();
        let mut lines = self.text.lines();
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

    /// The commands from top to bottom.
    pub fn commands(&self) -> Vec<String> {
        let blocks = self.blocks("console");
        let typed = blocks.iter().flat_map(|block| joined(block.lines()));
        let commands = typed.filter_map(|line| Some(line.strip_prefix("$ ")?.to_owned()));
        commands.map(|command| uncommented(&command)).collect()
    }

    /// The inline code.
    pub fn spans(&self) -> Vec<String> {
        let outside = self.text.split("```").step_by(2);
        outside
            .flat_map(|text| text.split('`').skip(1).step_by(2))
            .map(|span| span.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    }

    /// The project's files and folders in inline code.
    pub fn files(&self) -> Vec<String> {
        let is_file = |span: &String| {
            let room = span.split('/').next().unwrap_or_default();
            ROOMS.contains(&room) && span.contains('/') && !span.contains([' ', ':', '*'])
        };
        self.spans().into_iter().filter(is_file).collect()
    }

    /// The targets of links within the project, without fragments.
    pub fn links(&self) -> Vec<String> {
        let inline = self.text.split("](").skip(1);
        let inline = inline.filter_map(|rest| rest.split(')').next());
        let defined = self.text.lines().filter(|line| line.starts_with('['));
        let defined = defined.filter_map(|line| Some(line.split_once("]: ")?.1));
        inline
            .chain(defined)
            .filter(|target| !target.contains("://") && !target.starts_with('#'))
            .map(|target| target.split('#').next().unwrap_or_default().to_owned())
            .collect()
    }

    /// The reference names of links: the text in the second pair of brackets.
    pub fn link_names(&self) -> Vec<String> {
        let outside = self.text.split("```").step_by(2);
        outside
            .flat_map(|text| text.split("][").skip(1))
            .filter_map(|rest| Some(rest.split(']').next()?.to_owned()))
            .collect()
    }
}

/// The files of `config` that users apply or build from.
pub fn manifests() -> Vec<PathBuf> {
    let files = files_in("config").into_iter();
    files
        .filter(|path| path.extension().is_none_or(|kind| kind != "md"))
        .collect()
}

/// All files in a folder of the project, recursively.
pub fn files_in(folder: &str) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut directories = vec![root().join(folder)];
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

/// All markdown files in the project, except those of others.
pub fn found() -> Vec<String> {
    let rooms = ROOMS.iter().flat_map(|room| files_in(room));
    let documents = rooms.filter(|path| path.extension().is_some_and(|kind| kind == "md"));
    let names = documents.map(|path| {
        let path = path.strip_prefix(root()).expect("it is in the project");
        path.to_string_lossy().into_owned()
    });
    let mut all: Vec<String> = names
        .filter(|path| !path.starts_with("tests/fixtures/"))
        .chain([README.to_owned()])
        .collect();
    all.sort();
    all
}

/// The kubectl commands in the comments of `config`.
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

/// Lines as a shell reads them: a backslash at the end joins a line with the next one.
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
