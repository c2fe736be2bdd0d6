//! Users and controllers, and pods that start and end without them.

use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::json;

use super::{APPS, Cluster, NEVER, NODE, SimPod};
use crate::api::MaxReplicas;
use crate::burst::TargetScales;
use crate::burst::facts::pod::{PodFacts, PodStage};
use crate::burst::fixtures::{pod, scale_of};

impl Cluster {
    /// Users and controllers act: replicas change, pods are created, deleted and removed, faults begin and end.
    pub fn live(&mut self, rng: &mut StdRng) {
        if self.is_still {
            // Otherwise jobs would come and go forever.
            self.desired[2] = 0;
            self.failing_until = self.failing_until.min(self.now);
            self.throttled_until = self.throttled_until.min(self.now);
            self.scales = scales(&self.names, self.desired);
        } else if self.now >= self.next_change {
            self.next_change = self.after(rng, 60..5400);
            self.reconfigure(rng);
            self.scales = scales(&self.names, self.desired);
        }
        let gone: Vec<String> = self
            .pods
            .iter()
            .filter(|(_, pod)| pod.gone_at.is_some_and(|at| at <= self.now))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in gone {
            self.pods.remove(&uid);
            self.changed();
        }
        let finished: Vec<String> = self
            .pods
            .iter()
            .filter(|(_, pod)| pod.finishes_at.is_some_and(|at| at <= self.now))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in finished {
            self.change(&uid, |facts| facts.stage = PodStage::Finished);
            self.delete(&uid, rng);
        }
        for app in 0..APPS.len() {
            self.replicate(app, rng);
        }
        self.catch_up();
        self.nominations_end(rng);
    }

    /// Some nominations end: a pod on the cluster's own nodes is deleted for it, or the scheduler withdraws it,
    /// or it stays on the pod.
    fn nominations_end(&mut self, rng: &mut StdRng) {
        let is_over = |pod: &SimPod| pod.nominated_until.is_some_and(|at| at <= self.now);
        let over = self.pods.iter().filter(|(_, pod)| is_over(pod));
        let over: Vec<String> = over.map(|(uid, _)| uid.clone()).collect();
        for uid in over {
            if let Some(pod) = self.pods.get_mut(&uid) {
                pod.nominated_until = None;
            }
            match rng.random_range(0..3) {
                0 => {
                    let at_home = |pod: &SimPod| pod.facts.bound().is_some_and(|b| b.node != NODE);
                    let mut victims = self.pods.iter().filter(|(_, pod)| at_home(pod));
                    if let Some(victim) = victims.next().map(|(uid, _)| uid.clone()) {
                        self.delete(&victim, rng);
                    }
                }
                1 => self.change(&uid, |facts| facts.is_nominated = false),
                _ => {}
            }
        }
    }

    fn reconfigure(&mut self, rng: &mut StdRng) {
        let app = rng.random_range(0..3);
        self.desired[app] = rng.random_range(0..14);
        let changes = self.trigger.filter(|_| rng.random_bool(0.3));
        self.trigger = changes.map(|is_active| !is_active).or(self.trigger);
        if self.is_calm {
            return;
        }
        match rng.random_range(0..9) {
            0 => self.home = rng.random_range(2..14),
            1 => {
                let most = rng.random_range(0..20);
                let spec = &mut Rc::make_mut(&mut self.pool).spec;
                spec.spill.max_replicas = MaxReplicas::Count(most);
                self.version += 1;
            }
            2 => self.failing_until = self.after(rng, 60..1200),
            3 => {
                let capacity = rng.random_range(1..25);
                let is_cut = capacity < self.capacity;
                self.capacity = capacity;
                if is_cut {
                    self.cut();
                }
            }
            4 => self.throttled_until = self.after(rng, 60..1200),
            5 => self.rename(app),
            _ => {}
        }
    }

    /// Gives the workload another name. Its target stays the same.
    fn rename(&mut self, app: usize) {
        let name = format!("{}-{}", APPS[app], self.version);
        let spec = &mut Rc::make_mut(&mut self.pool).spec;
        spec.workloads[app].name.clone_from(&name);
        self.names.push((app, name));
        self.version += 1;
        self.renamed += 1;
    }

    /// Acts as a workload's controller: it deletes pending pods first, then pods on ACI, by their deletion
    /// cost.
    fn replicate(&mut self, app: usize, rng: &mut StdRng) {
        let lives = |pod: &SimPod| !pod.facts.is_deleting && pod.facts.stage != PodStage::Finished;
        let mut alive: Vec<(u8, &String)> = self
            .pods
            .iter()
            .filter(|(_, pod)| pod.app == app && lives(pod))
            .map(|(uid, pod)| {
                let rank = match pod.facts.bound() {
                    None => 0,
                    Some(bound) if bound.node == NODE => 1,
                    Some(_) => 2,
                };
                (rank, uid)
            })
            .collect();
        let wanted = usize::try_from(self.desired[app]).expect("small");
        let count = alive.len();
        alive.sort();
        alive.truncate(count.saturating_sub(wanted));
        let surplus: Vec<String> = alive.into_iter().map(|(_, uid)| uid.clone()).collect();
        for uid in surplus {
            self.delete(&uid, rng);
        }
        for _ in count..wanted {
            self.create(app, rng);
        }
    }

