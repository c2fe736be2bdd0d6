//! The quota of a subscription in a region, shared by all its placements: together they offer no more than is left.
//!
//! In: the usages that Azure reports for the region, and the pods of all placements there, of any pool. Out: the
//! [`NodeOffer`] of each placement's node.
//!
//! What is left is divided equally, and a placement that cannot use its part leaves the rest to the others. What a
//! placement gives up goes to another placement only after `HANDOVER_DELAY`: the scheduler may just have bound a
//! pod there.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

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
        let mut all = lock(&self.0);
        // Forget quotas that no placement uses.
        all.retain(|_, quota| Arc::strong_count(quota) > 1);
        all.entry(key).or_default().clone()
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
    knew_all: bool,
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
    knew_all: bool,
}

impl RegionQuota {
    /// Adds a placement.
    pub fn join(&self, context: &Arc<PodsContext>) {
        let mut inner = lock(&self.0);
        inner.members.retain(|one| one.context.strong_count() > 0);
        inner.members.push(QuotaMember {
            context: Arc::downgrade(context),
            is_closed: false,
            cpu: QuotaShare::default(),
            pods: QuotaShare::default(),
        });
    }

    /// Offers the placement no more pods. Its existing pods count for as long as they have workers.
    pub fn leave(&self, context: &Arc<PodsContext>) {
        for member in &mut lock(&self.0).members {
            member.is_closed |= member.is_for(context);
        }
    }

    /// Records which pods have groups. Must be called before the request to Azure is sent.
    pub fn begin_query(&self) -> UsageQuery {
        let inner = lock(&self.0);
        let kept = || inner.members.iter().filter_map(|one| one.context.upgrade());
        UsageQuery {
            started_at: Instant::now(),
            knew_all: kept().all(|context| context.has_listed_pods()),
            created_pods: kept()
                .flat_map(|context| context.pods_with_groups())
                .collect(),
        }
    }

    /// Records Azure's answer; `usages` is `None` if the operator may not read them. The answer is ignored if a later
    /// request was answered before.
    pub fn finish_query(&self, asked: UsageQuery, usages: Option<Vec<QuotaUsage>>) {
        let mut inner = lock(&self.0);
        if inner
            .usages_read_at
            .is_none_or(|before| before <= asked.started_at)
        {
            inner.usages_read_at = Some(asked.started_at);
            (inner.usages, inner.counted_pods) = (usages, asked.created_pods);
            inner.knew_all = asked.knew_all;
        }
    }

    /// Whether more may be left than is known, and placements could use it: a group has gone since the last request,
    /// or all pods are listed now and were not then.
    pub fn is_outdated(&self) -> bool {
        let inner = lock(&self.0);
        if !inner.is_short {
            return false;
        }
        let kept = || inner.members.iter().filter_map(|one| one.context.upgrade());
        if !inner.knew_all && kept().all(|context| context.has_listed_pods()) {
            return true;
        }
        let created: HashSet<String> = kept()
            .flat_map(|context| context.pods_with_groups())
            .collect();
        inner.counted_pods.iter().any(|uid| !created.contains(uid))
    }

    /// What the placement's node offers now.
    pub fn offer(&self, context: &Arc<PodsContext>) -> NodeOffer {
        let inner = &mut *lock(&self.0);
        inner.members.retain(|one| one.context.strong_count() > 0);
        let seen = inner.observe_members();
        inner.distribute(&seen, Instant::now());
        let mut all = inner.members.iter().zip(&seen);
        let own = all.find(|(member, _)| member.is_for(context));
        own.map(|(member, seen)| {
            let left = ComputeAmount {
                cpu_milli: member.cpu.assigned.saturating_mul(MILLICORES_PER_CORE)
                    - seen.load.groups.cpu_milli,
                memory_bytes: seen.remaining_capacity.memory_bytes,
                pods: member.pods.assigned - seen.load.groups.pods,
            };
            NodeOffer::new(&seen.load, left.at_most(seen.remaining_capacity))
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
        let contexts = members.map(|one| (one, one.context.upgrade()));
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
                let own = capacity::placement_capacity(&settings.placement).minus(load.groups);
                let creates = context.azure.remaining_creates(&context.scope);
                MemberObservation {
                    load,
                    remaining_capacity: if member.is_closed {
                        ComputeAmount::default()
                    } else {
                        own
                    },
                    core_quota_name: capacity::core_quota_name(&settings.placement),
                    remaining_creates: creates
                        .map(|(left, _)| i64::try_from(left).unwrap_or(i64::MAX)),
                }
            })
            .collect()
    }

