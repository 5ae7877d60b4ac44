//! What the process must be allowed to do.

use crate::error::{Doing as _, Error};

/// Bit of a capability and its name, as in linux/capability.h.
const NEEDED: [(u32, &str); 4] =
    [(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
/// Stands for CAP_BPF and CAP_PERFMON.
const SYS_ADMIN: u32 = 21;

/// Refuses if a capability is missing, and names it.
pub(crate) fn check() -> Result<(), Error> {
    // Capabilities belong to threads, not to processes.
    let file = "/proc/thread-self/status";
    let status = std::fs::read_to_string(file).doing(|| format!("cannot read {file}"))?;
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or("0");
    let missing = missing(u64::from_str_radix(hex.trim(), 16).unwrap_or(0));
    if missing.is_empty() { Ok(()) } else { Err(Error::Capabilities(missing)) }
}

fn missing(effective: u64) -> Vec<&'static str> {
    let has = |bit: u32| effective >> bit & 1 == 1;
    let lacks = |bit: u32| !has(bit) && (bit < 38 || !has(SYS_ADMIN));
    NEEDED.iter().filter(|(bit, _)| lacks(*bit)).map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_capability_is_named() {
        assert!(missing(u64::MAX).is_empty());
        assert_eq!(missing(0), ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_PERFMON", "CAP_BPF"]);
        assert_eq!(missing(!(1 << 13)), ["CAP_NET_RAW"]);
        let before_cap_bpf = 1 << SYS_ADMIN | 1 << 12 | 1 << 13;
        assert!(missing(before_cap_bpf).is_empty());
    }
}
