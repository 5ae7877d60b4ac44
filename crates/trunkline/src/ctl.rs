//! `trunkline ctl`: asks a running daemon, prints tables for people or JSON for programs.

use std::future::Future;
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use control::report::{
    Cut, Explained, FdbEntry, Flow, Group, Lease, Neighbour, Port, Reloaded, Route, Segment, Vif,
};
use control::{api, ctl, show};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Whom to ask, and how to print the answer.
#[derive(Debug, Args)]
pub(crate) struct Whom {
    /// Name of the node, as given to `run` [default: the hostname]
    #[arg(long, global = true)]
    node: Option<String>,
    /// Control socket [default: /run/trunkline/<node>.sock]
    #[arg(long, global = true, value_name = "PATH")]
    control_socket: Option<PathBuf>,
    /// Print JSON, as the daemon answers.
    #[arg(long, global = true)]
    json: bool,
}

/// What is asked, and whom.
#[derive(Debug, Args)]
pub(crate) struct Ask {
    #[command(flatten)]
    whom: Whom,
    #[command(subcommand)]
    question: Question,
}

/// A packet, and whom is asked about it.
#[derive(Debug, Args)]
pub(crate) struct AskPacket {
    #[command(flatten)]
    whom: Whom,
    /// The port it would come by.
    port: String,
    /// tcp|udp ADDRESS:PORT ADDRESS:PORT or icmp ADDRESS ADDRESS [ttl N] [size BYTES] [to MAC]
    #[arg(required = true)]
    packet: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Question {
    /// The daemon as a whole: hooks, frames, verdicts, drops, warnings.
    Status,
    /// Every port with its hook and counters.
    Ports,
    /// Every segment.
    Segments,
    /// Which MAC address is behind which port.
    Fdb {
        /// Only this segment's.
        segment: Option<String>,
    },
    /// Every route, by zone.
    Routes,
    /// Which MAC address an IPv4 address has.
    Neighbours,
    /// Address translation: the shared source, ranges, floating addresses.
    Nat,
    /// What every VM is told by DHCP, and what was said to it.
    Dhcp,
    /// Security groups: what each allows, and who is in it.
    Groups,
    /// The connection table, 50,000 flows at most.
    Flows {
        /// Words a flow must have: a port's name, tcp, an address, address:port.
        filter: Vec<String>,
        /// End these connections instead.
        #[arg(long)]
        delete: bool,
    },
    /// What the VM behind a vif has to know.
    Vif {
        /// Name of the vif.
        name: String,
        /// Print it as the VM's own configuration, to be put into its image or its config drive.
        #[arg(long, value_name = "FORMAT", num_args = 0..=1, default_missing_value = "both")]
        interfaces: Option<Interfaces>,
        /// Name of the interface in the VM.
        #[arg(long, value_name = "NAME", default_value = "eth0", requires = "interfaces")]
        interface_name: String,
    },
    /// Keys and configuration for a project's VPN instance and its users.
    Vpn {
        #[command(subcommand)]
        deed: crate::vpn::Deed,
    },
    /// Read the configuration again.
    Reload,
}

/// Whose configuration of interfaces.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Interfaces {
    /// Each of them.
    Both,
    /// Debian's /etc/network/interfaces.
    Ifupdown,
    /// A file of /etc/netplan.
    Netplan,
}

impl Interfaces {
    fn of(self, vif: &Vif, name: &str) -> String {
        match self {
            Self::Both => [show::ifupdown(vif, name), show::netplan(vif, name)].join("\n"),
            Self::Ifupdown => show::ifupdown(vif, name),
            Self::Netplan => show::netplan(vif, name),
        }
    }
}

/// Asks, and prints the answer.
pub(crate) fn ask(ask: &Ask) -> Result<()> {
    let whom = &ask.whom;
    in_runtime(async {
        match &ask.question {
            Question::Status => whom.get("/v1/status", show::status).await,
            Question::Ports => whom.get("/v1/ports", |all: &Vec<Port>| show::ports(all)).await,
            Question::Segments => {
                whom.get("/v1/segments", |all: &Vec<Segment>| show::segments(all)).await
            }
            Question::Fdb { segment } => {
                let all = || "/v1/fdb".to_owned();
                let page = segment
                    .as_ref()
                    .map_or_else(all, |name| ctl::query("/v1/fdb", "segment", name));
                whom.get(&page, |all: &Vec<FdbEntry>| show::fdb(all)).await
            }
            Question::Routes => whom.get("/v1/routes", |all: &Vec<Route>| show::routes(all)).await,
            Question::Neighbours => {
                let shown = |all: &Vec<Neighbour>| show::neighbours(all);
                whom.get("/v1/neighbours", shown).await
            }
            Question::Nat => whom.get("/v1/nat", show::nat).await,
            Question::Dhcp => whom.get("/v1/dhcp", |all: &Vec<Lease>| show::leases(all)).await,
            Question::Groups => whom.get("/v1/groups", |all: &Vec<Group>| show::groups(all)).await,
            Question::Flows { filter, delete } => {
                let page = ctl::query("/v1/flows", "filter", &filter.join(" "));
                if *delete {
                    let answer: Cut = ctl::delete(&whom.socket()?, &page).await?;
                    return whom.print(&answer, show::cut);
                }
                whom.get(&page, |all: &Vec<Flow>| show::flows(all)).await
            }
            Question::Vif { name, interfaces, interface_name } => {
                let page = ctl::query("/v1/vif", "name", name);
                let shown = |vif: &Vif| match interfaces {
                    Some(format) => format.of(vif, interface_name),
                    None => show::vif(vif),
                };
                whom.get(&page, shown).await
            }
            Question::Vpn { deed } => {
                let nat: control::report::Nat = ctl::get(&whom.socket()?, "/v1/nat").await?;
                deed.execute(&nat.vpns)
            }
            Question::Reload => {
                let answer: Reloaded = ctl::post(&whom.socket()?, "/v1/reload").await?;
                whom.print(&answer, show::reloaded)
            }
        }
    })
}

/// Asks about a packet, and prints the answer.
pub(crate) fn explain(ask: &AskPacket) -> Result<()> {
    in_runtime(async {
        let packet = ctl::query("/v1/explain", "packet", &ask.packet.join(" "));
        let port = ctl::query("", "port", &ask.port);
        let page = format!("{packet}&{}", port.trim_start_matches('?'));
        ask.whom.get::<Explained>(&page, show::explained).await
    })
}

fn in_runtime(asking: impl Future<Output = Result<String>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let text = runtime.block_on(asking)?;
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        // Who reads it has read enough: `| head`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

impl Whom {
    fn socket(&self) -> Result<PathBuf> {
        let node = self.node.clone().map_or_else(crate::hostname, Ok)?;
        Ok(self.control_socket.clone().unwrap_or_else(|| api::socket_path(&node)))
    }

    async fn get<T: DeserializeOwned + Serialize>(
        &self,
        page: &str,
        show: impl Fn(&T) -> String,
    ) -> Result<String> {
        let answer: T = ctl::get(&self.socket()?, page).await?;
        self.print(&answer, show)
    }

    fn print<T: Serialize>(&self, answer: &T, show: impl Fn(&T) -> String) -> Result<String> {
        Ok(if self.json { serde_json::to_string_pretty(answer)? } else { show(answer) })
    }
}