    /// Divides the cores that are left, by kind, and the groups that are left.
    fn distribute(&mut self, seen: &[MemberObservation], now: Instant) {
        let usages = self.usages.as_deref().unwrap_or_default();
        let of_kind =
            |kind: &str, one: &MemberObservation| kind.is_empty() || one.core_quota_name == kind;
        let left = |name: &str, kind: &str, taken: fn(&ComputeAmount) -> i64| {
            let uncounted = seen.iter().filter(|one| of_kind(kind, one));
            let uncounted: i64 = uncounted.map(|one| taken(&one.load.uncounted)).sum();
            capacity::remaining_quota(name, usages).map(|left| left.saturating_sub(uncounted))
        };
        self.is_short = false;
        for kind in ["StandardCores", "StandardSpotCores"] {
            let left = left(kind, kind, |room| whole_cores(room.cpu_milli));
            let members = self.members.iter_mut().zip(seen);
            let members = members.filter(|(_, one)| of_kind(kind, one));
            let members = members.map(|(member, seen)| ShareRequest {
                share: &mut member.cpu,
                used: whole_cores(seen.load.groups.cpu_milli),
                additional: seen.remaining_capacity.cpu_milli.max(0) / MILLICORES_PER_CORE,
            });
            self.is_short |= divide(left, members.collect(), now);
        }
        let groups = left("ContainerGroups", "", |room| room.pods);
        let uncreated: i64 = seen.iter().map(|one| one.load.uncreated).sum();
        let creates = seen.iter().filter_map(|one| one.remaining_creates).min();
        let creates = creates.map(|left| left.saturating_sub(uncreated));
        let members = self.members.iter_mut().zip(seen);
        let members = members.map(|(member, seen)| ShareRequest {
            share: &mut member.pods,
            used: seen.load.groups.pods,
            additional: seen.remaining_capacity.pods.max(0),
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
        let before = self.previously_assigned.iter().map(|(had, _)| *had);
        before.fold(self.assigned, i64::max)
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
pub(crate) fn divide(left: Option<i64>, mut wishes: Vec<ShareRequest<'_>>, now: Instant) -> bool {
    for wish in &mut wishes {
        wish.share
            .previously_assigned
            .retain(|(_, until)| now < *until);
    }
    let Some(left) = left.map(|left| left.max(0)) else {
        for wish in wishes {
            assign(wish.share, wish.used.saturating_add(wish.additional), now);
        }
        return false;
    };
    let total = wishes
        .iter()
        .map(|wish| wish.used)
        .fold(left, i64::saturating_add);
    let more: Vec<i64> = wishes.iter().map(|wish| wish.additional).collect();
    let fair = fair_shares(left, &more);
    let wanted: Vec<i64> = wishes
        .iter()
        .zip(fair)
        .map(|(wish, more)| wish.used + more)
        .collect();
    // First reduce shares, so that the second pass sees what is still reserved.
    for (wish, wanted) in wishes.iter_mut().zip(&wanted) {
        if *wanted <= wish.share.assigned {
            assign(wish.share, *wanted, now);
        }
    }
    for at in 0..wishes.len() {
        let others = wishes.iter().enumerate().filter(|(other, _)| *other != at);
        let held = others.map(|(_, wish)| wish.share.max_held().max(wish.used));
        let free = total.saturating_sub(held.fold(0, i64::saturating_add));
        let wish = &mut wishes[at];
        if wanted[at] > wish.share.assigned {
            let given = wanted[at].min(free).max(wish.share.assigned).max(wish.used);
            wish.share.assigned = given;
        }
    }
    more.iter()
        .fold(0_i64, |sum, more| sum.saturating_add(*more))
        > left
}

fn assign(share: &mut QuotaShare, given: i64, now: Instant) {
    if given < share.assigned {
        share
            .previously_assigned
            .push((share.assigned, now + HANDOVER_DELAY));
    }
    share.assigned = given;
}

/// Equal parts of `left`, none larger than what its placement can use; the remainder goes to the first.
fn fair_shares(left: i64, uses: &[i64]) -> Vec<i64> {
    let mut parts = vec![0; uses.len()];
    let mut left = left;
    let mut order: Vec<usize> = (0..uses.len()).collect();
    order.sort_by_key(|at| uses[*at]);
    for (done, at) in order.iter().enumerate() {
        let others = i64::try_from(uses.len() - done).unwrap_or(1);
        // Rounded up: among equals the first gets the remainder.
        let part = left.saturating_add(others - 1) / others;
        parts[*at] = part.min(uses[*at]).max(0);
        left -= parts[*at];
    }
    parts
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_regions_that_placements_are_in_are_remembered() {
        let quotas = QuotaRegistry::default();
        let scope = GroupScope {
            subscription: "S".to_owned(),
            resource_group: "rg".to_owned(),
        };
        let first = quotas.region_quota(&scope, "westeurope");
        for number in 0..100 {
            drop(quotas.region_quota(&scope, &format!("region-{number}")));
        }
        assert!(lock(&quotas.0).len() <= 2);
        assert!(Arc::ptr_eq(
            &first,
            &quotas.region_quota(&scope, "WestEurope")
        ));
    }

    #[test]
    fn what_is_left_is_divided_equally_and_what_one_cannot_use_goes_to_the_others() {
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
        have: &[(i64, i64)],
        now: Instant,
    ) -> Vec<i64> {
        let wishes = shares.iter_mut().zip(have);
        let wishes = wishes.map(|(share, (has, more))| ShareRequest {
            share,
            used: *has,
            additional: *more,
        });
        divide(left, wishes.collect(), now);
        shares.iter().map(|share| share.assigned).collect()
    }

    #[test]
    fn what_one_has_given_up_comes_to_another_only_after_a_moment() {
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
        fn together_they_never_take_more_than_there_is(
            total in 0i64..40,
            steps in proptest::collection::vec((0usize..3, 0i64..8, any::<bool>(), 0u64..14), 1..60),
        ) {
            let (mut now, mut shares) = (Instant::now(), [QuotaShare::default(), QuotaShare::default(), QuotaShare::default()]);
            let mut has = [0i64; 3];
            // Earlier offers, each with the time until which the scheduler may still use it.
            let mut offered: Vec<(Instant, usize, i64)> = Vec::new();
            for (who, count, comes, pause) in steps {
                now += Duration::from_secs(pause);
                let late = offered.iter().filter(|(until, of, _)| *of == who && now < *until);
                let late = late.map(|(_, _, given)| *given).max().unwrap_or(0);
                let most = late.max(shares[who].assigned);
                if comes {
                    has[who] = (has[who] + count).min(most.max(has[who]));
                } else {
                    has[who] = (has[who] - count).max(0);
                }
                let used: i64 = has.iter().sum();
                prop_assert!(used <= total, "{used} of {total}: {has:?}");
                let have: Vec<(i64, i64)> = has.iter().map(|has| (*has, 20)).collect();
                offered.extend((0..3).map(|of| (now + HANDOVER_DELAY, of, shares[of].assigned)));
                let given = divided(Some(total - used), &mut shares, &have, now);
                prop_assert!(given.iter().sum::<i64>() <= total.max(used));
            }
        }
    }
}
