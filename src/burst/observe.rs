//! What bears on one pool, out of all that is watched.
//!
//! In: [`World`], the same for every pool, and [`Own`], what is known of this one. Out: [`Observed`],
//! which borrows from both. Decides nothing but what belongs to whom.
//!
//! Slots are counted from one watch, that of the label: a pod that moves from the watch of waiting pods
//! to that of a node's is for a moment in neither (decision D1a). A grant that only another watch shows
//! still counts through its reservation.

use std::collections::{HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::assign::{Assignment, Namespaces, Scale, Scales};
use super::eligibility::{Claims, Verdicts};
use super::hold::by;
use super::memory::Memory;
use super::place::Place;
use super::pod::{PodFacts, Stage, provider_taint};
use super::reserve::Seen;
use super::topology::Neighbors;
use crate::aci::translate::Unsupported;
use crate::api::names::node_name;
use crate::api::{BurstPool, Reservation, Workload};

/// What is known of the cluster.
pub struct World<'a> {
    /// All pools.
    pub pools: &'a [&'a BurstPool],
    /// The pools of virtual nodes, by the nodes' names.
    pub nodes: &'a HashMap<String, String>,
    /// Pods without a node: of the watch by field selector (`spec.nodeName=`).
    pub waiting: &'a [&'a PodFacts],
    /// Pods with the label of any pool: of one watch.
    pub labelled: &'a [&'a PodFacts],
    /// Pods on the nodes of any pool, whoever placed them: of the watches by node.
    pub placed: &'a [&'a PodFacts],
    /// What the targets' scales say.
    pub scales: &'a Scales,
    /// Labels of namespaces.
    pub namespaces: &'a Namespaces,
    /// What is behind claims of pods that wait.
    pub claims: &'a Claims,
    /// Nodes and pods that bear on where pods that wait may run.
    pub neighbors: &'a Neighbors,
}

impl World<'_> {
    /// Whether a node is a pool's: the node says so, or, where there is no such node now, the pool asks for it.
    fn is_of(&self, node: &str, pool: &str) -> bool {
        if let Some(owner) = self.nodes.get(node) {
            return owner == pool;
        }
        let asks = |other: &&&BurstPool| {
            let mut all = other.spec.placements.iter();
            other.metadata.name.as_deref() == Some(pool)
                && all.any(|placement| node_name(pool, &placement.name) == node)
        };
        self.pools.iter().any(|other| asks(&other))
    }
}

/// What is known of one pool.
pub struct Own<'a> {
    /// The pool's placements, in its order.
    pub places: &'a [Place],
    /// Pods on the pool's nodes, whoever placed them: of the watches by node.
    pub bound: &'a [&'a PodFacts],
    /// What translation says.
    pub verdicts: &'a Verdicts,
    /// What the leader remembers.
    pub memory: &'a Memory,
    /// Whether one of the pool's triggers is active.
    pub is_triggered: bool,
    /// Whether we may decide for this pool; whatever it says, not unless the pool's status names us.
    pub standing: Standing,
    /// Who we are, in this term of leading: another each time that we come to lead. A reservation of
    /// an earlier term of ours may have been taken up by who led in between, and be in its hands.
    pub identity: &'a str,
    /// How far the API server's clock is ahead of the clock of plans, our monotonic one.
    pub ahead: SignedDuration,
}

/// Whether we may decide for a pool (decision D1a).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// The pool's status does not name us yet.
    #[default]
    Unclaimed,
    /// It does, but the pods with its label have not been listed since.
    Uncounted,
    /// It does, and they have.
    Leading,
}

/// What bears on one pool.
pub struct Observed<'a> {
    /// The pool's name.
    pub pool: &'a str,
    /// Whether we may decide for it.
    pub standing: Standing,
    /// Who we are.
    pub identity: &'a str,
    /// Its workloads, in its order.
    pub workloads: Vec<WorkloadSeen<'a>>,
    /// Pods that wait, of its workloads.
    pub candidates: Vec<Candidate<'a>>,
    /// Pods that it has granted, wherever they are, unless they are finished.
    pub granted: Vec<Granted<'a>>,
    /// Pods whose grants have expired, and that wait, and their workloads.
    pub expired: Vec<(&'a PodFacts, Option<usize>)>,
    /// Pods on its nodes that it has not granted, and their workloads.
    pub guests: Vec<(&'a PodFacts, Option<usize>)>,
    /// Its placements.
    pub places: &'a [Place],
    /// What is behind claims of pods that wait.
    pub claims: &'a Claims,
    /// Nodes and pods that bear on where pods that wait may run.
    pub neighbors: &'a Neighbors,
    /// Labels of namespaces.
    pub namespaces: &'a Namespaces,
    /// Its reservations, and what is seen of their pods.
    pub reservations: Vec<Reserved<'a>>,
    /// Whether one of its triggers is active.
    pub is_triggered: bool,
    /// What the leader remembers.
    pub memory: &'a Memory,
    /// How far the API server's clock is ahead of the plan's.
    pub ahead: SignedDuration,
}

impl Observed<'_> {
    /// By the plan's clock, a time that was written by the API server's: those of grants, stamps and bindings.
    pub(super) fn by_our_clock(&self, written: Timestamp) -> Timestamp {
        by(written, -self.ahead)
    }

    /// When the pod was granted, by the plan's clock.
    pub(super) fn granted_at(&self, pod: &PodFacts) -> Option<Timestamp> {
        let at = pod.grant.as_ref()?.at?;
        Some(self.by_our_clock(at))
    }
}

