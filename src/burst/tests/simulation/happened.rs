//! Counts what happened, to prove that every fault occurred.

/// How many times each event happened.
#[derive(Debug, Default)]
pub struct Happened {
    pub plans: u64,
    /// Plans of an instance with a wrong clock.
    pub skewed: u64,
    pub grants: u64,
    /// Grants sent for the first time whose reservation an earlier plan had made during the hold.
    pub ahead: u64,
    /// Grants sent for a reservation of another leader or term.
    pub inherited: u64,
    /// Grants sent again by the instance that reserved them, because the result of the first is unknown.
    pub again: u64,
    /// Grants decided earlier than without a trigger.
    pub triggered: u64,
    /// Grants decided for pods whose nomination had no effect.
    pub nominated: u64,
    pub conflicts: u64,
    pub denials: u64,
    pub lost: u64,
    /// Updates of the pool that failed because it had changed.
    pub fenced: u64,
    /// Such updates that were repeated, because only messages had changed.
    pub retold: u64,
    /// Updates of the pool whose result is unknown.
    pub unanswered: u64,
    /// Plans that could not be carried out because of such an update.
    pub doubts: u64,
    /// Plans that were made from an old version of the pool.
    pub outdated: u64,
    /// Pools that another instance took over from their leader.
    pub taken: u64,
    pub freezes: u64,
    pub crashes: u64,
    pub homecomings: u64,
    pub closures: u64,
    /// Grants into a half-open placement.
    pub probes: u64,
    pub peaks: u64,
    /// Leaders that took over during a peak.
    pub found_peaks: u64,
    pub rescues: u64,
    pub releases: u64,
    /// Grants that expired, and pods that came to ACI after that.
    pub expiries: u64,
    pub late: u64,
    /// Creates that Azure throttled, and creates that it refused with an unknown error.
    pub throttled: u64,
    pub rejected: u64,
    /// Stamps that a policy denied.
    pub refused_stamps: u64,
    /// Workloads that were renamed.
    pub renamed: u64,
    /// Pods that were not granted because the anti-affinity of others keeps them out.
    pub kept_out: u64,
    /// Cores that another placement of the region took, and plans while no create was left.
    pub shared: u64,
    pub spent: u64,
}

impl Happened {
    fn each(&mut self) -> [&mut u64; 35] {
        [
            &mut self.plans,
            &mut self.skewed,
            &mut self.grants,
            &mut self.ahead,
            &mut self.inherited,
            &mut self.again,
            &mut self.triggered,
            &mut self.nominated,
            &mut self.conflicts,
            &mut self.denials,
            &mut self.lost,
            &mut self.fenced,
            &mut self.retold,
            &mut self.unanswered,
            &mut self.doubts,
            &mut self.outdated,
            &mut self.taken,
            &mut self.freezes,
            &mut self.crashes,
            &mut self.homecomings,
            &mut self.closures,
            &mut self.probes,
            &mut self.peaks,
            &mut self.found_peaks,
            &mut self.rescues,
            &mut self.releases,
            &mut self.expiries,
            &mut self.late,
            &mut self.throttled,
            &mut self.rejected,
            &mut self.refused_stamps,
            &mut self.renamed,
            &mut self.kept_out,
            &mut self.shared,
            &mut self.spent,
        ]
    }

    pub fn add(&mut self, other: &Self) {
        let mut other = Self { ..*other };
        for (sum, one) in self.each().into_iter().zip(other.each()) {
            *sum += *one;
        }
    }

    pub fn is_everything(&self) -> bool {
        let mut all = Self { ..*self };
        all.each().iter().all(|count| **count > 0)
    }
}
