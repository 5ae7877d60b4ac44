//! A VM's interface as the VM's own configuration, for images that do not ask by DHCP (nova's
//! `flat_injected`): Debian's ifupdown and netplan.

use std::fmt::Write;

use ipnet::Ipv4Net;

use super::or_dash;
use crate::report::Vif;

/// `trunkline ctl vif`.
#[must_use]
pub fn vif(vif: &Vif) -> String {
    let addresses: Vec<String> = vif.addresses.iter().map(Ipv4Net::to_string).collect();
    let gateway = vif.gateway.map(|gateway| gateway.to_string());
    [
        ("vif", vif.name.clone()),
        ("network", vif.network.clone()),
        ("mac", vif.mac.clone()),
        ("addresses", or_dash(Some(addresses.join(", ").as_str()).filter(|all| !all.is_empty()))),
        ("gateway", or_dash(gateway.as_deref())),
        ("dns", or_dash(Some(servers(vif, ", ").as_str()).filter(|all| !all.is_empty()))),
        ("mtu", vif.mtu.to_string()),
    ]
    .map(|(name, text)| format!("{name:<10} {text}"))
    .join("\n")
}

fn servers(vif: &Vif, between: &str) -> String {
    let all: Vec<String> = vif.dns.iter().map(ToString::to_string).collect();
    all.join(between)
}

/// What `/etc/network/interfaces` of the VM has to say, where its interface is called `name`.
#[must_use]
pub fn ifupdown(vif: &Vif, name: &str) -> String {
    let mut text = format!(
        "# /etc/network/interfaces of the VM behind {} (network {})\n\
         auto lo\niface lo inet loopback\n\nauto {name}\n",
        vif.name, vif.network
    );
    let mut gateway = vif.gateway;
    let mut dns = Some(servers(vif, " ")).filter(|all| !all.is_empty());
    for address in &vif.addresses {
        let lines = [
            ("address", Some(address.addr().to_string())),
            ("netmask", Some(address.netmask().to_string())),
            ("broadcast", Some(address.broadcast().to_string())),
            // Once: a second default route would be refused, and the interface with it.
            ("gateway", gateway.take().map(|gateway| gateway.to_string())),
            ("dns-nameservers", dns.take()),
            ("mtu", Some(vif.mtu.to_string())),
        ];
        stanza(&mut text, &format!("iface {name} inet static"), &lines);
    }
    if vif.addresses.is_empty() {
        stanza(&mut text, &format!("iface {name} inet manual"), &[]);
    }
    text
}

fn stanza(text: &mut String, head: &str, lines: &[(&str, Option<String>)]) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{head}");
    for (key, value) in lines {
        if let Some(value) = value {
            let _ = writeln!(text, "    {key} {value}");
        }
    }
}

/// What a file in `/etc/netplan` of the VM has to say, where its interface is to be called `name`.
#[must_use]
pub fn netplan(vif: &Vif, name: &str) -> String {
    let mut text = format!(
        "# /etc/netplan/50-trunkline.yaml of the VM behind {vif_name} (network {network})\n\
         network:\n  version: 2\n  ethernets:\n    {name}:\n      match:\n        \
         macaddress: \"{mac}\"\n      set-name: {name}\n      dhcp4: false\n      mtu: {mtu}\n",
        vif_name = vif.name,
        network = vif.network,
        mac = vif.mac,
        mtu = vif.mtu
    );
    if !vif.addresses.is_empty() {
        text += "      addresses:\n";
        for address in &vif.addresses {
            let _ = writeln!(text, "        - {address}");
        }
    }
    if let Some(gateway) = vif.gateway {
        let _ = write!(text, "      routes:\n        - to: default\n          via: {gateway}\n");
    }
    if !vif.dns.is_empty() {
        let _ = write!(text, "      nameservers:\n        addresses: [{}]\n", servers(vif, ", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vnet1() -> Vif {
        Vif {
            name: "vnet1".into(),
            network: "flat".into(),
            mac: "fa:16:3e:00:00:01".into(),
            addresses: vec!["10.0.0.3/24".parse().unwrap()],
            gateway: Some([10, 0, 0, 254].into()),
            dns: vec![[8, 8, 4, 4].into(), [8, 8, 8, 8].into()],
            mtu: 1500,
        }
    }

    #[test]
    fn a_vif_is_told_line_by_line() {
        let expected = "\
vif        vnet1
network    flat
mac        fa:16:3e:00:00:01
addresses  10.0.0.3/24
gateway    10.0.0.254
dns        8.8.4.4, 8.8.8.8
mtu        1500";
        assert_eq!(vif(&vnet1()), expected);
        let bare = Vif { addresses: Vec::new(), gateway: None, dns: Vec::new(), ..vnet1() };
        let said = vif(&bare);
        assert!(said.contains("addresses  -\ngateway    -\ndns        -\n"), "{said}");
    }

    #[test]
    fn debian_s_interfaces_file_is_what_nova_injected() {
        let expected = "\
# /etc/network/interfaces of the VM behind vnet1 (network flat)
auto lo
iface lo inet loopback

auto eth0
iface eth0 inet static
    address 10.0.0.3
    netmask 255.255.255.0
    broadcast 10.0.0.255
    gateway 10.0.0.254
    dns-nameservers 8.8.4.4 8.8.8.8
    mtu 1500
";
        assert_eq!(ifupdown(&vnet1(), "eth0"), expected);
    }

    #[test]
    fn a_second_address_has_a_stanza_of_its_own_and_no_gateway() {
        let mut two = vnet1();
        two.addresses.push("10.0.0.9/24".parse().unwrap());
        let expected = "\
# /etc/network/interfaces of the VM behind vnet1 (network flat)
auto lo
iface lo inet loopback

auto ens3
iface ens3 inet static
    address 10.0.0.3
    netmask 255.255.255.0
    broadcast 10.0.0.255
    gateway 10.0.0.254
    dns-nameservers 8.8.4.4 8.8.8.8
    mtu 1500
iface ens3 inet static
    address 10.0.0.9
    netmask 255.255.255.0
    broadcast 10.0.0.255
    mtu 1500
";
        assert_eq!(ifupdown(&two, "ens3"), expected);
        let none = Vif { addresses: Vec::new(), gateway: None, ..vnet1() };
        assert!(ifupdown(&none, "eth0").ends_with("auto eth0\niface eth0 inet manual\n"));
    }

    #[test]
    fn netplan_knows_the_interface_by_its_mac() {
        let mut two = vnet1();
        two.addresses.push("10.0.0.9/24".parse().unwrap());
        let expected = "\
# /etc/netplan/50-trunkline.yaml of the VM behind vnet1 (network flat)
network:
  version: 2
  ethernets:
    eth0:
      match:
        macaddress: \"fa:16:3e:00:00:01\"
      set-name: eth0
      dhcp4: false
      mtu: 1500
      addresses:
        - 10.0.0.3/24
        - 10.0.0.9/24
      routes:
        - to: default
          via: 10.0.0.254
      nameservers:
        addresses: [8.8.4.4, 8.8.8.8]
";
        assert_eq!(netplan(&two, "eth0"), expected);
        let none = Vif { addresses: Vec::new(), gateway: None, dns: Vec::new(), ..vnet1() };
        assert!(netplan(&none, "eth0").ends_with("dhcp4: false\n      mtu: 1500\n"));
    }
}
