//! Tests of burstpool on a real control plane. Each file tests one capability.

#![allow(clippy::disallowed_methods, reason = "what a test deletes is its own")]

#[path = "cluster/custom_resource.rs"]
mod custom_resource;
#[path = "cluster/explain.rs"]
mod explain;
#[path = "cluster/grants.rs"]
mod grants;
#[path = "cluster/grants_api_faults.rs"]
mod grants_api_faults;
#[path = "cluster/grants_beside_others.rs"]
mod grants_beside_others;
#[path = "cluster/grants_claims.rs"]
mod grants_claims;
#[path = "cluster/grants_failing_placement.rs"]
mod grants_failing_placement;
#[path = "cluster/grants_holds.rs"]
mod grants_holds;
#[path = "cluster/grants_own_nodes.rs"]
mod grants_own_nodes;
#[path = "cluster/grants_owners.rs"]
mod grants_owners;
#[path = "cluster/grants_rollouts.rs"]
mod grants_rollouts;
#[path = "cluster/grants_sidecars.rs"]
mod grants_sidecars;
#[path = "cluster/grants_topology.rs"]
mod grants_topology;
#[path = "cluster/install.rs"]
mod install;
#[path = "cluster/install_admission.rs"]
mod install_admission;
#[path = "cluster/install_elsewhere.rs"]
mod install_elsewhere;
#[path = "cluster/kubelet.rs"]
mod kubelet;
#[path = "cluster/kubelet_attacks.rs"]
mod kubelet_attacks;
#[path = "cluster/kubelet_autoscaler.rs"]
mod kubelet_autoscaler;
#[path = "cluster/kubelet_metrics.rs"]
mod kubelet_metrics;
#[path = "cluster/kubelet_own_node.rs"]
mod kubelet_own_node;
#[path = "cluster/kubelet_sessions.rs"]
mod kubelet_sessions;
#[path = "cluster/leader.rs"]
mod leader;
#[path = "cluster/leader_status.rs"]
mod leader_status;
#[path = "cluster/node.rs"]
mod node;
#[path = "cluster/node_daemon_sets.rs"]
mod node_daemon_sets;
#[path = "cluster/node_ending.rs"]
mod node_ending;
#[path = "cluster/node_foreign_groups.rs"]
mod node_foreign_groups;
#[path = "cluster/node_groups.rs"]
mod node_groups;
#[path = "cluster/node_hooks.rs"]
mod node_hooks;
#[path = "cluster/node_images.rs"]
mod node_images;
#[path = "cluster/node_in_process.rs"]
mod node_in_process;
#[path = "cluster/node_isolation.rs"]
mod node_isolation;
#[path = "cluster/node_jobs.rs"]
mod node_jobs;
#[path = "cluster/node_orphans.rs"]
mod node_orphans;
#[path = "cluster/node_outages.rs"]
mod node_outages;
#[path = "cluster/node_pod_changes.rs"]
mod node_pod_changes;
#[path = "cluster/node_pods.rs"]
mod node_pods;
#[path = "cluster/node_post_bind.rs"]
mod node_post_bind;
#[path = "cluster/node_probes.rs"]
mod node_probes;
#[path = "cluster/node_random_faults.rs"]
mod node_random_faults;
#[path = "cluster/node_references.rs"]
mod node_references;
#[path = "cluster/node_reports.rs"]
mod node_reports;
#[path = "cluster/node_retry_after.rs"]
mod node_retry_after;
#[path = "cluster/operator.rs"]
mod operator;
#[path = "cluster/operator_credentials.rs"]
mod operator_credentials;
#[path = "cluster/own_nodes.rs"]
mod own_nodes;
#[path = "cluster/readme.rs"]
mod readme;
mod support;
#[path = "cluster/telemetry.rs"]
mod telemetry;
#[path = "cluster/test_cluster.rs"]
mod test_cluster;
#[path = "cluster/test_cluster_ends.rs"]
mod test_cluster_ends;
#[path = "cluster/triggers.rs"]
mod triggers;
#[path = "cluster/triggers_alert.rs"]
mod triggers_alert;
#[path = "cluster/triggers_alertmanager.rs"]
mod triggers_alertmanager;
#[path = "cluster/triggers_auth.rs"]
mod triggers_auth;
#[path = "cluster/triggers_beside_others.rs"]
mod triggers_beside_others;
#[path = "cluster/triggers_prometheus.rs"]
mod triggers_prometheus;
#[path = "cluster/triggers_rights.rs"]
mod triggers_rights;
#[path = "cluster/unreadable_pools.rs"]
mod unreadable_pools;
#[path = "cluster/world.rs"]
mod world;
