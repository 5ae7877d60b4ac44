//! An interface of this thread's network namespace.

use anyhow::{Context, Result};

use crate::plan::Mac;

/// Its index and address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interface {
    pub(crate) index: u32,
    pub(crate) mac: Mac,
}

impl Interface {
    /// The interface of that name.
    pub(crate) fn named(name: &str) -> Result<Self> {
        let missing = || format!("there is no interface {name} here: see `ip link`");
        let index = nix::net::if_::if_nametoindex(name).with_context(missing)?;
        let all = nix::ifaddrs::getifaddrs().context("cannot list interfaces")?;
        let mac = all
            .filter(|entry| entry.interface_name == name)
            .find_map(|entry| entry.address?.as_link_addr()?.addr());
        Ok(Self { index, mac: Mac(mac.with_context(missing)?) })
    }
}
