//! Values of settings, written and read as the words people type.

mod numbers;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::keys::nearest;

pub use numbers::{Cores, PortRange};

/// How a network's frames travel: nova's three network managers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum NetworkKind {
    /// 802.1Q-tagged on the trunk (nova.network.manager.VlanManager).
    #[default]
    Vlan,
    /// Untagged, and nothing is configured on this node (FlatManager).
    Flat,
    /// Untagged, with a gateway on this node (FlatDHCPManager).
    FlatDhcp,
}

impl FromStr for NetworkKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // nova wants a class path, people write its last part.
        let short = match text.rsplit('.').next().unwrap_or(text) {
            "VlanManager" => "vlan",
            "FlatManager" => "flat",
            "FlatDHCPManager" => "flatdhcp",
            _ => text,
        };
        choose(short, &[("vlan", Self::Vlan), ("flat", Self::Flat), ("flatdhcp", Self::FlatDhcp)])
    }
}

impl fmt::Display for NetworkKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Vlan => "vlan",
            Self::Flat => "flat",
            Self::FlatDhcp => "flatdhcp",
        })
    }
}

/// What becomes of a connection that is not allowed (nova's `iptables_drop_action`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DropAction {
    /// It ends here.
    #[default]
    Drop,
    /// Its sender is told that policy forbids it.
    Reject,
    /// It ends here, and is written into the log.
    Log,
}

impl FromStr for DropAction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // nova wants a target of iptables; LOGDROP is the chain that its operators made.
        let lower = text.to_lowercase();
        let name = if lower == "logdrop" { "log" } else { lower.as_str() };
        choose(name, &[("drop", Self::Drop), ("reject", Self::Reject), ("log", Self::Log)])
    }
}

impl fmt::Display for DropAction {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Drop => "drop",
            Self::Reject => "reject",
            Self::Log => "log",
        })
    }
}

/// How AF_XDP sockets are bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum XdpMode {
    /// The first of zero copy, copy and generic that works.
    #[default]
    Auto,
    /// The NIC's driver reads and writes packet memory itself.
    ZeroCopy,
    /// Native XDP, the kernel copies.
    Copy,
    /// XDP after the kernel made its own buffer: works everywhere, slowest.
    Generic,
}

impl FromStr for XdpMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        choose(
            text,
            &[
                ("auto", Self::Auto),
                ("zerocopy", Self::ZeroCopy),
                ("copy", Self::Copy),
                ("generic", Self::Generic),
            ],
        )
    }
}

impl fmt::Display for XdpMode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Auto => "auto",
            Self::ZeroCopy => "zerocopy",
            Self::Copy => "copy",
            Self::Generic => "generic",
        })
    }
}

/// Where a port's kernel program sits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Hook {
    /// tc on veth and tap (keeps GSO packets whole), XDP on NICs with native XDP.
    #[default]
    Auto,
    /// XDP: fastest for small packets.
    Xdp,
    /// tc ingress.
    Tc,
}

impl FromStr for Hook {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        choose(text, &[("auto", Self::Auto), ("xdp", Self::Xdp), ("tc", Self::Tc)])
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Auto => "auto",
            Self::Xdp => "xdp",
            Self::Tc => "tc",
        })
    }
}

/// Who carries the packets of connections that are open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Replay {
    /// The kernel's programs; the workers, where its verifier refuses them.
    #[default]
    Auto,
    /// The kernel's programs, or an error.
    Kernel,
    /// The workers: for NICs with zero copy, and for finding faults.
    Userspace,
}

impl FromStr for Replay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words =
            [("auto", Self::Auto), ("kernel", Self::Kernel), ("userspace", Self::Userspace)];
        choose(text, &words)
    }
}

impl fmt::Display for Replay {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Auto => "auto",
            Self::Kernel => "kernel",
            Self::Userspace => "userspace",
        })
    }
}

/// Which networks a node routes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Provision {
    /// Every network it knows.
    #[default]
    Eager,
    /// Those with a VM on the node, as nova; others are unreachable.
    OnDemand,
}

impl FromStr for Provision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        choose(text, &[("eager", Self::Eager), ("on-demand", Self::OnDemand)])
    }
}

impl fmt::Display for Provision {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Eager => "eager",
            Self::OnDemand => "on-demand",
        })
    }
}

/// Who gives a network's VMs their addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DhcpServer {
    /// trunkline itself: each node its own VMs.
    #[default]
    Builtin,
    /// dnsmasq on the host port, as nova ran it.
    Dnsmasq,
    /// Somebody in the network: DHCP is bridged.
    External,
}

