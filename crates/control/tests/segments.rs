//! What networks and vifs may be, and the words in which others are refused.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod file;

use control::flags::Flags;
use control::model::Model;
use file::*;

#[test]
fn a_vlan_is_1_to_4094_and_once_per_trunk() {
    assert_eq!(
        change("vlan = 100", "vlan = 0"),
        "left.toml:7: vlan 0 means a frame without a VLAN: use 1 to 4094"
    );
    assert_eq!(
        change("vlan = 100", "vlan = 4095"),
        "left.toml:7: vlan 4095 is reserved (IEEE 802.1Q): use 1 to 4094"
    );
    assert_eq!(
        change("vlan = 100", "vlan = -5"),
        "left.toml:7: there is no vlan -5: use 1 to 4094"
    );
    assert_eq!(
        change("vlan = 102", "vlan = 100"),
        "left.toml:13: vlan 100 on eth0 is already network 'tenant1' (line 5): give 'tenant2' \
         another vlan or another interface"
    );
    assert_eq!(
        change("vlan = 102", ""),
        "left.toml:11: network 'tenant2' is a vlan network without a vlan: set vlan = 1 to 4094, \
         or kind = \"flat\" or \"flatdhcp\""
    );
    let twice = LEFT.replace("vlan = 102", "vlan = 100\ninterface = \"eth2\"\nbridge = \"br100b\"");
    let model = Model::from_text(&flags(), "left.toml", &twice).unwrap();
    assert_eq!(model.networks[1].uplink, "eth2");
    assert!(model.nics.iter().any(|nic| nic.name == "eth2" && nic.trunk));
    assert_eq!(
        change("vlan_interface = \"eth0\"", ""),
        "left.toml:5: network 'tenant1' needs a trunk: set vlan_interface (--vlan-interface), or \
         interface in this [[network]]"
    );
}

#[test]
fn a_flat_network_is_untagged_and_needs_a_bridge_name() {
    let flat = "[[network]]\nname = \"shared\"\nkind = \"flat\"\n";
    assert_eq!(
        add(flat),
        "left.toml:32: network 'shared' has no bridge: --flat-network-bridge \
         (flat_network_bridge), or bridge in this [[network]], is required to create a flat network"
    );
    let own = format!("{LEFT}{flat}bridge = \"br0\"\n");
    let model = Model::from_text(&flags(), "left.toml", &own).unwrap();
    let shared = &model.networks[2];
    assert_eq!(
        (shared.vlan, shared.uplink.as_str(), shared.bridge.as_str()),
        (None, "eth0", "br0")
    );
    let flags = Flags { flat_network_bridge: Some("br1".into()), ..flags() };
    let model = Model::from_text(&flags, "left.toml", &format!("{LEFT}{flat}")).unwrap();
    assert_eq!(model.networks[2].bridge, "br1");
    assert_eq!(
        add(&format!("{flat}bridge = \"br0\"\nvlan = 7\n")),
        "left.toml:36: network 'shared' is flat, so it travels untagged: leave out vlan = 7, or \
         set kind = \"vlan\""
    );
    assert_eq!(
        add(&format!("{flat}bridge = \"br0\"\ncidr = \"10.5.0.0/24\"\ngateway = \"10.5.0.1\"\n")),
        "left.toml:37: network 'shared' is flat, where nothing is configured on this node: leave \
         out the gateway, or set kind = \"flatdhcp\""
    );
    assert_eq!(
        add(&format!(
            "{flat}bridge = \"br0\"\n[[network]]\nname = \"b\"\nkind = \"flatdhcp\"\nbridge = \"br1\"\n"
        )),
        "left.toml:36: network 'b' is untagged on eth0, and so is 'shared' (line 32): their frames \
         could not be told apart; give one of them another interface or a vlan"
    );
    assert_eq!(
        add(&format!("{flat}bridge = \"br0\"\ninterface = \"eth1\"\n")),
        "left.toml:36: network 'shared' is flat on eth1, which is also the public_interface: \
         untagged frames there cannot be the tenants' and the host's; use another NIC for one of \
         the two"
    );
}

