//! burstpool bursts Kubernetes workloads onto Azure Container Instances (ACI).
//!
//! Where everything lives, from the bottom up; a room knows only the rooms above it in this list:
//!
//! | room | what it holds | knows |
//! | --- | --- | --- |
//! | [`k8s`] | what the API server asks of the objects that every room writes, and refused writes | nobody |
//! | [`telemetry`] | logs, metrics, and whether the operator is well | nobody |
//! | [`api`] | the custom resource that users write and read | nobody |
//! | [`aci`] | a pod as a container group, and a container group as a pod's status | `k8s`, `api`, `telemetry` |
//! | [`burst`] | who bursts, when and how many: pure decisions | `k8s`, `api`, `aci` |
//! | [`trigger`] | whether there is a peak: what Prometheus, a schedule or an alert says | `api` |
//! | [`scale`] | how many replicas a workload gets: the autoscaler's algorithm | `api`, `trigger` |
//! | [`node`] | the virtual node and its pods: registered, created, told of, removed | `k8s`, `api`, `aci` |
//! | [`kubelet_api`] | what the API server asks a kubelet for: logs, commands, ports, numbers | `aci`, `node` |
//! | [`controller`] | the reconciler: pools become nodes, and are drained before they go | `k8s`, `api`, `aci`, `burst`, `trigger`, `scale`, `telemetry`, `node`, `kubelet_api` |
//! | [`cli`] | the command line of `burstpool` | all above |
//! | [`emulator`] | Azure Resource Manager and Container Instances on localhost, for tests, the demo and trying out | nobody |
//!
//! The documents are in `docs`, as pages of this site: [`readme`](docs::readme), [`install`](docs::install),
//! [`design`](docs::design) and the others.
//!
//! The seam to Azure is HTTP: nothing outside [`emulator`] and the tests knows that the emulator
//! exists, and it knows nothing of Kubernetes.

pub mod aci;
pub mod api;
pub mod burst;
pub mod cli;
pub mod controller;
#[cfg(doc)]
pub mod docs;
pub mod emulator;
pub mod k8s;
#[cfg(test)]
mod kept;
pub mod kubelet_api;
pub mod node;
pub mod scale;
pub mod telemetry;
pub mod trigger;
