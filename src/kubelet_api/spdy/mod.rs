//! SPDY/3.1, the part of it that kube-apiserver and kubectl speak to a kubelet.
//!
//! In: bytes of a connection that was upgraded. Out: [`session::Stream`]s that the peer opens. `frame` is
//! pure: bytes in, frames out.

mod dictionary;
mod frame;
pub mod session;
