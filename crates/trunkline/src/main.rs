//! trunkline: the packet-forwarding dataplane of a compute node.
//!
//! `run` is the daemon, `ctl` asks it, `detach` takes away what it left on the interfaces, `adopt`
//! takes a nova-network node over.
#![forbid(unsafe_code)]

mod adopt;
mod adopted;
mod back;
mod continued;
mod ctl;
mod denied;
mod detach;
mod dhcp;
mod dnsmasq;
mod explain;
mod flows;
mod inherited;
mod memory;
mod neighbours;
mod node;
mod plug;
mod ports;
mod public;
mod redirects;
mod reload;
mod report;
mod run;
mod sockets;
mod start;
mod stations;
mod takeover;
mod told;
mod vpn;
mod workers;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use control::flags::Flags;

/// The packet-forwarding dataplane of a compute node: in place of nova-network's Linux bridges.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Forward packets on this node until told to stop; what is attached stays attached.
    Run {
        #[command(flatten)]
        flags: Box<Flags>,
        /// Read and judge the configuration, say what it means, touch nothing.
        #[arg(long)]
        check: bool,
        /// Take the place of the node's daemon, if one runs: it stops once this one is sure to
        /// start, and open connections go on.
        #[arg(long, conflicts_with = "check")]
        takeover: bool,
    },
    /// Ask a running daemon.
    Ctl(ctl::Ask),
    /// Say what would become of a packet, stage by stage, without sending it.
    #[command(after_help = "Example: trunkline explain vnet1 udp 10.0.0.3:40000 8.8.8.8:53")]
    Explain(ctl::AskPacket),
    /// Take the place of nova-network's bridges and rules on this node, or give it back to them.
    #[command(
        after_help = "Run it where nova-network runs, as root. --dry-run prints the configuration: \
                            comments in front say what was found, what could not be said and what \
                            to do about that. Without it, adopt becomes the node's daemon."
    )]
    Adopt(adopt::Adopt),
    /// Take programs, pins, the punt link and host ports away and put NIC settings back.
    Detach {
        /// Name of the node, as given to `run`.
        #[arg(long)]
        node: Option<String>,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run { flags, check: true, .. } => run::check(&flags),
        Command::Run { flags, takeover, .. } => run::run(&flags, takeover),
        Command::Ctl(ask) => ctl::ask(&ask),
        Command::Explain(ask) => ctl::explain(&ask),
        Command::Adopt(adopt) => adopt::adopt(&adopt),
        Command::Detach { node } => detach::detach(node),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trunkline: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The name of the machine: the node's, unless said otherwise.
fn hostname() -> anyhow::Result<String> {
    let name = nix::unistd::gethostname()?;
    name.into_string().map_err(|name| anyhow::anyhow!("the hostname {name:?} is not UTF-8"))
}