/// What is seen of a workload.
pub struct WorkloadSeen<'a> {
    /// As the pool has it.
    pub spec: &'a Workload,
    /// What its scale says, if it has one.
    pub scale: Option<&'a Scale>,
    /// Why its pods cannot be told.
    pub error: Option<String>,
    /// Who has all of its pods, since it selects the same and goes before it.
    pub owner_of_all: Option<String>,
    /// Pods that it would have, if not this other had them first: the other's name, and how many are
    /// seen, which those at home are not that were never granted.
    pub lost: HashMap<String, usize>,
    /// Pods that it selects and others have, and that are not at home.
    pub elsewhere: u64,
}

/// A pod that waits.
pub struct Candidate<'a> {
    /// The pod.
    pub pod: &'a PodFacts,
    /// Its workload's place in the pool's list.
    pub workload: usize,
    /// What translation refuses of it in each place; nothing where it was not asked.
    pub refusals: Vec<Option<&'a [Unsupported]>>,
    /// Whether it tolerates the pool's taint though nobody granted it.
    pub is_user_placed: bool,
    /// Whether it does because it carries the marks of another pod's grant.
    pub has_foreign_grant: bool,
}

/// A pod that the pool has granted.
pub struct Granted<'a> {
    /// The pod.
    pub pod: &'a PodFacts,
    /// The place in the pool's list of the workload that limits it: the one that selects it now.
    pub workload: Option<usize>,
    /// Whether it is on one of the pool's nodes.
    pub is_spilled: bool,
    /// Whether it found room at home.
    pub is_home: bool,
}

/// A reservation, and what is seen of its pod.
pub struct Reserved<'a> {
    /// As the pool's status has it.
    pub entry: &'a Reservation,
    /// Which of the pool's workloads it counts for.
    pub workload: Limited,
    /// The pod as it waits, not granted by this pool.
    pub waits: Option<&'a PodFacts>,
    /// The pod as it waits though this pool has granted it.
    pub on_its_way: Option<&'a PodFacts>,
    /// Whether it need not count any more: it counts as granted now, or is home or gone.
    pub is_settled: bool,
    /// Whether nobody sees the pod.
    pub is_out_of_sight: bool,
}

/// Which workload's maximum a reservation counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// The one at this place in the pool's list: it selects the pod now.
    By(usize),
    /// None: no workload of the pool selects the pod.
    ByNone,
    /// Not known: nobody sees the pod, and no workload has the name that it was reserved for. It counts for all.
    Unknown,
}

/// Looks at everything for `pool`.
pub fn observe<'a>(pool: &'a BurstPool, world: &World<'a>, own: &Own<'a>) -> Observed<'a> {
    let name = pool.metadata.name.as_deref().unwrap_or_default();
    let mut assignment = Assignment::new(world.pools, world.scales, world.namespaces);
    let mut workloads = workloads(pool, world, &assignment);
    let candidates = candidates(pool, world, own, &mut assignment, &mut workloads);
    lose(name, world, own, &mut assignment, &mut workloads);
    let guests = guests(name, own, &mut assignment);
    Observed {
        pool: name,
        standing: standing(pool, own),
        identity: own.identity,
        is_triggered: own.is_triggered,
        granted: granted(name, world, own, &mut assignment),
        expired: expired(name, world, &mut assignment),
        reservations: reservations(pool, world, own, &mut assignment),
        workloads,
        candidates,
        guests,
        places: own.places,
        claims: world.claims,
        neighbors: world.neighbors,
        namespaces: world.namespaces,
        memory: own.memory,
        ahead: own.ahead,
    }
}

/// Only who is named by the very status that is planned from leads: with it come the reservations that
/// must be counted, and its version is what fences the next write.
fn standing(pool: &BurstPool, own: &Own<'_>) -> Standing {
    let leader = pool.status.as_ref().and_then(|s| s.leader.as_deref());
    if leader == Some(own.identity) {
        own.standing
    } else {
        Standing::Unclaimed
    }
}

