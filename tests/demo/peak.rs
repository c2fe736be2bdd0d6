//! The peak: load rises, home is full, the overflow runs on ACI, load falls, and nothing is left.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use burstpool::api::BurstPool;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};
use tokio::sync::watch;

use crate::Mode;
use crate::load::Source;
use crate::stage::Stage;
use crate::support::{objects, wait};
use crate::view::{self, Replicas};

/// A workload of pods with one core each, and a pool for it.
const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/samples/burst.yaml");
/// The number of replicas before and after the peak.
const QUIET: usize = 3;
/// The number of replicas at the peak. [`ROOM`] of them fit at home.
const PEAK: usize = 12;
const ROOM: usize = 8;
/// The virtual node of the sample's pool.
const NODE: &str = "burst-peak-weu";

/// The times of the steps.
struct Story {
    began: Instant,
    steps: Vec<(f64, String)>,
    /// What the live view has shown, if there is one: a step is printed only after its picture.
    shown: Option<watch::Receiver<Replicas>>,
}

impl Story {
    fn say(&mut self, what: impl Into<String>) {
        let (at, what) = (self.began.elapsed().as_secs_f64(), what.into());
        println!("{at:5.1} s  {what}");
        self.steps.push((at, what));
    }
}

/// Plays the peak, with a live view unless the mode is fast.
pub async fn play(stage: &Stage<'_>, mode: Mode) -> anyhow::Result<()> {
    let (show, shown) = watch::channel(Replicas::default());
    let mut story = Story {
        began: Instant::now(),
        steps: Vec::new(),
        shown: (!mode.is_fast).then_some(shown),
    };
    let client = stage.cluster.client()?;
    let seen = view::show(client, story.began, show);
    let acted = act(stage, mode, &mut story);
    if mode.is_fast {
        acted.await?;
    } else {
        tokio::select! {
            acted = acted => acted?,
            seen = seen => seen.context("looking at the peak")?,
        }
    }
    summary(stage, &story);
    Ok(())
}

async fn act(stage: &Stage<'_>, mode: Mode, story: &mut Story) -> anyhow::Result<()> {
    let load = Source::find().await;
    stage
        .kubectl(&["apply", "--server-side", "-f", SAMPLE])
        .await?;
    story.say(
        "applied config/samples/burst.yaml: a Deployment web of 3, and a BurstPool peak for it",
    );
    load.prepare(stage, QUIET, PEAK).await?;
    until(stage, story, (QUIET, 0, 0)).await?;
    story.say("quiet: 3 replicas run at home");
    let said = load.set(stage, PEAK).await?;
    story.say(format!("the peak: {said}, and home has room for {ROOM}"));
    until(stage, story, (ROOM, 0, PEAK - ROOM)).await?;
    story.say("home is full: 4 replicas are refused, and held for 5 s");
    let pods = until(stage, story, (ROOM, PEAK - ROOM, 0)).await?;
    story.say("spilled: 8 run at home and 4 on ACI");
    println!("\n{}", stage.kubectl(&["get", "burstpool/peak"]).await?);
    into(stage, &pods, story).await?;
    let said = load.set(stage, QUIET).await?;
    story.say(format!("the peak is over: {said}"));
    until(stage, story, (QUIET, 0, 0)).await?;
    let left = stage.azure.emulator.shared().store().groups.len();
    ensure!(left == 0, "{left} container groups are left");
    story.say("returned: 3 run at home, and no container group is left");
    if mode.holds {
        load.leave_to_people(stage).await?;
    } else {
        leave(stage, story).await?;
    }
    Ok(())
}

/// Reads the log of a pod on ACI, and runs a command in it.
async fn into(stage: &Stage<'_>, pods: &[Pod], story: &mut Story) -> anyhow::Result<()> {
    let there = pods.iter().find(|pod| objects::node_of(pod) == Some(NODE));
    let name = there.context("no pod is on ACI")?.name_any();
    let log = stage.kubectl(&["logs", &name]).await?;
    let empty = if stage.azure.has_containers {
        "nothing is written yet"
    } else {
        "a simulated container writes nothing"
    };
    let line = log.lines().last().unwrap_or(empty);
    story.say(format!("kubectl logs {name}: {line}"));
    if stage.azure.has_containers {
        let said = stage.kubectl(&["exec", &name, "--", "hostname"]).await?;
        story.say(format!("kubectl exec {name} -- hostname: {}", said.trim()));
    } else {
        stage.kubectl(&["exec", &name, "--", "hostname"]).await?;
        story.say(format!(
            "kubectl exec {name} -- hostname: answered by a simulated container"
        ));
    }
    Ok(())
}

/// Deletes the pool.
async fn leave(stage: &Stage<'_>, story: &mut Story) -> anyhow::Result<()> {
    stage
        .kubectl(&["delete", "burstpool/peak", "--wait=false"])
        .await?;
    let client = stage.cluster.client()?;
    let pools: Api<BurstPool> = Api::all(client.clone());
    wait::until(
        pools,
        "peak",
        "the pool to be gone",
        |pool: Option<&BurstPool>| pool.is_none(),
    )
    .await?;
    let nodes: Api<Node> = Api::all(client);
    wait::until(
        nodes,
        NODE,
        "the virtual node to be gone",
        |node: Option<&Node>| node.is_none(),
    )
    .await?;
    story.say("deleted the pool: its node is gone, and the 3 replicas run on");
    Ok(())
}

/// Waits until exactly these numbers of replicas run at home, run on ACI, and are pending.
async fn until(
    stage: &Stage<'_>,
    story: &mut Story,
    wanted: (usize, usize, usize),
) -> anyhow::Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(stage.cluster.client()?, "default");
    let web = watcher::Config::default().labels("app=web");
    let what = format!(
        "{} replicas at home, {} on ACI, {} waiting",
        wanted.0, wanted.1, wanted.2
    );
    let all = wanted.0 + wanted.1 + wanted.2;
    let are_so = |pods: &[Pod]| pods.len() == all && objects::spread(pods) == wanted;
    let pods = wait::until_all(pods, web, &what, are_so).await?;
    if let Some(shown) = &mut story.shown {
        let is_it = |all: &Replicas| {
            all.starting + all.ending == 0 && (all.home, all.aci, all.waiting) == wanted
        };
        shown
            .wait_for(is_it)
            .await
            .context("the live view has ended")?;
    }
    Ok(pods)
}

fn summary(stage: &Stage<'_>, story: &Story) {
    let now = stage.azure.emulator.shared().clock.now();
    let mut store = stage.azure.emulator.shared().store();
    store.advance_all(now);
    let created = store.timeline.entries().count();
    let deleted = store
        .timeline
        .entries()
        .filter(|one| one.delete_received.is_some())
        .count();
    println!("\nSummary");
    for (at, what) in &story.steps {
        println!("{at:7.1} s  {what}");
    }
    println!("{created} container groups were created, and {deleted} deleted.");
}
