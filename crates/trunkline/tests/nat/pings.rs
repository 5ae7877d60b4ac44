//! Echo requests by the thousand, and whose answers came.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::sockopt::RcvBufForce;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto,
    setsockopt, socket,
};
use wire::checksum::{fold, sum};

use super::within;

/// So many requests wait for their answers at once.
const WINDOW: usize = 256;
const PATIENCE: Duration = Duration::from_secs(2);

/// What a host's requests came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answers {
    /// Identifiers answered just once.
    pub(crate) once: usize,
    /// Identifiers answered more often.
    pub(crate) again: usize,
    /// Identifiers not answered; a few of them.
    pub(crate) lost: Vec<u16>,
    /// Answers to what somebody else asked; a few of their identifiers.
    pub(crate) foreign: Vec<u16>,
}

struct Asker {
    socket: OwnedFd,
    name: [u8; 4],
    seen: Vec<u8>,
    waiting: usize,
    foreign: Vec<u16>,
}

/// Asks once with each of these identifiers, as `name`.
pub(crate) fn ask(host: &str, to: Ipv4Addr, ids: &[u16], name: [u8; 4]) -> Answers {
    let flags = SockFlag::SOCK_CLOEXEC;
    let raw = || socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Icmp).unwrap();
    let socket = within(host, raw);
    setsockopt(&socket, RcvBufForce, &(16 << 20)).unwrap();
    let seen = vec![0; 1 << 16];
    let mut asker = Asker { socket, name, seen, waiting: 0, foreign: Vec::new() };
    for id in ids {
        asker.send(to, *id);
        asker.receive();
        let since = Instant::now();
        while asker.waiting >= WINDOW && since.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_micros(100));
            asker.receive();
        }
        // What has not come by now never will.
        if asker.waiting >= WINDOW {
            asker.waiting = 0;
        }
    }
    let since = Instant::now();
    // A little longer than for the last one: an answer might come twice.
    while since.elapsed() < PATIENCE / 4 || (asker.waiting > 0 && since.elapsed() < PATIENCE) {
        std::thread::sleep(Duration::from_millis(1));
        asker.receive();
    }
    let how_often = |id: &u16| asker.seen[usize::from(*id)];
    Answers {
        once: ids.iter().filter(|id| how_often(id) == 1).count(),
        again: ids.iter().filter(|id| how_often(id) > 1).count(),
        lost: ids.iter().copied().filter(|id| how_often(id) == 0).take(8).collect(),
        foreign: asker.foreign,
    }
}

impl Asker {
    fn payload(&self, id: u16) -> [u8; 8] {
        let [a, b, c, d] = self.name;
        let [high, low] = id.to_be_bytes();
        [a, b, c, d, high, low, 0x5a, 0xa5]
    }

    fn send(&mut self, to: Ipv4Addr, id: u16) {
        let mut message = vec![8, 0, 0, 0];
        message.extend(id.to_be_bytes());
        message.extend([0, 1]);
        message.extend(self.payload(id));
        let check = !fold(sum(&message));
        message[2..4].copy_from_slice(&check.to_be_bytes());
        let to = SockaddrIn::from(SocketAddrV4::new(to, 0));
        sendto(self.socket.as_raw_fd(), &message, &to, MsgFlags::empty()).unwrap();
        self.waiting += 1;
    }

    fn receive(&mut self) {
        let mut packet = [0; 256];
        let flags = MsgFlags::MSG_DONTWAIT;
        while let Ok(length) = recv(self.socket.as_raw_fd(), &mut packet, flags) {
            // No options come here: the header has 20 bytes.
            let message = &packet[20..length];
            if message[0] != 0 {
                continue;
            }
            let id = u16::from_be_bytes([message[4], message[5]]);
            if message[8..] == self.payload(id) {
                self.seen[usize::from(id)] = self.seen[usize::from(id)].saturating_add(1);
                self.waiting = self.waiting.saturating_sub(1);
            } else if self.foreign.len() < 8 {
                self.foreign.push(id);
            }
        }
    }
}
