//! A node with the programs that also tell what they did (`bpf/trace.h`).

use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use conntrack::Table;
use kernel::Settings;
use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};
use libbpf_rs::{MapCore as _, MapFlags, MapHandle};

use super::Node;

#[allow(warnings, clippy::all, clippy::undocumented_unsafe_blocks)] // generated
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/traced.skel.rs"));
}

/// What `trace.h` has.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Trace {
    pub replayed: u32,
    pub egress: u32,
    pub vlan: u32,
    pub push: u32,
    pub reads: u64,
    pub torn: u64,
}

/// The node and its programs; its table is the one they read.
pub struct Traced {
    pub node: Node,
    pub table: Table,
    pub xdp: OwnedFd,
    pub tc: OwnedFd,
    pub tc_tagged: OwnedFd,
    trace: *mut Trace,
    places: MapHandle,
    on_lo: u16,
}

impl Traced {
    pub fn start(name: &str, settings: Settings) -> Self {
        let mut node = Node::with(name, settings);
        let pins = format!("/sys/fs/bpf/trunkline/{}", node.name);
        let pinned = |map: &str| format!("{pins}/{map}");
        let mut place = MaybeUninit::uninit();
        let mut open = skeleton::ForwardSkelBuilder::default().open(&mut place).unwrap();
        let numbers = open.maps.rodata_data.as_deref_mut().unwrap();
        numbers.hash_key = settings.hash_key;
        numbers.line_count = settings.lines;
        let frags = node.kernel().takes_frags();
        numbers.has_frags = frags.into();
        if frags {
            open.progs.forward_xdp.set_flags(libbpf_rs::libbpf_sys::BPF_F_XDP_HAS_FRAGS);
        }
        open.maps.lines.set_max_entries(settings.lines).unwrap();
        for mut map in open.open_object_mut().maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            if let Ok(shared) = MapHandle::from_pinned_path(pinned(&name)) {
                map.reuse_fd(shared.as_fd()).unwrap();
            }
        }
        let loaded = open.load().unwrap();
        let keep = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
        let programs = &loaded.progs;
        Self {
            table: Table::new(node.kernel().lines(), settings.hash_key),
            xdp: keep(programs.forward_xdp.as_fd()),
            tc: keep(programs.forward_tc.as_fd()),
            tc_tagged: keep(programs.forward_tc_tagged.as_fd()),
            trace: map(loaded.maps.traces.as_fd().as_raw_fd()),
            places: MapHandle::from_pinned_path(pinned("places")).unwrap(),
            on_lo: 0,
            node,
        }
    }

    /// Test runs come from lo: this is the port that is there.
    pub fn be_on(&mut self, port: u16) {
        if self.on_lo != port {
            // Interface 1 is in its own place.
            let place = [1u32.to_ne_bytes(), u32::from(port).to_ne_bytes()].concat();
            self.places.update(&1u32.to_ne_bytes(), &place, MapFlags::ANY).unwrap();
            self.on_lo = port;
        }
    }

    /// Forgets what was; in tc `push` is the tag that a frame comes with.
    pub fn begin(&mut self, push: u16) {
        // SAFETY: the map's memory, mapped for good; nothing else writes while no program runs.
        unsafe { self.trace.write_volatile(Trace { push: push.into(), ..Trace::default() }) };
    }

    /// What the programs did since.
    pub fn trace(&self) -> Trace {
        // SAFETY: as in `begin`.
        unsafe { self.trace.read_volatile() }
    }
}

fn map(fd: i32) -> *mut Trace {
    // SAFETY: a new mapping of a map's memory, page aligned; it is never unmapped.
    let at = unsafe {
        let (read_write, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        libc::mmap(std::ptr::null_mut(), 4096, read_write, shared, fd, 0)
    };
    assert_ne!(at, libc::MAP_FAILED);
    at.cast()
}
