//! Loads, pins and attaches the BPF programs of `bpf/`, and owns their maps.
//!
//! `forward` sits on every port, as XDP or tc, and sends up what workers must see; `punt` and
//! `deliver` sit at the two ends of the punt link. All of it outlives the daemon: programs, links,
//! maps and changed NIC settings stay until [`detach_all`] takes them away, and each
//! [`Kernel::start`] puts new ones in the place of the last one's without a gap.
//!
//! It decides nothing about packets, makes no interface and reads no configuration. Interfaces
//! are those of the network namespace of the thread that calls; a [`Kernel`] is one thread's.
//!
//! The order at start: what is ours (`set_owned`, `set_segment`), the ports (`set_port`,
//! `set_vlan`, `prepare_nic`, `attach`), then the punt link, last, because whatever an earlier run
//! left on other interfaces is detached with it: old programs name ports by old numbers.
//!
//! ```no_run
//! use kernel::{Hook, Interface, Kernel, PortEntry, PortKind, Settings, XdpMode};
//!
//! let settings = Settings { lines: 1 << 20, hash_key: 7, tcx: true, replays: true };
//! let mut kernel = Kernel::start("left", &settings)?;
//! let vif = PortEntry {
//!     number: 1,
//!     ifindex: 4,
//!     kind: PortKind::Vif,
//!     mac: [0x02, 0x74, 0x6c, 0, 0, 1],
//!     segment: 1,
//!     stamp: 1,
//!     station: [0xfa, 0x16, 0x3e, 0, 0, 1],
//!     takes_xdp: false,
//!     mtu: 1500,
//!     peer: true,
//!     public: false,
//!     sockets: 0,
//!     queues: 0,
//!     punt_rate: 20_000,
//!     punt_burst: 1_000,
//! };
//! kernel.set_port(&vif)?;
//! let attached = kernel.attach(1, "vnet1", Hook::Auto, XdpMode::Auto)?;
//! println!("vnet1: {} ({})", attached.how, attached.why); // tcx (…)
//! let (near, far) = (Interface::new(2, "tl-punt0"), Interface::new(3, "tl-punt1"));
//! kernel.attach_punt(near, far)?;
//! println!("{:?}", kernel.counters(1)?);
//! # Ok::<(), kernel::Error>(())
//! ```

mod attach;
mod caps;
mod clsact;
mod counters;
mod detach;
mod error;
mod ethtool;
mod hooks;
mod layout;
mod link;
mod load;
mod log;
mod memory;
mod netlink;
mod nic;
mod notes;
mod owned;
mod pins;
mod ports;
mod probe;
mod reserved;
mod segments;
mod sender;
mod skeletons;
mod sysctl;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use conntrack::Line;

pub use attach::{Attached, Hook, How, XdpMode};
pub use counters::{KernelDrop, PortCounters};
pub use detach::{Report, detach_all, has_left_pins};
pub use error::Error;
pub use layout::{
    HOPS, LAYOUT, NICS, OWNED, PORTS, PUNT_SOCKETS, SEGMENTS, SOCKETS, TAG_NUMBER, TAG_TO_HOST,
    VLANS,
};
pub use memory::TableHeader;
pub use nic::Changes;
pub use owned::{Owned, Prefix};
pub use ports::{PortEntry, PortKind};
pub use segments::SegmentEntry;
pub use sender::PuntSender;

use load::{Maps, Programs};
use pins::{Lock, Pins};

/// An interface of this network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface<'a> {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: &'a str,
}

impl<'a> Interface<'a> {
    /// The interface of that index and name.
    #[must_use]
    pub fn new(index: u32, name: &'a str) -> Self {
        Self { index, name }
    }
}

/// What must be known before anything is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Lines of the connection table: `conntrack::Table::lines_for`.
    pub lines: u32,
    /// Random key under which the table hashes.
    pub hash_key: u64,
    /// Use TCX where the kernel has it (6.6); otherwise clsact everywhere.
    pub tcx: bool,
    /// The programs replay lines; otherwise everything goes up to the workers.
    pub replays: bool,
}

