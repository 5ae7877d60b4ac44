//! A program at tc ingress of an interface, taken away again at the end.

use std::os::fd::{BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use libbpf_rs::{TC_INGRESS, TcHook, TcHookBuilder};

/// A program that is attached as long as this lives: by a TCX link, or as a filter of a clsact
/// qdisc, which takes longer for each packet, where the kernel has no such links (before 6.6).
pub(crate) enum Attached {
    Link { _link: OwnedFd },
    Filter(TcHook),
}

impl Attached {
    pub(crate) fn to(program: BorrowedFd<'_>, index: u32) -> Result<Self> {
        if let Ok(link) = kernel::attach_tcx(program, index) {
            return Ok(Self::Link { _link: link });
        }
        let mut hook = TcHookBuilder::new(program)
            .ifindex(index.cast_signed())
            .replace(true)
            .handle(1)
            .priority(1)
            .hook(TC_INGRESS);
        hook.create().context("cannot make a clsact qdisc")?;
        hook.attach().context("cannot attach to tc ingress")?;
        Ok(Self::Filter(hook))
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // The process may end without it, and the interface with it: nobody waits for this.
        if let Self::Filter(hook) = self {
            let _ = hook.detach();
        }
    }
}