    /// A pod of the app as its user creates it, and whether it has a scheduling gate at first.
    fn new_facts(&self, app: &str, rng: &mut StdRng) -> (PodFacts, bool) {
        let mut facts = pod(&format!("{app}-{:06}", self.count)).of_app(app);
        facts.id.resource_version = self.count.to_string();
        facts.created = self.now;
        facts.stage = PodStage::Undecided;
        let is_gated = rng.random_bool(0.1);
        if app == "job" {
            facts.owner = None;
        }
        match rng.random_range(0..10) {
            0 => facts.requests.cpu_milli = 3000,
            // Smaller than any container group.
            1..5 => facts.requests.cpu_milli = 250,
            _ => {}
        }
        if app == "db" {
            facts.rules = self.apart.clone().map(Box::new);
        }
        (facts, is_gated)
    }

    /// Until when a policy denies grants of a new pod.
    fn denied_until(&self, rng: &mut StdRng) -> Timestamp {
        match rng.random_range(0..100) {
            0 => Timestamp::MAX,
            1..5 => self.after(rng, 10..400),
            _ => self.now,
        }
    }

    fn create(&mut self, app: usize, rng: &mut StdRng) {
        self.count += 1;
        let (index, app) = (app, APPS[app]);
        let (mut facts, is_gated) = self.new_facts(app, rng);
        let is_rejected = rng.random_bool(0.01);
        if let Some(owner) = facts.owner.as_mut().filter(|_| is_rejected) {
            owner.template = format!("rejected-{}", self.count);
        }
        let is_kept_off = !is_rejected && rng.random_bool(0.03);
        let kept_off_until = is_kept_off.then(|| self.after(rng, 60..3600));
        if let Some(owner) = facts.owner.as_mut().filter(|_| is_kept_off) {
            owner.template = "kept-off/".to_owned();
        }
        let denied_until = self.denied_until(rng);
        let is_foreign = !self.is_still && rng.random_bool(0.03);
        if is_foreign {
            mark_as_copied(&mut facts);
            if rng.random_bool(0.5) {
                facts.requests.cpu_milli = NEVER;
            }
        }
        let mut pod = SimPod {
            app: index,
            is_late: false,
            is_foreign,
            first_refused: None,
            refused_again: None,
            nominated_at: None,
            nominated_until: None,
            gated_until: is_gated.then(|| self.after(rng, 1..200)),
            is_ineligible: rng.random_bool(0.05),
            kept_off_until,
            is_rejected,
            is_stuck: rng.random_bool(0.01),
            denied_until,
            gone_at: None,
            try_at: self.now,
            runs_for: (app == "job")
                .then(|| Duration::from_secs(rng.random_range(self.job.clone()))),
            finishes_at: None,
            facts: Rc::new(facts),
        };
        if pod.is_stuck {
            pod.try_at = Timestamp::MAX;
        }
        self.pods.insert(pod.facts.id.uid.clone(), pod);
        self.changed();
    }

    /// Deletes a pod. Its object is removed a little later.
    pub fn delete(&mut self, uid: &str, rng: &mut StdRng) {
        let gone = self.after(rng, 0..30);
        self.change(uid, |facts| facts.is_deleting = true);
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.gone_at.get_or_insert(gone);
        }
    }
}

/// Gives the pod the label, annotations and toleration of a template that was copied from a granted pod.
fn mark_as_copied(facts: &mut PodFacts) {
    let id = &facts.id;
    let pod = json!({
        "metadata": {"namespace": id.namespace, "name": id.name, "uid": id.uid,
            "resourceVersion": id.resource_version, "creationTimestamp": facts.created,
            "labels": {"burstpool.io/pool": "shop"},
            "annotations": {"burstpool.io/workload": "web", "burstpool.io/granted-uid": "the-other",
                "burstpool.io/granted-at": facts.created}},
        "spec": {"containers": [], "tolerations": [{"key": "virtual-kubelet.io/provider",
            "operator": "Equal", "value": "shop", "effect": "NoSchedule"}]},
    });
    let pod = serde_json::from_value(pod).expect("a pod");
    let marked = PodFacts::from_pod(&pod).expect("it is created");
    facts.labels.extend(marked.labels);
    facts.node_constraints = marked.node_constraints;
    facts.grant = marked.grant;
    facts.foreign_grant = marked.foreign_grant;
}

fn scales(names: &[(usize, String)], desired: [u64; 3]) -> TargetScales {
    let all = names.iter().map(|(app, name)| {
        let key = ("shop".to_owned(), name.clone());
        let desired = desired[*app];
        (key, Ok(scale_of(APPS[*app], desired, desired)))
    });
    all.collect()
}
