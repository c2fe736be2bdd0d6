//! ACI's realtime-metrics extension: it tells what the containers of a group in a subnet use, now.
//!
//! In: the placement and the ports of the containers. Out: the extension of the group's body, where it can
//! answer: it does so on a port of the group's address, which must be free and in a subnet.

use std::collections::{BTreeMap, BTreeSet};

use super::body::{Extension, ExtensionProperties, Port, Protocol};
use super::pod::Context;
use crate::aci::realtime::PORT;

/// The extension's type.
const REALTIME_METRICS: &str = "realtime-metrics";
/// Its name in the group, as the specification's example has it.
const NAME: &str = "vk-realtime-metrics";
/// The extension's version.
const VERSION: &str = "1.0";

/// The extension. A confidential group runs what its policy names, and nothing beside.
pub(super) fn extension(ports: &BTreeSet<Port>, context: &Context<'_>) -> Option<Extension> {
    let placement = context.placement;
    let own = Port {
        protocol: Protocol::Tcp,
        port: PORT,
    };
    let is_wanted = placement.spec.network.realtime_metrics;
    let can_answer = placement.is_in_subnet() && !placement.is_confidential();
    (is_wanted && can_answer && !ports.contains(&own)).then(|| Extension {
        name: NAME.to_owned(),
        properties: ExtensionProperties {
            extension_type: REALTIME_METRICS,
            version: VERSION,
            settings: BTreeMap::new(),
            protected_settings: BTreeMap::new(),
        },
    })
}
