//! `trunkline detach`: takes away what `run` leaves, in the namespace it is called in.

use anyhow::Result;
use control::netlink::Links;

/// Removes programs, pins, the punt link and host ports of a node, puts NIC settings back.
pub(crate) fn detach(node: Option<String>) -> Result<()> {
    let node = node.map_or_else(crate::hostname, Ok)?;
    let report = kernel::detach_all(&node)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let removed = runtime.block_on(async { Links::connect()?.remove_ours(&node).await })?;
    for line in report.done {
        println!("{line}");
    }
    for name in removed {
        println!("{name}: deleted");
    }
    match report.problems.is_empty() {
        true => Ok(()),
        false => anyhow::bail!("{}", report.problems.join("\n")),
    }
}
