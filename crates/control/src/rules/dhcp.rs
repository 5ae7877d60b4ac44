//! DHCP: who answers in a network, and what VMs are told.

use dhcp::Extra;

use super::Draft;
use crate::config::{ConfigError, NetworkEntry, VifEntry};
use crate::flags::{DhcpServer, DnsServer, NetworkKind};
use crate::model::{DhcpRules, NetworkDhcp};

/// Longest label of a name (RFC 1035), and what is kept of a longer one, as nova did it.
const LABEL: usize = 63;
const HEAD: usize = 2;
const TAIL: usize = 60;
/// What every client takes has room for so many bytes of an operator's own options.
const EXTRA: usize = 250;
/// A shorter lease would be renewed every few seconds.
const SHORTEST: u32 = 10;

impl Draft<'_> {
    /// What is the same in all networks.
    pub(super) fn dhcp_rules(&self) -> Result<DhcpRules, ConfigError> {
        let settings = &self.settings;
        let lease = settings.dhcp_lease_time.unwrap_or(86_400);
        if lease < SHORTEST {
            let message = format!("dhcp_lease_time is {lease}: use {SHORTEST} seconds or more");
            return Err(self.said.setting("dhcp_lease_time", message));
        }
        let domain = settings.dhcp_domain.clone().unwrap_or_else(|| "novalocal".into());
        if domain.len() > 200 || !domain.bytes().all(|byte| is_letter(byte) || byte == b'.') {
            let message = format!("'{domain}' is no domain: use letters, digits, '-' and '.'");
            return Err(self.said.setting("dhcp_domain", message));
        }
        extras(settings.dhcp_options.as_deref())
            .map_err(|message| self.said.setting("dhcp_options", message))?;
        Ok(DhcpRules {
            lease,
            domain,
            ntp: settings.ntp_server.clone().unwrap_or_default(),
            release: settings.force_dhcp_release != Some(false),
            dnsmasq_file: settings.dnsmasq_config_file.clone(),
        })
    }

    /// How VMs of a network get their addresses; else the key and the words.
    pub(super) fn network_dhcp(
        &self,
        kind: NetworkKind,
        value: &NetworkEntry,
    ) -> Result<NetworkDhcp, (&'static str, String)> {
        let router = value.gateway.or(value.external_gateway);
        // Where there is nothing to tell, DHCP is somebody else's.
        let possible = |server: DhcpServer| match server {
            DhcpServer::Builtin => value.cidr.is_some() && router.is_some(),
            DhcpServer::Dnsmasq => self.has_foot(value),
            DhcpServer::External => true,
        };
        let server = match (value.dhcp, kind) {
            (Some(server), _) if possible(server) => server,
            (Some(server), _) => return Err(("dhcp", lacks(server, &value.name))),
            (None, NetworkKind::Flat) => DhcpServer::External,
            (None, _) => match self.settings.dhcp.unwrap_or_default() {
                server if possible(server) => server,
                _ => DhcpServer::External,
            },
        };
        let own = extras(value.dhcp_options.as_deref()).map_err(|said| ("dhcp_options", said))?;
        // Those of the node were looked at, or will be, by themselves.
        let all = extras(self.settings.dhcp_options.as_deref()).unwrap_or_default();
        let mut extra = own.clone();
        extra.extend(all.into_iter().filter(|it| own.iter().all(|own| own.code != it.code)));
        if extra.iter().map(|extra| extra.data.len() + 2).sum::<usize>() > EXTRA {
            let message = format!("they have more than {EXTRA} bytes together: leave some out");
            return Err(("dhcp_options", message));
        }
        let dns = value.dns_server.clone().or_else(|| self.settings.dns_server.clone());
        Ok(NetworkDhcp {
            server,
            router,
            dns: dns.unwrap_or_default(),
            resolves: server == DhcpServer::Dnsmasq
                || (self.settings.dns == Some(DnsServer::Dnsmasq) && self.has_foot(value)),
            mtu: value.mtu.and_then(|mtu| u16::try_from(mtu).ok()),
            extra,
        })
    }

    /// Whether the host has an address in the network to serve it by.
    fn has_foot(&self, value: &NetworkEntry) -> bool {
        let here = value.host.as_ref().is_none_or(|host| *host == self.node);
        let zone = value.zone.as_deref().unwrap_or(crate::compile::HOST_ZONE);
        here && value.cidr.is_some() && value.gateway.is_some() && zone == crate::compile::HOST_ZONE
    }

    /// VMs that ask for an address and get none, in words.
    pub(super) fn unanswered(&self) -> Vec<String> {
        let without = self.vifs.iter().filter(|(vif, _)| {
            vif.addresses.is_empty()
                && self.networks[vif.network].0.dhcp.server != DhcpServer::External
        });
        let told = without.map(|(vif, _)| {
            format!("vif '{}' has no addresses: its VM's DHCP is not answered", vif.name)
        });
        told.collect()
    }

    /// Whether a VM is told a default router by this vif: by its first alone, if that is asked for.
    pub(super) fn has_default_router(&self, value: &VifEntry) -> bool {
        let first = |instance: &String| {
            self.vifs.iter().all(|(other, _)| other.instance.as_ref() != Some(instance))
        };
        self.settings.use_single_default_gateway != Some(true)
            || value.instance.as_ref().is_none_or(first)
    }
}

fn lacks(server: DhcpServer, network: &str) -> String {
    match server {
        DhcpServer::Dnsmasq => format!(
            "dnsmasq has no address to serve network '{network}' by: it wants a cidr, a gateway on \
             this node and the zone 'default'; use \"builtin\" or \"external\""
        ),
        _ => format!(
            "network '{network}' has no router to tell its VMs: it wants a cidr and a gateway or \
             external_gateway, or dhcp = \"external\""
        ),
    }
}

fn extras(said: Option<&[String]>) -> Result<Vec<Extra>, String> {
    said.unwrap_or_default().iter().map(|text| text.parse()).collect()
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

/// A VM's name as it is told, or what is wrong with it.
pub(crate) fn host_name(name: &str) -> Result<String, String> {
    if name.is_empty() || name.starts_with('-') || !name.bytes().all(is_letter) {
        return Err(format!(
            "'{name}' cannot name a VM: use letters, digits and '-', and no '-' in front"
        ));
    }
    Ok(match name.len() {
        0..=LABEL => name.to_owned(),
        long => format!("{}-{}", &name[..HEAD], &name[long - TAIL..]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_too_long_is_cut_as_nova_cut_it() {
        assert_eq!(host_name("vm-1"), Ok("vm-1".into()));
        let long = format!("ab{}yz", "x".repeat(70));
        let cut = host_name(&long).unwrap();
        assert_eq!((cut.len(), &cut[..3], &cut[61..]), (63, "ab-", "yz"));
        for name in ["", "-a", "a b", "a,b", "vm_1\n", "é"] {
            assert!(host_name(name).unwrap_err().contains("cannot name a VM"), "{name}");
        }
    }
}
