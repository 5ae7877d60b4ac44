//! Ports, their sockets, and next hops: what the control thread tells the programs.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use libbpf_rs::{ErrorKind, MapCore as _, MapFlags, MapHandle};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::error::Error;
use crate::layout::{
    Buckets, HOOK_GENERIC, HOOK_NONE, HOOK_TC, HOOK_XDP, HOPS, Hop, PLACES, PORT_HOST,
    PORT_IS_PUBLIC, PORT_LONG, PORT_METERED, PORT_PEER, PORT_PUBLIC, PORT_TAKES_XDP, PORT_TRUNK,
    PORT_VIF, PORTS, PROBES, Place, Port, SOCKETS,
};
use crate::quota::Quota;
use crate::{How, Kernel};

/// What a port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// A NIC that carries tenants' frames; it may be the public one as well.
    Trunk,
    /// A NIC that carries the node's public traffic and no tenant's.
    Public,
    /// A VM's tap or veth.
    Vif,
    /// The node's own foot in a segment (`br100`).
    Host,
}

impl PortKind {
    /// Whether some of its frames are the host's.
    #[must_use]
    pub fn is_nic(self) -> bool {
        matches!(self, Self::Trunk | Self::Public)
    }

    fn code(self) -> u8 {
        match self {
            Self::Trunk => PORT_TRUNK,
            Self::Public => PORT_PUBLIC,
            Self::Vif => PORT_VIF,
            Self::Host => PORT_HOST,
        }
    }

    pub(crate) fn of(code: u8) -> Option<Self> {
        let kinds = [Self::Trunk, Self::Public, Self::Vif, Self::Host];
        kinds.into_iter().find(|kind| kind.code() == code)
    }
}

/// A port as the kernel programs know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortEntry {
    /// Its number, 1 to 4094.
    pub number: u16,
    /// Index of its interface.
    pub ifindex: u32,
    /// What it is.
    pub kind: PortKind,
    /// The node's own MAC there, which packets to be routed are addressed to: a NIC's, and on
    /// vifs and host ports the gateway's.
    pub mac: [u8; 6],
    /// The segment of a vif or host port; 0 for a NIC, whose frames name theirs by tag.
    pub segment: u16,
    /// The change that concerned it last: lines decided before it are not replayed.
    pub stamp: u32,
    /// The MAC of the VM behind a vif; what others send there is not replayed.
    pub station: [u8; 6],
    /// What XDP redirects to it arrives. Programs of XDP leave others to tc.
    pub takes_xdp: bool,
    /// Largest packet, bytes behind the Ethernet header and tag.
    pub mtu: u16,
    /// A veth whose other end is in another namespace: `bpf_redirect_peer` reaches it faster.
    pub peer: bool,
    /// Owned addresses are reached by it ([`Kernel::set_owned`]): a trunk that is the public NIC
    /// as well. A [`PortKind::Public`] is public in any case.
    pub public: bool,
    /// First slot of its AF_XDP sockets (a NIC's; see [`Kernel::set_socket`]).
    pub sockets: u32,
    /// Slots it has, one for each queue; 0 if it has no sockets.
    pub queues: u16,
    /// Frames a second it may send up the punt link; 0: as many as come.
    pub punt_rate: u32,
    /// Frames it may send at once after a rest; at least 1 if there is a rate.
    pub punt_burst: u32,
    /// What the VM behind a vif may send and be sent.
    pub quota: Quota,
}

const NANOSECONDS: u64 = 1_000_000_000;
/// Frames of ports with this MTU come in one piece, whatever the driver.
const ONE_PIECE: u16 = 1500;

impl PortEntry {
    fn flags(&self) -> u32 {
        let public = self.kind == PortKind::Public || self.public && self.kind == PortKind::Trunk;
        let flags = [
            (self.peer, PORT_PEER),
            (public, PORT_IS_PUBLIC),
            (self.takes_xdp, PORT_TAKES_XDP),
            (self.mtu > ONE_PIECE, PORT_LONG),
            (!self.quota.is_none(), PORT_METERED),
        ];
        flags.into_iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum()
    }

    fn row(&self, how: Option<How>) -> Port {
        // A rate above 1 GHz is none.
        let cost = NANOSECONDS.checked_div(self.punt_rate.into()).unwrap_or(0);
        Port {
            ifindex: self.ifindex,
            number: self.number,
            kind: self.kind.code(),
            hook: how.map_or(HOOK_NONE, How::code),
            flags: self.flags(),
            sockets: self.sockets,
            queues: self.queues,
            mtu: self.mtu,
            mac: self.mac,
            segment: self.segment,
            stamp: self.stamp,
            punt_cost: cost as u32, // at most 10^9
            station: self.station,
            nic: 0,
            spare: [0; 2],
            punt_burst: cost * u64::from(self.punt_burst.max(1)),
        }
    }
}