#[test]
fn one_nic_may_be_trunk_and_public() {
    let text = LEFT.replace("public_interface = \"eth1\"", "public_interface = \"eth0\"");
    let model = Model::from_text(&flags(), "left.toml", &text).unwrap();
    assert_eq!(model.nics.len(), 1);
    assert!(model.nics[0].trunk && model.nics[0].public);
}

#[test]
fn a_bridge_name_leaves_room_for_its_port() {
    assert_eq!(
        change("vlan = 102", "vlan = 102\nbridge = \"tenants-of-02\""),
        "left.toml:14: bridge 'tenants-of-02' is too long: at most 12 bytes, so that \
         'tenants-of-02-tl' still names an interface"
    );
    assert_eq!(
        change("vlan = 102", "vlan = 102\nbridge = \"br100\""),
        "left.toml:14: 'br100' is the bridge of network 'tenant2', but it is already the bridge of \
         network 'tenant1'"
    );
    assert_eq!(
        change("vlan = 102", "vlan = 102\nbridge = \"eth1\""),
        "left.toml:14: 'eth1' is the bridge of network 'tenant2', but it is already a NIC"
    );
    let flags = Flags { flat_network_bridge: Some("a/b".into()), ..flags() };
    assert_eq!(
        refused_with(&flags, "[[network]]\nname = \"a\"\nkind = \"flatdhcp\"\n"),
        "--flat-network-bridge: 'a/b' cannot name an interface"
    );
}

#[test]
fn a_subnet_is_a_subnet_and_overlaps_none_of_its_zone() {
    assert_eq!(
        change("cidr = \"10.1.0.0/24\"", "cidr = \"10.0.0.0/16\""),
        "left.toml:15: gateway 10.1.0.1 is not in 10.0.0.0/16"
    );
    let overlap = LEFT.replace("10.1.0.", "10.0.0.");
    assert_eq!(
        refused(&overlap),
        "left.toml:14: 10.0.0.0/24 overlaps 10.0.0.0/24 of network 'tenant1' (line 5) in zone \
         'default': give 'tenant2' another subnet or another zone"
    );
    let zones = overlap.replace("vlan = 102", "vlan = 102\nzone = \"blue\"");
    assert_eq!(Model::from_text(&flags(), "left.toml", &zones).unwrap().networks[1].zone, "blue");
    assert_eq!(
        change("cidr = \"10.0.0.0/24\"", "cidr = \"10.0.0.3/24\""),
        "left.toml:8: 10.0.0.3/24 is an address in a subnet: write the subnet, 10.0.0.0/24"
    );
    assert_eq!(
        change("cidr = \"10.0.0.0/24\"", "cidr = \"10.0.0.1/32\""),
        "left.toml:8: 10.0.0.1/32 has no room for VMs: use /1 to /30"
    );
    assert_eq!(
        change("gateway = \"10.0.0.1\"", "gateway = \"10.0.0.255\""),
        "left.toml:9: gateway 10.0.0.255 is the broadcast address of 10.0.0.0/24"
    );
    assert_eq!(
        change("cidr = \"10.1.0.0/24\"\n", ""),
        "left.toml:14: network 'tenant2' has a gateway but no cidr for it"
    );
    assert_eq!(
        change("vlan = 102", "vlan = 102\nmtu = 1279"),
        "left.toml:14: mtu is 1279: use 1280 to 9000 bytes"
    );
    assert_eq!(
        change("vlan = 102", "vlan = 102\nfdb_limit = 0"),
        "left.toml:14: fdb_limit is 0: use 1 to 1000000"
    );
    assert_eq!(
        change("name = \"tenant2\"", "name = \"tenant1\""),
        "left.toml:12: network 'tenant1' is already there (line 5)"
    );
}

