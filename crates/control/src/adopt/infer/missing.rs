//! What nova did and trunkline does not, and what cannot be seen from one node.

use super::Adopted;
use crate::adopt::Found;
use crate::adopt::save::Rule;

/// Rules of others that are shown; a firewall can have thousands.
const SHOWN: usize = 30;

impl Adopted {
    pub(super) fn lacks(&mut self, found: &Found) {
        self.lacks_dhcp(found);
        self.serves(found);
        self.stray(found);
        self.show(
            "rules that keep networks from one another (forward_bridge_interface) are not taken \
             over: set forward_bridge_interface as nova.conf has it",
            &found.rules.limits,
        );
        self.show(
            "rules in nova's chains that are not understood: what they do ends with the bridges",
            &found.rules.unknown,
        );
        self.show(
            "rules that are not nova's: packets of VMs pass iptables no more",
            &found.rules.foreign,
        );
        self.unseen(found);
    }

    fn lacks_dhcp(&mut self, found: &Found) {
        for network in &found.networks {
            let Some(dhcp) = &network.dhcp else { continue };
            let (pid, bridge) = (dhcp.pid, &dhcp.bridge);
            self.warnings.push(format!(
                "DHCP and DNS of {bridge} are dnsmasq's (process {pid}), not trunkline's: it serves VMs \
                 on while bridge {bridge} stays, as adopt leaves it; on a node without the bridge \
                 start it again when the host port {bridge} is there. Without dhcp = \"external\" \
                 in its [[network]] trunkline answers VMs itself, and their DNS is dns_server"
            ));
            for line in &dhcp.strange {
                self.warnings.push(format!(
                    "dnsmasq of {bridge} reads a line that is not understood: {line}"
                ));
            }
            let here = |mac| network.vms.iter().any(|vm| vm.mac == Some(mac));
            let absent: Vec<String> = dhcp
                .hosts
                .iter()
                .filter(|host| !here(host.mac))
                .map(|host| format!("{} {}", host.mac, host.address))
                .collect();
            if !absent.is_empty() {
                self.warnings.push(format!(
                    "dnsmasq of {bridge} knows VMs that have no interface here (stopped, or on \
                     another node): {}",
                    absent.join(", ")
                ));
            }
        }
    }

    /// What VMs could reach on the node, and cannot any more.
    fn serves(&mut self, found: &Found) {
        if found.networks.iter().any(|network| network.gateway.is_some()) {
            self.warnings.push(
                "VMs reach the gateway's address by ping, DHCP and DNS, and metadata: nova let them \
                 reach everything on this node; write a [[host_rule]] for what they need of it"
                    .into(),
            );
        }
    }

    /// VMs of this node that are behind no interface.
    fn stray(&mut self, found: &Found) {
        for group in &found.rules.groups {
            let address = group.address;
            let routed = self.networks.iter().any(|network| network.gateway.is_some());
            if routed && !self.vifs.iter().any(|vif| vif.addresses.contains(&address)) {
                self.warnings.push(format!(
                    "{address} is a VM of this node (chain {}), and none of its interfaces is known to \
                     have it: ping it from this node, then adopt again, or add it to its vif",
                    group.chain
                ));
            }
        }
    }

    pub(super) fn show(&mut self, what: &str, rules: &[Rule]) {
        if rules.is_empty() {
            return;
        }
        self.warnings.push(format!("{} {what}:", rules.len()));
        let shown = rules.iter().take(SHOWN);
        self.warnings.extend(shown.map(|rule| format!("    {}: {}", rule.table, rule.text)));
        if rules.len() > SHOWN {
            self.warnings.push(format!("    and {} more", rules.len() - SHOWN));
        }
    }

    /// What only other nodes know.
    fn unseen(&mut self, found: &Found) {
        let mut firsts = Vec::new();
        for network in &self.networks {
            let (Some(cidr), Some(gateway)) = (network.cidr, network.gateway) else { continue };
            if cidr.hosts().next() == Some(gateway) && network.share_address.is_none() {
                firsts.push(format!("{} ({gateway})", network.name));
            }
        }
        if !firsts.is_empty() {
            self.warnings.push(format!(
                "this node has the first address of {}, as nova gives it to a network's only host, or \
                 to every node with share_dhcp_address: in the first case set host in [[network]], in \
                 the second share_address = true",
                firsts.join(", ")
            ));
        }
        if found.networks.iter().any(|network| network.gateway.is_some()) {
            self.warnings.push(
                "networks that are on other nodes alone are not seen here: add them, and VMs of this \
                 node reach them"
                    .into(),
            );
        }
    }
}
