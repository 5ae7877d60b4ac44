//! Frames of closed sockets: given back once the kernel has let go of them.
//!
//! Closing an AF_XDP socket only starts its end. Packets it sent may still wait in a queue of the
//! device, a zero-copy NIC may still write into its frames, and the queue is unbound later, in a
//! kernel worker (`xp_release_deferred`). There is no call that waits for that. But a queue has at
//! most one socket: so when another one can be bound to it, the old one is gone for good, and its
//! frames are free. That is the proof asked for here, with a tiny socket of our own.

use std::io;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use crate::sys::{self, Mapping};
use crate::umem::{Lingering, QueueKey, Umem};

const RETRY: Duration = Duration::from_millis(5);

/// What [`Umem::recover`] got back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "frames that still linger need another call"]
pub struct Recovery {
    /// Frames that went back to the free list.
    pub recovered: u32,
    /// Frames the kernel may still use.
    pub lingering: u32,
}

impl Umem {
    /// Gives the frames of dropped sockets back to the free list, waiting up to `patience`.
    ///
    /// Takes 15 to 25 ms per socket, so it belongs on a control thread, not between receive and
    /// send. Call it again later for what still lingers: packets held up in a device queue.
    /// Opening a socket on the same queue does the same for that queue. A dropped socket is only
    /// recovered from a thread in its network namespace, or by opening its queue again.
    pub fn recover(&self, patience: Duration) -> Recovery {
        let deadline = Instant::now() + patience;
        let mut recovered = 0;
        loop {
            // Asked without the lock, and by number: meanwhile another thread may recover the same
            // socket, or close a younger one of the same queue, for which nothing is proven.
            let waiting: Vec<_> =
                self.lingering().iter().map(|socket| (socket.number, socket.key)).collect();
            for (number, key) in waiting {
                if is_released(key) {
                    recovered += self.set_free(|socket| socket.number == number);
                }
            }
            let lingering = self.census().lingering;
            if lingering == 0 || Instant::now() >= deadline {
                return Recovery { recovered, lingering };
            }
            thread::sleep(RETRY);
        }
    }

    /// Gives back what earlier sockets of `key` left; the caller has just bound that queue.
    pub(crate) fn reclaim_lingering(&self, key: QueueKey) {
        self.set_free(|socket| socket.key == key);
    }

    fn set_free(&self, is_meant: impl Fn(&Lingering) -> bool) -> u32 {
        let mut lingering = self.lingering();
        let mut count = 0;
        for socket in lingering.extract_if(.., |socket| is_meant(socket)) {
            self.free_list().lock().extend(socket.held.iter());
            count += socket.held.count();
        }
        count
    }
}

/// Whether no socket is left on the queue: another one can be bound, or the interface is gone.
fn is_released(key: QueueKey) -> bool {
    match probe(key) {
        Ok(()) => true,
        // Taking an interface away, or to another namespace, unbinds its sockets first.
        Err(e) => e.raw_os_error() == Some(libc::ENODEV),
    }
}

/// Binds a socket with memory of its own to the queue, and closes it again.
fn probe(key: QueueKey) -> io::Result<()> {
    const CHUNK: u32 = 4096;
    let memory = Mapping::anonymous(CHUNK as usize, false)?;
    let socket = sys::socket(libc::AF_XDP, libc::SOCK_RAW, 0)?;
    let fd = socket.as_fd();
    if sys::netns_cookie(fd)? != key.netns {
        // The same ifindex is another interface here.
        return Err(io::Error::from_raw_os_error(libc::EXDEV));
    }
    for ring in [libc::XDP_RX_RING, libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING] {
        sys::set_xdp(fd, ring, 1)?;
    }
    // SAFETY: `memory` is dropped after `socket`. No frame is ever put into a ring, so the kernel
    // has none to touch, not even while it is closing the socket.
    unsafe { sys::register_umem(fd, memory.base(), u64::from(CHUNK), CHUNK) }?;
    sys::bind(fd, key.ifindex, key.queue, libc::XDP_COPY, None)
}
