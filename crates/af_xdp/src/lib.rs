//! AF_XDP sockets, packet memory and rings, with a safe API and no C.
//!
//! A [`Umem`] is one block of packet memory cut into equal chunks. Each chunk exists as exactly
//! one [`Frame`], a plain owned value that moves: from the free list ([`LocalPool`]) into a
//! [`Socket`], from there through the kernel, and back. Nobody can send a frame twice, read it
//! while the kernel writes it, or hand it to a socket over other memory; all of that is a type
//! error or an assertion, so callers need no `unsafe`.
//!
//! At every moment `free + local pools + in flight + held by sockets + lingering = total`.
//! [`Umem::census`] and [`Socket::census`] give the numbers, so a leak is a metric, not a mystery.
//!
//! All sockets over one [`Umem`] share it, over any number of interfaces and queues. Sockets may be
//! opened and closed in any order; the memory stays registered as long as one of them lives.
//!
//! A packet that is longer than a chunk comes and goes in several frames, one behind the other, of
//! which all but the last [`continue`](Frame::continues) (kernel 6.6; [`takes_pieces`]).
//!
//! What this crate never does: look into a packet, load or attach an XDP program, write an XSKMAP,
//! change an interface, start a thread, or allocate between receive and send.
//!
//! ```no_run
//! use af_xdp::{QueuePlan, Socket, SocketConfig, Umem, UmemConfig};
//!
//! # fn main() -> Result<(), af_xdp::Error> {
//! let umem = Umem::new(&UmemConfig { frames: 8192, ..UmemConfig::default() })?;
//! let plan = QueuePlan::of("eth1")?;
//! plan.check()?;
//! let mut pool = umem.pool();
//! let mut socket = Socket::open(umem, plan.ifindex(), 0, &SocketConfig::default())?;
//! println!("eth1 queue 0: {}", socket.bound());
//! // Now the owner of the XDP program stores `socket.as_fd()` in its XSKMAP.
//! socket.refill(&mut pool);
//!
//! let mut batch = Vec::with_capacity(32);
//! loop {
//!     socket.reclaim(&mut pool);
//!     socket.receive(32, &mut batch);
//!     for frame in &mut batch {
//!         frame.bytes_mut().reverse(); // whatever the application is about
//!     }
//!     socket.send(&mut batch);
//!     socket.kick_tx()?;
//!     for unsent in batch.drain(..) {
//!         pool.give(unsent);
//!     }
//!     socket.refill(&mut pool);
//! }
//! # }
//! ```
//!
//! Sources: `Documentation/networking/af_xdp.rst`, `net/xdp/xsk.c` and `net/xdp/xsk_buff_pool.c`
//! of the kernel.

mod channels;
mod config;
mod error;
mod frame;
mod held;
mod open;
mod pool;
mod queues;
mod recover;
mod ring;
mod socket;
mod sys;
mod umem;

pub use config::{Bound, Mode, SocketConfig};
pub use error::Error;
pub use frame::{Frame, HEADROOM};
pub use open::takes_pieces;
pub use pool::LocalPool;
pub use queues::QueuePlan;
pub use recover::Recovery;
pub use socket::{Census, Socket, Statistics};
pub use umem::{Umem, UmemCensus, UmemConfig};
