//! Flows of the connection table, as they are told.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `GET /v1/flows`, `GET /v1/flows?filter=<words>`: one direction of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Whether it is the one that opened the connection.
    pub direction: Direction,
    /// `tcp`, `udp`, `icmp`, `icmpv6`, another's number, or an ethertype such as `0x88b5`. The ends of
    /// what is bridged, IPv6 among it, are stations.
    pub protocol: String,
    /// Who sends.
    pub source: End,
    /// To whom, as the sender says.
    pub destination: End,
    /// The source as it leaves, if it changes.
    pub new_source: Option<End>,
    /// The destination as it leaves, if it changes.
    pub new_destination: Option<End>,
    /// Name of the port it comes by.
    pub ingress: String,
    /// Name of the port it leaves by; `None` until its first packet came.
    pub egress: Option<String>,
    /// The tag it leaves with.
    pub vlan: Option<u16>,
    /// `open`, `seen`, `closing` or another word for how far it is.
    pub state: String,
    /// Seconds since its last packet.
    pub idle_s: u64,
}

/// Which direction of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// That of the first packet.
    #[default]
    Original,
    /// That of the answers.
    Reply,
}

/// One end of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// IPv4 address, or MAC where frames are only bridged.
    pub address: String,
    /// Port or echo id; `None` where there is none.
    pub port: Option<u16>,
}

impl fmt::Display for End {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(out, "{}:{port}", self.address),
            None => out.write_str(&self.address),
        }
    }
}

/// `DELETE /v1/flows?filter=<words>`: what was cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Connections; their next packets open new ones, if they may.
    pub connections: u64,
}
