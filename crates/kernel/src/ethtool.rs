//! Interface settings by ioctl: netdevice(7) and linux/ethtool.h.
//!
//! Never by sysfs: a daemon started with `nsenter --net` sees the sysfs of another namespace.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

// linux/ethtool.h
const GDRVINFO: u32 = 0x03;
const GSTRINGS: u32 = 0x1b;
const GSSET_INFO: u32 = 0x37;
const GFEATURES: u32 = 0x3a;
const SFEATURES: u32 = 0x3b;
const GSTATS: u32 = 0x1d;
const SS_STATS: u32 = 1;
const SS_FEATURES: u32 = 4;
const STRING: usize = 32;
const DRVINFO_BYTES: usize = 196;
/// `struct ethtool_get_features_block`: available, requested, active, never_changed.
const BLOCK_WORDS: usize = 4;

/// `union` of a `struct ifreq`: where its argument lies, and how long the whole is.
const ARGUMENT: usize = 16;
const IFREQ_BYTES: usize = 40;

/// A socket to ask and change the interfaces of the caller's network namespace.
#[derive(Debug)]
pub(crate) struct Ethtool(OwnedFd);

/// An offload of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Feature {
    bit: usize,
    pub(crate) active: bool,
    /// The driver never lets it be changed.
    pub(crate) fixed: bool,
}

