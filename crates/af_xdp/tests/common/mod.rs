//! A network namespace of its own for each test, veth pairs, an XDP program, raw packet sockets.
//!
//! The tests need root. They fail without it: a test that skips itself proves nothing.
#![allow(dead_code, unreachable_pub)] // each test file uses some of it
#![allow(clippy::unwrap_used)] // tests

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use af_xdp::{LocalPool, QueuePlan, Socket, Umem, UmemConfig};

/// Puts the calling thread into a new network namespace, which ends with the thread.
pub fn enter_netns() {
    // SAFETY: takes and changes nothing.
    let uid = unsafe { libc::geteuid() };
    assert_eq!(uid, 0, "this test needs root: run `cargo test` as root");
    // SAFETY: changes the namespace of this thread alone.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "unshare: {}", io::Error::last_os_error());
    // No neighbour discovery between our packets.
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
}

/// Runs a command in the namespace of the calling thread.
pub fn run(command: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {text}");
}

/// A veth pair with `queues` queues each way at both ends, up. Answers both indexes.
pub fn veth(a: &str, b: &str, queues: u32) -> (u32, u32) {
    let count = format!("numrxqueues {queues} numtxqueues {queues}");
    run(&format!("ip link add {a} {count} type veth peer name {b} {count}"));
    for end in [a, b] {
        run(&format!("ip link set {end} up"));
        assert_eq!(QueuePlan::of(end).unwrap().rx(), queues);
    }
    (QueuePlan::of(a).unwrap().ifindex(), QueuePlan::of(b).unwrap().ifindex())
}

/// A UMEM of `frames` chunks of 2048 bytes.
pub fn umem(frames: u32) -> Umem {
    Umem::new(&UmemConfig { frames, ..UmemConfig::default() }).unwrap()
}

/// Packet `number` of `len` bytes: an experimental ethertype, the number, a pattern from it.
pub fn packet(number: u32, len: usize) -> Vec<u8> {
    let mut packet = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5];
    packet.extend_from_slice(&number.to_be_bytes());
    packet.extend((packet.len()..len).map(|at| (at as u32 ^ number) as u8));
    packet
}

/// The number in a packet made by [`packet`]; `None` if it is none.
pub fn number(packet: &[u8]) -> Option<u32> {
    let ours = packet.get(12..14)? == [0x88, 0xb5];
    ours.then(|| u32::from_be_bytes(packet[14..18].try_into().unwrap()))
}

