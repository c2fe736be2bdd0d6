//! What the answers of all pods show of the path to them.

use super::*;

fn unreachable() -> ProbeAnswer {
    let why = ProbeUnreachable::Timeout("i/o timeout".to_owned());
    ProbeAnswer::without_contact(ProbeOutcome::Unreachable(why))
}

#[tokio::test(start_paused = true)]
async fn a_path_that_breaks_for_all_pods_is_reported_and_their_verdicts_hold_for_a_minute() {
    let manager = manager();
    assert_eq!(manager.path(), None);
    let _sent = answered(&manager, |n| if n < 3 { success() } else { unreachable() });
    let mut pods: Vec<PodProbes> = (0..3)
        .map(|n| manager.add(pod(&n.to_string(), None)))
        .collect();
    for probes in &pods {
        probes.update(&running());
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(manager.path(), Some(ProbePath::Proven));
    // Each is probed at 10 s, and from then on without an answer.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(matches!(manager.path(), Some(ProbePath::Broken { .. })));
    for probes in &mut pods {
        let report = probes.report();
        assert!(is_ready(&report) && report["web"].blocked.is_some());
        assert!(probes.take_events().is_empty(), "no Event blames the app");
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    for probes in &mut pods {
        assert!(!is_ready(&probes.report()));
    }
    pods.clear();
    assert_eq!(manager.path(), None, "no pod is left");
}

#[tokio::test(start_paused = true)]
async fn one_app_that_does_not_answer_is_blamed_if_its_beacon_does() {
    let manager = manager();
    let mut beacon = unreachable();
    beacon.witness = Some(18899);
    let _sent = answered(
        &manager,
        move |n| if n == 0 { success() } else { beacon.clone() },
    );
    let mut probes = manager.add(pod("a", None));
    probes.update(&running());
    let mut message = Vec::new();
    while message.len() < 3 {
        probes.changed().await;
        message.extend(probes.take_events());
    }
    assert!(
        message
            .iter()
            .all(|(_, event)| event.message == "Readiness probe failed: i/o timeout")
    );
    assert!(!is_ready(&probes.report()));
    assert_eq!(manager.path(), Some(ProbePath::Proven));
}

#[tokio::test(start_paused = true)]
async fn another_pod_that_answered_before_is_the_witness_of_the_path() {
    let manager = manager();
    let (sent, mut calls) = mpsc::unbounded_channel();
    let driven = manager.clone();
    tokio::spawn(async move {
        let send = |call: ProbeCall| {
            let _ = sent.send(call);
            async { success() }
        };
        driven.drive(send, &start_permits()).await;
    });
    let mut kept = Vec::new();
    for n in 1..=2 {
        let probes = manager.add(pod(&n.to_string(), None));
        let address = Some([10, 0, 0, n].into());
        probes.update(&ProbedPodState {
            address,
            ..running()
        });
        settle().await;
        kept.push(probes);
    }
    let witness = |n| Some(SocketAddr::from(([10, 0, 0, n], 80)));
    let mut seen = Vec::new();
    for _ in 0..4 {
        let call = calls.recv().await.expect("a probe");
        seen.push((call.address, call.witness));
    }
    let (one, two) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    assert_eq!(
        seen,
        [
            (one, None),
            (two, witness(1)),
            (one, witness(2)),
            (two, witness(1))
        ]
    );
    kept.remove(0);
    while let Ok(_late) = calls.try_recv() {}
    let call = calls.recv().await.expect("a probe");
    assert_eq!(
        (call.address, call.witness),
        (two, None),
        "its pod was removed"
    );
}
