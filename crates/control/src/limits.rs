//! How much a VM may have of what all VMs of the node share.

use tables::Limits;

/// What the settings `vif_…` say, or a `[[vif]]` for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VifLimits {
    /// Connections that it may have open.
    pub connections: u32,
    /// New connections per second; `None`: as many as it can.
    pub connection_rate: Option<u32>,
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
        let opening_cost = self.opening_cost(workers);
        let (connections, shared, macs) = (self.connections, self.snat_ports, self.macs);
        Limits { connections, shared, opening_cost, macs }
    }

    /// Microseconds that a new connection costs with one of so many workers, over which a VM's
    /// connections are spread; 0 where they are not limited.
    fn opening_cost(&self, workers: usize) -> u32 {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
        self.connection_rate.map_or(0, |rate| (1_000_000_u32.saturating_mul(workers) / rate).max(1))
    }
}
