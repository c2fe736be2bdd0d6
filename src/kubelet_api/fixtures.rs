//! Test fixtures: a pod with two containers, and their CPU and memory use.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::usage::CpuCounter;
use crate::aci::names::GroupName;
use crate::node::pods::{ContainerInfo, PodInfo};

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

pub fn pod(name: &str) -> Arc<PodInfo> {
    let container = |name: &str| ContainerInfo {
        name: name.to_owned(),
        image: format!("image-of-{name}"),
        running_since: Some(at(60)),
        has_ended: false,
    };
    Arc::new(PodInfo {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        group: GroupName::from_pod("cluster", &Pod::default()),
        containers: vec![container("a"), container("b")],
        init_containers: Vec::new(),
        address: None,
        started_at: Some(at(0)),
        has_ended: false,
        is_group_deleted: false,
    })
}

pub fn counters() -> Vec<(String, CpuCounter)> {
    let counter = |cpu_seconds, bytes, second| CpuCounter {
        cpu_seconds,
        millicores: 250.0,
        memory_bytes: bytes,
        at: at(second),
    };
    let both = [
        ("a", counter(1.5, 1024.0, 180)),
        ("b", counter(0.5, 1.0, 120)),
    ];
    both.map(|(name, counter)| (name.to_owned(), counter))
        .into()
}
