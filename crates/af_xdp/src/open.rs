//! Opening a socket: memory shared or registered, modes in order, patience with old sockets.
//!
//! The kernel counts users of a registered UMEM, and a socket joins by naming the fd of any *bound*
//! socket that has it. So there is no owner: each new socket names a live one, and only when none
//! is left is the memory registered again. A registration is either zero-copy or copy for all its
//! sockets, whatever their device can do (`xp_assign_dev_shared`), so there are up to two of them
//! over the same pages, one for each.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::{Bound, Mode, SocketConfig};
use crate::error::Error;
use crate::held::Held;
use crate::ring::{Consumer, Producer};
use crate::socket::Socket;
use crate::sys::{self, Mapping};
use crate::umem::{Member, QueueKey, Umem};

/// How long a queue may stay taken. A closed socket's is free after 15 to 23 ms, or once the last
/// packet it sent has left.
const PATIENCE: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(2);

impl Socket {
    /// Opens queue `queue` of interface `ifindex` over `umem`, both rings of packets and both of
    /// frames. They are empty: [`refill`](Socket::refill) before packets are redirected to it.
    ///
    /// The interface is looked up in the network namespace of the calling thread. A queue that
    /// was just closed is waited for, up to a second.
    ///
    /// # Errors
    /// [`Error::Socket`], with the way out: not allowed, not enough lockable memory, no such queue,
    /// queue taken, no zero copy where it was demanded.
    pub fn open(
        umem: Umem,
        ifindex: u32,
        queue: u32,
        config: &SocketConfig,
    ) -> Result<Socket, Error> {
        check(&umem, config)?;
        let deadline = Instant::now() + PATIENCE;
        let mut draft = Draft::new(umem, ifindex, queue, config)?;
        let auto = config.mode == Mode::Auto && !config.generic;
        let mut refused = None;
        if config.mode == Mode::ZeroCopy || auto {
            match draft.bind(true, config.pieces, deadline) {
                Ok(bound) => return Ok(draft.into_socket(bound)),
                Err(error) if !auto || is_final(&error) => return Err(error),
                Err(error) => refused = Some(error),
            }
            if draft.registered && umem.sockets().iter().any(|member| !member.zero_copy) {
                // It has a registration of its own now, and could no longer share another's.
                draft = Draft::new(umem, ifindex, queue, config)?;
            }
        }
        let bound = draft.bind(false, takes_pieces(), deadline)?;
        let mut socket = draft.into_socket(bound);
        socket.refused = refused;
        if config.generic {
            socket.bound = Bound::Generic;
        }
        Ok(socket)
    }
}

/// Whether this kernel gives a packet that is longer than a chunk in several frames, and takes it
/// so (6.6, `XDP_USE_SG`). Without the right to open a socket: no.
pub fn takes_pieces() -> bool {
    let Ok(socket) = sys::socket(libc::AF_XDP, libc::SOCK_RAW, 0) else { return false };
    // A flag that the kernel does not know it refuses before it looks for the interface, and of
    // that number there is none.
    let answer = sys::bind(socket.as_fd(), i32::MAX as u32, 0, libc::XDP_USE_SG, None);
    answer.is_err_and(|error| error.raw_os_error() == Some(libc::ENODEV))
}

/// What a bound socket turned out to be.
#[derive(Clone, Copy)]
struct Nature {
    zero_copy: bool,
    pieces: bool,
}

/// Whether copy mode would fail the same way.
fn is_final(error: &Error) -> bool {
    matches!(error.errno(), Some(libc::EPERM | libc::ENODEV | libc::EBUSY))
}

