//! `trunkline detach`: takes away what `run` leaves, in the namespace it is called in.

use anyhow::Result;
use conntrack::fault;
use control::adopt::Record;
use control::left::Left;
use control::netlink::Links;

use crate::adopted::give_back_ports;
use crate::back::Announcer;
use crate::dnsmasq;

/// Removes programs, pins, the punt link and host ports of a node, puts NIC settings back.
pub(crate) fn detach(node: Option<String>) -> Result<()> {
    let node = node.map_or_else(crate::hostname, Ok)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(take_away(&node))?;
    for line in report.done {
        println!("{line}");
    }
    match report.problems.is_empty() {
        true => Ok(Record::remove(&node)?),
        false => anyhow::bail!("{}", report.problems.join("\n")),
    }
}

/// Has nova-network's bridges ready for the moment when our programs go, on a node that was taken
/// over: what no program takes then meets the bridge again.
async fn give_back(links: &Links, node: &str) -> Result<Option<(Vec<String>, Announcer)>> {
    let Some(record) = Record::read(node)? else { return Ok(None) };
    kernel::is_idle(node)?;
    let mut problems = give_back_ports(links, &record).await;
    for kept in &record.bridges {
        if let Err(error) = links.remove_foot(&kept.name, node).await {
            problems.push(error.to_string());
        }
    }
    Ok(Some((problems, Announcer::start(links, &record.bridges).await?)))
}

/// Does so, as far as it can be done.
pub(crate) async fn take_away(node: &str) -> Result<kernel::Report> {
    let links = Links::connect()?;
    let given_back = give_back(&links, node).await?;
    fault::point("gave_back");
    let mut report = kernel::detach_all(node)?;
    fault::point("detached");
    Left::remove(node)?;
    dnsmasq::take_away(node);
    let removed = links.remove_ours(node).await?;
    if let Some((problems, announcer)) = given_back {
        report.problems.extend(problems);
        announcer.finish();
    }
    report.done.extend(removed.into_iter().map(|name| format!("{name}: deleted")));
    Ok(report)
}
