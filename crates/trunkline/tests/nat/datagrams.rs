//! Numbered datagrams of many connections, and which of them arrived.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;

use super::within;

/// Connections that each send a datagram every 50 ms until they are told to end.
pub(crate) struct Datagrams {
    ends: Arc<AtomicBool>,
    sender: JoinHandle<usize>,
    receiver: JoinHandle<usize>,
}

impl Datagrams {
    pub(crate) fn start(from: &str, to: &str, address: SocketAddrV4, connections: u16) -> Self {
        let listening = within(to, || UdpSocket::bind(address).unwrap());
        setsockopt(&listening, RcvBufForce, &(4 << 20)).unwrap();
        listening.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let sockets: Vec<UdpSocket> = within(from, || {
            let open = |_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            (0..connections).map(open).collect()
        });
        sockets.iter().for_each(|socket| socket.connect(address).unwrap());
        let ends = Arc::new(AtomicBool::new(false));
        let [is_over, was_over] = [&ends, &ends].map(Arc::clone);
        let sender = std::thread::spawn(move || {
            let mut sent = 0_usize;
            while !is_over.load(Ordering::Relaxed) {
                // A few at a time: they shall not come in one burst.
                for few in sockets.chunks(sockets.len().div_ceil(10)) {
                    for socket in few {
                        socket.send(&sent.to_be_bytes()).unwrap();
                        sent += 1;
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            sent
        });
        let receiver = std::thread::spawn(move || {
            let mut received = HashSet::new();
            let mut number = [0; 8];
            loop {
                match listening.recv(&mut number) {
                    Ok(_) => assert!(received.insert(number), "{number:?} came twice"),
                    Err(_) if was_over.load(Ordering::Relaxed) => return received.len(),
                    Err(_) => {}
                }
            }
        });
        Self { ends, sender, receiver }
    }

    /// Ends them: how many were sent, and how many arrived.
    pub(crate) fn end(self) -> (usize, usize) {
        self.ends.store(true, Ordering::Relaxed);
        (self.sender.join().unwrap(), self.receiver.join().unwrap())
    }
}
