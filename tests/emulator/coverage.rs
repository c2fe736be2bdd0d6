//! How much of what real projects run can run on ACI: `tests/coverage` has Deployments, Jobs and other workloads as
//! projects write them, and `src/docs/coverage.md` is the generated table of what keeps which of them off.
//!
//! The templates were written for this test, after a survey of 706 workloads of 124 public repositories (November
//! 2026), which were applied to burstpool one by one. 594 of them are of the kind that people burst: 54 % web
//! applications, 14 % workers, 15 % batch, 7 % CI and 10 % machine learning, about half plain manifests and half
//! rendered charts. Of the templates, 60 are of that kind, in the same proportions, and they use each feature about
//! as often as the survey's workloads do ([`survey`]): they are not chosen to run.
//!
//! A pod is judged with a placement in a subnet and with one without, with all objects that it refers to, with the
//! configuration of its image, and by the labels of the virtual node.

mod survey;
mod templates;
mod verdict;

#[path = "../../src/kept.rs"]
mod kept;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use burstpool::aci::translate::field_table::waits_for_helper;

use templates::{FAMILIES, Template};
use verdict::{Verdict, fields};

/// The document that the test keeps.
const PAGE: &str = "src/docs/coverage.md";

/// Each template with its verdict.
struct Judged {
    template: Template,
    verdict: Verdict,
}

fn judged() -> Vec<Judged> {
    let all = templates::all().into_iter();
    all.map(|template| {
        let verdict = Verdict::of(&template);
        Judged { template, verdict }
    })
    .collect()
}

#[test]
fn the_page_of_what_runs_matches_the_translation() {
    kept::assert_kept(PAGE, &page(&judged()));
}

#[test]
fn templates_use_each_feature_about_as_often_as_real_workloads() {
    let all = templates::all();
    let bursty: Vec<&Template> = all.iter().filter(|one| one.family.is_bursty).collect();
    assert!(bursty.len() >= 60, "{}", bursty.len());
    for feature in survey::FEATURES {
        let (here, there) = (feature.share(&bursty), feature.survey);
        let is_near = here.abs_diff(there) <= survey::TOLERANCE;
        assert!(
            is_near,
            "{}: {here} % of the templates, {there} % of the survey",
            feature.name
        );
    }
}

#[test]
fn a_template_has_a_name_of_its_own_and_says_what_it_stands_for() {
    let all = templates::all();
    let mut names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all.len());
    assert!(all.iter().all(|one| !one.stands_for.contains('|')));
}

/// The whole document.
fn page(all: &[Judged]) -> String {
    let mut text = String::from(
        "# Which workloads run on ACI\n\n\
         Generated from the translation itself and the workloads of `tests/coverage`, which are written as real projects\n\
         write theirs: in the proportions of a survey of 706 workloads of 124 public repositories, not chosen to run.\n\n\
         A workload that *waits for the helper* has only fields that ACI does not keep and that a program of burstpool\n\
         inside the container group could keep. There is no such program yet, so these workloads are refused today. A\n\
         workload that is *refused for good* has a field that nothing inside a group could keep.\n\n",
    );
    totals(all, &mut text);
    reasons(all, &mut text);
    for family in &FAMILIES {
        let of_family = all
            .iter()
            .filter(|one| std::ptr::eq(one.template.family, family));
        write!(text, "\n## {}\n\n", family.title).expect("a string grows");
        text.push_str("| workload | on ACI | what keeps it off |\n| --- | --- | --- |\n");
        for one in of_family {
            row(one, &mut text);
        }
    }
    text
}

/// How many of them run.
fn totals(all: &[Judged], text: &mut String) {
    text.push_str("| workloads | in all | run | of these, without a subnet | run with `spill.accept` | wait for the helper | refused for good |\n| --- | --- | --- | --- | --- | --- | --- |\n");
    for (title, is_bursty) in [
        ("that people burst", true),
        ("stateful sets, infrastructure", false),
    ] {
        let of: Vec<&Judged> = all
            .iter()
            .filter(|one| one.template.family.is_bursty == is_bursty)
            .collect();
        let run = of.iter().filter(|one| one.verdict.runs()).count();
        let public = of
            .iter()
            .filter(|one| one.verdict.runs_without_subnet())
            .count();
        let accepting = of.iter().filter(|one| one.verdict.runs_with().is_some());
        let waiting = of.iter().filter(|one| one.verdict.waits_for_helper());
        let (total, accepting, waiting) = (of.len(), accepting.count(), waiting.count());
        let refused = total - run - accepting - waiting;
        writeln!(
            text,
            "| {title} | {total} | {run} ({} %) | {public} | {accepting} ({} %) | {waiting} | {refused} |",
            run * 100 / total,
            accepting * 100 / total
        )
        .expect("a string grows");
    }
}

/// The fields that keep workloads off, the most frequent first.
fn reasons(all: &[Judged], text: &mut String) {
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let bursty = all.iter().filter(|one| one.template.family.is_bursty);
    for one in bursty {
        let fields = one.verdict.fields();
        let is_only = usize::from(fields.len() == 1);
        for field in fields {
            let count = counts.entry(field).or_default();
            *count = (count.0 + 1, count.1 + is_only);
        }
    }
    let mut counts: Vec<(String, (usize, usize))> = counts.into_iter().collect();
    counts.sort_by(|(a, (many, only)), (b, (more, alone))| (more, alone, a).cmp(&(many, only, b)));
    text.push_str(
        "\nWhat keeps workloads off that people burst, in a placement with a subnet and whatever the pool accepts:\n\n",
    );
    text.push_str("| field | workloads | as the only reason | waits for the helper |\n| --- | --- | --- | --- |\n");
    for (field, (many, only)) in counts {
        let path = format!("spec.{field}");
        let waits = if waits_for_helper(&path) { "yes" } else { "" };
        writeln!(text, "| `{field}` | {many} | {only} | {waits} |").expect("a string grows");
    }
}

/// One workload.
fn row(one: &Judged, text: &mut String) {
    let Judged { template, verdict } = one;
    let on_aci = match (verdict.runs(), verdict.runs_without_subnet()) {
        (true, true) => "runs",
        (true, false) => "runs in a subnet",
        (false, _) if verdict.runs_with().is_some() => "runs in a subnet with `spill.accept`",
        (false, _) if verdict.waits_for_helper() => "waits for the helper",
        (false, _) => "refused for good",
    };
    let read = if verdict.reads_image && verdict.runs() {
        "; its image is read"
    } else {
        ""
    };
    let mut off: Vec<String> = verdict.fields();
    if verdict.runs() {
        off = fields(&verdict.without_subnet);
    }
    let mut off: Vec<String> = off.iter().map(|field| format!("`{field}`")).collect();
    if verdict.runs() && !off.is_empty() {
        off.insert(0, "without a subnet:".to_owned());
    }
    if let Some(losses) = verdict.runs_with() {
        off = losses.iter().map(|loss| format!("`{loss}`")).collect();
        off.insert(0, "accept:".to_owned());
    }
    if verdict.is_daemon {
        off.insert(0, "it is a DaemonSet:".to_owned());
    }
    let off = off.join(", ").replace(":,", ":");
    let Template {
        kind,
        name,
        stands_for,
        ..
    } = template;
    writeln!(
        text,
        "| {kind} `{name}`: {stands_for} | {on_aci}{read} | {off} |"
    )
    .expect("a string grows");
}
