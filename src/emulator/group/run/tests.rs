use super::*;

fn run(script: ContainerScript) -> EmulatedRun {
    EmulatedRun::new(&Container::default(), script)
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("in range")
}

#[test]
fn restart_pauses_double_up_to_5_minutes_and_reset_after_10_minutes_of_running() {
    let mut run = run(ContainerScript::default());
    let (mut now, mut pauses) = (0, Vec::new());
    for _ in 0..7 {
        run.start(at(now));
        run.exit(at(now + 1), 1, GroupRestartPolicy::Always);
        let (due, change) = run.due.expect("a restart is due");
        assert_eq!(change, DueChange::Start);
        pauses.push(due.as_second() - now - 1);
        now = due.as_second();
    }
    assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300]);
    assert_eq!(run.restarts, 6);
    run.start(at(now));
    run.exit(at(now + 600), 1, GroupRestartPolicy::Always);
    assert_eq!(run.due.expect("due").0.as_second() - now - 600, 10);
}

#[test]
fn an_image_is_named_by_digest_without_its_tag() {
    assert!(image_with_digest("alpine:latest").starts_with("alpine@sha256:"));
    assert!(image_with_digest("host:5000/a/b").starts_with("host:5000/a/b@sha256:"));
    assert_eq!(image_with_digest("a@sha256:1"), "a@sha256:1");
    assert_eq!(
        image_with_digest("alpine").len(),
        "alpine@sha256:".len() + 64
    );
}

#[test]
fn a_scripted_log_is_complete_and_survives_a_jump_of_the_clock() {
    let script = ContainerScript {
        log: "hello".into(),
        log_every: "1s".parse().ok(),
        ..ContainerScript::default()
    };
    let mut run = run(script);
    run.start(at(0));
    run.write_log(at(3));
    assert_eq!(run.log.text(None, None), "hello\nline 1\nline 2\nline 3\n");
    run.write_log(at(1_000_000));
    assert!(run.log.text(Some(1), None).ends_with("line 1000000\n"));
}
