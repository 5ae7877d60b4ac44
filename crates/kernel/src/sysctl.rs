//! Settings of the caller's network namespace: files of /proc/sys/net, which shows each thread
//! its own.

use std::fs::{self, File};
use std::io::Read as _;

use crate::Kernel;
use crate::error::{Doing as _, Error};

const ROOT: &str = "/proc/sys/net/ipv4";
/// No list of ports is longer: 32,768 single ones.
const LONGEST: usize = 256 << 10;
/// Answer no ARP for any local address (ip-sysctl).
const ARP_NONE: &str = "8\n";

impl Kernel {
    /// Lets the stack behind a host port answer no ARP (`arp_ignore` 8): the workers do. The
    /// setting goes with the interface, which is ours.
    ///
    /// # Errors
    /// There is no such interface, or the kernel refuses.
    pub fn ignore_arp(&self, interface: &str) -> Result<(), Error> {
        write(&format!("conf/{interface}/arp_ignore"), ARP_NONE)
    }
}

/// What a setting says. One read: of most settings a second one, further on, finds nothing.
pub(crate) fn read(name: &str) -> Result<String, Error> {
    let doing = || format!("cannot read {ROOT}/{name}");
    let mut bytes = vec![0; LONGEST];
    let length =
        File::open(format!("{ROOT}/{name}")).doing(doing)?.read(&mut bytes).doing(doing)?;
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

pub(crate) fn write(name: &str, text: &str) -> Result<(), Error> {
    fs::write(format!("{ROOT}/{name}"), text).doing(|| format!("cannot write {ROOT}/{name}"))
}
