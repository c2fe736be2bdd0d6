//! Checks that the names in comments exist.
//!
//! In: the comments of all Rust sources and the documents of the crate. Out: a failed test if a comment names, in
//! back quotes, a type, function, constant, test, path or file that the sources do not contain.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Names of other projects, formats and protocols that comments cite and that the sources do not contain otherwise.
const FOREIGN_NAMES: [&str; 58] = [
    // Azure's and Kubernetes' API.
    "GetAccountInfo",
    "ORed",
    "OpenAPI",
    "ServingStatus",
    "SecretValue1InBase64",
    "binaryData",
    "nominatedNodeName",
    "observedTime",
    // Linux, SPDY.
    "CAP_NET_ADMIN",
    "RST_STREAM",
    "SO_LINGER",
    "SYN_REPLY",
    "SYN_STREAM",
    // Functions and constants of Kubernetes and of container runtimes.
    "ExpandContainerCommandOnlyStatic",
    "GetExternalPerPodMetricReplicas",
    "MaxImageBackOff",
    "PodRequests",
    "SetDefaults_Probe",
    "ValidateContainerStateTransition",
    "WithProcessArgs",
    "defaultSpamBurst",
    "defaultSpamQPS",
    "formatURL",
    "generateEventsUniformDistribution",
    "generateScalingRules",
    "imageBackOffPeriod",
    "isPodFailed",
    "maxProbeRetries",
    "maxRespBodyLength",
    "onlyReplaceFailedPods",
    "splitDockerDomain",
    "updateNodeHealth",
    "verifyRunAsNonRoot",
    // Tests of Kubernetes, whose cases some tests take over.
    "TestChangeContainerStatusOnKubeletRestart",
    "TestDoProbe",
    "TestFailureThreshold",
    "TestGetTCPAddrParts",
    "TestGetURLParts",
    "TestGrpcProber_Probe_TLS",
    "TestHTTPProbeChecker",
    "TestHTTPProbeChecker_HostHeaderPreservedAfterRedirect",
    "TestHTTPProbeChecker_NonLocalRedirects",
    "TestHTTPProbeChecker_PayloadTruncated",
    "TestHeaderConversion",
    "TestInitialDelay",
    "TestLivenessProbeDisabledByStarted",
    "TestOnHoldOnLivenessOrStartupCheckFailure",
    "TestProbe",
    "TestResultRunOnStartupCheckFailure",
    "TestStartupProbeDisabledByStarted",
    "TestStartupProbeFailureThreshold",
    "TestStartupProbeSuccessThreshold",
    "TestSuccessThreshold",
    "TestUpdatePodStatus",
    "Test_v1HeaderToHTTPHeader",
    "not_started_container_no_readiness",
    "started_container_no_readiness",
    // Types of other crates.
    "Recorder",
];

/// What the sources contain.
struct KnownNames {
    /// Every word of the code, with the texts in it.
    words: BTreeSet<String>,
    /// The paths of all files, from the root of the repository.
    files: BTreeSet<String>,
}

/// A part of a comment in back quotes, and where it is.
struct CodeSpan {
    place: String,
    text: String,
}

#[test]
fn every_name_in_back_quotes_in_a_comment_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut known = KnownNames {
        words: BTreeSet::from(["crate", "self", "std", "super"].map(str::to_owned)),
        files: BTreeSet::new(),
    };
    let mut spans = Vec::new();
    for path in files(root) {
        let place = path.strip_prefix(root).expect("a file of the crate");
        let place = place.display().to_string();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if let (Some("rs"), Ok(text)) = (extension, std::fs::read_to_string(&path)) {
            known.words.extend(words(&place).map(str::to_owned));
            // The list above would make each of its names known.
            if !place.ends_with("architecture/comments.rs") {
                let code = text.lines().map(|line| split_comment(line).0);
                known.words.extend(code.flat_map(words).map(str::to_owned));
            }
            let comments = text.lines().map(|line| split_comment(line).1);
            spans.extend(code_spans(comments, &place));
        } else if let (Some("md"), Ok(text)) = (extension, std::fs::read_to_string(&path)) {
            let files = code_spans(text.lines(), &place);
            spans.extend(files.filter(|span| is_rust_file(&span.text)));
        }
        known.files.insert(place);
    }
    let names = spans.iter().filter(|span| is_name(&span.text)).count();
    assert!(names > 900, "names are found: {names}");
    let unknown = spans
        .iter()
        .filter(|span| !known.has(&span.text) && !FOREIGN_NAMES.contains(&span.text.as_str()));
    let unknown: Vec<String> = unknown
        .map(|span| format!("{}: `{}`", span.place, span.text))
        .collect();
    assert!(
        unknown.is_empty(),
        "comments name what does not exist (a name of another project belongs into FOREIGN_NAMES):\n{}",
        unknown.join("\n")
    );
    let cited: BTreeSet<&str> = spans.iter().map(|span| span.text.as_str()).collect();
    for name in FOREIGN_NAMES {
        assert!(
            cited.contains(name),
            "no comment names {name}: remove it from FOREIGN_NAMES"
        );
    }
}

