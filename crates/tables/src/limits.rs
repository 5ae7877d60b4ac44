//! How much a VM may have of what all share.

/// What a port may have; by default anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections that it has opened.
    pub connections: u32,
    /// Of those, by the shared address to one endpoint: each takes one of its ports there.
    pub shared: u32,
    /// Microseconds that a new one costs with one worker; 0: nothing.
    pub opening_cost: u32,
    /// Microseconds that a frame for all costs it with one worker; 0: nothing.
    pub flood_cost: u32,
    /// Stations that are learned behind it.
    pub macs: u32,
}

impl Default for Limits {
    fn default() -> Self {
        let (opening_cost, flood_cost) = (0, 0);
        Self { connections: u32::MAX, shared: u32::MAX, opening_cost, flood_cost, macs: u32::MAX }
    }
}