fn workloads<'a>(
    pool: &'a BurstPool,
    world: &World<'a>,
    assignment: &Assignment<'a>,
) -> Vec<WorkloadSeen<'a>> {
    let name = pool.name_any();
    let all = pool.spec.workloads.iter().enumerate();
    all.map(|(index, spec)| WorkloadSeen {
        spec,
        scale: spec
            .target
            .as_ref()
            .and_then(|_| world.scales.get(&(name.clone(), spec.name.clone())))
            .and_then(|scale| scale.as_ref().ok()),
        error: assignment.error(&name, index).map(str::to_owned),
        owner_of_all: assignment
            .owner_of_all(&name, index)
            .map(|owner| named(owner.pool, owner.workload, &name)),
        lost: HashMap::new(),
        elsewhere: 0,
    })
    .collect()
}

fn candidates<'a>(
    pool: &'a BurstPool,
    world: &World<'a>,
    own: &Own<'a>,
    assignment: &mut Assignment<'a>,
    workloads: &mut [WorkloadSeen<'a>],
) -> Vec<Candidate<'a>> {
    let name = pool.metadata.name.as_deref().unwrap_or_default();
    let taint = provider_taint(name);
    let asked: Vec<_> = own
        .places
        .iter()
        .map(|place| {
            let mut specs = pool.spec.placements.iter();
            let spec = specs.find(|spec| spec.name == place.placement)?;
            own.verdicts.id(spec, &pool.spec.azure.tags, &place.node)
        })
        .collect();
    let mut candidates = Vec::new();
    for pod in world.waiting {
        let is_granted = assignment.is_granted(pod) || own.memory.is_unmarked(&pod.id.uid);
        if is_granted || !matches!(pod.stage, Stage::New | Stage::Refused(_)) {
            continue;
        }
        let mut members = assignment.of(pod);
        let Some(first) = members.next() else {
            continue;
        };
        for other in members.filter(|other| other.pool == name) {
            workloads[other.index].lose(named(first.pool, first.workload, name), false);
        }
        if first.pool == name {
            candidates.push(Candidate {
                pod,
                workload: first.index,
                refusals: asked
                    .iter()
                    .map(|asked| own.verdicts.of(&pod.id, (*asked)?))
                    .collect(),
                is_user_placed: pod.demands.tolerates(&taint),
                has_foreign_grant: pod.foreign_grant.is_some(),
            });
        }
    }
    candidates
}

/// Counts the pods that others have: granted for them, or placed by users on other pools' nodes.
fn lose<'a>(
    name: &str,
    world: &World<'a>,
    own: &Own<'a>,
    assignment: &mut Assignment<'a>,
    workloads: &mut [WorkloadSeen<'a>],
) {
    let granted = world.labelled.iter().filter_map(|pod| {
        let grant = pod.grant.as_ref()?;
        Some((*pod, grant.pool.as_str(), grant.workload.as_str()))
    });
    for (pod, by, of) in granted.filter(|(pod, ..)| pod.stage != Stage::Finished) {
        let node = pod.bound().map(|bound| world.is_of(&bound.node, by));
        let is_known = assignment.is_granted(pod);
        let limits = (by == name).then(|| assignment.limits(name, pod, of));
        let of = limits.flatten().map_or(of, |member| member.workload);
        for member in assignment.of(pod).filter(|member| member.pool == name) {
            let workload = &mut workloads[member.index];
            if is_known && (member.pool, member.workload) != (by, of) {
                workload.lose(named(by, of, name), node == Some(false));
            } else if !is_known && node == Some(true) {
                workload.elsewhere += 1;
            }
        }
    }
    let ours: HashSet<&str> = own.bound.iter().map(|pod| pod.id.uid.as_str()).collect();
    let guests = world.placed.iter().filter(|pod| {
        pod.grant.is_none() && pod.bound().is_some() && !ours.contains(pod.id.uid.as_str())
    });
    for pod in guests {
        for member in assignment.of(pod).filter(|member| member.pool == name) {
            workloads[member.index].elsewhere += 1;
        }
    }
}

/// A workload, as the pool `to` is told of it.
fn named(pool: &str, workload: &str, to: &str) -> String {
    if pool == to {
        format!("workload {workload}")
    } else {
        format!("workload {workload} of pool {pool}")
    }
}

impl WorkloadSeen<'_> {
    fn lose(&mut self, to: String, is_at_home: bool) {
        *self.lost.entry(to).or_default() += 1;
        self.elsewhere += u64::from(!is_at_home);
    }
}

