//! Datagrams in fragments of one's own cutting, sent from inside a host of the lab.
#![allow(dead_code, clippy::unwrap_used)] // every test file uses its own part; it is a test

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};
use nix::unistd::Pid;
use wire::checksum::{fold, sum};
use wire::fragment::Cut;
use wire::protocol;

/// Runs in the network of a host, in a thread of its own.
pub(crate) fn inside<T: Send>(host: &str, work: impl FnOnce() -> T + Send) -> T {
    let enter = || {
        let network = std::fs::File::open(format!("/run/netns/tl-{host}")).unwrap();
        setns(network, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    };
    std::thread::scope(|scope| scope.spawn(enter).join().unwrap())
}

/// The UDP datagram as an IPv4 packet of that number, whole.
pub(crate) fn datagram(from: SocketAddrV4, to: SocketAddrV4, id: u16, payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let (src, dst) = (from.ip().octets(), to.ip().octets());
    let mut udp = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    udp.extend([length.to_be_bytes(), [0, 0]].concat());
    udp.extend(payload);
    let pseudo = sum(&src) + sum(&dst) + u32::from(protocol::UDP) + u32::from(length);
    let checksum = !fold(pseudo + sum(&udp));
    udp[6..8].copy_from_slice(&checksum.to_be_bytes());
    let mut ip = vec![0x45, 0];
    ip.extend((20 + length).to_be_bytes());
    ip.extend(id.to_be_bytes());
    ip.extend([0, 0, 64, protocol::UDP, 0, 0]);
    ip.extend([src, dst].concat());
    ip.extend(udp);
    ip
}

/// Its fragments on a link of 1500 bytes, in order.
pub(crate) fn fragments(
    from: SocketAddrV4,
    to: SocketAddrV4,
    id: u16,
    payload: &[u8],
) -> Vec<Vec<u8>> {
    let packet = datagram(from, to, id, payload);
    let cut = Cut::new(&packet, 0, 1500).unwrap();
    (0..cut.count())
        .map(|index| {
            let mut piece = vec![0; 1500];
            let length = cut.write(&packet, index, &mut piece).unwrap();
            piece.truncate(length);
            piece
        })
        .collect()
}

/// A socket that sends IPv4 packets as they are.
pub(crate) struct Raw(OwnedFd);

impl Raw {
    pub(crate) fn open() -> Self {
        let none = SockFlag::empty();
        Self(socket(AddressFamily::Inet, SockType::Raw, none, SockProtocol::Raw).unwrap())
    }

    /// Sends a packet, from this core: with XDP hooks it decides which worker gets it.
    pub(crate) fn send_from(&self, core: usize, packet: &[u8]) {
        let mut cores = CpuSet::new();
        cores.set(core).unwrap();
        sched_setaffinity(Pid::from_raw(0), &cores).unwrap();
        let to: [u8; 4] = packet[16..20].try_into().unwrap();
        let to = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::from(to), 0));
        let sent = sendto(self.0.as_raw_fd(), packet, &to, MsgFlags::empty());
        assert_eq!(sent, Ok(packet.len()));
    }
}
