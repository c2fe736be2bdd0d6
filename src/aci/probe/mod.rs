//! The probes of containers, decoded.
//!
//! In: a container of a pod. Out: its startup or readiness probe as it is sent, or an error that names the field
//! that cannot be sent. Pure: `spec` decodes a probe, `request_target` makes the target of an HTTP request from its
//! path. The virtual node sends the probes.

mod request_target;
mod spec;

pub use spec::{
    GrpcProbe, HttpGetProbe, ProbeHandler, ProbeKind, ProbeScheme, ProbeSpec, ProbeSpecError,
    TcpSocketProbe,
};
