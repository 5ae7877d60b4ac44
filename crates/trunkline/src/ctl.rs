//! `trunkline ctl`: asks a running daemon, prints tables for people or JSON for programs.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use control::report::{FdbEntry, Port, Reloaded, Segment, Status};
use control::{api, ctl, show};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What is asked, and whom.
#[derive(Debug, Args)]
pub(crate) struct Ask {
    /// Name of the node, as given to `run` [default: the hostname]
    #[arg(long, global = true)]
    node: Option<String>,
    /// Control socket [default: /run/trunkline/<node>.sock]
    #[arg(long, global = true, value_name = "PATH")]
    control_socket: Option<PathBuf>,
    /// Print JSON, as the daemon answers.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    question: Question,
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
    /// Read the configuration again.
    Reload,
}

/// Asks, and prints the answer.
pub(crate) fn ask(ask: &Ask) -> Result<()> {
    let node = ask.node.clone().map_or_else(crate::hostname, Ok)?;
    let socket = ask.control_socket.clone().unwrap_or_else(|| api::socket_path(&node));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let text = runtime.block_on(async {
        match &ask.question {
            Question::Status => get::<Status>(ask, &socket, "/v1/status", show::status).await,
            Question::Ports => {
                get::<Vec<Port>>(ask, &socket, "/v1/ports", |ports| show::ports(ports)).await
            }
            Question::Segments => {
                get::<Vec<Segment>>(ask, &socket, "/v1/segments", |all| show::segments(all)).await
            }
            Question::Fdb { segment } => {
                let path = match segment {
                    Some(name) => format!("/v1/fdb?segment={name}"),
                    None => "/v1/fdb".to_owned(),
                };
                get::<Vec<FdbEntry>>(ask, &socket, &path, |entries| show::fdb(entries)).await
            }
            Question::Reload => {
                let answer: Reloaded = ctl::post(&socket, "/v1/reload").await?;
                print(ask, &answer, show::reloaded)
            }
        }
    })?;
    println!("{}", text.trim_end());
    Ok(())
}

async fn get<T: DeserializeOwned + Serialize>(
    ask: &Ask,
    socket: &std::path::Path,
    path: &str,
    show: impl Fn(&T) -> String,
) -> Result<String> {
    let answer: T = ctl::get(socket, path).await?;
    print(ask, &answer, show)
}

fn print<T: Serialize>(ask: &Ask, answer: &T, show: impl Fn(&T) -> String) -> Result<String> {
    Ok(if ask.json { serde_json::to_string_pretty(answer)? } else { show(answer) })
}
