//! Counts how many pods have which reason, and formats a message of bounded length.
//!
//! In: the reasons of each pod; a pod may have several. Out: the most common reasons. Each is preceded by its
//! number of pods, unless every reason applies to all pods.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// How many reasons the message contains. Further reasons are only counted.
pub const MAX_REASONS: usize = 4;

/// The reasons of pods, with counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReasonCounts {
    pods: usize,
    counts: BTreeMap<String, usize>,
}

impl ReasonCounts {
    /// Adds a pod with its reasons. Duplicates count once.
    pub fn add(&mut self, reasons: impl IntoIterator<Item = String>) {
        self.pods += 1;
        for reason in BTreeSet::from_iter(reasons) {
            *self.counts.entry(reason).or_default() += 1;
        }
    }

    /// How many pods have been added.
    pub fn pods(&self) -> usize {
        self.pods
    }

    /// The message, most common reason first: `spec.hostNetwork: ...` if every reason applies to all pods,
    /// otherwise `500 for spec.hostNetwork: ...; 64 for spec.volumes[0].hostPath: ...; 2 more reasons`.
    pub fn summary(&self) -> String {
        let mut counts: Vec<(&String, usize)> =
            self.counts.iter().map(|(why, n)| (why, *n)).collect();
        counts.sort_by_key(|(_, count)| Reverse(*count));
        let applies_to_all = counts.iter().all(|(_, count)| *count == self.pods);
        let parts = counts.iter().take(MAX_REASONS).map(|(why, count)| {
            if applies_to_all {
                (*why).clone()
            } else {
                format!("{count} for {why}")
            }
        });
        let mut parts: Vec<String> = parts.collect();
        match counts.len().saturating_sub(MAX_REASONS) {
            0 => {}
            1 => parts.push("1 more reason".to_owned()),
            more => parts.push(format!("{more} more reasons")),
        }
        parts.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pods: &[(usize, &[&str])]) -> ReasonCounts {
        let mut reasons = ReasonCounts::default();
        for (count, whys) in pods {
            for _ in 0..*count {
                reasons.add(whys.iter().map(|why| (*why).to_owned()));
            }
        }
        reasons
    }

    #[test]
    fn reasons_are_counted_unless_each_is_true_of_every_pod() {
        let mixed = of(&[(64, &["path"]), (500, &["network"])]);
        assert_eq!(
            (mixed.pods(), mixed.summary().as_str()),
            (564, "500 for network; 64 for path")
        );
        assert_eq!(of(&[(3, &["network"])]).summary(), "network");
        assert_eq!(
            of(&[(2, &["path", "network", "path"])]).summary(),
            "network; path"
        );
        let one_more = of(&[(1, &["network", "path"]), (1, &["path"])]);
        assert_eq!(one_more.summary(), "2 for path; 1 for network");
    }

    #[test]
    fn the_words_stay_short_however_many_reasons_there_are() {
        let names: Vec<String> = (10..60).map(|n| format!("claim-{n}")).collect();
        let mut reasons = ReasonCounts::default();
        for name in &names {
            reasons.add([name.clone(), "network".to_owned()]);
        }
        assert_eq!(
            reasons.summary(),
            "50 for network; 1 for claim-10; 1 for claim-11; 1 for claim-12; 47 more reasons"
        );
    }
}
