//! What is told of DHCP.

use serde::{Deserialize, Serialize};

/// `GET /v1/dhcp`: what one VM is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its vif.
    pub vif: String,
    /// Its network.
    pub network: String,
    /// Who answers: `builtin`, `dnsmasq` or `external`.
    pub server: String,
    /// Its MAC.
    pub mac: String,
    /// Its addresses; the first is offered.
    pub addresses: Vec<String>,
    /// The name it is told; `None` where neither trunkline nor its dnsmasq answers.
    pub hostname: Option<String>,
    /// The default router it is told, likewise.
    pub router: Option<String>,
    /// What was said since the start of the daemon; `None` where another than trunkline answers.
    pub said: Option<Said>,
    /// What was said last.
    pub last: Option<String>,
    /// Seconds ago.
    pub last_s: Option<u64>,
}

/// How often a VM was told, or told, what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Offers.
    pub offers: u64,
    /// Addresses confirmed, and informations given.
    pub acks: u64,
    /// Addresses refused.
    pub naks: u64,
    /// Addresses given back.
    pub releases: u64,
    /// Addresses that somebody else has, as the VM says.
    pub declines: u64,
    /// Requests that got no answer.
    pub silences: u64,
}
