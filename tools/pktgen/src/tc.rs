//! A program at tc ingress of an interface, taken away again at the end.

use std::os::fd::BorrowedFd;

use anyhow::{Context, Result};
use libbpf_rs::{TC_INGRESS, TcHook, TcHookBuilder};

/// A program that is attached as long as this lives.
pub(crate) struct Attached(TcHook);

impl Attached {
    pub(crate) fn to(program: BorrowedFd<'_>, index: u32) -> Result<Self> {
        let mut hook = TcHookBuilder::new(program)
            .ifindex(index.cast_signed())
            .replace(true)
            .handle(1)
            .priority(1)
            .hook(TC_INGRESS);
        hook.create().context("cannot make a clsact qdisc")?;
        hook.attach().context("cannot attach to tc ingress")?;
        Ok(Self(hook))
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // The process may end without it, and the interface with it: nobody waits for this.
        let _ = self.0.detach();
    }
}
