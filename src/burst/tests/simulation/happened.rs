//! What happened, to show that everything that can go wrong did.

/// How often each happened.
#[derive(Debug, Default)]
pub struct Happened {
    pub plans: u64,
    /// Plans of an instance whose clock is off.
    pub skewed: u64,
    pub grants: u64,
    /// Grants sent for the first time, that an earlier plan had reserved while their hold was not over.
    pub ahead: u64,
    /// Grants sent that another leader, or another term, had reserved.
    pub inherited: u64,
    /// Grants sent again by who reserved them: of the first nobody knows what became.
    pub again: u64,
    /// Grants decided sooner than without a trigger.
    pub triggered: u64,
    /// Grants decided of pods whose nomination came to nothing.
    pub nominated: u64,
    pub conflicts: u64,
    pub denials: u64,
    pub lost: u64,
    /// Updates of the pool that failed, since it had changed.
    pub fenced: u64,
    /// Those that were made again, since it had changed in words only.
    pub retold: u64,
    /// Updates of the pool of which nobody knows what became.
    pub unanswered: u64,
    /// Plans of which nothing could be carried out, for such an update.
    pub doubts: u64,
    /// Plans that were made with an old view of the pool.
    pub outdated: u64,
    /// Pools that were taken from who led them.
    pub taken: u64,
    pub freezes: u64,
    pub crashes: u64,
    pub homecomings: u64,
    pub closures: u64,
    /// Grants into a placement that is half open.
    pub probes: u64,
    pub peaks: u64,
    /// Leaders that began in a peak.
    pub found_peaks: u64,
    pub rescues: u64,
    pub releases: u64,
    /// Grants that expired, and those whose pods came to ACI all the same.
    pub expiries: u64,
    pub late: u64,
    /// Creates that Azure asked to wait with, and that it refused in words that nobody knows.
    pub throttled: u64,
    pub rejected: u64,
}

impl Happened {
    fn each(&mut self) -> [&mut u64; 30] {
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
