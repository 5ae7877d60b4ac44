//! How much packet memory the node needs, and how large packets may be.

use control::model::Model;

/// Room a chunk must have besides the packet: headroom of the kernel, Ethernet header, tags.
const CHUNK_OVERHEAD: u32 = 256 + 14 + 2 * 4;
/// Largest packet that native XDP takes in one piece on a page of 4096 bytes: what veth and most
/// drivers leave of it.
const ONE_PIECE: u32 = 3498;
/// Chunks for packets that come in several frames, one in each.
pub(crate) const LARGE_CHUNK: u32 = 16384;
/// Such chunks of a worker. They take memory once they have been used: the kernel's programs carry
/// large packets as they do others, and few come up.
pub(crate) const LARGE: u32 = 256;
/// Largest packet with a chunk of its own, bytes.
const LARGEST_MTU: u32 = LARGE_CHUNK - CHUNK_OVERHEAD;
/// Frames of a worker besides its rings: its cache of free ones and copies of flooded frames.
const SPARE: u32 = 1024;

/// Size of a frame's chunk for this node, bytes.
pub(crate) fn chunk(model: &Model) -> u32 {
    let largest = model.networks.iter().map(|network| network.mtu).max().unwrap_or(1500);
    if largest + CHUNK_OVERHEAD <= 2048 { 2048 } else { 4096 }
}

/// Whether the configuration asks for packets that no frame has room for.
pub(crate) fn wants_pieces(model: &Model) -> bool {
    model.networks.iter().any(|network| network.mtu > in_one_frame(chunk(model)))
}

/// Largest packet that goes into one frame with chunks of this size, bytes.
const fn in_one_frame(chunk: u32) -> u32 {
    let fits = chunk - CHUNK_OVERHEAD;
    if fits < ONE_PIECE { fits } else { ONE_PIECE }
}

/// Frames for `sockets` sockets that each hold `each` in their rings, and `workers` workers.
pub(crate) const fn frames(sockets: u32, each: u32, workers: u32) -> u32 {
    sockets * each + workers * SPARE
}

/// How large packets may be, by what the kernel has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Bytes of a frame's chunk.
    pub(crate) chunk: u32,
    /// XDP programs are given frames in pieces (kernel 5.18).
    pub(crate) frags: bool,
    /// So are the sockets of the punt link (6.6).
    pub(crate) punt: bool,
    /// And those of NICs.
    pub(crate) nics: bool,
}

impl Room {
    /// Whether a port may have this MTU; `own`: it is a NIC with sockets. What must be known of
    /// its larger packets, in words, if it may.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub(crate) fn check(&self, mtu: u32, xdp: bool, own: bool) -> Result<Option<String>, String> {
        let one = in_one_frame(self.chunk);
        if mtu <= one {
            return Ok(None);
        }
        if mtu > LARGEST_MTU {
            return Err(format!(
                "its mtu is {mtu}, and packets have room for {LARGEST_MTU}: set a smaller one on it"
            ));
        }
        if !self.frags {
            return Err(format!(
                "its mtu is {mtu}, and before 5.18 the kernel gives XDP programs no packets of \
                 more than {one} bytes: set a smaller one on it"
            ));
        }
        match (self.punt && (self.nics || !own), xdp) {
            (true, _) => Ok(None),
            (false, true) => Err(format!(
                "its mtu is {mtu}, and AF_XDP takes packets of {one} bytes here (longer ones from \
                 kernel 6.6 on, and with zero copy if the driver has them and a [[network]] such \
                 an mtu): set a smaller one on it, or say hook tc, or xdp_mode copy"
            )),
            (false, false) => Ok(Some(format!(
                "packets of more than {one} bytes pass between ports with tc hooks once their \
                 connection is open; those that need a decision are dropped at tl-punt1 (ip -s \
                 link), for AF_XDP takes them from kernel 6.6 on"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_holds_the_largest_packet_with_both_tags() {
        for chunk in [2048, 4096] {
            let mtu = in_one_frame(chunk);
            assert!(mtu + CHUNK_OVERHEAD <= chunk && mtu >= 1500, "{chunk}: {mtu}");
        }
        assert_eq!(in_one_frame(4096), ONE_PIECE);
    }

    fn room(frags: bool, punt: bool, nics: bool) -> Room {
        Room { chunk: 2048, frags, punt, nics }
    }

    #[test]
    fn what_fits_a_frame_needs_nothing_and_more_is_refused_where_the_kernel_is_too_old() {
        for (xdp, own) in [(false, false), (true, false), (true, true)] {
            for mtu in [1500, 1770] {
                assert_eq!(room(false, false, false).check(mtu, xdp, own), Ok(None), "{mtu}");
            }
            for mtu in [1771, 9000, 16106] {
                assert_eq!(room(true, true, true).check(mtu, xdp, own), Ok(None), "{mtu}");
            }
            let refusal = room(true, true, true).check(16107, xdp, own).unwrap_err();
            assert!(refusal.contains("have room for 16106"), "{refusal}");
            let refusal = room(false, false, false).check(9000, xdp, own).unwrap_err();
            assert!(refusal.contains("before 5.18"), "{refusal}");
        }
    }

    #[test]
    fn without_pieces_in_sockets_tc_ports_go_with_a_warning_and_xdp_ports_do_not() {
        let warning = room(true, false, false).check(9000, false, false).unwrap().unwrap();
        assert!(warning.contains("ports with tc hooks"), "{warning}");
        for (room, own) in [(room(true, false, false), false), (room(true, true, false), true)] {
            let refusal = room.check(9000, true, own).unwrap_err();
            assert!(refusal.contains("kernel 6.6") && refusal.contains("hook tc"), "{refusal}");
        }
        // A NIC with zero copy and small packets is in nobody's way.
        assert_eq!(room(true, true, false).check(9000, true, false), Ok(None));
        assert_eq!(room(true, true, false).check(9000, false, false), Ok(None));
    }
}
