//! Which hook a port gets, and the change from one to another.

use std::fmt;
use std::os::fd::AsFd as _;

use crate::error::Error;
use crate::ethtool::Ethtool;
use crate::hooks::{Site, XdpPrograms};
use crate::layout::{Node, PORT_IS_PUBLIC};
use crate::notes::Notes;
use crate::pins::LinkKind;
use crate::ports::{PortKind, put};
use crate::{Interface, Kernel, nic};

/// The hook asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hook {
    /// tc on what is virtual (GSO packets stay whole), XDP on NICs that have it natively.
    #[default]
    Auto,
    /// XDP, or an error.
    Xdp,
    /// tc.
    Tc,
}

/// The XDP mode asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// Native where the driver has it, else generic.
    #[default]
    Auto,
    /// In the driver, or an error.
    Native,
    /// In the stack, before tc: slow, works everywhere.
    Generic,
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// XDP in the driver.
    XdpNative,
    /// XDP in the stack.
    XdpGeneric,
    /// tc by a TCX link.
    Tcx,
    /// tc by a filter of a clsact qdisc.
    Clsact,
}

impl How {
    /// Whether it is XDP.
    #[must_use]
    pub fn is_xdp(self) -> bool {
        matches!(self, Self::XdpNative | Self::XdpGeneric)
    }
}

impl fmt::Display for How {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::XdpNative => "xdp (native)",
            Self::XdpGeneric => "xdp (generic)",
            Self::Tcx => "tc (tcx)",
            Self::Clsact => "tc (clsact)",
        })
    }
}

/// How a port was attached, and why so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The hook.
    pub how: How,
    /// Why this one, for the operator.
    pub why: String,
}

/// Drivers whose other side is the kernel itself: there GSO is worth more than XDP.
const VIRTUAL: [&str; 10] =
    ["veth", "tun", "tap", "dummy", "bridge", "macvlan", "macvtap", "ipvlan", "ifb", "netkit"];

/// Offloads of `tl-punt0` that would leave tags, checksums or segments to a device that is not
/// there: AF_XDP at the far end takes the frame as it is.
const PUNT_OFFLOADS: [&str; 5] = [
    "tx-checksum-ip-generic",
    "tx-checksum-ipv4",
    "tx-checksum-ipv6",
    "tx-vlan-hw-insert",
    "tx-vlan-stag-hw-insert",
];

impl Kernel {
    /// Attaches `forward` to the interface of a port that is set; `name` is the interface's.
    ///
    /// A program that an earlier run attached is replaced without a packet in between. When the
    /// hook changes the old one goes after the new one is in force.
    ///
    /// # Errors
    /// The port is not set; a program that is not ours is attached (nothing is changed then); or
    /// the hook asked for cannot be had.
    pub fn attach(
        &mut self,
        port: u16,
        name: &str,
        hook: Hook,
        mode: XdpMode,
    ) -> Result<Attached, Error> {
        let unknown = || Error::Number { what: "port", number: port.into() };
        let row = self.port(port)?.ok_or_else(unknown)?;
        let on = Interface::new(row.ifindex, name);
        let kind = PortKind::of(row.kind).ok_or_else(unknown)?;
        let unfit = |why| Error::Unfit { interface: name.to_owned(), why };
        let attached = match choose(kind, &Behind::of(name), hook, mode).map_err(unfit)? {
            Choice::Tc(why) => Attached { how: self.forward_tc(on)?, why },
            Choice::Xdp(mode, why) => Attached { how: self.forward_xdp(on, mode)?, why },
            Choice::Try(driver) => match self.forward_xdp(on, XdpMode::Native) {
                Ok(how) => Attached { how, why: format!("{driver} has native XDP") },
                Err(foreign @ Error::Foreign { .. }) => return Err(foreign),
                Err(error) => {
                    Attached { how: self.forward_tc(on)?, why: format!("no native XDP: {error}") }
                }
            },
        };
        self.settle_on(port, on, attached.how)?;
        self.watch_host(on, row.flags & PORT_IS_PUBLIC != 0)?;
        tracing::info!(interface = name, how = %attached.how, why = attached.why, "attached");
        Ok(attached)
    }

