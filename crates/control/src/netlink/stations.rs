//! The stations that Linux bridges know: what a daemon would learn anew.

use futures_util::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use wire::MacAddr;

use super::{Links, NetlinkError};

/// A station behind a port of a Linux bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BridgeStation {
    /// Index of the port.
    pub port: u32,
    /// Its MAC address.
    pub mac: MacAddr,
}

impl Links {
    /// The stations that the bridges of this namespace have learned or were told.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn bridge_stations(&self) -> Result<Vec<BridgeStation>, NetlinkError> {
        let request = self.handle.neighbours().get().set_address_family(AddressFamily::Bridge);
        let messages: Result<Vec<NeighbourMessage>, _> = request.execute().try_collect().await;
        let messages =
            messages.map_err(|e| NetlinkError::of("cannot list the bridges' stations", &e))?;
        Ok(messages.iter().filter_map(station).collect())
    }
}

fn station(message: &NeighbourMessage) -> Option<BridgeStation> {
    let header = &message.header;
    // A permanent entry is the port's own address, one with NTF_SELF a filter of a NIC.
    if header.state == NeighbourState::Permanent || header.flags.contains(NeighbourFlags::Own) {
        return None;
    }
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => {
            <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddr)
        }
        _ => None,
    })?;
    Some(BridgeStation { port: header.ifindex, mac })
}
