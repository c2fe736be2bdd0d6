//! The part of SPDY/3.1 that kube-apiserver and kubectl speak to a kubelet.
//!
//! In: the bytes of an upgraded connection. Out: the [`session::SpdyStream`]s that the peer opens. `frame` is
//! pure: it converts between bytes and frames.

mod dictionary;
mod frame;
pub mod session;
