//! A node's facts, for the tests of this room.

use std::collections::BTreeMap;

use super::capacity::{Offer, Room};
use super::object::Facts;
use super::record::Record;
use crate::aci::client::Scope;
use crate::api::Placement;

/// A node of the pool `shop` with room for one pod.
pub(super) fn facts() -> Facts {
    let scope = Scope {
        subscription: "s".to_owned(),
        resource_group: "rg".to_owned(),
    };
    let placement = Placement {
        name: "weu".to_owned(),
        region: "westeurope".to_owned(),
        labels: BTreeMap::from([("topology.kubernetes.io/region".into(), "westeurope".into())]),
        ..Placement::default()
    };
    let room = Room {
        cpu_milli: 1000,
        memory_bytes: 1 << 30,
        pods: 1,
    };
    Facts {
        pool: "shop".into(),
        pool_uid: "u".into(),
        record: Record::new(&scope, &placement),
        address: "10.0.0.1".into(),
        port: 10250,
        offer: Offer {
            allocatable: room,
            capacity: room,
        },
        notice: None,
        closed: None,
        shut: None,
        kubernetes_minor: 37,
    }
}
