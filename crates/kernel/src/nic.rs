//! NICs made ready, and put back as they were.
//!
//! A trunk receives for the MACs of VMs, so it must be promiscuous; tags must stay in the frame
//! where XDP sees them, and tags that no VLAN device asked for must not be filtered; LRO merges
//! what must be forwarded as it came. Nothing else of a NIC is touched.

use crate::error::{Doing as _, Error};
use crate::ethtool::Ethtool;
use crate::layout::{CHANGED_LRO, CHANGED_PROMISC, CHANGED_RXVLAN, CHANGED_VLAN_FILTER, Note};
use crate::notes::Notes;
use crate::{Interface, Kernel};

/// Takes the tag out of a received frame.
pub(crate) const RX_VLAN: &str = "rx-vlan-hw-parse";

/// An offload that must be off, its note, and what happens if it cannot be.
struct Unwanted {
    name: &'static str,
    note: u16,
    trunk_only: bool,
    harm: &'static str,
}

const UNWANTED: [Unwanted; 3] = [
    Unwanted {
        name: RX_VLAN,
        note: CHANGED_RXVLAN,
        trunk_only: false,
        harm: "XDP cannot see VLAN tags here, so the tc hook has to do",
    },
    Unwanted {
        name: "rx-vlan-filter",
        note: CHANGED_VLAN_FILTER,
        trunk_only: true,
        harm: "tenants' VLANs may be filtered out by the NIC",
    },
    Unwanted {
        name: "rx-lro",
        note: CHANGED_LRO,
        trunk_only: false,
        harm: "merged packets are too large to be forwarded",
    },
];

/// What was done to a NIC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What this call changed, in words: `promiscuous on`, `rx-lro off`.
    pub made: Vec<String>,
    /// What could not be changed, and what follows.
    pub warnings: Vec<String>,
}

impl Kernel {
    /// Makes a NIC ready: `rx-vlan-hw-parse` and LRO off, on a trunk `rx-vlan-filter` off and
    /// promiscuous as well.
    ///
    /// What this changes is noted beside the pins, once: a later start finds the NIC changed and
    /// notes nothing. [`Kernel::detach`] and [`crate::detach_all`] put it back.
    ///
    /// # Errors
    /// The NIC is gone, or refuses to be promiscuous.
    pub fn prepare_nic(&mut self, nic: Interface<'_>, trunk: bool) -> Result<Changes, Error> {
        let mut changes = Changes::default();
        let doing = || format!("cannot look at {}", nic.name);
        let ethtool = Ethtool::open().doing(doing)?;
        let mac = ethtool.mac(nic.name).doing(doing)?;
        let notes = Notes(&self.maps.nics);
        for unwanted in UNWANTED.iter().filter(|unwanted| trunk || !unwanted.trunk_only) {
            switch_off(&ethtool, notes, nic, mac, unwanted, &mut changes)?;
        }
        if trunk && !ethtool.is_promisc(nic.name).doing(doing)? {
            notes.add(nic, mac, CHANGED_PROMISC)?;
            let doing = || format!("{}: cannot switch promiscuity on", nic.name);
            ethtool.set_promisc(nic.name, true).doing(doing)?;
            changes.made.push("promiscuous on".into());
        }
        Ok(changes)
    }
}

fn switch_off(
    ethtool: &Ethtool,
    notes: Notes<'_>,
    nic: Interface<'_>,
    mac: [u8; 6],
    unwanted: &Unwanted,
    changes: &mut Changes,
) -> Result<(), Error> {
    let Unwanted { name, note, harm, .. } = *unwanted;
    // A kernel or driver that does not know the feature does not do it either.
    let Ok(Some(feature)) = ethtool.feature(nic.name, name) else { return Ok(()) };
    if !feature.active {
        return Ok(());
    }
    let noted = notes.of(nic, mac)? & note != 0;
    notes.add(nic, mac, note)?;
    let why = match ethtool.set_feature(nic.name, name, false) {
        Ok(false) => {
            changes.made.push(format!("{name} off"));
            return Ok(());
        }
        Ok(true) if feature.fixed => "its driver keeps it on".to_owned(),
        Ok(true) => "it stays on without an error".to_owned(),
        Err(error) => error.to_string(),
    };
    if !noted {
        notes.strike(nic.index, note)?;
    }
    changes.warnings.push(format!("{name} cannot be switched off ({why}): {harm}"));
    Ok(())
}

/// Puts back what the note says, and says what.
pub(crate) fn put_back(nic: Interface<'_>, note: &Note) -> Result<Vec<String>, Error> {
    let mut back = Vec::new();
    let doing = || format!("cannot put {} back as it was", nic.name);
    let ethtool = Ethtool::open().doing(doing)?;
    if note.changed & CHANGED_PROMISC != 0 {
        ethtool.set_promisc(nic.name, false).doing(doing)?;
        back.push("promiscuous off".to_owned());
    }
    for unwanted in UNWANTED.iter().filter(|unwanted| note.changed & unwanted.note != 0) {
        let on = ethtool.set_feature(nic.name, unwanted.name, true).doing(doing)?;
        let state = if on { "on" } else { "stays off" };
        back.push(format!("{} {state}", unwanted.name));
    }
    Ok(back)
}

/// Switches offloads of an interface of ours off; one that it does not know is off.
pub(crate) fn offloads_off(interface: &str, names: &[&str]) -> Result<(), Error> {
    let doing = || format!("cannot switch off the offloads of {interface}");
    let ethtool = Ethtool::open().doing(doing)?;
    for name in names {
        if ethtool.feature(interface, name).doing(doing)?.is_some_and(|feature| feature.active)
            && ethtool.set_feature(interface, name, false).doing(doing)?
        {
            let why = format!("{name} cannot be switched off");
            return Err(Error::Unfit { interface: interface.to_owned(), why });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offload_that_its_driver_keeps_on_is_named() {
        // The loopback interface completes checksums by never needing them.
        let said = offloads_off("lo", &["tx-checksum-ip-generic"]).unwrap_err().to_string();
        assert_eq!(said, "lo: tx-checksum-ip-generic cannot be switched off");
        offloads_off("lo", &["tx-vlan-hw-insert", "no-such-offload"]).unwrap();
        let said = offloads_off("no-such-nic", &["rx-lro"]).unwrap_err().to_string();
        assert!(said.starts_with("cannot switch off the offloads of no-such-nic: "), "{said}");
    }
}
