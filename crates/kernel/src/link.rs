//! BPF links: a program on an interface for as long as somebody holds the link, or its pin does.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::ptr;

use libbpf_rs::libbpf_sys;

use crate::pins::{self, LinkKind};

/// A link.
#[derive(Debug)]
pub(crate) struct Link(OwnedFd);

/// What a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkInfo {
    pub(crate) id: u32,
    pub(crate) program: u32,
    /// 0: the interface is gone, and the link idle.
    pub(crate) ifindex: u32,
}

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}

/// Whether an error says that what was meant is not there.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO | libc::ENOENT | libc::ENOLINK))
}

impl Link {
    /// Attaches a program. `generic` is for XDP alone.
    ///
    /// # Errors
    /// EINVAL from tc: this kernel has no TCX. EBUSY, EEXIST: an XDP program is attached.
    pub(crate) fn create(
        program: BorrowedFd<'_>,
        ifindex: u32,
        kind: LinkKind,
        generic: bool,
    ) -> io::Result<Self> {
        let flags = match (kind, generic) {
            (LinkKind::Tc | LinkKind::Egress, _) => 0,
            (LinkKind::Xdp, true) => libbpf_sys::XDP_FLAGS_SKB_MODE,
            (LinkKind::Xdp, false) => libbpf_sys::XDP_FLAGS_DRV_MODE,
        };
        let options = libbpf_sys::bpf_link_create_opts {
            sz: size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
            flags,
            ..Default::default()
        };
        let (program, target) = (program.as_raw_fd(), ifindex as i32);
        // SAFETY: an open descriptor, and options whose size they state.
        let fd = unsafe {
            libbpf_sys::bpf_link_create(program, target, attach_type(kind), &raw const options)
        };
        let fd = checked(fd)?;
        // SAFETY: the call made this descriptor for us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The link pinned there; none if nothing is.
    pub(crate) fn open(path: &Path) -> io::Result<Option<Self>> {
        Ok(pins::open(path)?.map(Self))
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Puts another program in the place of the link's, without a packet in between.
    pub(crate) fn update(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        let (link, program) = (self.0.as_raw_fd(), program.as_raw_fd());
        // SAFETY: open descriptors; no options.
        checked(unsafe { libbpf_sys::bpf_link_update(link, program, ptr::null()) }).map(drop)
    }

    /// Takes the program off the interface, whoever else holds the link.
    pub(crate) fn detach(&self) -> io::Result<()> {
        // SAFETY: an open descriptor.
        let done = checked(unsafe { libbpf_sys::bpf_link_detach(self.0.as_raw_fd()) });
        match done {
            Err(error) if !is_gone(&error) => Err(error),
            _ => Ok(()),
        }
    }

    pub(crate) fn info(&self) -> io::Result<LinkInfo> {
        info(self.0.as_fd())
    }
}

/// Attaches a tc program of somebody else's at an interface's ingress, until what this returns is
/// closed.
///
/// # Errors
/// EINVAL: this kernel has no TCX (6.6); then it takes a clsact qdisc.
pub fn attach_tcx(program: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    Ok(Link::create(program, ifindex, LinkKind::Tc, false)?.0)
}

fn attach_type(kind: LinkKind) -> libbpf_sys::bpf_attach_type {
    match kind {
        LinkKind::Xdp => libbpf_sys::BPF_XDP,
        LinkKind::Tc => libbpf_sys::BPF_TCX_INGRESS,
        LinkKind::Egress => libbpf_sys::BPF_TCX_EGRESS,
    }
}

fn info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = libbpf_sys::bpf_link_info::default();
    let mut size = size_of_val(&info) as u32;
    // SAFETY: an open descriptor and a whole info whose size is stated.
    let result = unsafe {
        libbpf_sys::bpf_link_get_info_by_fd(link.as_raw_fd(), &raw mut info, &raw mut size)
    };
    checked(result)?;
    let ifindex = match info.type_ {
        // SAFETY: of an XDP link the kernel fills this member; it is one integer.
        libbpf_sys::BPF_LINK_TYPE_XDP => unsafe { info.__bindgen_anon_1.xdp.ifindex },
        // SAFETY: of a TCX link the kernel fills this member; they are integers.
        libbpf_sys::BPF_LINK_TYPE_TCX => unsafe { info.__bindgen_anon_1.tcx.ifindex },
        _ => 0,
    };
    Ok(LinkInfo { id: info.id, program: info.prog_id, ifindex })
}

/// The XDP program on an interface, and whether it is in generic mode.
pub(crate) fn xdp_on(ifindex: u32) -> io::Result<Option<(u32, bool)>> {
    let mut options = libbpf_sys::bpf_xdp_query_opts {
        sz: size_of::<libbpf_sys::bpf_xdp_query_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    // SAFETY: options whose size they state.
    checked(unsafe { libbpf_sys::bpf_xdp_query(ifindex as i32, 0, &raw mut options) })?;
    let found = [options.drv_prog_id, options.hw_prog_id, options.skb_prog_id, options.prog_id];
    let generic = options.skb_prog_id != 0;
    Ok(found.into_iter().find(|id| *id != 0).map(|id| (id, generic)))
}

/// TCX programs on the ingress of an interface, as (program's id, link's id or 0); none if this
/// kernel has no TCX.
pub(crate) fn tcx_on(ifindex: u32) -> io::Result<Option<Vec<(u32, u32)>>> {
    // More than the kernel lets be attached (BPF_MPROG_MAX).
    let (mut programs, mut links) = ([0u32; 64], [0u32; 64]);
    let mut options = libbpf_sys::bpf_prog_query_opts {
        sz: size_of::<libbpf_sys::bpf_prog_query_opts>() as libbpf_sys::size_t,
        prog_ids: programs.as_mut_ptr(),
        link_ids: links.as_mut_ptr(),
        ..Default::default()
    };
    options.__bindgen_anon_1.count = programs.len() as u32;
    // SAFETY: options whose size they state, with arrays of the length they state.
    let result = unsafe {
        libbpf_sys::bpf_prog_query_opts(
            ifindex as i32,
            libbpf_sys::BPF_TCX_INGRESS,
            &raw mut options,
        )
    };
    match checked(result) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(None),
        done => done?,
    };
    // SAFETY: both members of the union are the same integer.
    let count = unsafe { options.__bindgen_anon_1.count } as usize;
    Ok(Some(programs.into_iter().zip(links).take(count).collect()))
}

/// The name of a program; empty if it is gone.
pub(crate) fn program_name(id: u32) -> String {
    let Ok(fd) = libbpf_rs::Program::fd_from_id(id) else { return String::new() };
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut size = size_of_val(&info) as u32;
    // SAFETY: an open descriptor and a whole info, zeroed, whose size is stated.
    let result = unsafe {
        libbpf_sys::bpf_prog_get_info_by_fd(fd.as_raw_fd(), &raw mut info, &raw mut size)
    };
    let bytes = info.name.iter().map(|byte| *byte as u8).take_while(|byte| *byte != 0);
    if result == 0 { bytes.map(char::from).collect() } else { String::new() }
}

/// The link that holds that program on that interface, if one does.
pub(crate) fn link_of(program: u32, ifindex: u32) -> Option<u32> {
    let mut id = 0;
    // SAFETY: writes one integer.
    while unsafe { libbpf_sys::bpf_link_get_next_id(id, &raw mut id) } == 0 {
        // SAFETY: takes an integer.
        let fd = unsafe { libbpf_sys::bpf_link_get_fd_by_id(id) };
        if fd < 0 {
            continue; // gone since
        }
        // SAFETY: the call made this descriptor for us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        if info(fd.as_fd()).is_ok_and(|info| (info.program, info.ifindex) == (program, ifindex)) {
            return Some(id);
        }
    }
    None
}
