//! Loads, pins and attaches the BPF programs of `bpf/`, and owns their maps.
//!
//! `forward` sits on every port, as XDP or tc, and sends up what workers must see; `punt` and
//! `deliver` sit at the two ends of the punt link, and `answer`, for when nobody is there. All of
//! it outlives the daemon: programs, links, maps and changed NIC settings stay until
//! [`detach_all`] takes them away, and each [`Kernel::start`] puts new programs in the place of the
//! last one's without a gap, over the same
//! table of connections ([`Left`]).
//!
//! It decides nothing about packets, makes no interface and reads no configuration. Interfaces
//! are those of the network namespace of the thread that calls; a [`Kernel`] is one thread's.
//!
//! The order at start: what is ours (`set_owned`, `set_segment`), the ports (`set_port`,
//! `set_vlan`, `prepare_nic`, `attach`), then `settle`, which detaches what an earlier run left on
//! other interfaces, then the punt link, last, because old programs name ports by old numbers; but
//! first, where the table of that run is continued and the numbers are the same.
//!
//! ```no_run
//! use kernel::{Hook, Interface, Kernel, PortEntry, PortKind, Settings, XdpMode};
//!
//! let (lines, hash_key) = (1 << 20, 7);
//! let settings = Settings { lines, hash_key, tcx: true, replays: true, continues: None };
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
//!     quota: kernel::Quota::default(),
//! };
//! kernel.set_port(&vif)?;
//! let attached = kernel.attach(1, "vnet1", Hook::Auto, XdpMode::Auto)?;
//! println!("vnet1: {} ({})", attached.how, attached.why); // tcx (…)
//! let (near, far) = (Interface::new(2, "tl-punt0"), Interface::new(3, "tl-punt1"));
//! kernel.settle(near.index, far.index)?;
//! kernel.attach_punt(near, far)?;
//! kernel.keep_table()?;
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
mod quota;
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
pub use detach::{Report, detach_all, has_left_pins, is_idle};
pub use error::Error;
pub use layout::{
    FORWARDS, HOPS, LAYOUT, NICS, OWNED, PORTS, PUNT_SOCKETS, SEGMENTS, SOCKETS, TAG_NUMBER,
    TAG_TO_HOST, VLANS,
};
pub use link::attach_tcx;
pub use memory::{Left, TableHeader, left_lines, left_table};
pub use nic::Changes;
pub use owned::{Owned, Prefix};
pub use ports::{PortEntry, PortKind};
pub use quota::{Limit, Quota};
pub use segments::SegmentEntry;
pub use sender::{FrameSender, PuntSender};

use load::{Maps, Programs};
use memory::Pinned;
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
    /// The table whose connections are to be continued ([`Kernel::table_id`] of the run before).
    pub continues: Option<u32>,
}

/// The programs by name, for `BPF_PROG_TEST_RUN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// On a port, XDP in the driver.
    ForwardXdp,
    /// On a port, XDP in the stack.
    ForwardWhole,
    /// On a port, tc ingress.
    ForwardTc,
    /// At `tl-punt1`, XDP.
    Punt,
    /// At `tl-punt1`, tc ingress.
    Answer,
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
    left: Left,
}

impl Loaded {
    fn over(node: &str, pins: &Pins, settings: &Settings) -> Result<Self, Error> {
        pins.make()?;
        let found = match (Pinned::open(pins)?, settings.continues) {
            (Some(found), Some(id)) if found.id()? == id => Some(found),
            _ => None,
        };
        let Some(found) = found else { return Self::anew(pins, settings, 0) };
        let header = memory::header(&found.header)?;
        if header.layout() != LAYOUT {
            return Err(Error::Layout { node: node.to_owned(), found: header.layout() });
        }
        let (lines, hash_key) = (header.lines(), header.hash_key());
        if settings.lines == lines {
            let settings = Settings { hash_key, ..*settings };
            let (maps, programs) = load::load(pins, &settings, true)?;
            let lines = memory::lines(&maps.lines, lines)?;
            return Ok(Self { maps, programs, lines, header, left: Left::Same });
        }
        let old = memory::lines(&found.lines, lines)?;
        let new = Self::anew(pins, settings, header.stamp())?;
        Ok(Self { left: Left::Other(old, hash_key), ..new })
    }

