//! A good file, and what is said when it is changed for the worse.
#![allow(dead_code, clippy::unwrap_used)] // every test file uses its own part; it is a test

use control::flags::{FirewallDriver, Flags};
use control::model::Model;

/// A node with everything in it; tests break one line of it or add one below.
pub(crate) const LEFT: &str = r#"vlan_interface = "eth0"
public_interface = "eth1"
routing_source_ip = "91.207.15.105"

[[network]]
name = "tenant1"
vlan = 100
cidr = "10.0.0.0/24"
gateway = "10.0.0.1"

[[network]]
name = "tenant2"
vlan = 102
cidr = "10.1.0.0/24"
gateway = "10.1.0.1"

[[vif]]
name = "vnet1"
network = "tenant1"
mac = "fa:16:3e:00:00:01"
addresses = ["10.0.0.3"]

[[vif]]
name = "vnet3"
network = "tenant2"
mac = "fa:16:3e:00:00:03"

[[fdb]]
network = "tenant1"
mac = "fa:16:3e:00:00:06"
port = "trunk"
"#;

pub(crate) fn flags() -> Flags {
    // A file that has no security groups is warned of unless somebody says that they are meant.
    let firewall_driver = Some(FirewallDriver::Trunkline);
    Flags { node: Some("left".into()), firewall_driver, ..Flags::default() }
}

pub(crate) fn refused(text: &str) -> String {
    refused_with(&flags(), text)
}

pub(crate) fn refused_with(flags: &Flags, text: &str) -> String {
    Model::from_text(flags, "left.toml", text).unwrap_err().to_string()
}

/// What is said when `old` in [`LEFT`] reads `new`.
pub(crate) fn change(old: &str, new: &str) -> String {
    assert_eq!(LEFT.matches(old).count(), 1, "{old} must be in the file once");
    refused(&LEFT.replace(old, new))
}

/// What is said when `more` stands below [`LEFT`], which has 31 lines.
pub(crate) fn add(more: &str) -> String {
    refused(&format!("{LEFT}{more}"))
}