fn check(umem: &Umem, config: &SocketConfig) -> Result<(), Error> {
    if config.mode == Mode::ZeroCopy && config.generic {
        let text = "zero copy needs an XDP program in native mode, this one is generic";
        return Err(Error::Geometry(text.into()));
    }
    if umem.chunk() > 4096 {
        let text = format!("chunks of {} bytes: a socket takes at most 4096", umem.chunk());
        return Err(Error::Geometry(text));
    }
    if config.ring == 0 || config.ring > 32768 {
        let text = format!("ring of {} slots: must be between 1 and 32768", config.ring);
        return Err(Error::Geometry(text));
    }
    let ring = config.ring.next_power_of_two();
    if umem.frames() < ring {
        let frames = umem.frames();
        return Err(Error::Geometry(format!("{frames} frames do not fill a ring of {ring} slots")));
    }
    Ok(())
}

/// A socket with its rings, not bound yet.
struct Draft {
    rx: Consumer<libc::xdp_desc>,
    tx: Producer<libc::xdp_desc>,
    fill: Producer<u64>,
    completion: Consumer<u64>,
    fd: OwnedFd,
    umem: Umem,
    key: QueueKey,
    registered: bool,
}

impl Draft {
    fn new(umem: Umem, ifindex: u32, queue: u32, config: &SocketConfig) -> Result<Draft, Error> {
        let at = |step| move |source| Error::Socket { ifindex, queue, step, source };
        let fd = sys::socket(libc::AF_XDP, libc::SOCK_RAW, 0).map_err(at("socket"))?;
        let netns = sys::netns_cookie(fd.as_fd()).map_err(at("SO_NETNS_COOKIE"))?;
        let ring = config.ring.next_power_of_two();
        for (option, step, size) in [
            (libc::XDP_RX_RING, "XDP_RX_RING", ring),
            (libc::XDP_TX_RING, "XDP_TX_RING", ring),
            (libc::XDP_UMEM_FILL_RING, "XDP_UMEM_FILL_RING", 2 * ring),
            (libc::XDP_UMEM_COMPLETION_RING, "XDP_UMEM_COMPLETION_RING", ring),
        ] {
            sys::set_xdp(fd.as_fd(), option, size).map_err(at(step))?;
        }
        if let Some(budget) = config.tx_budget {
            // A kernel that does not know the option keeps its 32: slower, not wrong.
            drop(sys::set_tx_budget(fd.as_fd(), budget.clamp(1, ring)));
        }
        if let Some(micros) = config.busy_poll {
            sys::set_busy_poll(fd.as_fd(), micros, 64).map_err(at("busy poll"))?;
        }
        let offsets = sys::mmap_offsets(fd.as_fd()).map_err(at("XDP_MMAP_OFFSETS"))?;
        let map = |len: u64, page_offset| {
            Mapping::ring(fd.as_fd(), len as usize, page_offset).map_err(at("mmap of a ring"))
        };
        let desc = size_of::<libc::xdp_desc>() as u64;
        let (packets, frames) = (u64::from(ring) * desc, u64::from(ring) * 8);

        let rx = map(offsets.rx.desc + packets, libc::XDP_PGOFF_RX_RING as u64)?;
        // SAFETY: the kernel gave these offsets for this ring and size; nobody else consumes it.
        let rx = unsafe { Consumer::new(rx, &offsets.rx, ring) };
        let tx = map(offsets.tx.desc + packets, libc::XDP_PGOFF_TX_RING as u64)?;
        // SAFETY: the kernel gave these offsets for this ring and size; nobody else produces it.
        let tx = unsafe { Producer::new(tx, &offsets.tx, ring) };
        let fill = map(offsets.fr.desc + 2 * frames, libc::XDP_UMEM_PGOFF_FILL_RING)?;
        // SAFETY: the kernel gave these offsets for this ring and size; nobody else produces it.
        let fill = unsafe { Producer::new(fill, &offsets.fr, 2 * ring) };
        let completion = map(offsets.cr.desc + frames, libc::XDP_UMEM_PGOFF_COMPLETION_RING)?;
        // SAFETY: the kernel gave these offsets for this ring and size; nobody else consumes it.
        let completion = unsafe { Consumer::new(completion, &offsets.cr, ring) };

        let key = QueueKey { netns, ifindex, queue };
        Ok(Draft { rx, tx, fill, completion, fd, umem, key, registered: false })
    }

