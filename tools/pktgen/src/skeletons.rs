//! What libbpf-cargo wrote from `bpf/`.
#![allow(warnings, clippy::all, clippy::undocumented_unsafe_blocks)] // generated

mod send {
    include!(concat!(env!("OUT_DIR"), "/send.skel.rs"));
}
mod sink {
    include!(concat!(env!("OUT_DIR"), "/sink.skel.rs"));
}
mod bridge {
    include!(concat!(env!("OUT_DIR"), "/bridge.skel.rs"));
}

pub(crate) use bridge::BridgeSkelBuilder;
pub(crate) use send::SendSkelBuilder;
pub(crate) use sink::{SinkSkel, SinkSkelBuilder};
