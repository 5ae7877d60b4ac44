//! `trunkline detach`: takes away what `run` leaves, in the namespace it is called in.

use anyhow::Result;
use control::netlink::Links;

/// Removes programs, pins, the punt link and host ports of a node, puts NIC settings back.
pub(crate) fn detach(node: Option<String>) -> Result<()> {
    let node = node.map_or_else(crate::hostname, Ok)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(take_away(&node))?;
    for line in report.done {
        println!("{line}");
    }
    match report.problems.is_empty() {
        true => Ok(()),
        false => anyhow::bail!("{}", report.problems.join("\n")),
    }
}

/// Does so, as far as it can be done.
pub(crate) async fn take_away(node: &str) -> Result<kernel::Report> {
    let mut report = kernel::detach_all(node)?;
    let removed = Links::connect()?.remove_ours(node).await?;
    report.done.extend(removed.into_iter().map(|name| format!("{name}: deleted")));
    Ok(report)
}
