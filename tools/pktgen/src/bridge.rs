//! Nothing but a redirect from one interface to the other: what a test bed can do at most.

use std::mem::MaybeUninit;
use std::time::Duration;

use anyhow::{Context, Result};
use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};
use libbpf_rs::{MapCore as _, MapFlags};

use crate::interface::Interface;
use crate::skeletons::BridgeSkelBuilder;

/// Redirects between two interfaces of this thread's namespace for a time. Mind that a veth takes
/// what is redirected to it only if its other end has an XDP program, or GRO on.
pub(crate) fn bridge(devices: [&str; 2], time: Duration) -> Result<()> {
    let [one, two] = [Interface::named(devices[0])?, Interface::named(devices[1])?];
    let mut places = [MaybeUninit::uninit(), MaybeUninit::uninit()];
    let [first, second] = &mut places;
    let from = |place, here: &Interface, there: &Interface| {
        let loaded = BridgeSkelBuilder::default().open(place)?.load()?;
        let other = there.index.to_ne_bytes();
        loaded.maps.others.update(&0u32.to_ne_bytes(), &other, MapFlags::ANY)?;
        let link = loaded.progs.bridge.attach_xdp(here.index.cast_signed());
        link.with_context(|| format!("cannot attach to interface {}", here.index))
    };
    let _links = (from(first, &one, &two)?, from(second, &two, &one)?);
    std::thread::sleep(time);
    Ok(())
}