    /// Binds, again and again while the queue is still taken.
    fn bind(&mut self, zero_copy: bool, pieces: bool, deadline: Instant) -> Result<Nature, Error> {
        loop {
            match self.try_bind(zero_copy, pieces) {
                Ok(nature) => return Ok(nature),
                Err((_, source))
                    if source.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline =>
                {
                    thread::sleep(RETRY);
                }
                Err((step, source)) => {
                    let QueueKey { ifindex, queue, .. } = self.key;
                    return Err(Error::Socket { ifindex, queue, step, source });
                }
            }
        }
    }

    /// Binds once and enters the list of live sockets.
    fn try_bind(
        &mut self,
        zero_copy: bool,
        mut pieces: bool,
    ) -> Result<Nature, (&'static str, io::Error)> {
        let (step, mut flags) = match zero_copy {
            true => ("bind zero-copy", libc::XDP_ZEROCOPY),
            false => ("bind copy", libc::XDP_COPY),
        };
        if pieces {
            flags |= libc::XDP_USE_SG;
        }
        let QueueKey { ifindex, queue, .. } = self.key;
        // One at a time: two first sockets would register twice, and no listed fd may be closed
        // while it is being named.
        let mut members = self.umem.sockets();
        if members.iter().any(|member| member.key == self.key) {
            // The kernel says EINVAL here, which also means "no such queue".
            return Err((step, io::Error::from_raw_os_error(libc::EBUSY)));
        }
        let fd = self.fd.as_fd();
        let mut bound = false;
        if !self.registered {
            for member in members.iter().filter(|member| member.zero_copy == zero_copy) {
                // With this flag the kernel allows no other; they are taken from that socket.
                match sys::bind(fd, ifindex, queue, libc::XDP_SHARED_UMEM, Some(member.fd)) {
                    Ok(()) => {
                        bound = true;
                        // The kernel keeps it beside the memory.
                        pieces = member.pieces;
                    }
                    // That socket's interface is gone, and with it its being bound. Ask the next.
                    Err(e) if e.raw_os_error() == Some(libc::EBADF) => continue,
                    Err(e) => return Err((step, e)),
                }
                break;
            }
        }
        if !bound {
            if !self.registered {
                let (base, len, chunk) = (self.umem.base(), self.umem.bytes(), self.umem.chunk());
                // SAFETY: a `Umem` stays mapped until the process ends.
                unsafe { sys::register_umem(fd, base, len, chunk) }
                    .map_err(|e| ("XDP_UMEM_REG", e))?;
                self.registered = true;
            }
            sys::bind(fd, ifindex, queue, flags | libc::XDP_USE_NEED_WAKEUP, None)
                .map_err(|e| (step, e))?;
        }
        let zero_copy = sys::is_zero_copy(fd).map_err(|e| ("XDP_OPTIONS", e))?;
        members.push(Member { fd: fd.as_raw_fd(), key: self.key, zero_copy, pieces });
        Ok(Nature { zero_copy, pieces })
    }

    fn into_socket(self, nature: Nature) -> Socket {
        // The queue was free, so whatever an earlier socket left here is ours again.
        self.umem.reclaim_lingering(self.key);
        Socket {
            rx: self.rx,
            tx: self.tx,
            fill: self.fill,
            completion: self.completion,
            fd: self.fd,
            umem: self.umem,
            shift: self.umem.chunk().trailing_zeros(),
            key: self.key,
            held: Held::new(self.umem.frames()),
            bound: if nature.zero_copy { Bound::ZeroCopy } else { Bound::Copy },
            pieces: nature.pieces,
            refused: None,
            strays: 0,
        }
    }
}
