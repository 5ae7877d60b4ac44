//! The workers' sockets, following what becomes of NICs: an interface that goes and comes back, or has
//! another number of queues (`ethtool -L`). A socket belongs to one queue of one interface, and a
//! queue without a socket loses its packets.

use af_xdp::QueuePlan;
use anyhow::Result;

use crate::node::Node;
use crate::start::{NIC_SOCKETS, first_slot};
use crate::workers::NicQueues;

impl Node {
    /// Opens sockets anew if NICs have others queues than they had, or are there (not) any more.
    pub(crate) async fn follow_queues(&mut self) {
        let now = self.nics_now();
        if now == self.workers.nics && self.workers.are_all_there() {
            return;
        }
        match self.renew_sockets(now) {
            Ok(()) => {
                self.renewals += 1;
                tracing::warn!("sockets were opened anew: the queues of a NIC changed");
            }
            // Tried again within a second: an interface may go while one looks at it.
            Err(error) => tracing::error!("sockets cannot be opened anew: {error:#}"),
        }
    }

    /// The NICs with sockets, with their queues of now.
    fn nics_now(&self) -> Vec<NicQueues> {
        let of = |nic: &NicQueues| {
            let port = self.ports.get(&nic.port);
            let plan = port.and_then(|port| QueuePlan::of(&port.name).ok());
            let fits = |plan: &QueuePlan| plan.check().is_ok() && plan.rx() <= NIC_SOCKETS;
            NicQueues { plan: plan.filter(fits), ..nic.clone() }
        };
        self.workers.nics.iter().map(of).collect()
    }

    fn renew_sockets(&mut self, nics: Vec<NicQueues>) -> Result<()> {
        for nic in &nics {
            let queues = nic.plan.as_ref().map_or(0, QueuePlan::rx);
            if let Some(sockets) = self.nic_sockets.get_mut(&nic.port) {
                sockets.queues = u16::try_from(queues)?;
            }
        }
        let kernel = &mut self.kernel;
        self.workers.renew(&self.model, &self.publisher, nics, |nic, queue, socket| {
            let first = nic.map_or(0, |nic| first_slot(nic as u32));
            Ok(kernel.set_socket(first + queue, socket)?)
        })?;
        self.tell_kernel()
    }
}
