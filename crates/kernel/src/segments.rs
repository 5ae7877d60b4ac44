//! Segments, and by which VLAN of which NIC their frames come.

use crate::Kernel;
use crate::error::Error;
use crate::layout::{
    NICS, PORTS, SEGMENT_BEFORE, SEGMENT_GATEWAY, SEGMENT_TAKEN_UP, SEGMENT_UP, SEGMENTS, Segment,
    VLANS,
};
use crate::ports::{get, numbered, put};

/// A segment as the kernel programs know it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentEntry {
    /// The zone it routes in.
    pub zone: u16,
    /// Its tag; 0 if it has none.
    pub vlan: u16,
    /// The gateway's address, if the node routes what is addressed to it there.
    pub gateway: Option<[u8; 4]>,
    /// The MAC address the gateway had before a changeover: what is addressed to it is routed too.
    pub before: Option<[u8; 6]>,
    /// The gateway is elsewhere, and what is translated is taken up here all the same.
    pub taken_up: bool,
}

impl SegmentEntry {
    fn row(self) -> Segment {
        let flags = [
            (true, SEGMENT_UP),
            (self.gateway.is_some(), SEGMENT_GATEWAY),
            (self.taken_up, SEGMENT_TAKEN_UP),
            (self.before.is_some(), SEGMENT_BEFORE),
        ];
        let flags = flags.into_iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum();
        Segment {
            zone: self.zone,
            vlan: self.vlan,
            flags,
            gateway: self.gateway.unwrap_or_default(),
            before: self.before.unwrap_or_default(),
            spare: 0,
        }
    }
}

impl Kernel {
    /// Makes a segment known, or changes it.
    ///
    /// # Errors
    /// The number is out of range, or a map refuses.
    pub fn set_segment(&mut self, segment: u16, entry: &SegmentEntry) -> Result<(), Error> {
        let number = numbered("segment", segment.into(), SEGMENTS)?;
        put(&self.maps.segments, "segments", &number, &entry.row())
    }

    /// Forgets a segment: what comes for it on any NIC is the host's.
    ///
    /// # Errors
    /// The number is out of range, or a map refuses.
    pub fn clear_segment(&mut self, segment: u16) -> Result<(), Error> {
        let number = numbered("segment", segment.into(), SEGMENTS)?;
        put(&self.maps.segments, "segments", &number, &Segment::default())
    }

    /// Says which segment's the frames with this VLAN are on a NIC; 0 is untagged.
    ///
    /// # Errors
    /// There is no such NIC or segment (see [`Kernel::set_segment`]), or a map refuses.
    pub fn set_vlan(&mut self, nic: u16, vlan: u16, segment: u16) -> Result<(), Error> {
        numbered("port", nic.into(), PORTS)?;
        let number = numbered("segment", segment.into(), SEGMENTS)?;
        let row: Option<Segment> = get(&self.maps.segments, "segments", &number)?;
        if row.is_none_or(|row| row.flags & SEGMENT_UP == 0) {
            return Err(Error::Number { what: "segment", number });
        }
        put(&self.maps.vlans, "vlans", &self.vlan(nic, vlan)?, &number)
    }

    /// Gives a VLAN on a NIC back to the host. One that is not there is no error.
    ///
    /// # Errors
    /// A map refuses.
    pub fn clear_vlan(&mut self, nic: u16, vlan: u16) -> Result<(), Error> {
        let Some(at) = self.nics.iter().position(|of| *of == nic) else { return Ok(()) };
        put(&self.maps.vlans, "vlans", &(at as u32 * VLANS + u32::from(vlan)), &0u32)
    }

    /// Where the segment of a NIC's VLAN is said.
    fn vlan(&self, nic: u16, vlan: u16) -> Result<u32, Error> {
        let unknown = Error::Number { what: "NIC", number: nic.into() };
        let at = self.nics.iter().position(|of| *of == nic).ok_or(unknown)?;
        let vlan = u32::from(vlan);
        if vlan >= VLANS {
            return Err(Error::Number { what: "VLAN", number: vlan });
        }
        Ok(at as u32 * VLANS + vlan)
    }

    /// Where the VLANs of a NIC are: its own place, or a free one.
    pub(crate) fn nic_slot(&mut self, number: u16) -> Result<u16, Error> {
        let own = self.nics.iter().position(|nic| *nic == number);
        let at = own.or_else(|| self.nics.iter().position(|nic| *nic == 0));
        let at = at.ok_or(Error::Number { what: "NIC", number: NICS })?;
        self.nics[at] = number;
        Ok(at as u16)
    }

    /// Gives all VLANs of a NIC back, and its place.
    pub(crate) fn forget_vlans(&mut self, number: u16) -> Result<(), Error> {
        let Some(nic) = self.nics.iter().position(|nic| *nic == number) else { return Ok(()) };
        for vlan in 0..VLANS {
            put(&self.maps.vlans, "vlans", &(nic as u32 * VLANS + vlan), &0u32)?;
        }
        self.nics[nic] = 0;
        Ok(())
    }
}