    /// Attaches the two ends of the punt link. If the table of an earlier run is continued, before
    /// the ports: programs of that run name them by the same numbers, and what they send up is
    /// served. Else behind them, and behind [`Kernel::settle`].
    ///
    /// The offloads of the near end that AF_XDP cannot do without are switched off. The number
    /// of queues has to be right by now.
    ///
    /// # Errors
    /// A program that is not ours is attached, or the kernel refuses.
    pub fn attach_punt(
        &mut self,
        near: Interface<'_>,
        far: Interface<'_>,
    ) -> Result<Attached, Error> {
        nic::offloads_off(near.name, &PUNT_OFFLOADS)?;
        let how = self.site(near).attach_tc(self.programs.deliver.as_fd(), self.tcx)?;
        // What XDP lets by there must not meet the stack.
        self.site(far).attach_tc(self.programs.answer.as_fd(), self.tcx)?;
        let program = self.programs.punt.as_fd();
        let programs = XdpPrograms { native: program, generic: program };
        let xdp = self.site(far).attach_xdp(programs, XdpMode::Native)?;
        self.attached.insert(near.index, how);
        self.attached.insert(far.index, xdp);
        put(&self.maps.punts, "punts", &0u32, &near.index)?;
        self.set_punt(near.index)?;
        Ok(Attached { how, why: "the near end of the punt link".into() })
    }

    /// Takes our programs off an interface and puts its settings back; one that is gone is no
    /// error.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn detach(&mut self, ifindex: u32) -> Result<(), Error> {
        self.attached.remove(&ifindex);
        crate::detach::interface(&self.pins, Notes(&self.maps.nics), ifindex).map(drop)
    }

    /// What is attached by this run on that interface.
    #[must_use]
    pub fn attached(&self, ifindex: u32) -> Option<How> {
        self.attached.get(&ifindex).copied()
    }

    pub(crate) fn set_punt(&self, near: u32) -> Result<(), Error> {
        let row = Node { punt: near, netns: crate::detach::netns()?, pass: self.pass };
        put(&self.maps.settings, "settings", &0u32, &row)
    }

    fn forward_tc(&self, on: Interface<'_>) -> Result<How, Error> {
        self.site(on).attach_tc(self.programs.forward_tc.as_fd(), self.tcx)
    }

    /// With XDP there is tc as well, and first: what XDP lets pass because it cannot send it on
    /// must meet it, and not the stack.
    fn forward_xdp(&self, on: Interface<'_>, mode: XdpMode) -> Result<How, Error> {
        let site = self.site(on);
        site.refuse_foreign_xdp()?;
        let had_tc = site.has_tc()?;
        self.forward_tc(on)?;
        let (native, generic) = (&self.programs.forward_xdp, &self.programs.forward_whole);
        let programs = XdpPrograms { native: native.as_fd(), generic: generic.as_fd() };
        let attached = site.attach_xdp(programs, mode);
        if attached.is_err() && !had_tc {
            site.detach_tc()?;
        }
        attached
    }

    fn site<'a>(&'a self, on: Interface<'a>) -> Site<'a> {
        Site { on, pins: &self.pins, notes: Notes(&self.maps.nics) }
    }

    /// Notes the hook that is in force. With tc there is no XDP before it.
    fn settle_on(&mut self, port: u16, on: Interface<'_>, how: How) -> Result<(), Error> {
        self.set_hook(port, how)?;
        if !how.is_xdp() {
            self.site(on).detach(LinkKind::Xdp)?;
        }
        self.attached.insert(on.index, how);
        Ok(())
    }

    /// On a public NIC, which the host shares, notes what the host asks.
    fn watch_host(&self, on: Interface<'_>, is_public: bool) -> Result<(), Error> {
        let site = self.site(on);
        if !is_public {
            return site.detach(LinkKind::Egress);
        }
        if !site.attach_egress(self.programs.note.as_fd(), self.tcx)? {
            tracing::info!(
                interface = on.name,
                "without TCX (6.6) answers to the host's pings go to the tenant that asks the same \
                 with the same identifier"
            );
        }
        Ok(())
    }

    /// Detaches what earlier runs attached or changed and this one does not use, but for the ends of
    /// the punt link. Every port that is there has to be attached before.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn settle(&self, near: u32, far: u32) -> Result<(), Error> {
        let kept = [near, far];
        let notes = Notes(&self.maps.nics);
        let linked = self.pins.links()?.into_iter().map(|(index, _)| index);
        let mut indexes: Vec<u32> = notes.all()?.into_iter().map(|(index, _)| index).collect();
        indexes.extend(linked);
        indexes.sort_unstable();
        indexes.dedup();
        indexes.retain(|index| !self.attached.contains_key(index) && !kept.contains(index));
        for index in indexes {
            let left = crate::detach::interface(&self.pins, notes, index)?;
            tracing::info!(index, ?left, "detached what an earlier run attached");
        }
        Ok(())
    }
}