impl How {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::XdpNative => HOOK_XDP,
            Self::XdpGeneric => HOOK_GENERIC,
            Self::Tcx | Self::Clsact => HOOK_TC,
        }
    }
}

impl Kernel {
    /// Makes a port known, or changes it. To be done before [`Kernel::attach`]: what an attached
    /// program receives on no port's interface it drops.
    ///
    /// # Errors
    /// The number is out of range, its sockets lie outside a NIC's slots, or a map refuses.
    pub fn set_port(&mut self, entry: &PortEntry) -> Result<(), Error> {
        let number = numbered("port", entry.number.into(), PORTS)?;
        let last_socket = entry.sockets.saturating_add(entry.queues.into());
        if last_socket > SOCKETS {
            return Err(Error::Number { what: "socket", number: last_socket });
        }
        let old = self.port(entry.number)?;
        let how = self.attached.get(&entry.ifindex).copied();
        // XDP may redirect to a port only while its interface is there.
        if entry.takes_xdp {
            put(&self.maps.devices, "devices", &number, &entry.ifindex)?;
        }
        put(&self.maps.quotas, "quotas", &number, &entry.quota.row())?;
        let nic = if entry.kind.is_nic() { self.nic_slot(entry.number)? } else { 0 };
        put(&self.maps.ports, "ports", &number, &Port { nic, ..entry.row(how) })?;
        match old {
            Some(old) if old.ifindex != entry.ifindex => self.forget_interface(old)?,
            Some(_) => {}
            // Its predecessor's debts are not its own.
            None => put(&self.maps.buckets, "buckets", &number, &Buckets::default())?,
        }
        self.place(entry.ifindex, number)
    }

    /// Notes whose an interface is: in its own place, or the first one behind that is free.
    fn place(&self, ifindex: u32, number: u32) -> Result<(), Error> {
        let mut free = None;
        for at in probes(ifindex) {
            let place: Place = get(&self.maps.places, "places", &at)?.unwrap_or_default();
            if place.ifindex == ifindex {
                free = Some(at);
                break;
            }
            if place.ifindex == 0 {
                free = free.or(Some(at));
            }
        }
        let at = free.ok_or(Error::Number { what: "place for interface", number: ifindex })?;
        put(&self.maps.places, "places", &at, &Place { ifindex, number })
    }

    /// Forgets a port and its VLANs. To be done after [`Kernel::detach`]. One that is not there is
    /// no error.
    ///
    /// # Errors
    /// A map refuses.
    pub fn clear_port(&mut self, number: u16) -> Result<(), Error> {
        let Some(port) = self.port(number)? else { return Ok(()) };
        self.forget_interface(port)?;
        self.forget_vlans(number)?;
        put(&self.maps.ports, "ports", &u32::from(number), &Port::default())?;
        remove(&self.maps.devices, "devices", u32::from(number).as_bytes())
    }

    /// Says by which MAC the next hop of that number is reached; none while that is not known.
    ///
    /// # Errors
    /// The number is out of range, or the map refuses.
    pub fn set_hop(&mut self, number: u32, mac: Option<[u8; 6]>) -> Result<(), Error> {
        if number >= HOPS {
            return Err(Error::Number { what: "next hop", number });
        }
        let row = Hop { mac: mac.unwrap_or_default(), known: mac.is_some().into() };
        put(&self.maps.hops, "hops", &number, &row)
    }

    /// Lets an AF_XDP socket have the frames of its queue.
    ///
    /// Slot of a socket on `tl-punt1`: its queue, below [`crate::PUNT_SOCKETS`]. On a NIC: the
    /// port's `sockets` plus the queue, from there on. The kernel forgets a closed socket by
    /// itself.
    ///
    /// # Errors
    /// The slot is out of range, or the socket is not bound.
    pub fn set_socket(&mut self, slot: u32, socket: BorrowedFd<'_>) -> Result<(), Error> {
        if slot >= SOCKETS {
            return Err(Error::Number { what: "socket", number: slot });
        }
        put(&self.maps.sockets, "sockets", &slot, &(socket.as_raw_fd() as u32))
    }

    /// The row of a port that is set.
    pub(crate) fn port(&self, number: u16) -> Result<Option<Port>, Error> {
        let row: Option<Port> = get(&self.maps.ports, "ports", &u32::from(number))?;
        Ok(row.filter(|row| row.number != 0))
    }