impl FromStr for DhcpServer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words =
            [("builtin", Self::Builtin), ("dnsmasq", Self::Dnsmasq), ("external", Self::External)];
        choose(text, &words)
    }
}

impl fmt::Display for DhcpServer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Builtin => "builtin",
            Self::Dnsmasq => "dnsmasq",
            Self::External => "external",
        })
    }
}

/// Who answers VMs that ask their gateway for names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DnsServer {
    /// Nobody of ours.
    #[default]
    None,
    /// dnsmasq on the host port.
    Dnsmasq,
}

impl FromStr for DnsServer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        choose(text, &[("none", Self::None), ("dnsmasq", Self::Dnsmasq)])
    }
}

impl fmt::Display for DnsServer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::None => "none",
            Self::Dnsmasq => "dnsmasq",
        })
    }
}

/// Whether there are walls around VMs: nova's `firewall_driver`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum FirewallDriver {
    /// A VM sends as itself alone, and gets what its security groups let in (nova's
    /// IptablesFirewallDriver).
    #[default]
    Trunkline,
    /// No walls (nova's NoopFirewallDriver).
    Noop,
}

impl FromStr for FirewallDriver {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // nova wants a class path, which differs between releases; its last part says which.
        let short = match text.rsplit('.').next().unwrap_or(text) {
            "IptablesFirewallDriver" => "trunkline",
            "NoopFirewallDriver" => "noop",
            _ => text,
        };
        choose(short, &[("trunkline", Self::Trunkline), ("noop", Self::Noop)])
    }
}

impl fmt::Display for FirewallDriver {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Trunkline => "trunkline",
            Self::Noop => "noop",
        })
    }
}

/// The choice named `text`, or the words to say which there are.
fn choose<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(*choice);
    }
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    let hint = match nearest(text, &names) {
        Some(name) => format!(" (did you mean '{name}'?)"),
        None => String::new(),
    };
    Err(format!("'{text}' is none of {}{hint}", names.join(", ")))
}

/// serde reads and writes these as the text people type.
macro_rules! as_text {
    ($($kind:ty),*) => {$(
        impl TryFrom<String> for $kind {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$kind> for String {
            fn from(kind: $kind) -> Self {
                kind.to_string()
            }
        }
    )*};
}

as_text!(
    NetworkKind,
    DropAction,
    XdpMode,
    Hook,
    Replay,
    Provision,
    DhcpServer,
    DnsServer,
    FirewallDriver,
    PortRange,
    Cores
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["0", "7,1-3", "0-8191"] {
            let cores: Cores = text.parse().unwrap();
            assert_eq!(cores.to_string().parse(), Ok(cores));
        }
        for text in ["", "-", "1-", "3-1", "8192", "0-99999999999", "1,,2", "a"] {
            assert!(text.parse::<Cores>().is_err(), "{text}");
        }
        for hook in [Hook::Auto, Hook::Xdp, Hook::Tc] {
            assert_eq!(hook.to_string().parse(), Ok(hook));
        }
        for action in [DropAction::Drop, DropAction::Reject, DropAction::Log] {
            assert_eq!(action.to_string().to_uppercase().parse(), Ok(action));
        }
        assert_eq!("LOGDROP".parse(), Ok(DropAction::Log));
        for when in [Provision::Eager, Provision::OnDemand] {
            assert_eq!(when.to_string().parse(), Ok(when));
        }
        for server in [DhcpServer::Builtin, DhcpServer::Dnsmasq, DhcpServer::External] {
            assert_eq!(server.to_string().parse(), Ok(server));
        }
        for server in [DnsServer::None, DnsServer::Dnsmasq] {
            assert_eq!(server.to_string().parse(), Ok(server));
        }
        for driver in [FirewallDriver::Trunkline, FirewallDriver::Noop] {
            assert_eq!(driver.to_string().parse(), Ok(driver));
        }
        let nova = "nova.virt.libvirt.firewall.IptablesFirewallDriver";
        assert_eq!(nova.parse(), Ok(FirewallDriver::Trunkline));
        assert_eq!("nova.virt.firewall.NoopFirewallDriver".parse(), Ok(FirewallDriver::Noop));
        assert_eq!("20000-45999".parse(), Ok(PortRange::default()));
        for text in ["", "20000", "20000-", "1000-9000", "20000-20998", "9000-8000", "1-70000"] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
        for mode in [XdpMode::Auto, XdpMode::ZeroCopy, XdpMode::Copy, XdpMode::Generic] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        for kind in [NetworkKind::Vlan, NetworkKind::Flat, NetworkKind::FlatDhcp] {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
    }
}