/// The programs by name, for `BPF_PROG_TEST_RUN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// On a port, XDP.
    ForwardXdp,
    /// On a port, tc ingress.
    ForwardTc,
    /// At `tl-punt1`, XDP.
    Punt,
    /// At `tl-punt0`, tc ingress.
    Deliver,
}

/// A random number that, taken for a MAC, is no group's.
fn secret() -> Result<u64, Error> {
    let mut bytes = [0; 8];
    // SAFETY: `bytes` is writable for its length.
    let read = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if read != bytes.len() as isize {
        return Err(Error::system("cannot get random bytes", io::Error::last_os_error()));
    }
    bytes[0] &= 0xfe;
    Ok(u64::from_ne_bytes(bytes))
}

/// What a start loads and maps.
struct Loaded {
    maps: Maps,
    programs: Programs,
    lines: &'static [Line],
    header: TableHeader,
}

impl Loaded {
    fn over(pins: &Pins, settings: &Settings) -> Result<Self, Error> {
        pins.make()?;
        let (maps, programs) = load::load(pins, settings)?;
        let lines = memory::lines(&maps.lines, settings.lines)?;
        let header = memory::header(&maps.header, settings.lines, settings.hash_key)?;
        Ok(Self { maps, programs, lines, header })
    }
}

/// The kernel side of a node. Dropping it detaches nothing.
#[derive(Debug)]
pub struct Kernel {
    node: String,
    pins: Pins,
    maps: Maps,
    programs: Programs,
    lines: &'static [Line],
    header: TableHeader,
    /// Whether TCX is wanted.
    tcx: bool,
    /// The numbers of the NICs, in the order of their VLANs; 0 where there is none.
    nics: [u16; NICS as usize],
    /// Lets frames for the host past generic XDP; known to nobody outside.
    pass: u64,
    /// What this run attached, by index of the interface.
    attached: HashMap<u32, How>,
    _lock: Lock,
}

impl Kernel {
    /// Loads fresh programs and maps for the node and pins them in the place of an earlier run's.
    /// Nothing is attached yet, and what is attached goes on.
    ///
    /// # Errors
    /// Another daemon of this node lives, a capability or bpffs is missing, or the kernel refuses.
    /// A first start that fails leaves nothing behind.
    pub fn start(node: &str, settings: &Settings) -> Result<Self, Error> {
        caps::check()?;
        let pins = Pins::of(node)?;
        let lock = Lock::take(node)?;
        let is_first = !pins.exist();
        let Loaded { maps, programs, lines, header } = match Loaded::over(&pins, settings) {
            Ok(loaded) => loaded,
            Err(error) => {
                // What an earlier run pinned says what to take away one day.
                if is_first && pins.remove().is_ok() {
                    lock.remove();
                }
                return Err(error);
            }
        };
        let kernel = Self {
            node: node.to_owned(),
            pins,
            maps,
            programs,
            lines,
            header,
            tcx: settings.tcx,
            nics: [0; NICS as usize],
            pass: secret()?,
            attached: HashMap::new(),
            _lock: lock,
        };
        kernel.set_punt(0)?;
        Ok(kernel)
    }

    /// The node's name.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The connection table's memory, all lines free at start; for `conntrack::Table::new`.
    #[must_use]
    pub fn lines(&self) -> &'static [Line] {
        self.lines
    }

    /// What one must know to use the lines.
    #[must_use]
    pub fn header(&self) -> TableHeader {
        self.header
    }

    /// A program, for `BPF_PROG_TEST_RUN`.
    #[must_use]
    pub fn program(&self, program: Program) -> BorrowedFd<'_> {
        match program {
            Program::ForwardXdp => self.programs.forward_xdp.as_fd(),
            Program::ForwardTc => self.programs.forward_tc.as_fd(),
            Program::Punt => self.programs.punt.as_fd(),
            Program::Deliver => self.programs.deliver.as_fd(),
        }
    }
}