#[test]
fn a_wrong_name_in_a_comment_is_found() {
    let known = KnownNames {
        words: BTreeSet::from(["PodWorker", "run", "aci"].map(str::to_owned)),
        files: BTreeSet::from(["src/node/mod.rs".to_owned()]),
    };
    for (comment, unknown) in [
        ("/// Runs a `PodWorker`, and a `PodKeeper`.", "PodKeeper"),
        ("//! See `aci::run`, and `aci::walk()`.", "aci::walk()"),
        (
            "// As `node/mod.rs`, not `node/keeper.rs`.",
            "node/keeper.rs",
        ),
        (
            "run();\u{20}// The test `a_pod_runs_once` shows it.",
            "a_pod_runs_once",
        ),
        (
            "/// The answer is `Gone`, not `a b`, `true`, or `x = 1`.",
            "Gone",
        ),
    ] {
        let spans = code_spans([split_comment(comment).1].into_iter(), "a.rs");
        let found: Vec<String> = spans
            .filter(|span| !known.has(&span.text))
            .map(|span| span.text)
            .collect();
        assert_eq!(found, [unknown], "{comment}");
    }
}

impl KnownNames {
    /// Whether the text is no name of ours, or one that exists.
    fn has(&self, text: &str) -> bool {
        if is_rust_file(text) {
            let end = format!("/{text}");
            return self.files.contains(text) || self.files.iter().any(|file| file.ends_with(&end));
        }
        !is_name(text) || words(text).all(|word| self.words.contains(word))
    }
}

fn is_rust_file(text: &str) -> bool {
    let stem = text.strip_suffix(".rs");
    stem.is_some_and(|stem| !stem.contains([' ', '*', '{']))
}

/// Whether the text is a path, or an identifier that no plain word looks like: in snake case, camel case, or with a
/// capital.
fn is_name(text: &str) -> bool {
    let text = text.trim_end_matches("()");
    let is_identifier = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let is_path = text.contains("::");
    let is_capitalized = text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.contains(|c: char| c.is_ascii_lowercase());
    let is_camel = text
        .as_bytes()
        .windows(2)
        .any(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase());
    text.split("::").all(is_identifier)
        && (is_path || is_capitalized || is_camel || text.contains('_'))
}

/// The identifiers in a text.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

/// The code and the comment of a line.
fn split_comment(line: &str) -> (&str, &str) {
    let trimmed = line.trim_start();
    if trimmed.starts_with("//") {
        return ("", trimmed);
    }
    line.split_once(" // ").unwrap_or((line, ""))
}

/// The parts of the lines that stand in back quotes.
fn code_spans<'a>(
    lines: impl Iterator<Item = &'a str>,
    place: &str,
) -> impl Iterator<Item = CodeSpan> {
    lines.zip(1..).flat_map(move |(line, number)| {
        let spans = line.split('`').skip(1).step_by(2);
        spans.map(move |text| CodeSpan {
            place: format!("{place}:{number}"),
            text: text.to_owned(),
        })
    })
}

/// All files in the crate's `src` and `tests`.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut folders = vec![root.join("src"), root.join("tests")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the crate") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files
}