#[test]
fn a_vif_has_its_own_name_mac_and_addresses() {
    assert_eq!(
        change("name = \"vnet3\"", "name = \"vnet1\""),
        "left.toml:24: 'vnet1' is a vif (line 23), but it is already a vif (line 17)"
    );
    assert_eq!(
        change("name = \"vnet3\"", "name = \"eth0\""),
        "left.toml:24: 'eth0' is a vif (line 23), but it is already a NIC"
    );
    assert_eq!(
        change("name = \"vnet3\"", "name = \"tl-punt1\""),
        "left.toml:24: 'tl-punt1' is the name of the punt link"
    );
    assert_eq!(
        change("name = \"vnet3\"", "name = \"tap0123456789abc\""),
        "left.toml:24: 'tap0123456789abc' is too long for an interface: at most 15 bytes"
    );
    assert_eq!(
        change("mac = \"fa:16:3e:00:00:03\"", "mac = \"fa:16:3e:00:00:01\""),
        "left.toml:26: mac fa:16:3e:00:00:01 is already vif 'vnet1' (line 17): two VMs cannot \
         share one"
    );
    assert_eq!(
        change("mac = \"fa:16:3e:00:00:03\"", "mac = \"01:00:5e:00:00:03\""),
        "left.toml:26: mac 01:00:5e:00:00:03 is a group's, not a station's: the first byte of a \
         station's is even"
    );
    assert_eq!(
        change("mac = \"fa:16:3e:00:00:03\"", "mac = \"00:00:00:00:00:00\""),
        "left.toml:26: mac 00:00:00:00:00:00 is no station's"
    );
    assert_eq!(
        change("mac = \"fa:16:3e:00:00:03\"", "mac = \"fa163e000003\""),
        "left.toml:26: 'fa163e000003' is not a MAC address; write it like fa:16:3e:00:00:01"
    );
    assert_eq!(
        change("network = \"tenant2\"", "network = \"tenant3\""),
        "left.toml:25: there is no network 'tenant3' (did you mean 'tenant1'?)"
    );
    let address =
        |address: &str| change("addresses = [\"10.0.0.3\"]", &format!("addresses = [{address}]"));
    assert_eq!(
        address("\"10.1.0.3\""),
        "left.toml:21: 10.1.0.3 is not in 10.0.0.0/24 of network 'tenant1' (line 5)"
    );
    assert_eq!(
        address("\"10.0.0.1\""),
        "left.toml:21: 10.0.0.1 is the gateway of network 'tenant1' (line 5)"
    );
    assert_eq!(
        address("\"10.0.0.0\""),
        "left.toml:21: 10.0.0.0 is the network address of 10.0.0.0/24, no VM can have it"
    );
    assert_eq!(
        address("\"10.0.0.255\""),
        "left.toml:21: 10.0.0.255 is the broadcast address of 10.0.0.0/24, no VM can have it"
    );
    assert_eq!(address("\"10.0.0.9\", \"10.0.0.9\""), "left.toml:21: 10.0.0.9 is there twice");
    assert_eq!(
        add(
            "[[vif]]\nname = \"v\"\nnetwork = \"tenant1\"\nmac = \"fa:16:3e:00:00:09\"\naddresses = [\"10.0.0.3\"]\n"
        ),
        "left.toml:36: 10.0.0.3 is already vif 'vnet1' (line 17)"
    );
    assert_eq!(
        change("cidr = \"10.0.0.0/24\"\ngateway = \"10.0.0.1\"", ""),
        "left.toml:20: network 'tenant1' (line 5) has no cidr for 10.0.0.3 to be in"
    );
}

#[test]
fn a_told_mac_is_behind_one_port_of_its_network() {
    assert_eq!(
        change("port = \"trunk\"", "port = \"vnet9\""),
        "left.toml:31: there is no port 'vnet9' (did you mean 'vnet1'?)"
    );
    assert_eq!(
        change("port = \"trunk\"", "port = \"uplink\""),
        "left.toml:31: there is no port 'uplink': name 'trunk' or a vif of this file"
    );
    assert_eq!(
        change("port = \"trunk\"", "port = \"vnet3\""),
        "left.toml:31: vif 'vnet3' is in network 'tenant2'"
    );
    assert_eq!(
        change("mac = \"fa:16:3e:00:00:06\"", "mac = \"fa:16:3e:00:00:01\""),
        "left.toml:30: mac fa:16:3e:00:00:01 is vif 'vnet1' (line 17), not behind another port"
    );
    assert_eq!(
        add("[[fdb]]\nnetwork = \"tenant1\"\nmac = \"fa:16:3e:00:00:06\"\nport = \"vnet1\"\n"),
        "left.toml:34: mac fa:16:3e:00:00:06 of network 'tenant1' is already told (line 28)"
    );
}
