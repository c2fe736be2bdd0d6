//! ACI's realtime-metrics extension, which reports the current CPU and memory usage of the containers of a group in
//! a subnet.
//!
//! In: the placement, and the ports of the containers. Out: the extension in the group's body, where it can work:
//! it listens on a port of the group's address, so the group must be in a subnet and the port must be free.

use std::collections::{BTreeMap, BTreeSet};

use super::body::{Extension, ExtensionProperties, Port, PortProtocol};
use super::pod::TranslationContext;
use crate::aci::realtime_metrics::EXTENSION_PORT;

/// The type of the extension.
const EXTENSION_TYPE: &str = "realtime-metrics";
/// The name of the extension in the group, as in the specification's example.
const EXTENSION_NAME: &str = "vk-realtime-metrics";
/// The version of the extension.
const VERSION: &str = "1.0";

/// The extension; `None` if the placement does not request it or it cannot work. A confidential group runs only
/// what its policy names, so it cannot have the extension.
pub(super) fn extension(
    ports: &BTreeSet<Port>,
    context: &TranslationContext<'_>,
) -> Option<Extension> {
    let placement = context.placement;
    let extension_port = Port {
        protocol: PortProtocol::Tcp,
        port: EXTENSION_PORT,
    };
    let is_wanted = placement.spec.network.realtime_metrics;
    let can_answer = placement.is_in_subnet() && !placement.is_confidential();
    (is_wanted && can_answer && !ports.contains(&extension_port)).then(|| Extension {
        name: EXTENSION_NAME.to_owned(),
        properties: ExtensionProperties {
            extension_type: EXTENSION_TYPE,
            version: VERSION,
            settings: BTreeMap::new(),
            protected_settings: BTreeMap::new(),
        },
    })
}
