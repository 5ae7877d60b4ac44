//! TCP connections: slow ones that last, and many short ones.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::sockopt::ReuseAddr;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket,
};

use super::within;

const PATIENCE: Duration = Duration::from_secs(10);
const PIECE: usize = 1000;

/// A server's socket on a host.
pub(crate) fn listen(host: &str, port: u16) -> TcpListener {
    within(host, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap())
}

/// A connection from a host, by this port of its own (0: any).
pub(crate) fn open(host: &str, port: u16, to: SocketAddrV4) -> nix::Result<TcpStream> {
    let own = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port));
    let stream = within(host, || -> nix::Result<OwnedFd> {
        let (family, flags) = (AddressFamily::Inet, SockFlag::SOCK_CLOEXEC);
        let stream = socket(family, SockType::Stream, flags, None)?;
        setsockopt(&stream, ReuseAddr, &true)?;
        bind(stream.as_raw_fd(), &own)?;
        connect(stream.as_raw_fd(), &SockaddrIn::from(to))?;
        Ok(stream)
    })?;
    let stream = TcpStream::from(stream);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Ok(stream)
}

/// Begins to open so many connections from a host, and waits for none.
pub(crate) fn begin(host: &str, to: SocketAddrV4, count: usize) -> Vec<TcpStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let begin = || {
        let stream = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
        let begun = connect(stream.as_raw_fd(), &SockaddrIn::from(to));
        assert!(matches!(begun, Ok(()) | Err(Errno::EINPROGRESS)), "{begun:?}");
        TcpStream::from(stream)
    };
    within(host, || (0..count).map(|_| begin()).collect())
}

fn v4(address: std::io::Result<std::net::SocketAddr>) -> SocketAddrV4 {
    match address.unwrap() {
        std::net::SocketAddr::V4(address) => address,
        std::net::SocketAddr::V6(address) => panic!("{address}"),
    }
}

/// Bytes that say where they belong.
fn piece(number: usize) -> [u8; PIECE] {
    let mut bytes = [0; PIECE];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = (number.wrapping_mul(31) + at) as u8;
    }
    bytes
}

/// A slow download that goes on until it is told to end.
pub(crate) struct Transfer {
    ends: Arc<AtomicBool>,
    sender: JoinHandle<usize>,
    receiver: JoinHandle<std::io::Result<usize>>,
    /// The server's end as it has it, and the client's as the server sees it.
    pub(crate) server: SocketAddrV4,
    pub(crate) client: SocketAddrV4,
}

impl Transfer {
    pub(crate) fn start(server: &str, client: &str, own_port: u16, to: SocketAddrV4) -> Self {
        let listener = listen(server, to.port());
        let mut reading = open(client, own_port, to).unwrap();
        let (mut writing, _) = listener.accept().unwrap();
        let (server, client) = (v4(writing.local_addr()), v4(writing.peer_addr()));
        let ends = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&ends);
        let sender = std::thread::spawn(move || {
            let mut sent = 0;
            while !is_over.load(Ordering::Relaxed) && writing.write_all(&piece(sent)).is_ok() {
                sent += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = writing.shutdown(Shutdown::Write);
            // So that the other one closes first.
            let _ = writing.set_read_timeout(Some(PATIENCE));
            let _ = writing.read(&mut [0]);
            sent
        });
        let receiver = std::thread::spawn(move || {
            let mut whole = Vec::new();
            reading.read_to_end(&mut whole)?;
            for (number, bytes) in whole.chunks(PIECE).enumerate() {
                assert_eq!(bytes, piece(number), "piece {number}");
            }
            Ok(whole.len() / PIECE)
        });
        Self { ends, sender, receiver, server, client }
    }

    /// Ends it: pieces sent and pieces received.
    pub(crate) fn end(self) -> (usize, std::io::Result<usize>) {
        self.ends.store(true, Ordering::Relaxed);
        (self.sender.join().unwrap(), self.receiver.join().unwrap())
    }
}

/// A server that says to each client what it heard, and from which address it did, then closes.
pub(crate) fn repeat(listener: TcpListener, connections: usize) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for _ in 0..connections {
            let (mut stream, peer) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut heard = [0; 8];
            if stream.read_exact(&mut heard).is_ok() {
                let _ = stream
                    .write_all(format!("{} {}", u64::from_be_bytes(heard), peer.ip()).as_bytes());
            }
        }
    })
}

/// Asks such a server so often from a host; what it should have said and did not.
pub(crate) fn ask_repeatedly(
    host: &str,
    to: SocketAddrV4,
    seen_as: &str,
    count: u64,
    first: u64,
) -> Vec<String> {
    let ask = |number: u64| -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&to.into(), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&number.to_be_bytes())?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        Ok(said)
    };
    within(host, || {
        let numbers = first..first + count;
        let wrong = numbers.filter_map(|number| match ask(number) {
            Ok(said) if said == format!("{number} {seen_as}") => None,
            other => Some(format!("{number}: {other:?}")),
        });
        wrong.collect()
    })
}

/// Sends back whatever comes to this port of a host, by TCP and UDP, until the test ends.
pub(crate) fn mirror(host: &str, port: u16) {
    let listener = listen(host, port);
    // A host with many addresses answers datagrams from whichever it likes.
    let address = if host == "inet" { Ipv4Addr::new(8, 8, 8, 8) } else { Ipv4Addr::UNSPECIFIED };
    let datagrams = within(host, || UdpSocket::bind((address, port)).unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut bytes = [0; 256];
            while let Ok(length @ 1..) = stream.read(&mut bytes) {
                let _ = stream.write_all(&bytes[..length]);
            }
        }
    });
    std::thread::spawn(move || {
        let mut bytes = [0; 256];
        while let Ok((length, from)) = datagrams.recv_from(&mut bytes) {
            let _ = datagrams.send_to(&bytes[..length], from);
        }
    });
}

/// Says something to such a server so many times, by TCP and UDP, waiting for each answer.
pub(crate) fn talk(host: &str, own_port: u16, to: SocketAddrV4, rounds: usize) {
    let mut stream = open(host, own_port, to).unwrap();
    let own = (Ipv4Addr::UNSPECIFIED, own_port);
    let datagrams = within(host, || UdpSocket::bind(own).unwrap());
    datagrams.set_read_timeout(Some(PATIENCE)).unwrap();
    for round in 0..rounds {
        // An odd number of bytes, then an even one.
        let said = &piece(round)[..99 + round];
        let mut heard = vec![0; said.len()];
        stream.write_all(said).unwrap();
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(heard, said, "{host} {to}");
        datagrams.send_to(said, to).unwrap();
        let (length, _) = datagrams.recv_from(&mut heard).unwrap();
        assert_eq!(&heard[..length], said, "{host} {to}");
    }
}
