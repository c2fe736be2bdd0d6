//! The times that clients see when the emulated clock runs faster than theirs.

use std::time::{Duration, Instant};

use burstpool::emulator::EmulatorOptions;
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use crate::azure::{Azure, body_with, group, within};

/// All times in a text.
fn times(text: &str) -> Vec<Timestamp> {
    let text = text.replace("\\n", " ");
    let parts = text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '.')));
    parts.filter_map(|part| part.parse().ok()).collect()
}

#[tokio::test]
async fn no_time_that_a_fast_emulator_shows_is_later_than_now() {
    let began = Timestamp::now();
    let azure = Azure::with(EmulatorOptions {
        speed: 1000.0,
        ..EmulatorOptions::default()
    })
    .await;
    let script = [
        ("ACI_EMULATOR_EXIT_AFTER", "60s"),
        ("ACI_EMULATOR_EXIT_CODE", "3"),
        ("ACI_EMULATOR_LOG", "hello"),
        ("ACI_EMULATOR_LOG_EVERY", "5s"),
    ];
    let put = azure.put("one", &body_with("Always", &script)).await;
    let operation = put.header("azure-asyncoperation").to_owned();
    let deadline = Instant::now() + Duration::from_secs(30);
    let logs = within("one", "/containers/web/logs", "2023-05-01") + "&timestamps=true";
    let (mut restarts, mut lines) = (0, 0);
    while restarts < 2 || lines < 3 {
        assert!(
            Instant::now() < deadline,
            "minutes pass in less than a second"
        );
        let one = azure.get(&group("one")).await.body;
        let all = azure.get(&group("")).await.body;
        let operation = azure.get(&operation).await.body;
        let log = azure.get(&logs).await.body;
        let timeline = azure.admin(Method::GET, "timeline", Value::Null).await;
        let clock = azure.admin(Method::GET, "clock", Value::Null).await;
        let page = azure.emulator.url().to_owned() + "/_emulator/";
        let page = reqwest::get(page).await.expect("a page").text().await;
        let now = Timestamp::now();
        for (what, shown) in [
            ("the group", one.to_string()),
            ("the list", all.to_string()),
            ("the operation", operation.to_string()),
            ("the log", log.to_string()),
            ("the timeline", timeline.to_string()),
            ("the clock", clock.to_string()),
            ("the page", page.expect("its text")),
        ] {
            let times = times(&shown);
            assert!(
                !times.is_empty() || what == "the list" || what == "the log",
                "{shown}"
            );
            for time in times {
                // Most times are cut to whole seconds or milliseconds.
                let is_early = time + Duration::from_secs(1) < began;
                assert!(!is_early && time <= now, "{what} at {now}: {shown}");
            }
        }
        let view = &one["properties"]["containers"][0]["properties"]["instanceView"];
        restarts = view["restartCount"].as_u64().unwrap_or_default();
        lines = lines.max(times(&log.to_string()).len());
    }
    assert_eq!(
        azure.admin(Method::GET, "clock", Value::Null).await["speed"],
        json!(1000.0)
    );
}
