//! burstpool bursts Kubernetes workloads onto Azure Container Instances (ACI).
//!
//! The modules, from the bottom up. The last column lists the modules that a module uses; a module uses only
//! modules above it in the table:
//!
//! | module | what it holds | uses |
//! | --- | --- | --- |
//! | [`telemetry`] | logs, metrics, and the health endpoints of the operator | none |
//! | [`k8s`] | what every module that uses the Kubernetes API needs: calls with a deadline, Events, quantities | `telemetry` |
//! | [`api`] | the custom resource `BurstPool`: users write its spec, the operator its status | `k8s` |
//! | [`aci`] | pods to container groups and back to pod statuses; the Azure client | `k8s`, `api`, `telemetry` |
//! | [`burst`] | which pods burst, when, and how many: pure decisions | `k8s`, `api`, `aci` |
//! | [`trigger`] | whether Prometheus, a schedule or an alert reports a load peak | `api` |
//! | [`scale`] | how many replicas a workload gets: the autoscaler's algorithm | `api`, `trigger` |
//! | [`node`] | the virtual node and the life of its pods | `k8s`, `api`, `aci`, `burst`, `telemetry` |
//! | [`kubelet_api`] | the kubelet's HTTP API: logs, exec, port-forward, metrics | `aci`, `node` |
//! | [`controller`] | the reconciler: creates and drains the virtual nodes of pools | `k8s`, `api`, `aci`, `burst`, `trigger`, `scale`, `telemetry`, `node`, `kubelet_api` |
//! | [`explain`] | `burstpool explain`: the plan for one pod, without executing it | `k8s`, `api`, `aci`, `burst`, `node`, `controller` |
//! | [`cli`] | the command line of `burstpool` | `telemetry`, `k8s`, `api`, `aci`, `node`, `kubelet_api`, `controller`, `explain` |
//! | [`emulator`] | Azure Resource Manager and Container Instances on localhost, for tests and the demo | none |
//!
//! The documents are in `docs`, as pages of this site: [`readme`](docs::readme), [`install`](docs::install),
//! [`design`](docs::design) and the others.
//!
//! The operator reaches Azure over HTTP only. Apart from the tests and the binary `aci-emulator`, no code outside
//! [`emulator`] refers to the emulator, and the emulator contains nothing about Kubernetes.

pub mod aci;
pub mod api;
#[cfg(test)]
mod architecture;
pub mod burst;
pub mod cli;
pub mod controller;
#[cfg(doc)]
pub mod docs;
pub mod emulator;
mod explain;
pub mod k8s;
#[cfg(test)]
mod kept;
pub mod kubelet_api;
pub mod node;
pub mod scale;
pub mod telemetry;
pub mod trigger;