fn granted<'a>(
    name: &str,
    world: &World<'a>,
    own: &Own<'a>,
    assignment: &mut Assignment<'a>,
) -> Vec<Granted<'a>> {
    let unmarked = world.waiting.iter().chain(own.bound);
    let unmarked = unmarked
        .filter(|pod| pod.grant.is_none() && own.memory.is_unmarked(&pod.id.uid))
        .map(|pod| (*pod, ""));
    let marked = world.labelled.iter().filter_map(|pod| {
        let grant = pod.grant.as_ref().filter(|grant| grant.pool == name)?;
        Some((*pod, grant.workload.as_str()))
    });
    // Of two watches the one that is behind may show an unmarked pod twice.
    let mut seen = HashSet::new();
    let ours = marked.chain(unmarked).filter_map(|(pod, workload)| {
        if pod.stage == Stage::Finished || pod.has_expired() || !seen.insert(pod.id.uid.as_str()) {
            return None;
        }
        let node = pod.bound().map(|bound| world.is_of(&bound.node, name));
        let workload = assignment.limits(name, pod, workload);
        Some(Granted {
            pod,
            workload: workload.map(|member| member.index),
            is_spilled: node == Some(true),
            is_home: node == Some(false),
        })
    });
    ours.collect()
}

fn expired<'a>(
    name: &str,
    world: &World<'a>,
    assignment: &mut Assignment<'a>,
) -> Vec<(&'a PodFacts, Option<usize>)> {
    let all = world.labelled.iter();
    let all = all.filter(|pod| pod.has_expired() && pod.is_granted_by(name));
    all.map(|pod| {
        let workload = pod
            .grant
            .as_ref()
            .and_then(|grant| assignment.limits(name, pod, &grant.workload));
        (*pod, workload.map(|member| member.index))
    })
    .collect()
}

fn guests<'a>(
    name: &str,
    own: &Own<'a>,
    assignment: &mut Assignment<'a>,
) -> Vec<(&'a PodFacts, Option<usize>)> {
    let placed = own
        .bound
        .iter()
        .filter(|pod| pod.bound().is_some() && !pod.is_granted_by(name))
        .filter(|pod| !own.memory.is_unmarked(&pod.id.uid));
    placed
        .map(|pod| {
            let first = assignment.of(pod).next();
            let own = first.filter(|member| member.pool == name);
            (*pod, own.map(|member| member.index))
        })
        .collect()
}

fn reservations<'a>(
    pool: &'a BurstPool,
    world: &World<'a>,
    own: &Own<'a>,
    assignment: &mut Assignment<'a>,
) -> Vec<Reserved<'a>> {
    let name = pool.metadata.name.as_deref().unwrap_or_default();
    let all = pool.status.iter().flat_map(|status| &status.reservations);
    let all: Vec<&Reservation> = all.collect();
    if all.is_empty() {
        return Vec::new();
    }
    let uids: HashSet<&str> = all.iter().map(|entry| entry.uid.as_str()).collect();
    let find = |pods: &'a [&'a PodFacts]| -> HashMap<&'a str, &'a PodFacts> {
        let known = pods.iter().map(|pod| (pod.id.uid.as_str(), *pod));
        known.filter(|(uid, _)| uids.contains(uid)).collect()
    };
    let (waiting, labelled) = (find(world.waiting), find(world.labelled));
    let entries = all.into_iter().map(|entry| {
        let uid = entry.uid.as_str();
        let (waits, labelled) = (waiting.get(uid).copied(), labelled.get(uid).copied());
        let is_settled = labelled.is_some_and(|pod| counts_by_itself(entry, pod, name))
            || waits.is_some_and(PodFacts::is_past_granting)
            || own.memory.is_settled(entry)
            || own.memory.is_unmarked(uid);
        let is_out_of_sight = !is_settled && waits.is_none() && labelled.is_none();
        Reserved {
            entry,
            workload: limited(pool, entry, waits.or(labelled), assignment),
            waits: waits.filter(|pod| !pod.is_granted_by(name)),
            on_its_way: waits.filter(|pod| pod.is_granted_by(name)),
            is_settled,
            is_out_of_sight,
        }
    });
    entries.collect()
}

/// Whether a reserved pod of the label's watch needs its reservation no more: it counts as granted by the
/// pool, never will, or is another's.
fn counts_by_itself(entry: &Reservation, pod: &PodFacts, pool: &str) -> bool {
    let is_anothers = pod.grant.is_some() && Seen::of(entry, pod) == Seen::Changed;
    pod.is_granted_by(pool) || pod.is_past_granting() || is_anothers
}

fn limited<'a>(
    pool: &BurstPool,
    entry: &Reservation,
    pod: Option<&'a PodFacts>,
    assignment: &mut Assignment<'a>,
) -> Limited {
    let name = pool.metadata.name.as_deref().unwrap_or_default();
    let Some(pod) = pod else {
        let mut workloads = pool.spec.workloads.iter();
        let named = workloads.position(|one| one.name == entry.workload);
        return named.map_or(Limited::Unknown, Limited::By);
    };
    let member = assignment.limits(name, pod, &entry.workload);
    member.map_or(Limited::ByNone, |member| Limited::By(member.index))
}
