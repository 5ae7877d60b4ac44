//! Putting a program on one interface: ours in the place of ours, and never of anybody else's.

use std::io;
use std::os::fd::BorrowedFd;

use crate::attach::{How, XdpMode};
use crate::error::{Doing as _, Error};
use crate::ethtool::Ethtool;
use crate::layout::{MADE_FILTER, MADE_QDISC};
use crate::link::{self, Link};
use crate::netlink::{self, Filter};
use crate::notes::Notes;
use crate::pins::{self, LinkKind, Pins};
use crate::{Interface, clsact};

/// An interface of the node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site<'a> {
    pub(crate) on: Interface<'a>,
    pub(crate) pins: &'a Pins,
    pub(crate) notes: Notes<'a>,
}

/// What is attached as XDP, in either mode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct XdpPrograms<'a> {
    pub(crate) native: BorrowedFd<'a>,
    pub(crate) generic: BorrowedFd<'a>,
}

impl<'a> XdpPrograms<'a> {
    fn of(self, generic: bool) -> BorrowedFd<'a> {
        if generic { self.generic } else { self.native }
    }
}

impl Site<'_> {
    /// Attaches an XDP program. With [`XdpMode::Auto`] one of ours keeps its mode.
    pub(crate) fn attach_xdp(
        &self,
        programs: XdpPrograms<'_>,
        mode: XdpMode,
    ) -> Result<How, Error> {
        let doing = || format!("{}: cannot attach an XDP program", self.on.name);
        let there = link::xdp_on(self.on.index).doing(doing)?;
        let ours = self.ours(LinkKind::Xdp).doing(doing)?;
        match (there, ours) {
            (Some((id, generic)), Some(link)) if link.info().doing(doing)?.program == id => {
                let how = if generic { How::XdpGeneric } else { How::XdpNative };
                if mode == XdpMode::Auto || (mode == XdpMode::Generic) == generic {
                    link.update(programs.of(generic)).doing(doing)?;
                    return Ok(how);
                }
                return self.change_mode(&link, programs, generic);
            }
            (Some((id, _)), _) => return Err(self.foreign_xdp(id)),
            // Whatever the pin holds is not on this interface.
            (None, Some(link)) => link.detach().doing(doing)?,
            (None, None) => {}
        }
        self.create_xdp(programs, mode)
    }

    /// Attaches in the other mode than the link's. A link keeps its mode, and native and generic
    /// exclude each other; if the new one cannot be had the old one stays, for without a program
    /// the host would get, and route, what is ours.
    fn change_mode(
        &self,
        old: &Link,
        programs: XdpPrograms<'_>,
        generic: bool,
    ) -> Result<How, Error> {
        let doing = || format!("{}: cannot detach an XDP program", self.on.name);
        let (before, wanted) = match generic {
            true => (XdpMode::Generic, XdpMode::Native),
            false => (XdpMode::Native, XdpMode::Generic),
        };
        old.detach().doing(doing)?;
        let changed = self.create_xdp(programs, wanted);
        if changed.is_err() {
            self.create_xdp(programs, before)?;
        }
        changed
    }

    fn create_xdp(&self, programs: XdpPrograms<'_>, mode: XdpMode) -> Result<How, Error> {
        let create =
            |generic| Link::create(programs.of(generic), self.on.index, LinkKind::Xdp, generic);
        let (link, how) = match mode {
            XdpMode::Generic => (create(true), How::XdpGeneric),
            XdpMode::Native => (create(false), How::XdpNative),
            XdpMode::Auto => match create(false) {
                Ok(link) => (Ok(link), How::XdpNative),
                Err(native) => {
                    tracing::warn!(interface = self.on.name, %native, "no native XDP");
                    (create(true), How::XdpGeneric)
                }
            },
        };
        let link = link.map_err(|error| self.unfit_xdp(how, &error))?;
        self.pins.put(link.as_fd(), &self.pins.link(LinkKind::Xdp, self.on.index))?;
        Ok(how)
    }

    /// Refuses an interface whose XDP program is not ours.
    pub(crate) fn refuse_foreign_xdp(&self) -> Result<(), Error> {
        let doing = || format!("{}: cannot look for XDP programs", self.on.name);
        let Some((there, _)) = link::xdp_on(self.on.index).doing(doing)? else { return Ok(()) };
        let ours = self.ours(LinkKind::Xdp).doing(doing)?;
        match ours.map(|link| link.info()).transpose().doing(doing)? {
            Some(ours) if ours.program == there => Ok(()),
            _ => Err(self.foreign_xdp(there)),
        }
    }

    /// Attaches a tc program: by TCX if it is wanted and the kernel has it, else by clsact.
    pub(crate) fn attach_tc(&self, program: BorrowedFd<'_>, tcx: bool) -> Result<How, Error> {
        let doing = || format!("{}: cannot attach a tc program", self.on.name);
        let there = link::tcx_on(self.on.index).doing(doing)?;
        let tcx = tcx && there.is_some();
        let link = self.ours(LinkKind::Tc).doing(doing)?;
        let ours = match &link {
            Some(link) => Some(link.info().doing(doing)?.id),
            None => None,
        };
        let there = there.unwrap_or_default();
        if let Some((id, link)) = there.iter().find(|(_, link)| Some(*link) != ours) {
            return Err(self.foreign_tcx(*id, *link));
        }
        self.refuse_foreign_filters()?;
        if !tcx {
            self.attach_clsact(program)?;
            self.detach(LinkKind::Tc)?;
            return Ok(How::Clsact);
        }
        match link.filter(|_| !there.is_empty()) {
            Some(link) => link.update(program).doing(doing)?,
            None => {
                let link = Link::create(program, self.on.index, LinkKind::Tc, false);
                let path = self.pins.link(LinkKind::Tc, self.on.index);
                self.pins.put(link.doing(doing)?.as_fd(), &path)?;
            }
        }
        self.detach_clsact()?;
        Ok(How::Tcx)
    }

    /// Attaches a tc program that looks at what leaves, beside whatever others do; false where the
    /// kernel has no TCX.
    pub(crate) fn attach_egress(&self, program: BorrowedFd<'_>, tcx: bool) -> Result<bool, Error> {
        let doing = || format!("{}: cannot attach a tc program (egress)", self.on.name);
        if !tcx || link::tcx_on(self.on.index).doing(doing)?.is_none() {
            self.detach(LinkKind::Egress)?;
            return Ok(false);
        }
        match self.ours(LinkKind::Egress).doing(doing)? {
            Some(link) => link.update(program).doing(doing)?,
            None => {
                let link = Link::create(program, self.on.index, LinkKind::Egress, false);
                let path = self.pins.link(LinkKind::Egress, self.on.index);
                self.pins.put(link.doing(doing)?.as_fd(), &path)?;
            }
        }
        Ok(true)
    }

    fn attach_clsact(&self, program: BorrowedFd<'_>) -> Result<(), Error> {
        let doing = || format!("{}: cannot attach a tc program (clsact)", self.on.name);
        let mac = Ethtool::open().and_then(|ethtool| ethtool.mac(self.on.name)).doing(doing)?;
        // Noted before it is made: a filter that nobody notes is nobody's.
        let has_qdisc = netlink::ingress_qdisc(self.on.index).doing(doing)?.is_some();
        let made = if has_qdisc { MADE_FILTER } else { MADE_FILTER | MADE_QDISC };
        self.notes.add(self.on, mac, made)?;
        clsact::make_qdisc(self.on.index).doing(doing)?;
        clsact::attach(self.on.index, program).doing(doing)
    }

    /// Whether our tc program is on it, in whichever way.
    pub(crate) fn has_tc(&self) -> Result<bool, Error> {
        let doing = || format!("{}: cannot look for our tc program", self.on.name);
        let mac = Ethtool::open().and_then(|ethtool| ethtool.mac(self.on.name)).doing(doing)?;
        let filter = self.notes.of(self.on, mac)? & MADE_FILTER != 0;
        Ok(filter || self.ours(LinkKind::Tc).doing(doing)?.is_some())
    }

    /// Takes our tc program off, in whichever way it is attached.
    pub(crate) fn detach_tc(&self) -> Result<(), Error> {
        self.detach(LinkKind::Tc)?;
        self.detach_clsact()
    }

    /// Takes our link off and its pin away; none is no error.
    pub(crate) fn detach(&self, kind: LinkKind) -> Result<(), Error> {
        let path = self.pins.link(kind, self.on.index);
        let doing = || format!("{}: cannot detach {}", self.on.name, path.display());
        if let Some(link) = Link::open(&path).doing(doing)? {
            link.detach().doing(doing)?;
            pins::remove(&path).doing(doing)?;
        }
        Ok(())
    }

    /// Removes our filter, and the qdisc if it is ours and empty.
    pub(crate) fn detach_clsact(&self) -> Result<(), Error> {
        let doing = || format!("{}: cannot remove our tc filter", self.on.name);
        let mac = Ethtool::open().and_then(|ethtool| ethtool.mac(self.on.name)).doing(doing)?;
        let noted = self.notes.of(self.on, mac)?;
        if noted & MADE_FILTER != 0 {
            let filters = netlink::ingress_filters(self.on.index).doing(doing)?;
            if filters.iter().any(is_at_our_place) {
                clsact::detach(self.on.index).doing(doing)?;
            }
        }
        if noted & MADE_QDISC != 0 {
            clsact::remove_empty_qdisc(self.on.index).doing(doing)?;
        }
        match noted & (MADE_FILTER | MADE_QDISC) {
            0 => Ok(()),
            made => self.notes.strike(self.on.index, made),
        }
    }

    /// Our link, if it is on this interface.
    fn ours(&self, kind: LinkKind) -> io::Result<Option<Link>> {
        let Some(link) = Link::open(&self.pins.link(kind, self.on.index))? else {
            return Ok(None);
        };
        // An index goes to another interface once its own is gone; the link is idle then.
        let is_here = link.info()?.ifindex == self.on.index;
        Ok(is_here.then_some(link))
    }

    /// A bpf filter beside ours would decide about our frames, or never see them.
    fn refuse_foreign_filters(&self) -> Result<(), Error> {
        let doing = || format!("{}: cannot list the tc filters", self.on.name);
        let mac = Ethtool::open().and_then(|ethtool| ethtool.mac(self.on.name)).doing(doing)?;
        let noted = self.notes.of(self.on, mac)? & MADE_FILTER != 0;
        for filter in netlink::ingress_filters(self.on.index).doing(doing)? {
            if filter.kind == "bpf" && !(noted && is_at_our_place(&filter)) {
                return Err(self.foreign_filter(&filter));
            }
            if filter.kind != "bpf" {
                let (interface, kind, pref) = (self.on.name, &filter.kind, filter.priority);
                tracing::warn!(interface, kind, pref, "a tc filter sees only what is the host's");
            }
        }
        Ok(())
    }

    fn foreign_xdp(&self, id: u32) -> Error {
        let name = self.on.name;
        let remove = match link::link_of(id, self.on.index) {
            Some(link) => format!("bpftool link detach id {link}"),
            None => format!("ip link set dev {name} xdp off"),
        };
        self.foreign(
            "XDP",
            &link::program_name(id),
            id,
            format!("ip -d link show dev {name}"),
            remove,
        )
    }

    fn foreign_tcx(&self, id: u32, link: u32) -> Error {
        let name = self.on.name;
        let remove = match link {
            0 => format!("bpftool net detach tcx_ingress dev {name}"),
            link => format!("bpftool link detach id {link}"),
        };
        self.foreign(
            "tc (tcx)",
            &link::program_name(id),
            id,
            format!("bpftool net show dev {name}"),
            remove,
        )
    }

    fn foreign_filter(&self, filter: &Filter) -> Error {
        let name = self.on.name;
        let look = format!("tc filter show dev {name} ingress");
        let remove = format!("tc filter del dev {name} ingress pref {}", filter.priority);
        self.foreign("tc (clsact)", &filter.name, filter.program, look, remove)
    }

    fn foreign(&self, hook: &str, name: &str, id: u32, look: String, remove: String) -> Error {
        let name = if name.is_empty() { "without a name" } else { name };
        let program = format!("{hook} program {name} (id {id})");
        Error::Foreign { interface: self.on.name.to_owned(), program, look, remove }
    }

    fn unfit_xdp(&self, how: How, error: &io::Error) -> Error {
        let why = match error.raw_os_error() {
            Some(libc::EOPNOTSUPP) => "its driver has none".to_owned(),
            Some(libc::ERANGE | libc::EINVAL) => format!(
                "{error}; mostly its MTU, or a veth's other end's, is too large, or it has LRO on"
            ),
            _ => error.to_string(),
        };
        let why = format!("{how} cannot be had: {why}; say hook tc, or auto");
        Error::Unfit { interface: self.on.name.to_owned(), why }
    }
}

fn is_at_our_place(filter: &Filter) -> bool {
    filter.kind == "bpf" && filter.priority == clsact::OURS && filter.handle == clsact::OURS.into()
}
