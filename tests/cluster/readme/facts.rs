//! Claims of the documents that can be checked without a cluster.

use std::collections::BTreeSet;
use std::path::Path;

use super::documents::{self, Document, GENERATED, README};

/// The document that describes how the code works.
const DESIGN: &str = "src/docs/design.md";
/// The README's maximum length in bytes. Longer texts belong into another document.
const MAX_README_BYTES: usize = 9_000;
/// The languages of code blocks. Commands in a block of another language would not be tested.
const LANGUAGES: [&str; 5] = ["console", "yaml", "json", "text", "mermaid"];

#[test]
fn every_file_that_a_document_names_and_every_page_that_it_links_to_exists() {
    let mut named = 0;
    for document in documents::all() {
        for file in document.files() {
            let exists = documents::root().join(&file).exists();
            assert!(exists, "{}: there is no {file}", document.path);
            named += 1;
        }
        let folder = Path::new(document.path).parent().expect("a folder");
        for target in document.links() {
            let path = documents::root().join(folder).join(&target);
            assert!(path.exists(), "{}: a link to {target}", document.path);
        }
    }
    assert!(named > 100, "the files of the journeys are found: {named}");
}

#[test]
fn every_function_and_module_that_the_design_names_is_in_the_code() {
    let all = documents::all();
    let design = all.iter().find(|document| document.path == DESIGN);
    let design = design.expect("the design is a document");
    let files = documents::files_in("src").into_iter();
    let sources = files.filter(|path| path.extension().is_some_and(|kind| kind == "rs"));
    let mut code: String = sources.map(|path| documents::read(&path)).collect();
    code += &documents::read(&documents::root().join("Cargo.toml"));
    let is_snake = |name: &&String| {
        name.contains('_') && name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
    };
    let mut named = 0;
    for name in design.spans().iter().filter(is_snake) {
        let is_function = ["(", "<"].map(|end| code.contains(&format!("fn {name}{end}")));
        let is_dependency = code.contains(&format!("\n{name} = "));
        let is_there = is_function.contains(&true) || is_dependency;
        assert!(is_there, "{DESIGN}: the code has no {name}");
        named += 1;
    }
    assert!(named > 5, "functions are found: {named}");
    // Paths such as `burst::plan` in the picture of the data flow.
    let is_path = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = design.text.split(|c: char| !is_path(c));
    for (module, item) in words.filter_map(|word| word.split_once("::")) {
        let head = documents::root().join("src").join(module).join("mod.rs");
        let head = documents::read(&head);
        let mut lines = head.lines().filter(|line| !line.trim().starts_with("//"));
        let is_there = lines.any(|line| line.split(|c: char| !is_path(c)).any(|word| word == item));
        assert!(is_there, "{DESIGN}: {module} has no {item}");
    }
}

#[test]
fn every_document_is_tested_and_is_a_page_of_the_crates_documentation() {
    let pages = documents::read(&documents::root().join("src/docs/mod.rs"));
    let all = documents::all();
    let mut known: Vec<&str> = all.iter().map(|one| one.path).collect();
    known.extend(GENERATED);
    known.sort_unstable();
    assert_eq!(documents::found(), known);
    for document in &all {
        let path = document.path;
        let from_docs = match path.strip_prefix("src/docs/") {
            Some(file) => file.to_owned(),
            None => match path.strip_prefix("src/") {
                Some(rest) => format!("../{rest}"),
                None => format!("../../{path}"),
            },
        };
        let page = format!(" = \"{from_docs}\",");
        assert!(pages.contains(&page), "no page: {path}");
        for name in document.link_names() {
            let definition = format!("[{name}]: ");
            let is_defined = document.text.contains(&format!("\n{definition}"));
            assert!(is_defined, "{path}: nothing says where [{name}] leads");
            assert!(pages.contains(&definition), "{path}: [{name}] has no page");
        }
    }
}

#[test]
fn the_readme_is_short_and_every_block_of_a_document_is_of_a_known_language() {
    for Document { path, text } in documents::all() {
        if path == README {
            assert!(text.len() <= MAX_README_BYTES, "{} bytes", text.len());
        }
        let fences = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("```"));
        for language in fences.step_by(2) {
            assert!(LANGUAGES.contains(&language), "{path}: {language}");
        }
    }
}

#[test]
fn every_decision_that_the_code_cites_is_written_down() {
    let design = documents::read(&documents::root().join(DESIGN));
    let headings = design.lines().filter_map(|line| line.strip_prefix("### D"));
    let decisions: BTreeSet<&str> = headings
        .filter_map(|heading| heading.split(' ').next())
        .collect();
    let mut cited = 0;
    for path in ["src", "tests", "config"].map(documents::files_in).concat() {
        let kind = path.extension().and_then(|kind| kind.to_str());
        if !matches!(kind, Some("rs" | "yaml" | "md")) {
            continue;
        }
        let text = documents::read(&path);
        for rest in text.split("decision D").skip(1) {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric());
            let name = &rest[..end.unwrap_or(rest.len())];
            let is_number = name.starts_with(|c: char| c.is_ascii_digit());
            let is_known = !is_number || decisions.contains(name);
            assert!(is_known, "{}: decision D{name}", path.display());
            cited += usize::from(is_number);
        }
    }
    assert!(cited > 15, "the code cites decisions: {cited}");
}

#[test]
fn the_reference_names_every_metric_label_and_annotation() {
    let reference = documents::read(&documents::root().join("src/docs/reference.md"));
    let telemetry = documents::files_in("src/telemetry");
    let names = ["src/api/names.rs", "src/aci/translate/annotations.rs"];
    let names = names.map(|path| documents::root().join(path));
    let mut checked = 0;
    for path in telemetry.into_iter().chain(names) {
        let text = documents::read(&path);
        // Names in tests are not visible to users.
        let text = text.split("#[cfg(test)]").next().expect("the code");
        for word in text.split('"').skip(1).step_by(2) {
            let is_word = word.chars().all(|c| c.is_ascii_graphic());
            let name = match word {
                word if !is_word || word.contains('{') => continue,
                word if word.starts_with("burstpool_") => word.to_owned(),
                word if word.starts_with("burstpool.io/") => word.to_owned(),
                _ => continue,
            };
            let is_named = reference.contains(&format!("`{name}"));
            assert!(is_named, "{}: {name}", path.display());
            checked += 1;
        }
    }
    assert!(checked > 25, "names are found: {checked}");
}

/// Asserts that the tests in a `cargo test` command exist. The last word is a part of a module's path.
pub fn assert_tests_exist(command: &str) {
    let words: Vec<&str> = command.split(' ').skip(2).collect();
    let (folder, filter) = match words[..] {
        ["--lib", filter] => ("src".to_owned(), filter),
        ["--test", program, filter] => (format!("tests/{program}"), filter),
        _ => unreachable!("another form of cargo test: {command}"),
    };
    let part = filter.replace("::", "/");
    let files = documents::files_in(&folder);
    let is_there = files
        .iter()
        .any(|path| path.to_string_lossy().contains(&part));
    assert!(is_there, "no tests: {command}");
}
