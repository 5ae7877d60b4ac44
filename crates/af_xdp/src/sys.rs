//! The system calls: one thin function each, errors as `io::Error`.
//!
//! What libc 0.2 lacks is defined here, with the kernel header it comes from.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};

use libc::{c_int, c_void};

/// `linux/if_xdp.h`, kernel 6.17: skbs per `sendto` in copy mode (default 32).
const XDP_MAX_TX_SKB_BUDGET: c_int = 9;
/// `asm-generic/socket.h`: a number that names the network namespace, kernel 5.14.
const SO_NETNS_COOKIE: c_int = 71;
/// `asm-generic/socket.h`, kernel 5.11.
const SO_PREFER_BUSY_POLL: c_int = 69;
/// `asm-generic/socket.h`, kernel 5.11.
const SO_BUSY_POLL_BUDGET: c_int = 70;

/// Types made of integers alone: any bytes the kernel writes are a value of them.
///
/// # Safety
/// Implementors hold nothing but integers, so every bit pattern is valid.
pub(crate) unsafe trait Plain: Copy {}
// SAFETY: an integer.
unsafe impl Plain for c_int {}
// SAFETY: an integer.
unsafe impl Plain for u64 {}
// SAFETY: `linux/if_xdp.h`: integers alone.
unsafe impl Plain for libc::xdp_umem_reg {}
// SAFETY: `linux/if_xdp.h`: integers alone.
unsafe impl Plain for libc::xdp_mmap_offsets {}
// SAFETY: `linux/if_xdp.h`: integers alone.
unsafe impl Plain for libc::xdp_statistics {}
// SAFETY: `linux/if_xdp.h`: integers alone.
unsafe impl Plain for libc::xdp_options {}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn set_option<T: Plain>(fd: BorrowedFd, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let value = ptr::from_ref(value).cast::<c_void>();
    // SAFETY: `value` points at `size_of::<T>()` readable bytes for the length of the call.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value, size_of::<T>() as u32) };
    check(result).map(drop)
}

fn option<T: Plain>(fd: BorrowedFd, level: c_int, name: c_int) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>() as libc::socklen_t;
    let at = value.as_mut_ptr().cast::<c_void>();
    // SAFETY: the kernel writes at most `len` = `size_of::<T>()` bytes at `at`.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, at, &raw mut len) })?;
    // SAFETY: zeroed before the call and `Plain`, so whatever was written is a valid `T`.
    Ok(unsafe { value.assume_init() })
}

/// A socket of `family` and `kind`, closed on exec so that no child process keeps a queue bound.
pub(crate) fn socket(family: c_int, kind: c_int, protocol: c_int) -> io::Result<OwnedFd> {
    // SAFETY: takes integers only.
    let fd = check(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: the kernel just gave us `fd`; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets an integer option of `SOL_XDP`: ring sizes.
pub(crate) fn set_xdp(fd: BorrowedFd, name: c_int, value: u32) -> io::Result<()> {
    set_option(fd, libc::SOL_XDP, name, &(value as c_int))
}

/// Registers `len` bytes at `base` as the socket's UMEM and pins them.
///
/// # Safety
/// The memory stays mapped as long as the socket or any socket sharing it lives.
pub(crate) unsafe fn register_umem(
    fd: BorrowedFd,
    base: NonNull<u8>,
    len: u64,
    chunk: u32,
) -> io::Result<()> {
    let registration = libc::xdp_umem_reg {
        addr: base.as_ptr() as u64,
        len,
        chunk_size: chunk,
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    set_option(fd, libc::SOL_XDP, libc::XDP_UMEM_REG, &registration)
}

/// `XDP_MAX_TX_SKB_BUDGET`; kernels before 6.17 answer `ENOPROTOOPT`.
pub(crate) fn set_tx_budget(fd: BorrowedFd, budget: u32) -> io::Result<()> {
    set_xdp(fd, XDP_MAX_TX_SKB_BUDGET, budget)
}

/// Prefers busy polling for up to `micros` µs, `budget` packets at a time.
pub(crate) fn set_busy_poll(fd: BorrowedFd, micros: u32, budget: u32) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, SO_PREFER_BUSY_POLL, &1)?;
    set_option(fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL, &(micros as c_int))?;
    set_option(fd, libc::SOL_SOCKET, SO_BUSY_POLL_BUDGET, &(budget as c_int))
}

pub(crate) fn mmap_offsets(fd: BorrowedFd) -> io::Result<libc::xdp_mmap_offsets> {
    option(fd, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS)
}

pub(crate) fn statistics(fd: BorrowedFd) -> io::Result<libc::xdp_statistics> {
    option(fd, libc::SOL_XDP, libc::XDP_STATISTICS)
}

/// Whether the bound socket works zero-copy, as the kernel itself tells it.
pub(crate) fn is_zero_copy(fd: BorrowedFd) -> io::Result<bool> {
    let options: libc::xdp_options = option(fd, libc::SOL_XDP, libc::XDP_OPTIONS)?;
    Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
}

/// The number of the network namespace the socket lives in.
pub(crate) fn netns_cookie(fd: BorrowedFd) -> io::Result<u64> {
    option(fd, libc::SOL_SOCKET, SO_NETNS_COOKIE)
}

/// Binds to a queue. `shared` is the socket whose UMEM is used, only with `XDP_SHARED_UMEM`.
pub(crate) fn bind(
    fd: BorrowedFd,
    ifindex: u32,
    queue: u32,
    flags: u16,
    shared: Option<RawFd>,
) -> io::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: ifindex,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: shared.unwrap_or(0) as u32,
    };
    let len = size_of::<libc::sockaddr_xdp>() as libc::socklen_t;
    let address = (&raw const address).cast::<libc::sockaddr>();
    // SAFETY: `address` points at a `sockaddr_xdp` of `len` bytes that outlives the call.
    check(unsafe { libc::bind(fd.as_raw_fd(), address, len) }).map(drop)
}

