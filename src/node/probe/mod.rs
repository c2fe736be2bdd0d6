//! Readiness and startup probes that the virtual node runs itself, with the kubelet's semantics.
//!
//! In: the probes of a pod's containers, the states of these containers, the pod's IP address, and what the previous
//! leader wrote to the pod's status. Out: for each container whether it has started and is ready
//! ([`ProbeVerdict`]), and the kubelet's Events. The pod worker is the only caller: it adds its pod to the node's
//! [`ProbeManager`], reports each change of the containers, and writes the verdicts to the pod's status.
//!
//! ```text
//! pod worker ─add, update─▶ ProbeManager ─due─▶ Prober ─▶ socket to the pod's IP
//!     ▲                        │   ▲               │
//!     └──── ProbeReport, ──────┘   └─ ProbeAnswer ─┘
//!           ProbeEvents       ContainerProbes counts; ProbePathTracker judges the path
//! ```
//!
//! Pure: `outcome` (what one probe showed), `worker` (thresholds of one probe), `container` (both probes of a
//! container: the state machine), `probed` (its inputs), `verdict` (what the pod's status says), `reachability`
//! (whether the node reaches the pods at all), `event` (Events and how often they are written), `queue` (the next
//! probe that is due).
//!
//! I/O: `prober` (one probe: HTTP, TCP, gRPC), `manager` (runs the probes that are due, a bounded number at once),
//! `pod` (the pod worker's handle).
//!
//! # How the pod worker uses it
//!
//! ```text
//! ProbeManager::add(ProbedPod)       when the worker starts: probes, and the seeds from the pod's live status
//! PodProbes::update(ProbedPodState)  after each answer of Azure and each change of the pod, before the status is written
//! PodProbes::report()                started and ready of each container that has probes, for the status
//! PodProbes::changed()               one more reason to wake up: there is another verdict, or an Event
//! PodProbes::take_events()           to write as Events about the container
//! ```
//!
//! The state of a container is that of its status as the worker would write it without probes
//! ([`ProbedContainer::of`]). A container without probes is not in the report. The worker drops its handle when the
//! group is deleted.
//!
//! # What differs from a kubelet
//!
//! The source is `pkg/kubelet/prober` and `pkg/probe` of Kubernetes 1.37.
//!
//! - Liveness probes are not run here: Azure runs them, because they must go on while no operator runs. The node
//!   cannot restart a single container of a group, so a startup probe that fails for good is an outcome of its own
//!   ([`ProbeStartup::Failed`]). It is not followed by a restart, but by the liveness probe of ACI. If the app starts
//!   before that fails too, the startup probe, which goes on, succeeds.
//! - Exec probes need a process in the container, and are refused when a probe is decoded
//!   ([`ProbeSpec::of`](crate::aci::probe::ProbeSpec::of)).
//! - The network between the node and the pod may be cut by a network security group or a missing route. A kubelet
//!   has no such case. A connection that is not answered counts against the pod only if the path is proven
//!   ([`ProbePath`]); otherwise the last verdict holds for [`PROBE_PATH_HOLD`], and then the container is not ready,
//!   with a message that names the port and the network security group.
//! - The counts of results start at zero in each life of a container. The kubelet keeps the count of equal readiness
//!   results across a restart, so that there one success may be enough for a `successThreshold` of three.
//! - The kubelet runs additional readiness probes of containers that are not ready each time it synchronizes a pod.
//!   Here there is one such probe: at once when the container has started.
//! - Sockets are closed without `SO_LINGER`. The kubelet sets it to one second, which would block a thread of the
//!   runtime in `close`.

mod container;
mod event;
mod manager;
mod outcome;
mod pod;
mod probed;
mod prober;
mod queue;
mod reachability;
mod verdict;
mod worker;

pub use container::{ContainerProbes, ProbeRequest};
pub use event::{ProbeEvent, ProbeEventBudget, ProbeEventReason, ProbeEventSeries};
pub use manager::{MAX_PROBES_PER_POD, MAX_RUNNING_PROBES, ProbeManager};
pub use outcome::{ProbeAnswer, ProbeContact, ProbeOutcome, ProbeUnreachable};
pub use pod::{PodProbes, ProbedPod, ProbedPodState};
pub use probed::{ProbeSeed, ProbeSpecs, ProbedContainer};
pub use prober::{HookAnswer, MAX_STARTING_PROBES, Prober};
pub use reachability::{PROBE_PATH_HOLD, ProbePath, ProbePathTracker};
pub use verdict::{ProbeBlocked, ProbeReport, ProbeStartup, ProbeVerdict};
