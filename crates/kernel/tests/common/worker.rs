//! A stand-in for the workers: one AF_XDP socket, and a rule for what becomes of each frame.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;

use af_xdp::{Mode, Socket, SocketConfig, Umem, UmemConfig};
use kernel::Kernel;

/// A socket on an interface, and the thread that serves it.
pub struct Worker {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Opens a socket on queue 0, puts it into that slot and serves it. `rule` changes a frame in
    /// place and says whether to send it back by the same socket.
    pub fn start(
        kernel: &mut Kernel,
        slot: u32,
        ifindex: u32,
        generic: bool,
        mut rule: impl FnMut(&mut Vec<u8>) -> bool + Send + 'static,
    ) -> Self {
        let umem = Umem::new(&UmemConfig { frames: 16384, ..UmemConfig::default() }).unwrap();
        let config = SocketConfig { mode: Mode::Copy, generic, ..SocketConfig::default() };
        let mut socket = Socket::open(umem, ifindex, 0, &config).unwrap();
        let mut pool = umem.pool();
        // Before the first frame comes, or it would find no room.
        socket.refill(&mut pool);
        kernel.set_socket(slot, socket.as_fd()).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut batch, mut packet) = (Vec::with_capacity(64), Vec::new());
            while !stopped.load(Relaxed) {
                socket.reclaim(&mut pool);
                if socket.receive(64, &mut batch) == 0 {
                    std::thread::sleep(std::time::Duration::from_micros(50));
                }
                let mut out = Vec::with_capacity(64);
                for mut frame in batch.drain(..) {
                    packet.clear();
                    packet.extend_from_slice(frame.bytes());
                    match rule(&mut packet) && frame.copy_from(&packet) {
                        true => out.push(frame),
                        false => pool.give(frame),
                    }
                }
                while !out.is_empty() {
                    socket.reclaim(&mut pool);
                    socket.send(&mut out);
                    socket.kick_tx().unwrap();
                }
                socket.refill(&mut pool);
            }
        });
        Self { stop, thread }
    }

    /// Closes the socket, as a crash does.
    pub fn stop(self) {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap();
    }
}
