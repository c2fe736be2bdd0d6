//! Checks the structure of the crate by reading its sources. For tests only.
//!
//! In: the files in `src`, without their tests and comments. Out: a failed test if two types have the same name, or
//! if the table of modules in `src/lib.rs` is not true. The comments have tests of their own.

mod comments;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Names that more than one type may have, with the reason.
const SHARED_NAMES: [(&str, &str); 1] = [(
    "Error",
    "every module that does I/O has an error type, and its path says which one it is",
)];

/// The text of a source file, without tests and comments.
struct Source {
    path: PathBuf,
    /// The module that `src/lib.rs` declares and that contains the file. Empty for `src/lib.rs` itself.
    top_module: String,
    code: String,
}

/// A line of the table in `src/lib.rs`.
struct TableRow {
    module: String,
    uses: BTreeSet<String>,
}

#[test]
fn every_type_has_a_name_of_its_own() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources() {
        for name in source.code.lines().filter_map(declared_type) {
            let place = source.path.display().to_string();
            places.entry(name.to_owned()).or_default().push(place);
        }
    }
    assert!(places.len() > 300, "types are found: {}", places.len());
    let is_shared = |name: &str| SHARED_NAMES.iter().any(|(shared, _)| *shared == name);
    for (name, places) in places {
        let is_unique = places.len() == 1 || is_shared(&name);
        let places = places.join(", ");
        assert!(
            is_unique,
            "more than one type is called {name}: rename all but one, in {places}"
        );
    }
}

#[test]
fn the_table_of_modules_is_true_and_each_module_uses_only_those_above_it() {
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let sources = sources();
    let modules: BTreeSet<&str> = sources.iter().map(|source| &*source.top_module).collect();
    for source in &sources {
        let own = source.top_module.as_str();
        let used = crate_paths(&source.code).into_iter();
        let used = used.filter(|name| *name != own && modules.contains(name));
        let known = uses.entry(own.to_owned()).or_default();
        known.extend(used.map(str::to_owned));
    }
    uses.remove("");
    let table = module_table();
    let listed: BTreeSet<&str> = table.iter().map(|row| row.module.as_str()).collect();
    let declared: BTreeSet<&str> = uses.keys().map(String::as_str).collect();
    assert_eq!(listed, declared, "the modules in the table of src/lib.rs");
    let mut above = BTreeSet::new();
    for TableRow { module, uses: told } in &table {
        let found = &uses[module];
        assert_eq!(
            told, found,
            "src/lib.rs: what {module} uses; left the table, right the code"
        );
        let below: Vec<&String> = found.difference(&above).collect();
        assert!(
            below.is_empty(),
            "{module} uses {below:?}, which the table of src/lib.rs lists below it: move the row, or remove the use"
        );
        above.insert(module.clone());
    }
}

/// All source files that belong to the library outside of tests.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut files = vec![(root.join("lib.rs"), String::new())];
    while let Some((path, top_module)) = files.pop() {
        let text = std::fs::read_to_string(&path).expect("a module's file");
        let code = without_tests_and_comments(&text);
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let folder = match stem {
            Some("lib" | "mod") => path.with_file_name(""),
            _ => path.with_extension(""),
        };
        for module in code.lines().filter_map(declared_module) {
            let file = folder.join(format!("{module}.rs"));
            let in_folder = folder.join(module).join("mod.rs");
            let top = if top_module.is_empty() {
                module
            } else {
                &top_module
            };
            let file = if file.exists() { file } else { in_folder };
            files.push((file, top.to_owned()));
        }
        found.push(Source {
            path,
            top_module,
            code,
        });
    }
    found
}

/// The text without comments, and without items that exist only in tests or documentation.
fn without_tests_and_comments(text: &str) -> String {
    let mut code = String::new();
    let is_comment = |line: &str| line.trim_start().starts_with("//");
    let mut lines = text.lines().filter(|line| !is_comment(line));
    while let Some(line) = lines.next() {
        if !matches!(line.trim(), "#[cfg(test)]" | "#[cfg(doc)]") {
            code.push_str(line.split(" //").next().unwrap_or_default());
            code.push('\n');
            continue;
        }
        // The item ends with its first line, or with a brace that has the indentation of that line.
        let is_attribute = |line: &&str| line.trim_start().starts_with("#[");
        let Some(first) = lines.find(|line| !is_attribute(line)) else {
            break;
        };
        if !first.ends_with([';', '}', ',']) {
            let indent = &first[..first.len() - first.trim_start().len()];
            let last = format!("{indent}}}");
            lines.find(|line| line.trim_end_matches(';') == last);
        }
    }
    code
}

/// A line without the item's visibility.
fn without_visibility(line: &str) -> &str {
    let line = line.trim_start();
    let Some(rest) = line.strip_prefix("pub") else {
        return line;
    };
    let rest = match rest.strip_prefix('(') {
        Some(scope) => scope.split_once(')').map_or(scope, |(_, rest)| rest),
        None => rest,
    };
    rest.trim_start()
}

/// The module in a file of its own that a line declares.
fn declared_module(line: &str) -> Option<&str> {
    let rest = without_visibility(line).strip_prefix("mod ")?;
    rest.strip_suffix(';')
}

/// The name of the type that a line declares.
fn declared_type(line: &str) -> Option<&str> {
    let (kind, rest) = without_visibility(line).split_once(' ')?;
    let is_type = match kind {
        "struct" | "enum" | "union" | "trait" => true,
        // An indented one is an associated type, whose name its trait chooses.
        "type" => !line.starts_with(' '),
        _ => false,
    };
    // A macro's `$name` has no letters that are known here.
    is_type
        .then(|| identifier(rest))
        .filter(|name| !name.is_empty())
}

/// The first names of the paths that begin at the root of the crate, as in `crate::api` and `crate::{aci, api}`.
fn crate_paths(code: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for path in code.split("crate::").skip(1) {
        let Some(group) = path.strip_prefix('{') else {
            names.push(identifier(path));
            continue;
        };
        let mut depth = 0;
        let at_comma = |c: char| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth < 0 || depth == 0 && c == ','
        };
        let end = group.find("};").unwrap_or(group.len());
        names.extend(
            group[..end]
                .split(at_comma)
                .map(|part| identifier(part.trim_start())),
        );
    }
    names
}

/// The identifier at the beginning of a text.
fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

/// The table in the documentation of the crate: modules, and which modules each one uses.
fn module_table() -> Vec<TableRow> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs"));
    let text = text.expect("src/lib.rs");
    let rows = text
        .lines()
        .filter_map(|line| line.strip_prefix("//! | [`"));
    let rows = rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let uses = cells.get(2).expect("a column for the used modules");
        TableRow {
            module: identifier(row).to_owned(),
            uses: uses
                .split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect(),
        }
    });
    rows.collect()
}
