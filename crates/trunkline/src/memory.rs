//! How much packet memory the node needs.

use control::model::Model;

/// Room a chunk must have besides the packet: headroom of the kernel, Ethernet header, tags.
const CHUNK_OVERHEAD: u32 = 256 + 14 + 2 * 4;
/// Largest packet that native XDP takes without fragments on a page of 4096 bytes: what veth and
/// most drivers leave of it.
pub(crate) const LARGEST_MTU: u32 = 3498;
/// Frames of a worker besides its rings: its cache of free ones and copies of flooded frames.
const SPARE: u32 = 1024;

/// Size of a frame's chunk for this node, bytes.
pub(crate) fn chunk(model: &Model) -> u32 {
    let largest = model.networks.iter().map(|network| network.mtu).max().unwrap_or(1500);
    if largest + CHUNK_OVERHEAD <= 2048 { 2048 } else { 4096 }
}

/// Largest packet a port may have with chunks of this size, bytes.
pub(crate) const fn largest_mtu(chunk: u32) -> u32 {
    let fits = chunk - CHUNK_OVERHEAD;
    if fits < LARGEST_MTU { fits } else { LARGEST_MTU }
}

/// Frames for `sockets` sockets that each hold `each` in their rings, and `workers` workers.
pub(crate) const fn frames(sockets: u32, each: u32, workers: u32) -> u32 {
    sockets * each + workers * SPARE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_holds_the_largest_packet_with_both_tags() {
        for chunk in [2048, 4096] {
            let mtu = largest_mtu(chunk);
            assert!(mtu + CHUNK_OVERHEAD <= chunk && mtu >= 1500, "{chunk}: {mtu}");
        }
        assert_eq!(largest_mtu(4096), LARGEST_MTU);
    }
}
