//! Taking everything away again, also what is half broken.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use libbpf_rs::MapHandle;

use crate::error::{Doing as _, Error};
use crate::ethtool::Ethtool;
use crate::hooks::Site;
use crate::layout::{Node, Note};
use crate::link::{Link, is_gone};
use crate::notes::Notes;
use crate::pins::{self, LinkKind, Lock, Pins};
use crate::ports::get;
use crate::{Interface, caps, log, nic, reserved};

/// What was taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What was done, a line for each interface, and one for the pins.
    pub done: Vec<String>,
    /// What could not be done, with the reason.
    pub problems: Vec<String>,
}

/// Whether a daemon of this node left pins, or is running.
///
/// # Errors
/// The name is not fit for a directory.
pub fn has_left_pins(node: &str) -> Result<bool, Error> {
    Ok(Pins::of(node)?.exist())
}

/// Makes sure that no daemon of this node runs.
///
/// # Errors
/// One does; or the name is not fit for a directory.
pub fn is_idle(node: &str) -> Result<(), Error> {
    pins::check_node(node)?;
    Lock::take(node).map(Lock::remove)
}

/// Takes a node's programs, links and pins away and puts its NICs back as they were, with no
/// daemon running. What cannot be undone is told and does not stop the rest. The links that the
/// daemon made are not this crate's.
///
/// # Errors
/// The node's daemon runs, its programs are in another network namespace, or a capability or
/// bpffs is missing.
pub fn detach_all(node: &str) -> Result<Report, Error> {
    caps::check()?;
    let pins = Pins::of(node)?;
    let lock = Lock::take(node)?;
    log::capture();
    let mut report = Report::default();
    if !pins.exist() {
        lock.remove();
        return Ok(report);
    }
    refuse_elsewhere(node, &pins)?;
    let map = MapHandle::from_pinned_path(pins.map("nics"));
    match &map {
        Ok(map) => each(&pins, Some(Notes(map)), &mut report)?,
        Err(error) => {
            report.problems.push(format!("what was changed on NICs is not known: {error}"));
            each(&pins, None, &mut report)?;
        }
    }
    match reserved::free(&pins) {
        Ok(0) => {}
        Ok(ports) => report.done.push(format!("{ports} reserved ports given back")),
        Err(error) => report.problems.push(error.to_string()),
    }
    pins.remove()?;
    report.done.push(format!("pins of node {node} removed"));
    lock.remove();
    Ok(report)
}

fn each(pins: &Pins, notes: Option<Notes<'_>>, report: &mut Report) -> Result<(), Error> {
    let mut indexes: Vec<u32> = pins.links()?.into_iter().map(|(index, _)| index).collect();
    if let Some(notes) = notes {
        indexes.extend(notes.all()?.into_iter().map(|(index, _)| index));
    }
    indexes.sort_unstable();
    indexes.dedup();
    for index in indexes {
        let undone = match notes {
            Some(notes) => interface(pins, notes, index),
            None => links(pins, index),
        };
        match undone {
            Ok(undone) => report.done.push(undone),
            Err(error) => report.problems.push(error.to_string()),
        }
    }
    Ok(())
}

/// Takes our programs off an interface and puts its settings back; says what was done.
pub(crate) fn interface(pins: &Pins, notes: Notes<'_>, index: u32) -> Result<String, Error> {
    let mut said = links(pins, index)?;
    let Some((_, note)) = notes.all()?.into_iter().find(|(of, _)| *of == index) else {
        return Ok(said);
    };
    let Some(name) = name_of(index, &note)? else {
        notes.strike(index, u16::MAX)?;
        return Ok(format!("{}: gone, and what was changed on it", note.name()));
    };
    let on = Interface::new(index, &name);
    Site { on, pins, notes }.detach_clsact()?;
    let back = nic::put_back(on, &note)?;
    notes.strike(index, u16::MAX)?;
    if !back.is_empty() {
        said = format!("{said}, {}", back.join(", "));
    }
    Ok(said)
}

/// Takes our links off an interface.
fn links(pins: &Pins, index: u32) -> Result<String, Error> {
    let name = Ethtool::open().and_then(|ethtool| ethtool.name(index));
    let name = name.unwrap_or_else(|_| format!("interface {index} (gone)"));
    for kind in [LinkKind::Xdp, LinkKind::Tc, LinkKind::Egress] {
        let path = pins.link(kind, index);
        let doing = || format!("{name}: cannot detach {}", path.display());
        if let Some(link) = Link::open(&path).doing(doing)? {
            link.detach().doing(doing)?;
            pins::remove(&path).doing(doing)?;
        }
    }
    Ok(format!("{name}: detached"))
}

/// The name the noted interface has now; none if it is gone.
fn name_of(index: u32, note: &Note) -> Result<Option<String>, Error> {
    let found = Ethtool::open().and_then(|ethtool| {
        let name = ethtool.name(index)?;
        let mac = ethtool.mac(&name)?;
        Ok(note.is_of(&name, mac).then_some(name))
    });
    match found {
        Err(error) if is_gone(&error) => Ok(None),
        done => done.doing(|| format!("cannot look at {}", note.name())),
    }
}

/// Interfaces are found by index, which means something else in another namespace. A namespace
/// that is gone took its interfaces, and with them what was attached.
fn refuse_elsewhere(node: &str, pins: &Pins) -> Result<(), Error> {
    let settings = MapHandle::from_pinned_path(pins.map("settings"));
    let Ok(settings) = settings else { return Ok(()) };
    let row: Option<Node> = get(&settings, "settings", &0u32)?;
    if row.is_none_or(|row| row.netns == 0) || row.map(|row| row.netns) == Some(netns()?) {
        return Ok(());
    }
    let is_idle = |path: &Path| match Link::open(path) {
        Ok(Some(link)) => link.info().is_ok_and(|info| info.ifindex == 0),
        Ok(None) => true,
        Err(_) => false,
    };
    let all_idle = pins.links()?.iter().all(|(_, path)| is_idle(path));
    if all_idle { Ok(()) } else { Err(Error::Elsewhere(node.to_owned())) }
}

/// Inode of the network namespace of this thread.
pub(crate) fn netns() -> Result<u32, Error> {
    let file = "/proc/thread-self/ns/net";
    let inode = std::fs::metadata(file).doing(|| format!("cannot look at {file}"))?.ino();
    Ok(inode as u32) // the kernel has 32 bits for it
}
