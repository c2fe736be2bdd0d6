//! What a container group counts for in its subscription's usages.

use super::life::Group;
use super::model::Properties;
use super::validate::gpus;

/// The names of `usages` that every subscription has.
pub const NAMES: [&str; 6] = [
    "ContainerGroups",
    "StandardCores",
    "StandardSpotCores",
    "K80Cores",
    "P100Cores",
    "V100Cores",
];

/// The service's default limit (documents of 2025-11 and 2026-10); GPUs are retired.
pub fn default_limit(name: &str) -> u64 {
    match name {
        "ContainerGroups" | "StandardCores" => 100,
        "StandardSpotCores" => 10,
        _ => 0,
    }
}

/// What a group uses now: itself always, its cores while it holds them.
pub fn uses(group: &Group) -> Vec<(String, f64)> {
    let Some(properties) = group.body.properties.as_ref() else {
        return Vec::new();
    };
    let mut uses = wants(properties);
    if !group.holds_cores() {
        uses.truncate(1);
    }
    uses
}

/// The least that a group takes of its subscription's cores (quotas page 2025-11).
const LEAST_CORES: f64 = 1.0;

/// What a group would use, itself first. Cores count whole for each group, and at least one: that is how
/// they are billed (a group of 1.2 CPU counts 2), and the most that the quota can take them for.
pub fn wants(properties: &Properties) -> Vec<(String, f64)> {
    let cores = if properties.is_spot() {
        "StandardSpotCores"
    } else {
        "StandardCores"
    };
    let mut wants = vec![
        ("ContainerGroups".to_owned(), 1.0),
        (
            cores.to_owned(),
            (properties.total().0 - 1e-9).ceil().max(LEAST_CORES),
        ),
    ];
    for (count, sku) in properties.containers().iter().filter_map(gpus) {
        #[allow(clippy::cast_precision_loss, reason = "a count of GPUs is small")]
        wants.push((format!("{sku}Cores"), count as f64));
    }
    wants
}
