//! The quota of a subscription in a region, shared by all its placements: together they offer no more than is left.
//!
//! In: the usages that Azure reports for the region, and the pods of all placements there, of any pool. Out: the
//! [`NodeOffer`] of each placement's node.
//!
//! What is left is divided equally, and a placement that cannot use its part leaves the rest to the others. What a
//! placement gives up goes to another placement only after `HANDOVER_DELAY`: the scheduler may just have bound a
//! pod there.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::capacity::{self, ComputeAmount, MILLICORES_PER_CORE, NodeLoad, NodeOffer};
use super::pods::PodsContext;
use crate::aci::client::{GroupScope, QuotaUsage};

/// How long the other placements must wait before they may use what a placement gave up.
pub(crate) const HANDOVER_DELAY: Duration = Duration::from_secs(10);

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
    pub fn offer(&self, context: &Arc<PodsContext>) -> NodeOffer {
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
                let left = ComputeAmount {
                    cpu_milli: member.cpu.assigned.saturating_mul(MILLICORES_PER_CORE)
                        - observation.load.groups.cpu_milli,
                    memory_bytes: observation.remaining_capacity.memory_bytes,
                    pods: member.pods.assigned - observation.load.groups.pods,
                };
                NodeOffer::new(
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
    remaining_capacity: ComputeAmount,
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
                        ComputeAmount::default()
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
        let left = |name: &str, kind: &str, amount: fn(&ComputeAmount) -> i64| {
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
            remaining_capacity: ComputeAmount::default(),
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

/// How much of a resource a placement may use in total.
#[derive(Debug, Default)]
pub(crate) struct QuotaShare {
    pub(crate) assigned: i64,
    /// Earlier, larger amounts, and until when the other placements must leave them free.
    previously_assigned: Vec<(i64, Instant)>,
}

impl QuotaShare {
    /// The most that the placement may have used.
    fn max_held(&self) -> i64 {
        let amounts = self.previously_assigned.iter().map(|(amount, _)| *amount);
        amounts.fold(self.assigned, i64::max)
    }
}

/// A placement's share, how much of it is used, and how much more the placement could use.
pub(crate) struct ShareRequest<'a> {
    pub(crate) share: &'a mut QuotaShare,
    pub(crate) used: i64,
    pub(crate) additional: i64,
}

/// Divides `left` units among placements; without a limit each gets all that it can use. Returns whether the
/// placements could use more than is left.
pub(crate) fn divide(left: Option<i64>, mut requests: Vec<ShareRequest<'_>>, now: Instant) -> bool {
    for request in &mut requests {
        request
            .share
            .previously_assigned
            .retain(|(_, until)| now < *until);
    }
    let Some(left) = left.map(|left| left.max(0)) else {
        for request in requests {
            assign(
                request.share,
                request.used.saturating_add(request.additional),
                now,
            );
        }
        return false;
    };
    let total = requests
        .iter()
        .map(|request| request.used)
        .fold(left, i64::saturating_add);
    let additional: Vec<i64> = requests.iter().map(|request| request.additional).collect();
    let parts = fair_shares(left, &additional);
    let targets: Vec<i64> = requests
        .iter()
        .zip(parts)
        .map(|(request, additional)| request.used + additional)
        .collect();
    // First reduce shares, so that the second pass sees what is still reserved.
    for (request, target) in requests.iter_mut().zip(&targets) {
        if *target <= request.share.assigned {
            assign(request.share, *target, now);
        }
    }
    for index in 0..requests.len() {
        let others = requests.iter().enumerate().filter(|(i, _)| *i != index);
        let held = others.map(|(_, request)| request.share.max_held().max(request.used));
        let free = total.saturating_sub(held.fold(0, i64::saturating_add));
        let request = &mut requests[index];
        if targets[index] > request.share.assigned {
            let target = targets[index].min(free);
            request.share.assigned = target.max(request.share.assigned).max(request.used);
        }
    }
    additional
        .iter()
        .fold(0_i64, |sum, additional| sum.saturating_add(*additional))
        > left
}

fn assign(share: &mut QuotaShare, assigned: i64, now: Instant) {
    if assigned < share.assigned {
        share
            .previously_assigned
            .push((share.assigned, now + HANDOVER_DELAY));
    }
    share.assigned = assigned;
}

/// Equal parts of `left`, none larger than what its placement can use; the remainder goes to the first.
fn fair_shares(left: i64, limits: &[i64]) -> Vec<i64> {
    let mut parts = vec![0; limits.len()];
    let mut left = left;
    let mut order: Vec<usize> = (0..limits.len()).collect();
    order.sort_by_key(|index| limits[*index]);
    for (done, index) in order.iter().enumerate() {
        let others = i64::try_from(limits.len() - done).unwrap_or(1);
        // Rounded up: among equals the first gets the remainder.
        let part = left.saturating_add(others - 1) / others;
        parts[*index] = part.min(limits[*index]).max(0);
        left -= parts[*index];
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    #[test]
    fn what_is_left_is_divided_equally_and_the_unusable_rest_goes_to_the_others() {
        assert_eq!(fair_shares(12, &[100]), [12]);
        assert_eq!(fair_shares(12, &[100, 100]), [6, 6]);
        assert_eq!(fair_shares(13, &[100, 100]), [7, 6]);
        assert_eq!(fair_shares(12, &[2, 100, 0]), [2, 10, 0]);
        assert_eq!(fair_shares(0, &[2, 3]), [0, 0]);
        assert_eq!(fair_shares(9, &[2, 3]), [2, 3]);
    }

    /// Divides `left` among placements, each given as (used, could use more).
    fn divided(
        left: Option<i64>,
        shares: &mut [QuotaShare],
        usages: &[(i64, i64)],
        now: Instant,
    ) -> Vec<i64> {
        let requests = shares.iter_mut().zip(usages);
        let requests = requests.map(|(share, (used, additional))| ShareRequest {
            share,
            used: *used,
            additional: *additional,
        });
        divide(left, requests.collect(), now);
        shares.iter().map(|share| share.assigned).collect()
    }

    #[test]
    fn what_a_placement_gave_up_goes_to_another_only_after_the_handover() {
        let (now, mut shares) = (
            Instant::now(),
            [QuotaShare::default(), QuotaShare::default()],
        );
        let start = divided(Some(12), &mut shares, &[(0, 50), (0, 50)], now);
        assert_eq!(start, [6, 6]);
        // The first uses its whole share. The second gives up half of its own.
        let later = divided(Some(6), &mut shares, &[(6, 44), (0, 50)], now);
        assert_eq!(later, [6, 3], "a pod may just have been bound there");
        let after = now + HANDOVER_DELAY;
        let later = divided(Some(6), &mut shares, &[(6, 44), (0, 50)], after);
        assert_eq!(later, [9, 3]);
        let unlimited = divided(None, &mut shares, &[(6, 44), (0, 50)], after);
        assert_eq!(unlimited, [50, 50]);
    }

    proptest! {
        /// Whatever pods come and go, and whatever the scheduler binds based on an offer of a moment ago, the
        /// placements together never use more than there is.
        #[test]
        fn together_the_placements_never_use_more_than_the_limit(
            total in 0i64..40,
            steps in proptest::collection::vec((0usize..3, 0i64..8, any::<bool>(), 0u64..14), 1..60),
        ) {
            let (mut now, mut shares) = (Instant::now(), [QuotaShare::default(), QuotaShare::default(), QuotaShare::default()]);
            let mut has = [0i64; 3];
            // Earlier offers, each with the time until which the scheduler may still use it.
            let mut offered: Vec<(Instant, usize, i64)> = Vec::new();
            for (placement, count, is_added, pause) in steps {
                now += Duration::from_secs(pause);
                let usable = offered.iter().filter(|(until, of, _)| *of == placement && now < *until);
                let usable = usable.map(|(_, _, assigned)| *assigned).max().unwrap_or(0);
                let most = usable.max(shares[placement].assigned);
                if is_added {
                    has[placement] = (has[placement] + count).min(most.max(has[placement]));
                } else {
                    has[placement] = (has[placement] - count).max(0);
                }
                let used: i64 = has.iter().sum();
                prop_assert!(used <= total, "{used} of {total}: {has:?}");
                let have: Vec<(i64, i64)> = has.iter().map(|has| (*has, 20)).collect();
                offered.extend((0..3).map(|of| (now + HANDOVER_DELAY, of, shares[of].assigned)));
                let assigned = divided(Some(total - used), &mut shares, &have, now);
                prop_assert!(assigned.iter().sum::<i64>() <= total.max(used));
            }
        }
    }
}
