//! How much a VM may have of what all VMs of the node share.

use tables::Limits;

/// What the settings `vif_…` say, or a `[[vif]]` for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VifLimits {
    /// Connections that it may have open.
    pub connections: u32,
    /// New connections per second; `None`: as many as it can.
    pub connection_rate: Option<u32>,
    /// Frames per second that go to all of its network.
    pub flood_rate: u32,
    /// Ports of the shared address towards one endpoint.
    pub snat_ports: u32,
    /// Stations that are learned behind it.
    pub macs: u32,
    /// Packets per second that it may send to the workers.
    pub punt_rate: u32,
}

impl VifLimits {
    /// What workers and the control thread look up, with so many workers.
    #[must_use]
    pub fn compile(&self, workers: usize) -> Limits {
        Limits {
            connections: self.connections,
            shared: self.snat_ports,
            opening_cost: self.connection_rate.map_or(0, |rate| cost(rate, workers)),
            flood_cost: cost(self.flood_rate, workers),
            macs: self.macs,
        }
    }
}

/// Microseconds that each of so many a second costs with one of the workers, over which what a VM
/// sends is spread.
fn cost(rate: u32, workers: usize) -> u32 {
    let workers = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
    (1_000_000_u32.saturating_mul(workers) / rate.max(1)).max(1)
}
