//! What the programs count, by port.

use libbpf_rs::{MapCore as _, MapFlags};
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::Kernel;
use crate::error::Error;
use crate::layout::{
    Counters, DROP_MALFORMED, DROP_NO_DAEMON, DROP_NO_PORT, DROP_NO_ROOM, DROP_PUNT_RATE,
    DROP_QUOTA_IN, DROP_QUOTA_OUT, DROPS, PORTS,
};

/// Why a kernel program dropped a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum KernelDrop {
    /// Shorter than an Ethernet header, or cut within its tag.
    Malformed = DROP_MALFORMED,
    /// It came by an interface, or its outer tag named a number, that is no port's.
    NoPort = DROP_NO_PORT,
    /// The port sends up more than its share: no token was left in its bucket.
    PuntRate = DROP_PUNT_RATE,
    /// No worker listens: no daemon runs, or not on this queue.
    NoDaemon = DROP_NO_DAEMON,
    /// No room before the frame for a tag, or no memory.
    NoRoom = DROP_NO_ROOM,
    /// A VM sends more than its quota.
    QuotaOut = DROP_QUOTA_OUT,
    /// A VM is sent more than its quota.
    QuotaIn = DROP_QUOTA_IN,
}

impl KernelDrop {
    /// All reasons, in the order of [`PortCounters::drops`].
    pub const ALL: [Self; DROPS] = [
        Self::Malformed,
        Self::NoPort,
        Self::PuntRate,
        Self::NoDaemon,
        Self::NoRoom,
        Self::QuotaOut,
        Self::QuotaIn,
    ];

    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "kernel_malformed",
            Self::NoPort => "kernel_no_port",
            Self::PuntRate => "kernel_punt_rate",
            Self::NoDaemon => "kernel_no_daemon",
            Self::NoRoom => "kernel_no_room",
            Self::QuotaOut => "kernel_quota_outbound",
            Self::QuotaIn => "kernel_quota_inbound",
        }
    }

    /// What happened, in a sentence.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Malformed => "Shorter than an Ethernet header, or cut within its tag.",
            Self::NoPort => {
                "It came by an interface, or its tag on the punt link named a number, of no port."
            }
            Self::PuntRate => "The port sends up more than its share (`punt_rate`, `punt_burst`).",
            Self::NoDaemon => "No worker listens: no daemon runs, or not on this queue.",
            Self::NoRoom => "No room before the frame for the punt link's tag, or no memory.",
            Self::QuotaOut => "The VM behind the port sends more than its `quota`.",
            Self::QuotaIn => "The VM behind the port is sent more than its `quota`.",
        }
    }
}

/// What the programs counted on a port since the first start, all CPUs together. A GSO packet counts as
/// the frames it is on the wire; its bytes are those of the packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Frames that came in.
    pub rx_packets: u64,
    /// Bytes that came in.
    pub rx_bytes: u64,
    /// Frames sent up to the workers.
    pub punted: u64,
    /// Frames handed to the host's stack.
    pub passed: u64,
    /// Frames that the programs themselves sent on, out of other ports.
    pub replayed: u64,
    /// Frames that programs sent out of it: from the punt link, and replayed.
    pub tx_packets: u64,
    /// Bytes that programs sent out of it.
    pub tx_bytes: u64,
    /// Of `tx_packets` those that XDP redirected.
    pub tx_xdp: u64,
    /// Questions from it that programs answered while no daemon ran.
    pub answered: u64,
    /// Frames dropped, by [`KernelDrop`].
    pub drops: [u64; DROPS],
}

impl PortCounters {
    /// Frames dropped for this reason.
    #[must_use]
    pub fn dropped(&self, reason: KernelDrop) -> u64 {
        self.drops[reason as usize]
    }

    fn add(&mut self, row: &Counters) {
        self.rx_packets += row.rx_packets;
        self.rx_bytes += row.rx_bytes;
        self.punted += row.punted;
        self.passed += row.passed;
        self.replayed += row.replayed;
        self.tx_packets += row.tx_packets;
        self.tx_bytes += row.tx_bytes;
        self.tx_xdp += row.tx_xdp;
        self.answered += row.answered;
        for (sum, drops) in self.drops.iter_mut().zip(row.drops) {
            *sum += drops;
        }
    }
}

impl Kernel {
    /// What was counted on a port; 0 counts what belongs to no port.
    ///
    /// # Errors
    /// The number is out of range, or the map refuses.
    pub fn counters(&self, port: u16) -> Result<PortCounters, Error> {
        let failed = |source| Error::Map { map: "counters", source };
        let key = row(port)?;
        let rows = self.maps.counters.lookup_percpu(&key, MapFlags::ANY).map_err(failed)?;
        let mut sum = PortCounters::default();
        for bytes in rows.unwrap_or_default() {
            if let Ok((row, _)) = Counters::read_from_prefix(&bytes) {
                sum.add(&row);
            }
        }
        Ok(sum)
    }

    /// Counts a port from 0 again: its number went to another.
    ///
    /// # Errors
    /// The number is out of range, or the map refuses.
    pub fn counters_clear(&mut self, port: u16) -> Result<(), Error> {
        let failed = |source| Error::Map { map: "counters", source };
        let cpus = libbpf_rs::num_possible_cpus().map_err(failed)?;
        let rows = vec![Counters::default().as_bytes().to_vec(); cpus];
        self.maps.counters.update_percpu(&row(port)?, &rows, MapFlags::ANY).map_err(failed)
    }
}

fn row(port: u16) -> Result<[u8; 4], Error> {
    let number = u32::from(port);
    if number < PORTS {
        return Ok(number.to_ne_bytes());
    }
    Err(Error::Number { what: "port", number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_in_the_order_of_their_counters() {
        for (at, reason) in KernelDrop::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
            assert!(reason.meaning().ends_with('.'));
        }
        let mut names = KernelDrop::ALL.map(KernelDrop::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DROPS);
        let page = include_str!("../../../docs/drops.md");
        for name in names {
            assert!(page.contains(&format!("\n| `{name}` | ")), "docs/drops.md lacks {name}");
        }
    }
}
