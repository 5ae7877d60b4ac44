//! `trunkline adopt`: a node that nova-network runs, described, taken over and given back.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use conntrack::fault;
use control::adopt::{Adopted, Found, Record, read};
use control::flags::Flags;
use control::model::Model;

use crate::{back, run};

/// Where `run` looks for its file.
const CONFIG: &str = "/etc/trunkline/trunkline.toml";

/// What is read, what it is called, and what is done.
#[derive(Debug, Args)]
pub(crate) struct Adopt {
    /// Print the configuration and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Have nova-network's bridges and rules carry the node again, after a changeover
    #[arg(long, conflicts_with_all = ["dry_run", "config", "overwrite", "prepare"])]
    back: bool,
    /// Only write FILE and the record of what is taken over: the next `trunkline run` does it
    #[arg(long, conflicts_with = "dry_run")]
    prepare: bool,
    /// The configuration [default: /etc/trunkline/trunkline.toml]; written if it is not there
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    config: Option<PathBuf>,
    /// Write FILE even if it is there
    #[arg(long, conflicts_with = "dry_run")]
    overwrite: bool,
    /// Name of the node in the configuration [default: the hostname]
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// NIC towards the provider [default: the one nova's rules name]
    #[arg(long, value_name = "NIC")]
    public_interface: Option<String>,
}

/// Does what is asked of `adopt`.
pub(crate) fn adopt(adopt: &Adopt) -> Result<()> {
    let node = adopt.node.clone().map_or_else(crate::hostname, Ok)?;
    if adopt.back {
        return back::back(&node);
    }
    if !adopt.dry_run {
        refuse_twice(&node)?;
    }
    let (found, text) = describe(&node, adopt.public_interface.as_deref())?;
    if adopt.dry_run {
        print!("{text}");
        // What was printed is what is judged, so that it and `run --check` cannot differ.
        if let Err(error) = Model::from_text(&Flags::default(), "line", &text) {
            bail!("what was printed needs a hand before `trunkline run --check` takes it: {error}");
        }
        return Ok(());
    }
    let file = adopt.config.clone().unwrap_or_else(|| CONFIG.into());
    if adopt.overwrite || !file.exists() {
        write(&file, &text)?;
    }
    let flags = Flags { config: Some(file.clone()), node: Some(node.clone()), ..Flags::default() };
    let model = Model::load(&flags)?;
    tells_of_all(&model, &found, &file)?;
    Record::of(&found).write(&node).context("the record of the changeover cannot be written")?;
    fault::point("recorded");
    if adopt.prepare {
        println!(
            "{} and the record are written. Now `trunkline run --config {0}` takes {node} over, or \
             the service that runs it; `trunkline adopt --back` undoes it",
            file.display()
        );
        return Ok(());
    }
    let outcome = run::run(&flags, false);
    // A first start that failed has undone what it did.
    if outcome.is_err() && !kernel::has_left_pins(&node)? {
        Record::remove(&node)?;
    }
    outcome
}

fn refuse_twice(node: &str) -> Result<()> {
    if Record::read(node)?.is_some() {
        bail!(
            "node {node} was taken over already: `trunkline run` starts its daemon, `trunkline \
             adopt --back` gives the node back to nova-network"
        );
    }
    if kernel::has_left_pins(node)? {
        bail!(
            "trunkline forwards on node {node} already, without nova-network: `trunkline detach \
             --node {node}` takes it away"
        );
    }
    Ok(())
}

/// What is found on the node, and the configuration that does the same.
fn describe(node: &str, public: Option<&str>) -> Result<(Found, String)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let reading = runtime.block_on(read())?;
    let found = Found::of(&reading, public);
    if found.networks.is_empty() {
        bail!(
            "no bridge of nova-network is in this network namespace: run it where `ip link show type \
             bridge` lists them{}",
            found.notes.iter().map(|note| format!("\n  {note}")).collect::<String>()
        );
    }
    let text = Adopted::of(&found, node).to_text()?;
    Ok((found, text))
}

fn write(file: &Path, text: &str) -> Result<()> {
    let doing = || format!("cannot write {}", file.display());
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).with_context(doing)?;
    }
    std::fs::write(file, text).with_context(doing)
}

/// A file that was there may have been edited since; it must still tell of every VM, for the
/// bridges will carry none.
fn tells_of_all(model: &Model, found: &Found, file: &Path) -> Result<()> {
    let mut missing = Vec::new();
    for network in &found.networks {
        let bridge = &network.bridge.name;
        let told = model.networks.iter().position(|told| told.bridge == *bridge);
        if told.is_none() {
            missing.push(format!("a [[network]] with bridge {bridge}"));
        }
        for port in &network.bridge.ports {
            let is_it = |vif: &&control::model::Vif| vif.name == port.name;
            if model.vifs.iter().find(is_it).is_none_or(|vif| Some(vif.network) != told) {
                missing.push(format!("{}, a VM's in {bridge}", port.name));
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "{} is of another node or another time: it has not {}; add what is missing (`trunkline adopt \
         --dry-run` prints it), name another file, or say --overwrite",
        file.display(),
        missing.join(", ")
    )
}
