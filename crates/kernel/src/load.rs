//! Loading: fresh programs and fresh maps at every start, in the place of the last one's.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};
use libbpf_rs::{MapHandle, OpenMapMut};

use crate::error::{Doing as _, Error};
use crate::pins::{self, Pins};
use crate::{Settings, log, skeletons};

/// All maps.
#[derive(Debug)]
pub(crate) struct Maps {
    pub(crate) ports: MapHandle,
    pub(crate) places: MapHandle,
    pub(crate) buckets: MapHandle,
    pub(crate) vlans: MapHandle,
    pub(crate) segments: MapHandle,
    pub(crate) hops: MapHandle,
    pub(crate) owned: MapHandle,
    pub(crate) counters: MapHandle,
    pub(crate) sockets: MapHandle,
    pub(crate) punts: MapHandle,
    pub(crate) devices: MapHandle,
    pub(crate) settings: MapHandle,
    pub(crate) lines: MapHandle,
    pub(crate) header: MapHandle,
    pub(crate) nics: MapHandle,
    pub(crate) reserved: MapHandle,
}

/// All programs.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) forward_xdp: OwnedFd,
    pub(crate) forward_tc: OwnedFd,
    pub(crate) punt: OwnedFd,
    pub(crate) deliver: OwnedFd,
    pub(crate) probe: OwnedFd,
}

/// Loads both objects over one set of maps and pins these. Nothing is attached yet; what an
/// earlier run attached goes on with its own maps, which it holds.
pub(crate) fn load(pins: &Pins, settings: &Settings) -> Result<(Maps, Programs), Error> {
    log::capture();
    let (maps, forward_xdp, forward_tc) = load_forward(pins, settings)?;
    let [punt, deliver, probe] = load_deliver(&maps)?;
    for (name, map) in maps.all() {
        pins.put(map.as_fd(), &pins.map(name))?;
    }
    Ok((maps, Programs { forward_xdp, forward_tc, punt, deliver, probe }))
}

fn load_forward(pins: &Pins, settings: &Settings) -> Result<(Maps, OwnedFd, OwnedFd), Error> {
    let failed = |source| Error::Load { object: "forward", log: log::said(), source };
    log::forget();
    let mut place = MaybeUninit::uninit();
    let mut open = skeletons::ForwardSkelBuilder::default().open(&mut place).map_err(failed)?;
    open.maps.lines.set_max_entries(settings.lines).map_err(failed)?;
    if let Some(numbers) = open.maps.rodata_data.as_deref_mut() {
        numbers.hash_key = settings.hash_key;
        numbers.line_count = settings.lines;
        numbers.replays = settings.replays.into();
    }
    // The notes of earlier runs: only the first one saw what things were like before.
    for (name, notes) in [("nics", &mut open.maps.nics), ("reserved", &mut open.maps.reserved)] {
        let path = pins.map(name);
        if let Some(kept) = pins::open(&path).doing(|| format!("cannot open {}", path.display()))? {
            notes.reuse_fd(kept.as_fd()).map_err(failed)?;
        }
    }
    let loaded = open.load().map_err(failed)?;
    let map = |map: &libbpf_rs::MapMut<'_>| MapHandle::try_from(map).map_err(failed);
    let maps = Maps {
        ports: map(&loaded.maps.ports)?,
        places: map(&loaded.maps.places)?,
        buckets: map(&loaded.maps.buckets)?,
        vlans: map(&loaded.maps.vlans)?,
        segments: map(&loaded.maps.segments)?,
        hops: map(&loaded.maps.hops)?,
        owned: map(&loaded.maps.owned)?,
        counters: map(&loaded.maps.counters)?,
        sockets: map(&loaded.maps.sockets)?,
        punts: map(&loaded.maps.punts)?,
        devices: map(&loaded.maps.devices)?,
        settings: map(&loaded.maps.settings)?,
        lines: map(&loaded.maps.lines)?,
        header: map(&loaded.maps.header)?,
        nics: map(&loaded.maps.nics)?,
        reserved: map(&loaded.maps.reserved)?,
    };
    let programs = &loaded.progs;
    Ok((maps, keep(programs.forward_xdp.as_fd())?, keep(programs.forward_tc.as_fd())?))
}

fn load_deliver(maps: &Maps) -> Result<[OwnedFd; 3], Error> {
    let failed = |source| Error::Load { object: "punt link", log: log::said(), source };
    log::forget();
    let mut place = MaybeUninit::uninit();
    let mut open = skeletons::DeliverSkelBuilder::default().open(&mut place).map_err(failed)?;
    let share = |theirs: &mut OpenMapMut<'_>, ours: &MapHandle| theirs.reuse_fd(ours.as_fd());
    for mut theirs in open.open_object_mut().maps_mut() {
        let name = theirs.name().to_string_lossy().into_owned();
        if let Some((_, ours)) = maps.all().into_iter().find(|(of, _)| *of == name) {
            share(&mut theirs, ours).map_err(failed)?;
        }
    }
    let loaded = open.load().map_err(failed)?;
    let programs = &loaded.progs;
    let [punt, deliver] = [programs.punt.as_fd(), programs.deliver.as_fd()];
    Ok([keep(punt)?, keep(deliver)?, keep(programs.probe.as_fd())?])
}

/// A descriptor of ours, which stays when the object goes.
fn keep(fd: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    fd.try_clone_to_owned().doing(|| "cannot keep a program".into())
}

impl Maps {
    /// All of them with the names they are pinned under.
    pub(crate) fn all(&self) -> [(&'static str, &MapHandle); 16] {
        [
            ("ports", &self.ports),
            ("places", &self.places),
            ("buckets", &self.buckets),
            ("vlans", &self.vlans),
            ("segments", &self.segments),
            ("hops", &self.hops),
            ("owned", &self.owned),
            ("counters", &self.counters),
            ("sockets", &self.sockets),
            ("punts", &self.punts),
            ("devices", &self.devices),
            ("settings", &self.settings),
            ("lines", &self.lines),
            ("header", &self.header),
            ("nics", &self.nics),
            ("reserved", &self.reserved),
        ]
    }
}