/// Tells the kernel to send what is in the tx ring.
pub(crate) fn kick(fd: BorrowedFd) -> io::Result<()> {
    let flags = libc::MSG_DONTWAIT;
    // SAFETY: no buffer and no address are passed.
    let result =
        unsafe { libc::sendto(fd.as_raw_fd(), ptr::null(), 0, flags, ptr::null(), 0) as c_int };
    check(result).map(drop)
}

/// Tells the kernel to look at the fill ring; with busy polling it also polls the NIC.
pub(crate) fn wake(fd: BorrowedFd) -> io::Result<()> {
    let (buffer, from, len) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
    // SAFETY: no buffer and no address are passed.
    let result =
        unsafe { libc::recvfrom(fd.as_raw_fd(), buffer, 0, libc::MSG_DONTWAIT, from, len) };
    check(result as c_int).map(drop)
}

/// Memory mapped into this process, unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping belongs to the process, not to the thread that made it.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Zeroed memory of its own; `huge` asks for 2 MiB pages, of which `len` must be a multiple.
    pub(crate) fn anonymous(len: usize, huge: bool) -> io::Result<Mapping> {
        let huge = if huge { libc::MAP_HUGETLB | libc::MAP_HUGE_2MB } else { 0 };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | huge;
        let mapping = Mapping::new(len, flags, -1, 0)?;
        // A forked child must not turn pinned pages into copy-on-write ones: the kernel would go
        // on with the old page and this process with a copy.
        // SAFETY: the range is exactly the mapping just made.
        let advice =
            unsafe { libc::madvise(mapping.base.as_ptr().cast(), len, libc::MADV_DONTFORK) };
        check(advice)?;
        Ok(mapping)
    }

    /// The ring of an AF_XDP socket at `page_offset` (`XDP_PGOFF_RX_RING` and the others).
    pub(crate) fn ring(fd: BorrowedFd, len: usize, page_offset: u64) -> io::Result<Mapping> {
        Mapping::new(len, libc::MAP_SHARED | libc::MAP_POPULATE, fd.as_raw_fd(), page_offset)
    }

    fn new(len: usize, flags: c_int, fd: RawFd, offset: u64) -> io::Result<Mapping> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: without MAP_FIXED the kernel picks an unused range; nothing of ours is replaced.
        let base =
            unsafe { libc::mmap(ptr::null_mut(), len, access, flags, fd, offset as libc::off_t) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).expect("mmap without MAP_FIXED never answers null");
        Ok(Mapping { base, len })
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is ours and whoever reads through it holds the `Mapping`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// The index of `name` in the network namespace of the calling thread.
pub(crate) fn ifindex(name: &str) -> io::Result<u32> {
    let name = CString::new(name).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    // SAFETY: `name` is a terminated string that outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// The name of `ifindex` for messages; "interface 7" when it is gone.
pub(crate) fn ifname(ifindex: u32) -> String {
    let mut name = [0; libc::IF_NAMESIZE];
    // SAFETY: `name` has the IF_NAMESIZE bytes the call may write.
    let found = unsafe { libc::if_indextoname(ifindex, name.as_mut_ptr()) };
    if found.is_null() {
        return format!("interface {ifindex}");
    }
    // SAFETY: on success the call left a terminated string in `name`.
    unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned()
}
