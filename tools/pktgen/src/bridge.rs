//! Nothing but a redirect from one interface to the other: what a test bed can do at most.

use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::time::Duration;

use anyhow::{Context, Result};
use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};
use libbpf_rs::{Link, MapCore as _, MapFlags, OpenObject};

use crate::interface::Interface;
use crate::skeletons::BridgeSkelBuilder;
use crate::tc::Attached;

/// Where the programs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Hook {
    /// In the driver. A veth takes what is sent to it so only if its other end has an XDP program,
    /// or GRO on.
    Xdp,
    /// At tc ingress.
    Tc,
    /// The same; what goes to the second interface, a veth, is put into its far end straight away.
    TcPeer,
}

/// A direction that is redirected as long as this lives.
enum Way {
    Xdp { _link: Link },
    Tc { _program: Attached },
}

/// Redirects between two interfaces of this thread's namespace for a time.
pub(crate) fn bridge(devices: [&str; 2], hook: Hook, time: Duration) -> Result<()> {
    let [one, two] = [Interface::named(devices[0])?, Interface::named(devices[1])?];
    let mut places = [MaybeUninit::uninit(), MaybeUninit::uninit()];
    let [first, second] = &mut places;
    let back = if hook == Hook::TcPeer { Hook::Tc } else { hook };
    let _ways = (way(first, hook, &one, &two)?, way(second, back, &two, &one)?);
    std::thread::sleep(time);
    Ok(())
}

fn way(
    place: &mut MaybeUninit<OpenObject>,
    hook: Hook,
    here: &Interface,
    there: &Interface,
) -> Result<Way> {
    let loaded = BridgeSkelBuilder::default().open(place)?.load()?;
    let other = there.index.to_ne_bytes();
    let programs = &loaded.progs;
    if hook == Hook::Xdp {
        loaded.maps.others.update(&0u32.to_ne_bytes(), &other, MapFlags::ANY)?;
        let link = programs.bridge.attach_xdp(here.index.cast_signed());
        let link = link.with_context(|| format!("cannot attach to interface {}", here.index))?;
        return Ok(Way::Xdp { _link: link });
    }
    loaded.maps.indexes.update(&0u32.to_ne_bytes(), &other, MapFlags::ANY)?;
    let program = if hook == Hook::TcPeer { &programs.bridge_peer } else { &programs.bridge_tc };
    Ok(Way::Tc { _program: Attached::to(program.as_fd(), here.index)? })
}
