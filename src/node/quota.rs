//! The quota of a subscription in a region, shared by all its placements: together they offer no more than is left.
//!
//! In: the usages that Azure reports for the region, and the pods of all placements there, of any pool. Out: the
//! [`NodeResourceStatus`] of each placement's node.
//!
//! [`division`] says how what is left is divided.

pub(crate) mod division;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::capacity::{self, MILLICORES_PER_CORE, NodeLoad, NodeResourceStatus, NodeResources};
use super::pods::PodsContext;
use crate::aci::client::{GroupScope, QuotaUsage};
use division::{QuotaShare, ShareRequest, divide};

/// The quotas of all subscriptions and regions that have placements.
#[derive(Default)]
pub struct QuotaRegistry(Mutex<HashMap<(String, String), Arc<RegionQuota>>>);

impl QuotaRegistry {
    /// The quota of a subscription in a region.
    pub fn region_quota(&self, scope: &GroupScope, region: &str) -> Arc<RegionQuota> {
        let key = (scope.subscription.to_lowercase(), region.to_lowercase());
        let mut quotas = self.0.lock();
        // Forget quotas that no placement uses.
        quotas.retain(|_, quota| Arc::strong_count(quota) > 1);
        quotas.entry(key).or_default().clone()
    }
}

/// A subscription's quota in a region.
#[derive(Default)]
pub struct RegionQuota(Mutex<QuotaState>);

#[derive(Default)]
struct QuotaState {
    members: Vec<QuotaMember>,
    /// Azure's last answer, and the UIDs of the pods whose groups existed before the request was sent.
    usages: Option<Vec<QuotaUsage>>,
    counted_pods: HashSet<String>,
    /// Whether all members' pods were listed at that time. The group of a pod that was not known then is counted
    /// twice: in Azure's usage, and as a group created since.
    had_listed_pods: bool,
    usages_read_at: Option<Instant>,
    /// Whether placements could use more than is left.
    is_short: bool,
}

struct QuotaMember {
    context: Weak<PodsContext>,
    /// It takes no new pods.
    is_closed: bool,
    cpu: QuotaShare,
    pods: QuotaShare,
}

/// A request to Azure: when it was sent, and which pods had groups then.
pub struct UsageQuery {
    started_at: Instant,
    created_pods: HashSet<String>,
    had_listed_pods: bool,
}

impl RegionQuota {
    /// Adds a placement.
    pub fn join(&self, context: &Arc<PodsContext>) {
        let mut state = self.0.lock();
        state
            .members
            .retain(|member| member.context.strong_count() > 0);
        state.members.push(QuotaMember {
            context: Arc::downgrade(context),
            is_closed: false,
            cpu: QuotaShare::default(),
            pods: QuotaShare::default(),
        });
    }

    /// Offers the placement no more pods. Its existing pods count for as long as they have workers.
    pub fn leave(&self, context: &Arc<PodsContext>) {
        for member in &mut self.0.lock().members {
            member.is_closed |= member.is_for(context);
        }
    }

    /// Records which pods have groups. Must be called before the request to Azure is sent.
    pub fn begin_query(&self) -> UsageQuery {
        let state = self.0.lock();
        let contexts = || {
            state
                .members
                .iter()
                .filter_map(|member| member.context.upgrade())
        };
        UsageQuery {
            started_at: Instant::now(),
            had_listed_pods: contexts().all(|context| context.has_listed_pods()),
            created_pods: contexts()
                .flat_map(|context| context.pods_with_groups())
                .collect(),
        }
    }

    /// Records Azure's answer; `usages` is `None` if the operator may not read them. The answer is ignored if a later
    /// request was answered before.
    pub fn finish_query(&self, query: UsageQuery, usages: Option<Vec<QuotaUsage>>) {
        let mut state = self.0.lock();
        if state
            .usages_read_at
            .is_none_or(|last| last <= query.started_at)
        {
            state.usages_read_at = Some(query.started_at);
            (state.usages, state.counted_pods) = (usages, query.created_pods);
            state.had_listed_pods = query.had_listed_pods;
        }
    }

    /// Whether more may be left than is known, and placements could use it: a group has gone since the last request,
    /// or all pods are listed now and were not then.
    pub fn is_outdated(&self) -> bool {
        let state = self.0.lock();
        if !state.is_short {
            return false;
        }
        let contexts = || {
            state
                .members
                .iter()
                .filter_map(|member| member.context.upgrade())
        };
        if !state.had_listed_pods && contexts().all(|context| context.has_listed_pods()) {
            return true;
        }
        let created: HashSet<String> = contexts()
            .flat_map(|context| context.pods_with_groups())
            .collect();
        state.counted_pods.iter().any(|uid| !created.contains(uid))
    }

    /// What the placement's node offers now.
    pub fn offer(&self, context: &Arc<PodsContext>) -> NodeResourceStatus {
        let state = &mut *self.0.lock();
        state
            .members
            .retain(|member| member.context.strong_count() > 0);
        let observations = state.observe_members();
        state.distribute(&observations, Instant::now());
        let mut members = state.members.iter().zip(&observations);
        let found = members.find(|(member, _)| member.is_for(context));
        found
            .map(|(member, observation)| {
                let left = NodeResources {
                    cpu_milli: member.cpu.assigned.saturating_mul(MILLICORES_PER_CORE)
                        - observation.load.groups.cpu_milli,
                    memory_bytes: observation.remaining_capacity.memory_bytes,
                    pods: member.pods.assigned - observation.load.groups.pods,
                };
                NodeResourceStatus::new(
                    &observation.load,
                    left.at_most(observation.remaining_capacity),
                )
            })
            .unwrap_or_default()
    }
}

