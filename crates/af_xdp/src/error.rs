//! What can go wrong, and what to do about it.

use std::io;

use crate::sys::ifname;

/// Why something could not be had. The text names the interface and the way out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Sizes the kernel or this crate does not allow.
    #[error("{0}")]
    Geometry(String),

    /// The packet memory could not be mapped.
    #[error("cannot map {len} bytes of packet memory: {source}; use fewer frames")]
    Memory {
        /// Bytes asked for.
        len: usize,
        /// The answer of `mmap`.
        source: io::Error,
    },

    /// A socket could not be opened or used.
    #[error("{}", explain(*ifindex, *queue, step, source))]
    Socket {
        /// The interface.
        ifindex: u32,
        /// The queue, from 0.
        queue: u32,
        /// The system call or option.
        step: &'static str,
        /// Its answer.
        source: io::Error,
    },

    /// An interface that cannot be asked for its queues.
    #[error("{interface}: cannot read its queues: {source}")]
    Interface {
        /// The name of the interface.
        interface: String,
        /// The answer of the kernel.
        source: io::Error,
    },

    /// An interface whose queues do not fit, with the command that mends it.
    #[error("{0}")]
    Queues(String),
}

impl Error {
    /// The error number of the system call, where there was one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Memory { source, .. }
            | Error::Socket { source, .. }
            | Error::Interface { source, .. } => source.raw_os_error(),
            Error::Geometry(_) | Error::Queues(_) => None,
        }
    }
}

fn explain(ifindex: u32, queue: u32, step: &str, source: &io::Error) -> String {
    let name = ifname(ifindex);
    let advice = match (source.raw_os_error(), step) {
        (Some(libc::EPERM | libc::EACCES), "busy poll") => {
            "busy polling needs CAP_NET_ADMIN".to_string()
        }
        (Some(libc::EPERM | libc::EACCES), _) => {
            "run as root or with CAP_NET_RAW (the XDP program also needs CAP_BPF and \
             CAP_NET_ADMIN)"
                .to_string()
        }
        (Some(libc::ENOBUFS | libc::ENOMEM), _) => {
            "the packet memory cannot be pinned: use fewer frames, raise `ulimit -l` (systemd: \
             LimitMEMLOCK=infinity) or give CAP_IPC_LOCK"
                .to_string()
        }
        (Some(libc::EOPNOTSUPP), "bind zero-copy") => {
            format!(
                "{name} cannot do zero copy (its driver has no AF_XDP support, or not with its \
                 present settings; veth and tap never do): use mode auto or copy"
            )
        }
        (Some(libc::EINVAL), "bind zero-copy" | "bind copy" | "bind shared") => format!(
            "{name} has no queue {queue}: see `ethtool -l {name}`, change with `ethtool -L {name} \
             combined {n}` (or `rx {n} tx {n}`)",
            n = queue + 1
        ),
        (Some(libc::EBUSY), _) => format!(
            "the queue is taken by another AF_XDP socket: is another program or a second daemon \
             using {name}?"
        ),
        (Some(libc::ENODEV | libc::ENXIO), _) => {
            "the interface is gone, or lies in another network namespace".to_string()
        }
        (Some(libc::ENETDOWN), _) => format!("{name} is down: `ip link set {name} up`"),
        (Some(libc::EAFNOSUPPORT), _) => {
            "this kernel has no AF_XDP (CONFIG_XDP_SOCKETS)".to_string()
        }
        _ => return format!("{name} queue {queue}: {step}: {source}"),
    };
    format!("{name} queue {queue}: {step}: {source}; {advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_common_failure_says_what_to_do() {
        for (step, errno, advice) in [
            ("socket", libc::EPERM, "CAP_NET_RAW"),
            ("busy poll", libc::EPERM, "CAP_NET_ADMIN"),
            ("XDP_UMEM_REG", libc::ENOBUFS, "ulimit -l"),
            ("bind zero-copy", libc::EOPNOTSUPP, "mode auto or copy"),
            ("bind copy", libc::EINVAL, "ethtool -L"),
            ("bind copy", libc::EBUSY, "another AF_XDP socket"),
            ("bind copy", libc::ENODEV, "is gone"),
            ("send", libc::ENETDOWN, "set interface 99999999 up"),
        ] {
            let source = io::Error::from_raw_os_error(errno);
            let error = Error::Socket { ifindex: 99_999_999, queue: 3, step, source };
            let text = error.to_string();
            assert!(text.starts_with("interface 99999999 queue 3: "), "{text}");
            assert!(text.contains(advice), "{text}");
            assert_eq!(error.errno(), Some(errno));
        }
    }
}
