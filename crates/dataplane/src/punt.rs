//! The outer tag by which frames on the punt link name their port.

use af_xdp::Frame;
use tables::PortId;
use wire::{ethertype, vlan};

/// Set on the way down: hand the frame to the stack of the NIC it came by.
const TO_HOST: u16 = 0x2000;

/// Takes the outer tag off a frame from the punt link; the port it names is where it came from.
pub(crate) fn ingress(frame: &mut Frame) -> Option<PortId> {
    let (kind, tci) = vlan::outer(frame.bytes())?;
    if kind != ethertype::SERVICE_VLAN {
        return None;
    }
    let port = PortId::new(tci & vlan::VID_MASK)?;
    let (head, len) = (frame.head(), frame.len());
    let start = vlan::pop(frame.chunk_mut(), head);
    frame.set_range(start, len - (start - head)).then_some(port)
}

/// Tags a frame so that the kernel sends it out of `port`.
#[must_use]
pub(crate) fn to_port(frame: &mut Frame, port: PortId) -> bool {
    push(frame, port.get())
}

/// Tags a frame so that the kernel hands it to the stack behind the NIC `port`.
#[must_use]
pub(crate) fn to_host(frame: &mut Frame, port: PortId) -> bool {
    push(frame, port.get() | TO_HOST)
}

/// The port a frame on the punt link names.
pub(crate) fn named(frame: &Frame) -> Option<PortId> {
    let (_, tci) = vlan::outer(frame.bytes())?;
    PortId::new(tci & vlan::VID_MASK)
}

fn push(frame: &mut Frame, tci: u16) -> bool {
    let (head, len) = (frame.head(), frame.len());
    vlan::push(frame.chunk_mut(), head, ethertype::SERVICE_VLAN, tci)
        .is_some_and(|start| frame.set_range(start, len + (head - start)))
}
