//! Tests of burstpool on a real control plane. Each file tests one capability.

#![allow(clippy::disallowed_methods, reason = "what a test deletes is its own")]

#[path = "cluster/admission.rs"]
mod admission;
#[path = "cluster/binding.rs"]
mod binding;
#[path = "cluster/burst.rs"]
mod burst;
#[path = "cluster/daemons.rs"]
mod daemons;
#[path = "cluster/defects.rs"]
mod defects;
#[path = "cluster/elsewhere.rs"]
mod elsewhere;
#[path = "cluster/ends.rs"]
mod ends;
#[path = "cluster/explain.rs"]
mod explain;
#[path = "cluster/fair.rs"]
mod fair;
#[path = "cluster/fields.rs"]
mod fields;
#[path = "cluster/ground.rs"]
mod ground;
#[path = "cluster/home.rs"]
mod home;
#[path = "cluster/install.rs"]
mod install;
#[path = "cluster/jobs.rs"]
mod jobs;
#[path = "cluster/kubelet.rs"]
mod kubelet;
#[path = "cluster/kubelet_autoscaler.rs"]
mod kubelet_autoscaler;
#[path = "cluster/kubelet_home.rs"]
mod kubelet_home;
#[path = "cluster/kubelet_hostile.rs"]
mod kubelet_hostile;
#[path = "cluster/kubelet_metrics.rs"]
mod kubelet_metrics;
#[path = "cluster/kubelet_sessions.rs"]
mod kubelet_sessions;
#[path = "cluster/later.rs"]
mod later;
#[path = "cluster/leader.rs"]
mod leader;
#[path = "cluster/neighbours.rs"]
mod neighbours;
#[path = "cluster/node.rs"]
mod node;
#[path = "cluster/operator.rs"]
mod operator;
#[path = "cluster/outage.rs"]
mod outage;
#[path = "cluster/pauses.rs"]
mod pauses;
#[path = "cluster/pods.rs"]
mod pods;
#[path = "cluster/readme.rs"]
mod readme;
#[path = "cluster/references.rs"]
mod references;
#[path = "cluster/resource.rs"]
mod resource;
#[path = "cluster/spill.rs"]
mod spill;
#[path = "cluster/spill_backend.rs"]
mod spill_backend;
#[path = "cluster/spill_claims.rs"]
mod spill_claims;
#[path = "cluster/spill_holds.rs"]
mod spill_holds;
#[path = "cluster/spill_home.rs"]
mod spill_home;
#[path = "cluster/spill_kinds.rs"]
mod spill_kinds;
#[path = "cluster/spill_others.rs"]
mod spill_others;
#[path = "cluster/spill_rollouts.rs"]
mod spill_rollouts;
#[path = "cluster/spill_server.rs"]
mod spill_server;
#[path = "cluster/storm.rs"]
mod storm;
#[path = "cluster/strays.rs"]
mod strays;
mod support;
#[path = "cluster/takeover.rs"]
mod takeover;
#[path = "cluster/telemetry.rs"]
mod telemetry;
#[path = "cluster/told.rs"]
mod told;
#[path = "cluster/topology.rs"]
mod topology;
#[path = "cluster/triggers.rs"]
mod triggers;
#[path = "cluster/triggers_alert.rs"]
mod triggers_alert;
#[path = "cluster/triggers_alertmanager.rs"]
mod triggers_alertmanager;
#[path = "cluster/triggers_auth.rs"]
mod triggers_auth;
#[path = "cluster/triggers_load.rs"]
mod triggers_load;
#[path = "cluster/triggers_others.rs"]
mod triggers_others;
#[path = "cluster/triggers_rights.rs"]
mod triggers_rights;
#[path = "cluster/unreadable.rs"]
mod unreadable;
#[path = "cluster/world.rs"]
mod world;
