//! Taking the place of a running daemon: first everything that can go wrong without it, then it
//! stops, and the rest is a start like any other.

use anyhow::{Context, Result};
use control::ctl::{self, CtlError};
use control::flags::Replay;
use control::model::Model;
use control::netlink::Links;
use control::report::HandedOver;
use kernel::Settings;

use crate::adopted::Adopted;
use crate::start::{judge_nics, lines};

/// Has the node's daemon stop, if one runs, once it is likely that this one will start.
pub(crate) async fn take_over(model: &Model) -> Result<()> {
    let links = Links::connect()?;
    let there = links.list().await?;
    let adopted = Adopted::read(&model.node, &there)?;
    let judged = Adopted::freed(adopted.as_ref(), &there);
    judge_nics(model, &judged, &links, &mut Vec::new()).await?;
    let replays = model.tuning.replay == Replay::Kernel;
    let settings =
        Settings { lines: lines(model)?, hash_key: 0, tcx: true, replays, continues: None };
    kernel::rehearse(&model.node, &settings)?;
    match ctl::post::<HandedOver>(&model.control_socket, "/v1/handover").await {
        Ok(gone) => tracing::info!(pid = gone.pid, "the daemon before this one stops"),
        // It may be gone before its answer is.
        Err(CtlError::Broken { .. }) => {}
        Err(CtlError::Nobody { .. }) => tracing::info!("no daemon runs; this is a plain start"),
        Err(error @ CtlError::Refused(_)) => return Err(error).context("the daemon stays"),
    }
    Ok(())
}
