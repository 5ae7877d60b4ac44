//! Loading: fresh programs at every start, and fresh maps for all but what outlives a daemon.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};
use libbpf_rs::{MapHandle, OpenMapMut, libbpf_sys};

use crate::error::{Doing as _, Error};
use crate::pins::{self, Pins};
use crate::{Settings, log, probe, skeletons};

/// All maps.
#[derive(Debug)]
pub(crate) struct Maps {
    pub(crate) ports: MapHandle,
    pub(crate) places: MapHandle,
    pub(crate) buckets: MapHandle,
    pub(crate) quotas: MapHandle,
    pub(crate) vlans: MapHandle,
    pub(crate) segments: MapHandle,
    pub(crate) hops: MapHandle,
    pub(crate) owned: MapHandle,
    pub(crate) forwards: MapHandle,
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
    /// The same for generic XDP.
    pub(crate) forward_whole: OwnedFd,
    pub(crate) forward_tc: OwnedFd,
    pub(crate) note: OwnedFd,
    pub(crate) punt: OwnedFd,
    pub(crate) answer: OwnedFd,
    pub(crate) deliver: OwnedFd,
    pub(crate) probe: OwnedFd,
    /// Those of XDP are given frames in pieces.
    pub(crate) frags: bool,
}

/// Maps that a run has from the one before it: notes of what things were like before the first,
/// and, if its connections are continued in their table, that table and what was counted.
const NOTES: [&str; 2] = ["nics", "reserved"];
pub(crate) const TABLE: [&str; 3] = ["lines", "header", "counters"];

/// Loads both objects over one set of maps; `continues` the table that is pinned, or a new one.
/// Nothing is pinned or attached yet; what an earlier run attached goes on with its own maps,
/// which it holds.
pub(crate) fn load(
    pins: &Pins,
    settings: &Settings,
    continues: bool,
) -> Result<(Maps, Programs), Error> {
    log::capture();
    let kept = if continues { [&NOTES[..], &TABLE].concat() } else { NOTES.to_vec() };
    let frags = probe::has_frags();
    let (maps, forward) = load_forward(pins, settings, &kept, frags)?;
    let [forward_xdp, forward_whole, forward_tc, note] = forward;
    let [punt, answer, deliver, probe] = load_deliver(&maps, frags)?;
    let programs = Programs {
        forward_xdp,
        forward_whole,
        forward_tc,
        note,
        punt,
        answer,
        deliver,
        probe,
        frags,
    };
    Ok((maps, programs))
}

fn load_forward(
    pins: &Pins,
    settings: &Settings,
    kept: &[&str],
    frags: bool,
) -> Result<(Maps, [OwnedFd; 4]), Error> {
    let failed = |source| Error::Load { object: "forward", log: log::said(), source };
    log::forget();
    let mut place = MaybeUninit::uninit();
    let mut open = skeletons::ForwardSkelBuilder::default().open(&mut place).map_err(failed)?;
    open.maps.lines.set_max_entries(settings.lines).map_err(failed)?;
    if let Some(numbers) = open.maps.rodata_data.as_deref_mut() {
        numbers.hash_key = settings.hash_key;
        numbers.line_count = settings.lines;
        numbers.replays = settings.replays.into();
        numbers.has_frags = frags.into();
    }
    if frags {
        open.progs.forward_xdp.set_flags(libbpf_sys::BPF_F_XDP_HAS_FRAGS);
    }
    for mut map in open.open_object_mut().maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        if !kept.contains(&name.as_str()) {
            continue;
        }
        let path = pins.map(&name);
        if let Some(there) =
            pins::open(&path).doing(|| format!("cannot open {}", path.display()))?
        {
            map.reuse_fd(there.as_fd()).map_err(failed)?;
        }
    }
    let loaded = open.load().map_err(failed)?;
    let map = |map: &libbpf_rs::MapMut<'_>| MapHandle::try_from(map).map_err(failed);
    let maps = Maps {
        ports: map(&loaded.maps.ports)?,
        places: map(&loaded.maps.places)?,
        buckets: map(&loaded.maps.buckets)?,
        quotas: map(&loaded.maps.quotas)?,
        vlans: map(&loaded.maps.vlans)?,
        segments: map(&loaded.maps.segments)?,
        hops: map(&loaded.maps.hops)?,
        owned: map(&loaded.maps.owned)?,
        forwards: map(&loaded.maps.forwards)?,
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
    let [xdp, whole] = [programs.forward_xdp.as_fd(), programs.forward_whole.as_fd()];
    let [tc, note] = [programs.forward_tc.as_fd(), programs.note.as_fd()];
    Ok((maps, [keep(xdp)?, keep(whole)?, keep(tc)?, keep(note)?]))
}

fn load_deliver(maps: &Maps, frags: bool) -> Result<[OwnedFd; 4], Error> {
    let failed = |source| Error::Load { object: "punt link", log: log::said(), source };
    log::forget();
    let mut place = MaybeUninit::uninit();
    let mut open = skeletons::DeliverSkelBuilder::default().open(&mut place).map_err(failed)?;
    if frags {
        open.progs.punt.set_flags(libbpf_sys::BPF_F_XDP_HAS_FRAGS);
    }
    let share = |theirs: &mut OpenMapMut<'_>, ours: &MapHandle| theirs.reuse_fd(ours.as_fd());
    for mut theirs in open.open_object_mut().maps_mut() {
        let name = theirs.name().to_string_lossy().into_owned();
        if let Some((_, ours)) = maps.all().into_iter().find(|(of, _)| *of == name) {
            share(&mut theirs, ours).map_err(failed)?;
        }
    }
    let loaded = open.load().map_err(failed)?;
    let programs = &loaded.progs;
    let [punt, answer] = [programs.punt.as_fd(), programs.answer.as_fd()];
    let [deliver, probe] = [programs.deliver.as_fd(), programs.probe.as_fd()];
    Ok([keep(punt)?, keep(answer)?, keep(deliver)?, keep(probe)?])
}

/// A descriptor of ours, which stays when the object goes.
fn keep(fd: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    fd.try_clone_to_owned().doing(|| "cannot keep a program".into())
}

impl Maps {
    /// Pins those that `which` names, in the place of an earlier run's.
    pub(crate) fn pin(&self, pins: &Pins, which: impl Fn(&str) -> bool) -> Result<(), Error> {
        let mut named = self.all().into_iter().filter(|(name, _)| which(name));
        named.try_for_each(|(name, map)| pins.put(map.as_fd(), &pins.map(name)))
    }

    /// All of them with the names they are pinned under.
    pub(crate) fn all(&self) -> [(&'static str, &MapHandle); 18] {
        [
            ("ports", &self.ports),
            ("places", &self.places),
            ("buckets", &self.buckets),
            ("quotas", &self.quotas),
            ("vlans", &self.vlans),
            ("segments", &self.segments),
            ("hops", &self.hops),
            ("owned", &self.owned),
            ("forwards", &self.forwards),
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