    fn anew(pins: &Pins, settings: &Settings, stamp: u64) -> Result<Self, Error> {
        let (maps, programs) = load::load(pins, settings, false)?;
        let lines = memory::lines(&maps.lines, settings.lines)?;
        let header = memory::header(&maps.header)?;
        header.write(settings.lines, settings.hash_key, stamp);
        Ok(Self { maps, programs, lines, header, left: Left::Nothing })
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
    left: Left,
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

/// Loads the programs for a node and lets go of them again: whether the kernel would take them,
/// while another daemon still runs.
///
/// # Errors
/// A capability or bpffs is missing, or the kernel refuses.
pub fn rehearse(node: &str, settings: &Settings) -> Result<(), Error> {
    caps::check()?;
    load::load(&Pins::of(node)?, settings, false).map(drop)
}

impl Kernel {
    /// Loads fresh programs and maps for the node and pins the maps in the place of an earlier
    /// run's; its table is continued if [`Settings::continues`] names it. A new table is pinned by
    /// [`Kernel::keep_table`], since connections may have to be copied into it first. Nothing is
    /// attached yet, and what is attached goes on.
    ///
    /// # Errors
    /// Another daemon of this node lives, a capability or bpffs is missing, the table to continue
    /// has another layout, or the kernel refuses. A first start that fails leaves nothing behind.
    pub fn start(node: &str, settings: &Settings) -> Result<Self, Error> {
        caps::check()?;
        let pins = Pins::of(node)?;
        let lock = Lock::take(node)?;
        let is_first = !pins.exist();
        let loaded = Loaded::over(node, &pins, settings).and_then(|loaded| {
            loaded.maps.pin(&pins, |name| !load::TABLE.contains(&name))?;
            Ok(loaded)
        });
        let Loaded { maps, programs, lines, header, left } = match loaded {
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
            left,
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

    /// What an earlier run left of connections.
    #[must_use]
    pub fn left(&self) -> Left {
        self.left
    }

    /// Pins the table, from now on the node's. To be done before anything is attached.
    ///
    /// # Errors
    /// bpffs refuses.
    pub fn keep_table(&mut self) -> Result<(), Error> {
        self.left = Left::Nothing;
        self.maps.pin(&self.pins, |name| load::TABLE.contains(&name))
    }

    /// The number of the table; no other has it until the next boot.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn table_id(&self) -> Result<u32, Error> {
        memory::id(&self.maps.lines)
    }

    /// The connection table's memory, all lines free at first; for `conntrack::Table::new`.
    #[must_use]
    pub fn lines(&self) -> &'static [Line] {
        self.lines
    }

    /// What one must know to use the lines.
    #[must_use]
    pub fn header(&self) -> TableHeader {
        self.header
    }

    /// Whether XDP programs are on interfaces whose packets take more than a page (kernel 5.18).
    #[must_use]
    pub fn takes_frags(&self) -> bool {
        self.programs.frags
    }

    /// A program, for `BPF_PROG_TEST_RUN`.
    #[must_use]
    pub fn program(&self, program: Program) -> BorrowedFd<'_> {
        match program {
            Program::ForwardXdp => self.programs.forward_xdp.as_fd(),
            Program::ForwardWhole => self.programs.forward_whole.as_fd(),
            Program::ForwardTc => self.programs.forward_tc.as_fd(),
            Program::Punt => self.programs.punt.as_fd(),
            Program::Answer => self.programs.answer.as_fd(),
            Program::Deliver => self.programs.deliver.as_fd(),
        }
    }
}
