//! Answers, with the fields and the order of options that nova's VMs have always seen: those of
//! dnsmasq under nova-network.

use std::net::Ipv4Addr;

use dhcproto::v4::{DhcpOption, MIN_PACKET_SIZE, Message, MessageType, OptionCode, UnknownOption};
use dhcproto::{Encodable, Encoder};
use wire::MacAddr;

use crate::Vif;
use crate::request::Request;

/// What a client is told whose address is not its own.
pub(crate) const NAK: &str = "wrong address";
const END: u8 = 255;

/// Which answer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// DHCPOFFER.
    Offer,
    /// DHCPACK.
    Ack,
    /// DHCPNAK.
    Nak,
}

/// An answer, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Which one.
    pub kind: Kind,
    /// The address it speaks of.
    pub address: Ipv4Addr,
    /// The UDP payload.
    pub payload: Vec<u8>,
    /// The station it is sent to.
    pub mac: MacAddr,
    /// The address it is sent to.
    pub to: Ipv4Addr,
}

/// An offer or a confirmation of this address.
pub(crate) fn lease(kind: Kind, address: Ipv4Addr, request: &Request, vif: &Vif) -> Reply {
    let mut message = request.answered(vif.mac);
    message.set_yiaddr(address).set_siaddr(vif.server);
    let said = match kind {
        Kind::Offer => MessageType::Offer,
        Kind::Ack => {
            message.set_ciaddr(request.ciaddr);
            MessageType::Ack
        }
        Kind::Nak => MessageType::Nak,
    };
    let time = vif.lease;
    // RFC 2131 §4.4.5: half and seven eighths. "For ever" stays that.
    let part = |of: u64| match time {
        u32::MAX => u32::MAX,
        _ => (u64::from(time) * of / 8) as u32,
    };
    let mut options = vec![
        DhcpOption::MessageType(said),
        DhcpOption::ServerIdentifier(vif.server),
        DhcpOption::AddressLeaseTime(time),
        DhcpOption::Renewal(part(4)),
        DhcpOption::Rebinding(part(7)),
    ];
    options.extend(told(address, request, vif));
    let (mac, to) = match (request.ciaddr, request.flags.broadcast()) {
        (Ipv4Addr::UNSPECIFIED, true) => (MacAddr::BROADCAST, Ipv4Addr::BROADCAST),
        (Ipv4Addr::UNSPECIFIED, false) => (vif.mac, address),
        (has, _) => (vif.mac, has),
    };
    let payload = encode(&message, &options, request.largest);
    Reply { kind, address, payload, mac, to }
}

/// What a client is told that has its address from elsewhere.
pub(crate) fn inform(request: &Request, vif: &Vif) -> Reply {
    let mut message = request.answered(vif.mac);
    message.set_ciaddr(request.ciaddr).set_siaddr(vif.server);
    let mut options =
        vec![DhcpOption::MessageType(MessageType::Ack), DhcpOption::ServerIdentifier(vif.server)];
    options.extend(told(request.ciaddr, request, vif));
    let (mac, to) = match request.ciaddr {
        Ipv4Addr::UNSPECIFIED => (MacAddr::BROADCAST, Ipv4Addr::BROADCAST),
        address => (vif.mac, address),
    };
    let payload = encode(&message, &options, request.largest);
    Reply { kind: Kind::Ack, address: request.ciaddr, payload, mac, to }
}

/// A refusal, to all: the client has no address any more that it could hear it by.
pub(crate) fn refuse(address: Ipv4Addr, why: &str, request: &Request, vif: &Vif) -> Reply {
    let mut message = request.answered(vif.mac);
    message.set_flags(request.flags.set_broadcast());
    let options = [
        DhcpOption::MessageType(MessageType::Nak),
        DhcpOption::ServerIdentifier(vif.server),
        DhcpOption::Message(why.to_owned()),
    ];
    let payload = encode(&message, &options, request.largest);
    let (mac, to) = (MacAddr::BROADCAST, Ipv4Addr::BROADCAST);
    Reply { kind: Kind::Nak, address, payload, mac, to }
}

/// What a VM with this address is told of its network, as far as it asks.
fn told(address: Ipv4Addr, request: &Request, vif: &Vif) -> Vec<DhcpOption> {
    let list = |some: &[Ipv4Addr], option: fn(Vec<Ipv4Addr>) -> DhcpOption| {
        (!some.is_empty()).then(|| option(some.to_vec()))
    };
    let text =
        |some: String, option: fn(String) -> DhcpOption| (!some.is_empty()).then(|| option(some));
    let name = match vif.has(address) {
        true => vif.name_at(address),
        false => vif.host_name.clone().unwrap_or_default(),
    };
    let usual = [
        Some(DhcpOption::SubnetMask(vif.network.netmask())),
        Some(DhcpOption::BroadcastAddr(vif.network.broadcast())),
        list(&vif.dns, DhcpOption::DomainNameServer),
        text(vif.domain.clone(), DhcpOption::DomainName),
        text(name, DhcpOption::Hostname),
        vif.router.map(|router| DhcpOption::Router(vec![router])),
        vif.mtu.map(DhcpOption::InterfaceMtu),
        list(&vif.ntp, DhcpOption::NtpServers),
    ];
    // What is said for all by hand replaces what would be said by itself.
    let replaced = |code| vif.extra.iter().any(|extra| OptionCode::from(extra.code) == code);
    let usual = usual.into_iter().flatten().filter(|option| {
        let code = OptionCode::from(option);
        request.wants(code) && !replaced(code)
    });
    let extra = vif.extra.iter().map(|extra| {
        let code = OptionCode::from(extra.code);
        DhcpOption::Unknown(UnknownOption::new(code, extra.data.clone()))
    });
    usual.chain(extra).collect()
}

/// The payload: options in their order, as far as there is room for them.
fn encode(message: &Message, options: &[DhcpOption], largest: usize) -> Vec<u8> {
    // Encoding goes into memory that grows; an option that cannot be written is left out.
    let mut payload = message.to_vec().unwrap_or_default();
    for option in options {
        let mut bytes = Vec::new();
        let written = match option {
            // Written as they are: the codec would look into those it knows.
            DhcpOption::Unknown(unknown) => unknown.encode(&mut Encoder::new(&mut bytes)),
            option => option.encode(&mut Encoder::new(&mut bytes)),
        };
        if written.is_ok() && payload.len() + bytes.len() < largest {
            payload.extend_from_slice(&bytes);
        }
    }
    payload.push(END);
    payload.resize(payload.len().max(MIN_PACKET_SIZE), 0);
    payload
}
