//! Messages as they stand on the wire, put together without the codec that is tested.
#![allow(dead_code, unreachable_pub)] // each test uses its own part

use std::net::Ipv4Addr;

use dhcp::Vif;
use wire::MacAddr;

pub const MAC: [u8; 6] = [0xfa, 0x16, 0x3e, 0, 0, 1];
pub const VIF_MAC: MacAddr = MacAddr(MAC);

/// VM 1 on the left node, with nova's old lease time.
pub fn vif() -> Vif {
    Vif {
        mac: VIF_MAC,
        addresses: vec![Ipv4Addr::new(10, 0, 0, 3)],
        network: "10.0.0.0/24".parse().expect("a subnet"),
        server: Ipv4Addr::new(10, 0, 0, 1),
        router: Some(Ipv4Addr::new(10, 0, 0, 1)),
        dns: vec![Ipv4Addr::new(10, 0, 0, 1)],
        ntp: Vec::new(),
        domain: "novalocal".into(),
        host_name: Some("vm-1".into()),
        mtu: None,
        lease: 120,
        extra: Vec::new(),
    }
}

/// A client's message, field by field (RFC 2131 §2).
#[derive(Clone, Debug)]
pub struct Message {
    pub op: u8,
    pub flags: u16,
    pub ciaddr: [u8; 4],
    pub giaddr: [u8; 4],
    pub mac: [u8; 6],
    pub options: Vec<u8>,
}

impl Message {
    /// One of this type.
    pub fn of(kind: u8) -> Self {
        let options = vec![53, 1, kind];
        Self { op: 1, flags: 0, ciaddr: [0; 4], giaddr: [0; 4], mac: MAC, options }
    }

    /// With further options, written out.
    pub fn with(mut self, options: &[u8]) -> Self {
        self.options.extend_from_slice(options);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.op, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, 0, 3];
        bytes.extend(self.flags.to_be_bytes());
        bytes.extend(self.ciaddr);
        bytes.extend([0; 8]);
        bytes.extend(self.giaddr);
        bytes.extend(self.mac);
        bytes.resize(236, 0);
        bytes.extend([0x63, 0x82, 0x53, 0x63]);
        bytes.extend(&self.options);
        bytes.push(255);
        bytes.resize(bytes.len().max(300), 0);
        bytes
    }
}

/// The options of a message, in their order.
pub fn options(payload: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let (mut all, mut at) = (Vec::new(), 240);
    while payload[at] != 255 {
        let length = usize::from(payload[at + 1]);
        all.push((payload[at], payload[at + 2..at + 2 + length].to_vec()));
        at += 2 + length;
    }
    all
}
