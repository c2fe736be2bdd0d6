//! `GET /_emulator/`: an HTML page that lists the container groups and their state, for people.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Html;

use crate::emulator::clock::ShownClock;
use crate::emulator::group::lifecycle::EmulatedGroup;
use crate::emulator::group::run::{EmulatedRun, RunState};
use crate::emulator::group::view;
use crate::emulator::state::EmulatorState;

const HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=2>\
<title>aci-emulator</title><style>body{font:15px system-ui;margin:2em;max-width:70em}\
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3em .8em;border-bottom:1px solid #ddd}\
.Running{color:#067647}.Pending,.Waiting{color:#b54708}.Failed{color:#b42318}small{color:#666}</style>";

/// Shows all groups with their containers, the number of faults, and the clock.
pub async fn page(State(shared): State<Arc<EmulatorState>>) -> Html<String> {
    let (now, shown_clock) = (shared.clock.now(), shared.clock.shown_clock());
    let mut store = shared.store();
    store.advance_all(now);
    let mut page = String::from(HEAD);
    let engine = if shared.engine.is_some() {
        "real containers"
    } else {
        "simulated containers"
    };
    let paused = if shared.clock.is_paused() {
        ", paused"
    } else {
        ""
    };
    let _ = write!(
        page,
        "<h1>{} container groups</h1><p>{engine}, clock {} (speed {}{paused}), {} faults in force</p>",
        store.groups.len(),
        view::time(shown_clock.shown(now)),
        shared.clock.speed(),
        store.faults.rules().len(),
    );
    page.push_str(
        "<table><tr><th>group<th>region<th>provisioning<th>state<th>address<th>containers",
    );
    for group in store.groups.values() {
        let provisioning = view::provisioning(group, Some(now));
        row(&mut page, group, provisioning, &shown_clock);
    }
    page.push_str("</table>");
    Html(page)
}

fn row(page: &mut String, group: &EmulatedGroup, provisioning: &str, shown_clock: &ShownClock) {
    let state = view::state(group);
    let address = group.ip.map(|ip| ip.to_string()).unwrap_or_default();
    let _ = write!(
        page,
        "<tr><td>{}<br><small>{}/{}</small><td>{}<td>{provisioning}<td class={state}>{state}<td>{address}<td>",
        escaped(&group.id.name),
        escaped(&group.id.subscription),
        escaped(&group.id.resource_group),
        escaped(&group.region),
    );
    for run in group.init.iter().chain(&group.containers) {
        let _ = write!(
            page,
            "{}: {} ({} restarts)<br>",
            escaped(&run.name),
            describe_run(run, shown_clock),
            run.restarts
        );
    }
}

fn describe_run(run: &EmulatedRun, shown_clock: &ShownClock) -> String {
    match &run.current {
        None => "not pulled".to_owned(),
        Some(RunState::Waiting { detail: "" }) => "waiting".to_owned(),
        Some(RunState::Waiting { detail }) => (*detail).to_owned(),
        Some(RunState::Running { since }) => {
            format!("running since {}", view::time(shown_clock.shown(*since)))
        }
        Some(RunState::Terminated { code, .. }) => format!("ended with {code}"),
    }
}

/// `text` with HTML's special characters replaced by entities.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            _ => safe.push(letter),
        }
    }
    safe
}
