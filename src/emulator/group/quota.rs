//! How much of its subscription's quotas a container group uses.

use super::lifecycle::EmulatedGroup;
use super::model::Properties;
use super::validate::gpus;

/// The names in the `usages` of every subscription.
pub const NAMES: [&str; 6] = [
    "ContainerGroups",
    "StandardCores",
    "StandardSpotCores",
    "K80Cores",
    "P100Cores",
    "V100Cores",
];

/// The service's default limit (documentation of 2025-11 and 2026-10). GPUs are retired, so their limit
/// is 0.
pub fn default_limit(name: &str) -> u64 {
    match name {
        "ContainerGroups" | "StandardCores" => 100,
        "StandardSpotCores" => 10,
        _ => 0,
    }
}

/// What a group uses now: always one group, and its cores while [`EmulatedGroup::holds_cores`].
pub fn current_usage(group: &EmulatedGroup) -> Vec<(String, f64)> {
    let Some(properties) = group.body.properties.as_ref() else {
        return Vec::new();
    };
    let mut uses = required_usage(properties);
    if !group.holds_cores() {
        uses.truncate(1);
    }
    uses
}

/// The minimum number of cores of a group (quotas page 2025-11).
const MIN_CORES: f64 = 1.0;

/// What a group would use; the group itself comes first. Each group's cores are rounded up to whole
/// ones, at least one. Azure bills them this way (1.2 CPU count as 2), so this is the most that the
/// quota can count.
pub fn required_usage(properties: &Properties) -> Vec<(String, f64)> {
    let cores = if properties.is_spot() {
        "StandardSpotCores"
    } else {
        "StandardCores"
    };
    let mut wants = vec![
        ("ContainerGroups".to_owned(), 1.0),
        (
            cores.to_owned(),
            (properties.total().0 - 1e-9).ceil().max(MIN_CORES),
        ),
    ];
    for (count, sku) in properties.containers().iter().filter_map(gpus) {
        #[allow(clippy::cast_precision_loss, reason = "a count of GPUs is small")]
        wants.push((format!("{sku}Cores"), count as f64));
    }
    wants
}
