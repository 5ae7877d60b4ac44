//! What libbpf-cargo wrote from `bpf/`.
#![allow(warnings, clippy::all, clippy::undocumented_unsafe_blocks)] // generated

mod forward {
    include!(concat!(env!("OUT_DIR"), "/forward.skel.rs"));
}

mod deliver {
    include!(concat!(env!("OUT_DIR"), "/deliver.skel.rs"));
}

pub(crate) use deliver::DeliverSkelBuilder;
pub(crate) use forward::ForwardSkelBuilder;
