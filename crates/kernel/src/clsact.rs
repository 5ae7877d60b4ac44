//! tc programs where the kernel has no TCX links: filters of a clsact qdisc.
//!
//! A filter lives on its own, without a pin. Ours has a priority and handle that nobody picks by
//! chance, and a note (see `notes`); the qdisc goes with it only if we made it and it is empty.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use libbpf_rs::libbpf_sys;

use crate::netlink;

/// Priority and handle of our filter: "tl".
pub(crate) const OURS: u16 = 0x746c;

fn hook(ifindex: u32, point: u32) -> libbpf_sys::bpf_tc_hook {
    libbpf_sys::bpf_tc_hook {
        sz: size_of::<libbpf_sys::bpf_tc_hook>() as libbpf_sys::size_t,
        ifindex: ifindex as i32,
        attach_point: point,
        ..Default::default()
    }
}

fn options() -> libbpf_sys::bpf_tc_opts {
    libbpf_sys::bpf_tc_opts {
        sz: size_of::<libbpf_sys::bpf_tc_opts>() as libbpf_sys::size_t,
        handle: OURS.into(),
        priority: OURS.into(),
        ..Default::default()
    }
}

fn done(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-result)) }
}

/// Makes the qdisc; false if there is one.
pub(crate) fn make_qdisc(ifindex: u32) -> io::Result<bool> {
    if netlink::ingress_qdisc(ifindex)?.is_some() {
        return Ok(false);
    }
    let mut hook = hook(ifindex, libbpf_sys::BPF_TC_INGRESS);
    // SAFETY: a hook that states its size.
    done(unsafe { libbpf_sys::bpf_tc_hook_create(&raw mut hook) })?;
    Ok(true)
}

/// Attaches a program, or puts it in the place of ours, without a packet in between.
pub(crate) fn attach(ifindex: u32, program: BorrowedFd<'_>) -> io::Result<()> {
    let hook = hook(ifindex, libbpf_sys::BPF_TC_INGRESS);
    let mut options = options();
    options.prog_fd = program.as_raw_fd();
    options.flags = libbpf_sys::BPF_TC_F_REPLACE;
    // SAFETY: hook and options state their sizes; the descriptor is open.
    done(unsafe { libbpf_sys::bpf_tc_attach(&raw const hook, &raw mut options) })
}

/// Removes our filter.
pub(crate) fn detach(ifindex: u32) -> io::Result<()> {
    let hook = hook(ifindex, libbpf_sys::BPF_TC_INGRESS);
    let options = options();
    // SAFETY: hook and options state their sizes.
    done(unsafe { libbpf_sys::bpf_tc_detach(&raw const hook, &raw const options) })
}

/// Removes the qdisc if it is a clsact without any filter; says whether it did.
pub(crate) fn remove_empty_qdisc(ifindex: u32) -> io::Result<bool> {
    if netlink::ingress_qdisc(ifindex)?.as_deref() != Some("clsact")
        || !netlink::filters(ifindex)?.is_empty()
    {
        return Ok(false);
    }
    let both = libbpf_sys::BPF_TC_INGRESS | libbpf_sys::BPF_TC_EGRESS;
    let mut hook = hook(ifindex, both);
    // SAFETY: a hook that states its size.
    done(unsafe { libbpf_sys::bpf_tc_hook_destroy(&raw mut hook) })?;
    Ok(true)
}
