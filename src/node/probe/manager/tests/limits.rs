//! How many probes run at once, and how many Events there are.

use super::*;

#[tokio::test(start_paused = true)]
async fn at_most_256_probes_of_all_nodes_start_at_once_and_the_others_follow() {
    let (nodes, start_permits) = ([manager(), manager()], start_permits());
    let (running_now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (gate, done) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    for node in &nodes {
        let (driven, permits) = (node.clone(), start_permits.clone());
        let (seen, peak) = (running_now.clone(), most.clone());
        let (opened, ended) = (gate.clone(), done.clone());
        tokio::spawn(async move {
            let send = |_| {
                let (seen, peak) = (seen.clone(), peak.clone());
                let (opened, ended) = (opened.clone(), ended.clone());
                async move {
                    peak.fetch_max(seen.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    opened.acquire().await.expect("it is open").forget();
                    seen.fetch_sub(1, Ordering::SeqCst);
                    ended.fetch_add(1, Ordering::SeqCst);
                    success()
                }
            };
            driven.drive(send, &permits).await;
        });
    }
    let mut kept: Vec<PodProbes> = (0..1000)
        .map(|n| {
            let probes = nodes[n % 2].add(pod(&n.to_string(), None));
            probes.update(&running());
            probes
        })
        .collect();
    // Long enough for every task to wait; time moves only then.
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(running_now.load(Ordering::SeqCst), MAX_STARTING_PROBES);
    gate.add_permits(1000);
    for probes in &mut kept {
        while !probes
            .report()
            .get("web")
            .is_some_and(|verdict| verdict.ready)
        {
            probes.changed().await;
        }
    }
    assert_eq!(most.load(Ordering::SeqCst), MAX_STARTING_PROBES);
    assert_eq!(done.load(Ordering::SeqCst), 1000);
}

#[tokio::test(start_paused = true)]
async fn probes_that_hang_leave_their_places_to_others_after_a_second() {
    let manager = manager();
    let (running_now, mut calls) = hanging(&manager);
    let mut kept = Vec::new();
    for n in 0..MAX_RUNNING_PROBES + 100 {
        let probes = manager.add(pod(&n.to_string(), None));
        probes.update(&running());
        kept.push(probes);
    }
    settle().await;
    assert_eq!(running_now.count(), MAX_STARTING_PROBES);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(running_now.count(), 2 * MAX_STARTING_PROBES);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(running_now.count(), MAX_RUNNING_PROBES);
    // Each group of probes waited until the one before it had run for a second.
    let late = std::iter::from_fn(|| calls.try_recv().ok()).map(|call| call.late.as_secs());
    let groups = (0..).flat_map(|second| [second; MAX_STARTING_PROBES]);
    assert!(late.eq(groups.take(MAX_RUNNING_PROBES)));
}

/// A pod of 60 containers.
fn large_pod() -> (ProbedPod, ProbedPodState) {
    let (mut pod, mut state) = (pod("large", None), running());
    let names: Vec<String> = (0..60).map(|n| n.to_string()).collect();
    let containers = names.iter().map(|name| (name.clone(), specs(), None));
    pod.containers = containers.collect();
    let seen = &state.containers[0].1;
    let containers = names.iter().map(|name| (name.clone(), seen.clone()));
    state.containers = containers.collect();
    (pod, state)
}

#[tokio::test(start_paused = true)]
async fn one_pod_runs_few_probes_at_once_and_a_probe_ends_with_its_reason() {
    let manager = manager();
    let (running_now, mut calls) = hanging(&manager);
    let (large, mut state) = large_pod();
    let probes = manager.add(large);
    probes.update(&state);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(running_now.count(), MAX_PROBES_PER_POD);
    // The containers whose probes run restart: their probes end, and others begin.
    let mut probed = Vec::new();
    while let Ok(call) = calls.try_recv() {
        probed.push(call.key.1);
    }
    assert_eq!(probed.len(), MAX_PROBES_PER_POD);
    for place in probed {
        state.containers[place].1 = ProbedContainer::NotRunning;
    }
    probes.update(&state);
    settle().await;
    assert_eq!(running_now.count(), MAX_PROBES_PER_POD);
    assert_eq!(calls.len(), MAX_PROBES_PER_POD);
    // The pod gets another address: probes go there.
    state.address = Some([10, 0, 0, 5].into());
    while calls.try_recv().is_ok() {}
    probes.update(&state);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(running_now.count(), MAX_PROBES_PER_POD);
    assert!(
        calls
            .try_recv()
            .is_ok_and(|call| Some(call.address) == state.address)
    );
    state.address = None;
    probes.update(&state);
    settle().await;
    assert_eq!(running_now.count(), 0);
    state.address = Some([10, 0, 0, 5].into());
    probes.update(&state);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(running_now.count(), MAX_PROBES_PER_POD);
    drop(probes);
    settle().await;
    assert_eq!(running_now.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_events_of_a_pod_are_limited_whatever_number_of_containers_it_has() {
    let manager = manager();
    let failed = ProbeAnswer::from_pod(ProbeOutcome::Failure("no".to_owned()));
    let _sent = answered(&manager, move |_| failed.clone());
    let (large, state) = large_pod();
    let probes = manager.add(large);
    probes.update(&state);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(probes.take_events().len(), 25);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(probes.take_events().len(), 0);
}