/// The current load and limits of a member.
struct MemberObservation {
    load: NodeLoad,
    /// What the placement's own capacity leaves.
    remaining_capacity: NodeResources,
    core_quota_name: &'static str,
    /// How many groups Azure still lets the subscription create; `None` if not known.
    remaining_creates: Option<i64>,
}

impl QuotaState {
    fn observe_members(&self) -> Vec<MemberObservation> {
        let members = self.members.iter();
        let contexts = members.map(|member| (member, member.context.upgrade()));
        contexts
            .map(|(member, context)| {
                let Some(context) = context else {
                    return MemberObservation::empty();
                };
                let created = context.pods_with_groups();
                let pods = context.pod_facts();
                let load = NodeLoad::from_pods(
                    pods.iter().map(Arc::as_ref),
                    |uid| self.counted_pods.contains(uid),
                    |uid| created.contains(uid),
                );
                let settings = context.settings();
                let remaining =
                    capacity::placement_capacity(&settings.placement).minus(load.groups);
                let creates = context.azure.remaining_creates(&context.scope);
                MemberObservation {
                    load,
                    remaining_capacity: if member.is_closed {
                        NodeResources::default()
                    } else {
                        remaining
                    },
                    core_quota_name: capacity::core_quota_name(&settings.placement),
                    remaining_creates: creates
                        .map(|(left, _)| i64::try_from(left).unwrap_or(i64::MAX)),
                }
            })
            .collect()
    }

    /// Divides the cores that are left, by kind, and the groups that are left.
    fn distribute(&mut self, observations: &[MemberObservation], now: Instant) {
        let usages = self.usages.as_deref().unwrap_or_default();
        let is_of_kind = |kind: &str, observation: &MemberObservation| {
            kind.is_empty() || observation.core_quota_name == kind
        };
        let left = |name: &str, kind: &str, amount: fn(&NodeResources) -> i64| {
            let uncounted = observations
                .iter()
                .filter(|observation| is_of_kind(kind, observation));
            let uncounted: i64 = uncounted
                .map(|observation| amount(&observation.load.uncounted))
                .sum();
            capacity::remaining_quota(name, usages).map(|left| left.saturating_sub(uncounted))
        };
        self.is_short = false;
        for kind in ["StandardCores", "StandardSpotCores"] {
            let left = left(kind, kind, |amount| whole_cores(amount.cpu_milli));
            let members = self.members.iter_mut().zip(observations);
            let members = members.filter(|(_, observation)| is_of_kind(kind, observation));
            let members = members.map(|(member, observation)| ShareRequest {
                share: &mut member.cpu,
                used: whole_cores(observation.load.groups.cpu_milli),
                additional: observation.remaining_capacity.cpu_milli.max(0) / MILLICORES_PER_CORE,
            });
            self.is_short |= divide(left, members.collect(), now);
        }
        let groups = left("ContainerGroups", "", |amount| amount.pods);
        let uncreated: i64 = observations
            .iter()
            .map(|observation| observation.load.uncreated)
            .sum();
        let creates = observations
            .iter()
            .filter_map(|observation| observation.remaining_creates)
            .min();
        let creates = creates.map(|left| left.saturating_sub(uncreated));
        let members = self.members.iter_mut().zip(observations);
        let members = members.map(|(member, observation)| ShareRequest {
            share: &mut member.pods,
            used: observation.load.groups.pods,
            additional: observation.remaining_capacity.pods.max(0),
        });
        let left = [groups, creates].into_iter().flatten().min();
        self.is_short |= divide(left, members.collect(), now);
    }
}

impl MemberObservation {
    fn empty() -> Self {
        Self {
            load: NodeLoad::default(),
            remaining_capacity: NodeResources::default(),
            core_quota_name: "",
            remaining_creates: None,
        }
    }
}

impl QuotaMember {
    fn is_for(&self, context: &Arc<PodsContext>) -> bool {
        std::ptr::eq(self.context.as_ptr(), Arc::as_ptr(context))
    }
}

/// Thousandths of a core, rounded up to whole cores.
fn whole_cores(cpu_milli: i64) -> i64 {
    cpu_milli.saturating_add(MILLICORES_PER_CORE - 1) / MILLICORES_PER_CORE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_quotas_of_regions_with_placements_are_kept() {
        let quotas = QuotaRegistry::default();
        let scope = GroupScope {
            subscription: "S".to_owned(),
            resource_group: "rg".to_owned(),
        };
        let first = quotas.region_quota(&scope, "westeurope");
        for number in 0..100 {
            drop(quotas.region_quota(&scope, &format!("region-{number}")));
        }
        assert!(quotas.0.lock().len() <= 2);
        assert!(Arc::ptr_eq(
            &first,
            &quotas.region_quota(&scope, "WestEurope")
        ));
    }
}