impl Ethtool {
    /// Opens the socket.
    pub(crate) fn open() -> io::Result<Self> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
        // SAFETY: takes integers only.
        let fd = unsafe { libc::socket(libc::AF_INET, kind, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, owned by nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The driver behind an interface: `veth`, `tun`, `ixgbe` …
    pub(crate) fn driver(&self, interface: &str) -> io::Result<String> {
        let mut info = command(GDRVINFO, DRVINFO_BYTES);
        self.ethtool(interface, &mut info)?;
        Ok(text(&info[4..4 + STRING]))
    }

    /// The MAC of an interface.
    pub(crate) fn mac(&self, interface: &str) -> io::Result<[u8; 6]> {
        let mut request = named(interface)?;
        self.ioctl(libc::SIOCGIFHWADDR, &mut request)?;
        let mut mac = [0; 6];
        mac.copy_from_slice(&request[ARGUMENT + 2..ARGUMENT + 8]); // behind the family
        Ok(mac)
    }

    /// The name of the interface of that index.
    pub(crate) fn name(&self, index: u32) -> io::Result<String> {
        let mut request = [0; IFREQ_BYTES];
        request[ARGUMENT..ARGUMENT + 4].copy_from_slice(&index.to_ne_bytes());
        self.ioctl(libc::SIOCGIFNAME, &mut request)?;
        Ok(text(&request[..ARGUMENT]))
    }

    /// Whether the administrator (not a packet socket) switched promiscuity on.
    pub(crate) fn is_promisc(&self, interface: &str) -> io::Result<bool> {
        Ok(self.flags(interface)? & libc::IFF_PROMISC as u16 != 0)
    }

    /// Switches promiscuity on or off, as the administrator does; it stays with the interface.
    pub(crate) fn set_promisc(&self, interface: &str, on: bool) -> io::Result<()> {
        let (flags, bit) = (self.flags(interface)?, libc::IFF_PROMISC as u16);
        let flags = if on { flags | bit } else { flags & !bit };
        let mut request = named(interface)?;
        request[ARGUMENT..ARGUMENT + 2].copy_from_slice(&flags.to_ne_bytes());
        self.ioctl(libc::SIOCSIFFLAGS, &mut request)
    }

    fn flags(&self, interface: &str) -> io::Result<u16> {
        let mut request = named(interface)?;
        self.ioctl(libc::SIOCGIFFLAGS, &mut request)?;
        Ok(u16::from_ne_bytes([request[ARGUMENT], request[ARGUMENT + 1]]))
    }

    /// An offload by the kernel's name for it (`ethtool -k` shows others); none if this kernel
    /// does not know it.
    pub(crate) fn feature(&self, interface: &str, name: &str) -> io::Result<Option<Feature>> {
        let names = self.feature_names(interface)?;
        let Some(bit) = names.iter().position(|known| known == name) else { return Ok(None) };
        let blocks = names.len().div_ceil(32);
        let mut info = command(GFEATURES, 8 + blocks * BLOCK_WORDS * 4);
        put(&mut info, 1, blocks as u32);
        self.ethtool(interface, &mut info)?;
        let of = |column: usize| {
            let at = 2 + bit / 32 * BLOCK_WORDS + column;
            word(&info, at) >> (bit % 32) & 1 == 1
        };
        Ok(Some(Feature { bit, active: of(2), fixed: of(3) }))
    }

    /// Asks for an offload to be on or off; answers what it is then, for a driver may do as it
    /// likes without an error.
    pub(crate) fn set_feature(&self, interface: &str, name: &str, on: bool) -> io::Result<bool> {
        let missing = || io::Error::from_raw_os_error(libc::EOPNOTSUPP);
        let feature = self.feature(interface, name)?.ok_or_else(missing)?;
        if feature.active == on || feature.fixed {
            return Ok(feature.active);
        }
        // The kernel takes all blocks or none (`ethtool_set_features`).
        let blocks = self.feature_names(interface)?.len().div_ceil(32);
        let mut request = command(SFEATURES, 8 + blocks * 8);
        put(&mut request, 1, blocks as u32);
        // `struct ethtool_set_features_block`: valid, requested.
        let (at, bit) = (2 + feature.bit / 32 * 2, 1 << (feature.bit % 32));
        put(&mut request, at, bit);
        put(&mut request, at + 1, if on { bit } else { 0 });
        self.ethtool(interface, &mut request)?;
        Ok(self.feature(interface, name)?.is_some_and(|feature| feature.active))
    }

    /// The sum of the driver's counters whose names end so; 0 if it has none.
    pub(crate) fn counted(&self, interface: &str, end: &str) -> io::Result<u64> {
        let names = self.strings(interface, SS_STATS)?;
        let mut stats = command(GSTATS, 8 + names.len() * 8);
        put(&mut stats, 1, names.len() as u32);
        self.ethtool(interface, &mut stats)?;
        let values =
            stats[8..].chunks_exact(8).map(|bytes| bytes.try_into().map_or(0, u64::from_ne_bytes));
        Ok(names.iter().zip(values).filter(|(name, _)| name.ends_with(end)).map(|(_, n)| n).sum())
    }

    fn feature_names(&self, interface: &str) -> io::Result<Vec<String>> {
        self.strings(interface, SS_FEATURES)
    }

    fn strings(&self, interface: &str, set: u32) -> io::Result<Vec<String>> {
        // Command, spare, one bit for each set asked for (64), then its length.
        let mut info = command(GSSET_INFO, 20);
        put(&mut info, 2, 1 << set);
        self.ethtool(interface, &mut info)?;
        let count = word(&info, 4) as usize;
        let mut strings = command(GSTRINGS, 12 + count * STRING);
        put(&mut strings, 1, set);
        put(&mut strings, 2, count as u32);
        self.ethtool(interface, &mut strings)?;
        Ok(strings[12..].chunks_exact(STRING).map(text).collect())
    }

    /// Runs the command in `buffer`, which is as long as the kernel will write.
    fn ethtool(&self, interface: &str, buffer: &mut [u8]) -> io::Result<()> {
        let mut request = named(interface)?;
        let at = buffer.as_mut_ptr() as usize;
        request[ARGUMENT..ARGUMENT + size_of::<usize>()].copy_from_slice(&at.to_ne_bytes());
        self.ioctl(libc::SIOCETHTOOL, &mut request)
    }

    fn ioctl(&self, number: libc::c_ulong, request: &mut [u8; IFREQ_BYTES]) -> io::Result<()> {
        let (socket, at) = (self.0.as_raw_fd(), request.as_mut_ptr());
        // SAFETY: `request` is a whole ifreq. A pointer in it is `ethtool`'s to a buffer that
        // outlives the call and is as long as its command makes the kernel write.
        let result = unsafe { libc::ioctl(socket, number as _, at) };
        // SFEATURES answers with a positive number what it could not do.
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// An ifreq for that interface.
fn named(interface: &str) -> io::Result<[u8; IFREQ_BYTES]> {
    let mut request = [0; IFREQ_BYTES];
    if interface.len() >= ARGUMENT {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    request[..interface.len()].copy_from_slice(interface.as_bytes());
    Ok(request)
}

fn command(number: u32, bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0; bytes];
    put(&mut buffer, 0, number);
    buffer
}

fn put(buffer: &mut [u8], at: usize, value: u32) {
    buffer[at * 4..at * 4 + 4].copy_from_slice(&value.to_ne_bytes());
}

fn word(buffer: &[u8], at: usize) -> u32 {
    let bytes = buffer.get(at * 4..at * 4 + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u32::from_ne_bytes)
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
