//! Ports of a bridge: one more, and whether they forward.

use rtnetlink::packet_route::link::{
    BridgePortState, InfoBridgePort, InfoPortData, InfoPortKind, LinkAttribute, LinkInfo,
};
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use super::{Links, NetlinkError};

/// errno of a link that is down, or has no carrier.
const ENETDOWN: i32 = 100;

impl Links {
    /// Makes a link a port of a bridge that learns nobody by it: what leaves by no other port is
    /// for all behind this one.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn join_bridge(&self, index: u32, bridge: u32) -> Result<(), NetlinkError> {
        let join = LinkUnspec::new_with_index(index).controller(bridge);
        self.change("cannot make it a port of the bridge".into(), join).await?;
        let learns = InfoBridgePort::Learning(false);
        self.change_port(index, "cannot switch learning off", vec![learns]).await
    }

    /// Has a port of a bridge forward, or take and send nothing and know nobody. All else of it
    /// stays. One that is down is left as it is: the bridge has it forward when it comes up.
    ///
    /// A silent one is in the state that spanning tree calls listening: without that protocol a
    /// bridge has a disabled or blocking port forward again at the next change of anything.
    ///
    /// # Errors
    /// The kernel refuses, or runs the spanning tree protocol on the bridge.
    pub async fn set_forwarding(&self, index: u32, on: bool) -> Result<(), NetlinkError> {
        let (doing, parts) = match on {
            true => (
                "cannot have it forward again",
                vec![InfoBridgePort::State(BridgePortState::Forwarding)],
            ),
            // Stations that were learned there are sent to nowhere else.
            false => (
                "cannot silence it in its bridge",
                vec![InfoBridgePort::State(BridgePortState::Listening), InfoBridgePort::Flush],
            ),
        };
        match self.change_port(index, doing, parts).await {
            Err(NetlinkError::System { errno: Some(ENETDOWN), .. }) => Ok(()),
            done => done,
        }
    }

    async fn change_port(
        &self,
        index: u32,
        doing: &str,
        parts: Vec<InfoBridgePort>,
    ) -> Result<(), NetlinkError> {
        let info = LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(parts)),
        ]);
        let link: LinkMessageBuilder<LinkUnspec> =
            LinkUnspec::new_with_index(index).append_extra_attribute(info);
        self.change(doing.to_owned(), link).await
    }
}