/// What is behind an interface.
#[derive(Debug, Default)]
struct Behind {
    driver: Option<String>,
    /// Received frames come without their VLAN tag, which lies where XDP does not see it.
    hides_tags: bool,
}

impl Behind {
    fn of(name: &str) -> Self {
        let Ok(ethtool) = Ethtool::open() else { return Self::default() };
        let tags = ethtool.feature(name, nic::RX_VLAN).ok().flatten();
        let hides_tags = tags.is_some_and(|tags| tags.active);
        Self { driver: ethtool.driver(name).ok(), hides_tags }
    }
}

/// What to try on an interface, and why.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Tc(String),
    Xdp(XdpMode, String),
    /// Native XDP of this driver, else tc.
    Try(String),
}

fn choose(kind: PortKind, behind: &Behind, hook: Hook, mode: XdpMode) -> Result<Choice, String> {
    let driver = behind.driver.as_deref().unwrap_or("unknown driver");
    // In a veth or tap the tag is in the frame as the other side put it there.
    let is_virtual = VIRTUAL.contains(&driver);
    let hides_tags = kind.is_nic() && behind.hides_tags && !is_virtual;
    let tags = || format!("{driver} takes VLAN tags out of frames ({} is on)", nic::RX_VLAN);
    match hook {
        Hook::Tc => return Ok(Choice::Tc("asked for".into())),
        Hook::Xdp if hides_tags => {
            return Err(format!("{}, where XDP cannot see them: say hook tc, or auto", tags()));
        }
        Hook::Xdp => return Ok(Choice::Xdp(mode, "asked for".into())),
        Hook::Auto => {}
    }
    Ok(match mode {
        _ if !kind.is_nic() => Choice::Tc("GSO packets stay whole".into()),
        _ if is_virtual => Choice::Tc(format!("{driver}: GSO packets stay whole")),
        _ if hides_tags => Choice::Tc(tags()),
        XdpMode::Generic => Choice::Xdp(mode, "generic XDP is asked for".into()),
        XdpMode::Auto | XdpMode::Native => Choice::Try(driver.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behind(driver: &str, hides_tags: bool) -> Behind {
        Behind { driver: Some(driver.into()), hides_tags }
    }

    fn auto(kind: PortKind, driver: &str, hides_tags: bool) -> Choice {
        choose(kind, &behind(driver, hides_tags), Hook::Auto, XdpMode::Auto).unwrap()
    }

    #[test]
    fn what_is_asked_for_is_done() {
        for (hook, expected) in [
            (Hook::Tc, Choice::Tc("asked for".into())),
            (Hook::Xdp, Choice::Xdp(XdpMode::Generic, "asked for".into())),
        ] {
            for kind in [PortKind::Trunk, PortKind::Vif] {
                let veth = behind("veth", true);
                assert_eq!(choose(kind, &veth, hook, XdpMode::Generic).as_ref(), Ok(&expected));
            }
        }
    }

    #[test]
    fn auto_is_tc_on_what_is_virtual_and_native_xdp_on_nics() {
        let whole = |driver: &str| Choice::Tc(format!("{driver}: GSO packets stay whole"));
        assert_eq!(auto(PortKind::Trunk, "veth", true), whole("veth"));
        assert_eq!(auto(PortKind::Public, "tun", false), whole("tun"));
        assert_eq!(
            auto(PortKind::Vif, "ixgbe", false),
            Choice::Tc("GSO packets stay whole".into())
        );
        assert_eq!(auto(PortKind::Trunk, "ixgbe", false), Choice::Try("ixgbe".into()));
    }

    #[test]
    fn xdp_where_tags_are_hidden_is_refused_and_auto_avoids_it() {
        let why = "ixgbe takes VLAN tags out of frames (rx-vlan-hw-parse is on)";
        assert_eq!(auto(PortKind::Trunk, "ixgbe", true), Choice::Tc(why.into()));
        let refused =
            choose(PortKind::Trunk, &behind("ixgbe", true), Hook::Xdp, XdpMode::Auto).unwrap_err();
        assert_eq!(refused, format!("{why}, where XDP cannot see them: say hook tc, or auto"));
    }

    #[test]
    fn what_is_behind_an_interface_is_asked_of_the_kernel() {
        let nothing = Behind::of("no-such-nic");
        assert!(nothing.driver.is_none() && !nothing.hides_tags);
    }
}
