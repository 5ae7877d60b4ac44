//! DHCP of the node's own VMs: requests that workers handed over are answered, and it is
//! remembered, for people, what was said.

use std::collections::BTreeMap;
use std::time::Instant;

use control::compile::{told_by_dhcp, vif_of_dhcp};
use control::flags::DhcpServer;
use control::model::Vif;
use control::report::{self, Said};
use dhcp::{Event, Kind, Outcome};
use pipeline::Asked;
use tables::GATEWAY_MAC;

use crate::node::Node;

/// What was said to one vif since the start.
#[derive(Debug, Default)]
pub(crate) struct Record {
    said: Said,
    last: Option<(String, Instant)>,
}

impl Record {
    fn note(&mut self, outcome: &Outcome) {
        let (count, what) = match outcome {
            Outcome::Reply(reply) => match reply.kind {
                Kind::Offer => (&mut self.said.offers, format!("offered {}", reply.address)),
                Kind::Ack => (&mut self.said.acks, format!("confirmed {}", reply.address)),
                Kind::Nak => (&mut self.said.naks, format!("refused {}", reply.address)),
            },
            Outcome::Told(Event::Released, address) => {
                (&mut self.said.releases, format!("released {address}"))
            }
            Outcome::Told(Event::Declined, address) => {
                (&mut self.said.declines, format!("declined {address}"))
            }
            Outcome::Silent(why) => (&mut self.said.silences, format!("not answered: {why}")),
        };
        *count += 1;
        self.last = Some((what, Instant::now()));
    }
}

/// What was said to every vif, by its name.
pub(crate) type Records = BTreeMap<String, Record>;

impl Node {
    /// Answers what VMs asked.
    pub(crate) fn answer_dhcp(&mut self) {
        let all: Vec<Asked> = self.workers.asked.try_iter().collect();
        for asked in all {
            self.answer_one(&asked);
        }
    }

    fn answer_one(&mut self, asked: &Asked) {
        // A port or vif may have gone while the request was on its way, or be answered by others.
        let Some(port) = self.ports.get(&asked.port) else { return };
        let Some(vif) = self.model.vifs.iter().find(|vif| vif.name == port.name) else { return };
        let Some(told) = told_by_dhcp(&self.model, vif) else { return };
        let outcome = dhcp::answer(asked.payload(), &told);
        self.leases.entry(vif.name.clone()).or_default().note(&outcome);
        let name = &vif.name;
        match &outcome {
            Outcome::Reply(reply) => {
                if reply.kind == Kind::Nak {
                    tracing::info!(vif = %name, address = %reply.address, "DHCP: not its address");
                }
                let frame = dhcp::frame(reply, &told, GATEWAY_MAC);
                if let Err(error) = self.sender.send(asked.port.get(), &frame) {
                    tracing::debug!(vif = %name, %error, "a DHCP answer was not sent");
                }
            }
            Outcome::Told(Event::Declined, address) => {
                tracing::warn!(vif = %name, %address, "DHCP: the VM says somebody else has its address");
            }
            Outcome::Told(Event::Released, address) => {
                tracing::debug!(vif = %name, %address, "DHCP: released");
            }
            Outcome::Silent(why) => tracing::debug!(vif = %name, "DHCP: not answered: {why}"),
        }
    }

    /// What VMs are told, and what was said to each.
    pub(crate) fn lease_reports(&self) -> Vec<report::Lease> {
        self.model.vifs.iter().filter_map(|vif| self.lease_report(vif)).collect()
    }

    fn lease_report(&self, vif: &Vif) -> Option<report::Lease> {
        let network = self.model.networks.get(vif.network)?;
        let server = network.dhcp.server;
        let told = match server {
            DhcpServer::External => None,
            // dnsmasq's files say the same.
            DhcpServer::Builtin | DhcpServer::Dnsmasq => vif_of_dhcp(&self.model, vif),
        };
        let is_ours = server == DhcpServer::Builtin;
        let record = self.leases.get(&vif.name).filter(|_| is_ours);
        let last = record.and_then(|record| record.last.as_ref());
        let first = vif.addresses.first();
        Some(report::Lease {
            vif: vif.name.clone(),
            network: network.name.clone(),
            server: server.to_string(),
            mac: vif.mac.to_string(),
            addresses: vif.addresses.iter().map(ToString::to_string).collect(),
            hostname: told.as_ref().zip(first).map(|(told, first)| told.name_at(*first)),
            router: told.as_ref().and_then(|told| told.router).map(|router| router.to_string()),
            said: is_ours.then(|| record.map(|record| record.said).unwrap_or_default()),
            last: last.map(|(what, _)| what.clone()),
            last_s: last.map(|(_, when)| when.elapsed().as_secs()),
        })
    }
}
