//! What a client said.

use std::net::Ipv4Addr;

use dhcproto::v4::borrowed;
use dhcproto::v4::{Flags, HType, Message, MessageType, Opcode, OptionCode};
use wire::MacAddr;

use crate::Silence;

/// Headers of IP and UDP, which the largest message a client takes counts (RFC 2132 §9.10).
const IP_AND_UDP: usize = 28;
/// What every client takes.
const LEAST_MAX: u16 = 576;

/// A request, as far as an answer depends on it.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) kind: MessageType,
    pub(crate) xid: u32,
    pub(crate) flags: Flags,
    /// The address the client has, or zero.
    pub(crate) ciaddr: Ipv4Addr,
    /// The address it wants (option 50).
    pub(crate) requested: Option<Ipv4Addr>,
    /// The server it has chosen (option 54).
    pub(crate) server: Option<Ipv4Addr>,
    /// The options it asks for (option 55); without a list, all.
    wanted: Option<Vec<u8>>,
    /// Longest payload it takes.
    pub(crate) largest: usize,
}

impl Request {
    /// Reads a UDP payload that came from the VM with this MAC.
    pub(crate) fn read(payload: &[u8], mac: MacAddr) -> Result<Self, Silence> {
        let message = borrowed::Message::new(payload).map_err(|_| Silence::Malformed)?;
        if message.opcode() != Opcode::BootRequest {
            return Err(Silence::NotARequest);
        }
        // The length first: the codec trusts it.
        if message.htype() != HType::Eth || message.hlen() != 6 || message.chaddr() != mac.0 {
            return Err(Silence::Unknown);
        }
        if !message.giaddr().is_unspecified() {
            return Err(Silence::Relayed);
        }
        let mut kind = None;
        let mut request = Self {
            kind: MessageType::Discover,
            xid: message.xid(),
            flags: message.flags(),
            ciaddr: message.ciaddr(),
            requested: None,
            server: None,
            wanted: None,
            largest: usize::from(LEAST_MAX) - IP_AND_UDP,
        };
        // Options that do not matter here are not looked into: what a VM calls itself may be any
        // bytes.
        for option in message.opts() {
            let data = option.data();
            match option.code() {
                OptionCode::MessageType => kind = data.first().map(|byte| MessageType::from(*byte)),
                OptionCode::RequestedIpAddress => request.requested = address(data),
                OptionCode::ServerIdentifier => request.server = address(data),
                OptionCode::ParameterRequestList => request.wanted = Some(data.to_vec()),
                OptionCode::MaxMessageSize => {
                    let said = <[u8; 2]>::try_from(data).map(u16::from_be_bytes);
                    let size = said.unwrap_or(LEAST_MAX).clamp(LEAST_MAX, 1500);
                    request.largest = usize::from(size) - IP_AND_UDP;
                }
                _ => {}
            }
        }
        // Without a type it is BOOTP, of before DHCP.
        request.kind = kind.ok_or(Silence::Malformed)?;
        Ok(request)
    }

    /// Whether it wants this option.
    pub(crate) fn wants(&self, code: OptionCode) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.contains(&code.into()))
    }

    /// The beginning of an answer to it.
    pub(crate) fn answered(&self, mac: MacAddr) -> Message {
        let zero = Ipv4Addr::UNSPECIFIED;
        let mut message = Message::new_with_id(self.xid, zero, zero, zero, zero, &mac.0);
        message.set_opcode(Opcode::BootReply).set_flags(self.flags);
        message
    }
}

fn address(data: &[u8]) -> Option<Ipv4Addr> {
    let bytes: [u8; 4] = data.try_into().ok()?;
    Some(Ipv4Addr::from(bytes)).filter(|address| !address.is_unspecified())
}
