//! Input and output of containers: terminals, attach, logs.

use serde_json::json;

use crate::azure::{Azure, LIVE, container, group, none, with_emulator};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_has_its_size_and_every_byte_and_ends_when_the_client_leaves() {
    with_emulator(1.0, |azure, _| async move {
        let name = azure.name("exec");
        let containers = [container("main", LIVE, &none())];
        azure.put(&name, &group(&containers, &none())).await;
        azure.until_state(&name, "Running").await;

        let mut shell = azure.exec(&name, "main", "sh").await;
        shell.until_shown("#").await;
        shell.type_in("stty size\n").await;
        shell.until_shown("33 101").await;
        shell
            .type_in("echo chan''ged > /state; echo do''ne\n")
            .await;
        shell.until_shown("done").await;
        shell.type_in("exit\n").await;
        shell.until_closed().await;

        let shown = azure
            .exec(&name, "main", "cat /state")
            .await
            .until_closed()
            .await;
        assert_eq!(String::from_utf8_lossy(&shown), "changed\r\n");
        let shown = azure
            .exec(&name, "main", "printf \\001\\002\\377abc")
            .await
            .until_closed()
            .await;
        assert_eq!(shown, b"\x01\x02\xffabc");

        let mut left = azure.exec(&name, "main", "sh").await;
        left.until_shown("#").await;
        left.type_in("echo $$ > /left; exec sleep 7777\n").await;
        until_shows(&azure, &name, "ps", |shown| shown.contains("sleep 7777")).await;
        drop(left);
        until_shows(&azure, &name, "ps", |shown| !shown.contains("sleep 7777")).await;
    })
    .await;
}

/// Repeats a command until its output is as wanted.
async fn until_shows(azure: &Azure, group: &str, command: &str, wanted: impl Fn(&str) -> bool) {
    let look = async {
        loop {
            let shown = azure
                .exec(group, "main", command)
                .await
                .until_closed()
                .await;
            if wanted(&String::from_utf8_lossy(&shown)) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let patience = std::time::Duration::from_secs(60);
    tokio::time::timeout(patience, look)
        .await
        .expect("the command shows what is wanted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attached_client_sees_what_is_written_from_then_on_until_the_end() {
    with_emulator(1.0, |azure, _| async move {
        let name = azure.name("attach");
        let script = "echo before; until [ -e /go ]; do sleep 0.1; done; echo after >&2; exit 0";
        let containers = [container("main", script, &none())];
        azure
            .put(
                &name,
                &group(&containers, &json!({"restartPolicy": "Never"})),
            )
            .await;
        azure.until_logged(&name, "main", "before").await;
        let attached = azure.attach(&name, "main").await;
        azure
            .exec(&name, "main", "touch /go")
            .await
            .until_closed()
            .await;
        let shown = attached.until_closed().await;
        assert_eq!(String::from_utf8_lossy(&shown), "after\n");
        azure.until_state(&name, "Succeeded").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_cut_to_its_tail_and_has_times_when_asked() {
    with_emulator(1.0, |azure, _| async move {
        let name = azure.name("logs");
        let script = "for i in 1 2 3; do echo line $i; done; echo error >&2; exit 0";
        azure
            .put(
                &name,
                &group(
                    &[container("main", script, &none())],
                    &json!({"restartPolicy": "Never"}),
                ),
            )
            .await;
        azure.until_state(&name, "Succeeded").await;
        assert_eq!(azure.logs(&name, "main", "tail=2").await, "line 3\nerror\n");
        let log = azure.logs(&name, "main", "timestamps=true").await;
        let times: Vec<_> = log
            .lines()
            .filter_map(|line| line.split_once(' '))
            .collect();
        assert_eq!(times.len(), 4, "{log}");
        for (time, _) in times {
            time.parse::<jiff::Timestamp>()
                .expect("a time in front of each line");
        }
    })
    .await;
}