    /// Notes by which hook the port on that interface is reached.
    pub(crate) fn set_hook(&self, number: u16, how: How) -> Result<(), Error> {
        let Some(mut row) = self.port(number)? else { return Ok(()) };
        row.hook = how.code();
        put(&self.maps.ports, "ports", &u32::from(number), &row)
    }

    /// Removes the interface's number, unless another port has the interface by now.
    fn forget_interface(&self, port: Port) -> Result<(), Error> {
        let whose = Place { ifindex: port.ifindex, number: port.number.into() };
        for at in probes(port.ifindex) {
            let place: Option<Place> = get(&self.maps.places, "places", &at)?;
            if place == Some(whose) {
                put(&self.maps.places, "places", &at, &Place::default())?;
            }
        }
        Ok(())
    }
}

/// The places where an interface can be, nearest first.
fn probes(ifindex: u32) -> impl Iterator<Item = u32> {
    (0..PROBES).map(move |probe| ifindex.wrapping_add(probe) & (PLACES - 1))
}

pub(crate) fn numbered(what: &'static str, number: u32, end: u32) -> Result<u32, Error> {
    // The last number is no VLAN ID (802.1Q 9.6), which a port's number is on the punt link.
    let fits = (1..end - 1).contains(&number);
    if fits { Ok(number) } else { Err(Error::Number { what, number }) }
}

pub(crate) fn put<K, V>(map: &MapHandle, name: &'static str, key: &K, row: &V) -> Result<(), Error>
where
    K: IntoBytes + Immutable,
    V: IntoBytes + Immutable,
{
    let done = map.update(key.as_bytes(), row.as_bytes(), MapFlags::ANY);
    done.map_err(|source| Error::Map { map: name, source })
}

pub(crate) fn get<K, V>(map: &MapHandle, name: &'static str, key: &K) -> Result<Option<V>, Error>
where
    K: IntoBytes + Immutable,
    V: FromBytes,
{
    let found = map.lookup(key.as_bytes(), MapFlags::ANY);
    let found = found.map_err(|source| Error::Map { map: name, source })?;
    Ok(found.and_then(|bytes| V::read_from_bytes(&bytes).ok()))
}

pub(crate) fn remove(map: &MapHandle, name: &'static str, key: &[u8]) -> Result<(), Error> {
    match map.delete(key) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(Error::Map { map: name, source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> PortEntry {
        PortEntry {
            number: 7,
            ifindex: 9,
            kind: PortKind::Vif,
            mac: [2, 0, 0, 0, 0, 1],
            segment: 3,
            stamp: 5,
            station: [0xfa, 0x16, 0x3e, 0, 0, 1],
            takes_xdp: false,
            mtu: 1500,
            peer: true,
            public: false,
            sockets: 0,
            queues: 0,
            punt_rate: 20_000,
            punt_burst: 1_000,
            quota: Quota::default(),
        }
    }

    #[test]
    fn a_rate_becomes_the_time_a_frame_costs() {
        let row = entry().row(Some(How::Tcx));
        assert_eq!((row.punt_cost, row.punt_burst), (50_000, 50_000_000));
        assert_eq!((row.hook, row.flags), (HOOK_TC, PORT_PEER));
        let free = PortEntry { punt_rate: 0, ..entry() }.row(Some(How::XdpGeneric));
        assert_eq!((free.punt_cost, free.hook), (0, HOOK_GENERIC));
        let slow = PortEntry { punt_rate: 1, punt_burst: 0, ..entry() }.row(None);
        assert_eq!((slow.punt_cost, slow.punt_burst), (1_000_000_000, 1_000_000_000));
    }

    #[test]
    fn frames_in_pieces_are_expected_of_large_mtus() {
        let flags = |mtu| PortEntry { mtu, peer: false, ..entry() }.flags();
        assert_eq!([1500, 1501, 9000].map(flags), [0, PORT_LONG, PORT_LONG]);
    }

    #[test]
    fn a_nic_is_public_by_its_kind_or_beside_it_and_a_vif_never() {
        let flags = |kind, public| PortEntry { kind, public, peer: false, ..entry() }.flags();
        assert_eq!(flags(PortKind::Public, false), PORT_IS_PUBLIC);
        assert_eq!([false, true].map(|is| flags(PortKind::Trunk, is)), [0, PORT_IS_PUBLIC]);
        assert_eq!([PortKind::Vif, PortKind::Host].map(|kind| flags(kind, true)), [0, 0]);
    }

    #[test]
    fn a_kind_is_its_code_and_back() {
        for kind in [PortKind::Trunk, PortKind::Public, PortKind::Vif, PortKind::Host] {
            assert_eq!(PortKind::of(kind.code()), Some(kind));
        }
        assert_eq!(PortKind::of(crate::layout::PORT_NONE), None);
    }
}