/// Receives until there are `wanted` frames or two seconds have passed.
pub fn receive_all(socket: &mut Socket, wanted: usize) -> Vec<af_xdp::Frame> {
    let mut frames = Vec::with_capacity(wanted);
    for _ in 0..2000 {
        socket.receive(wanted, &mut frames);
        if frames.len() == wanted {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(frames.len(), wanted, "{:?}", socket.statistics().unwrap());
    frames
}

/// Asserts that every frame of the memory is somewhere.
pub fn assert_conserved(
    umem: Umem,
    pools: &[&LocalPool],
    in_flight: usize,
    sockets: &[&Socket],
    moment: &str,
) {
    let memory = umem.census();
    let cached: usize = pools.iter().map(|pool| pool.len()).sum();
    let held: u32 = sockets.iter().map(|socket| socket.census().total()).sum();
    let known = memory.free + memory.lingering + cached as u32 + in_flight as u32 + held;
    assert_eq!(known, memory.total, "{moment}: {memory:?} cached {cached} in flight {in_flight}");
}

/// Asserts that every frame of the memory is free, and each exactly once.
pub fn assert_all_free(umem: Umem) {
    assert_eq!(umem.census().free, umem.frames());
    let mut pool = umem.pool();
    let mut frames: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    let places: std::collections::HashSet<_> =
        frames.iter_mut().map(|frame| frame.chunk_mut().as_ptr()).collect();
    assert_eq!(places.len(), umem.frames() as usize);
    pool.give_all(&mut frames);
}

/// A raw packet socket on one interface.
pub struct Wire(OwnedFd);

impl Wire {
    pub fn on(ifindex: u32) -> Wire {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: takes integers only.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, i32::from(protocol)) };
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        // SAFETY: just opened, owned by nobody else.
        let wire = Wire(unsafe { OwnedFd::from_raw_fd(fd) });
        // SAFETY: all zeros is a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = ifindex as i32;
        // SAFETY: a whole sockaddr_ll that outlives the call.
        let result = unsafe {
            libc::bind(fd, (&raw const address).cast(), size_of_val(&address) as libc::socklen_t)
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        wire.option(libc::SO_RCVTIMEO, &libc::timeval { tv_sec: 2, tv_usec: 0 });
        wire.option(libc::SO_RCVBUFFORCE, &(64 << 20));
        wire
    }

    fn option<T>(&self, name: i32, value: &T) {
        let (at, len) = (std::ptr::from_ref(value).cast(), size_of::<T>() as libc::socklen_t);
        // SAFETY: `value` is readable for its size.
        let result =
            unsafe { libc::setsockopt(self.0.as_raw_fd(), libc::SOL_SOCKET, name, at, len) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
    }

    pub fn send(&self, packet: &[u8]) {
        // SAFETY: `packet` is readable for its length.
        let sent =
            unsafe { libc::send(self.0.as_raw_fd(), packet.as_ptr().cast(), packet.len(), 0) };
        assert_eq!(sent, packet.len() as isize, "{}", io::Error::last_os_error());
    }

    /// The next packet made by [`packet`] that came in, `None` after two seconds.
    pub fn receive(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0u8; 16384];
        loop {
            // SAFETY: `buffer` is writable for its length.
            let len = unsafe {
                libc::recv(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0)
            };
            let packet = &buffer[..usize::try_from(len).ok()?];
            if number(packet).is_some() {
                return Some(packet.to_vec());
            }
        }
    }
}

/// An XDP program that redirects each packet to the socket of its queue, else passes it.
pub struct Redirect {
    map: OwnedFd,
    _program: OwnedFd,
    _link: OwnedFd,
}

impl Redirect {
    /// Attaches to `ifindex`, natively or in SKB mode, and lets `sockets` have their queues.
    pub fn attach(ifindex: u32, generic: bool, sockets: &[&Socket]) -> Redirect {
        // BPF_MAP_CREATE: type XSKMAP, key size, value size, entries.
        let map = bpf(0, &words(&[17, 4, 4, 64]));
        let fd = map.as_raw_fd() as u32;
        #[rustfmt::skip]
        let program: [(u8, u8, i16, u32); 7] = [
            (0x61, 0x12, 16, 0), // r2 = ctx->rx_queue_index
            (0x18, 0x11, 0, fd), // r1 = map, in two slots
            (0x00, 0x00, 0, 0),
            (0xb7, 0x03, 0, 2),  // r3 = XDP_PASS, the answer where there is no socket
            (0x85, 0x00, 0, 51), // call bpf_redirect_map
            (0x95, 0x00, 0, 0),  // return r0
            (0x95, 0x00, 0, 0),
        ];
        let mut code = Vec::new();
        for (op, registers, offset, value) in program {
            code.extend([op, registers]);
            code.extend(offset.to_ne_bytes());
            code.extend(value.to_ne_bytes());
        }
        let licence = c"Dual MIT/GPL";
        // BPF_PROG_LOAD: type XDP, instructions, their address, the licence's, no log, no version,
        // and that it takes packets in fragments (BPF_F_XDP_HAS_FRAGS, kernel 5.18).
        let mut load = words(&[6, 6]);
        load.extend((code.as_ptr() as u64).to_ne_bytes());
        load.extend((licence.as_ptr() as u64).to_ne_bytes());
        load.extend(words(&[0, 0, 0, 0, 0, 1 << 5]));
        let program = bpf(5, &load);
        // BPF_LINK_CREATE: program, interface, type XDP, flags SKB or native mode.
        let mode = if generic { 2 } else { 4 };
        let link = bpf(28, &words(&[program.as_raw_fd() as u32, ifindex, 37, mode]));
        let redirect = Redirect { map, _program: program, _link: link };
        for socket in sockets {
            redirect.serve(socket);
        }
        redirect
    }

    /// Lets `socket` have the packets of its queue.
    pub fn serve(&self, socket: &Socket) {
        let (key, value) = (socket.queue(), socket.as_raw_fd());
        // BPF_MAP_UPDATE_ELEM: map, padding, addresses of key and value, flags.
        let mut update = words(&[self.map.as_raw_fd() as u32, 0]);
        update.extend((&raw const key as u64).to_ne_bytes());
        update.extend((&raw const value as u64).to_ne_bytes());
        assert_eq!(call_bpf(2, &update), 0, "{}", io::Error::last_os_error());
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn bpf(command: i32, attributes: &[u8]) -> OwnedFd {
    let fd = call_bpf(command, attributes);
    assert!(fd >= 0, "bpf({command}): {}", io::Error::last_os_error());
    // SAFETY: the call made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn call_bpf(command: i32, attributes: &[u8]) -> i32 {
    let mut whole = [0u8; 128];
    whole[..attributes.len()].copy_from_slice(attributes);
    // SAFETY: `whole` is the attribute block of the size given; addresses in it point at memory
    // that the callers keep for the length of the call.
    unsafe { libc::syscall(libc::SYS_bpf, command, whole.as_ptr(), whole.len()) as i32 }
}
