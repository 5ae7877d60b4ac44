//! The queue plan: which queues need a socket, and which worker gets which.

use crate::channels::{self, Channels};
use crate::error::Error;
use crate::sys;

/// The queues of an interface, read from the driver.
///
/// A packet is redirected to the socket of the queue it arrived on, so every receive queue that
/// packets can be spread over needs a socket, and a socket sends on the transmit queue of the same
/// number. A queue without a socket loses its packets, and only its packets, which looks like a bad
/// cable. Hence this is checked at start.
///
/// All active receive queues count, whatever the RSS table says today: `ethtool -X` and flow rules
/// change that at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuePlan {
    interface: String,
    ifindex: u32,
    channels: Channels,
}

impl QueuePlan {
    /// Reads the queues of `interface` in the network namespace of the calling thread.
    ///
    /// By ioctl and netlink, not from /sys, which shows the namespace it was mounted in.
    ///
    /// # Errors
    /// No such interface there.
    pub fn of(interface: &str) -> Result<QueuePlan, Error> {
        let failed = |source| Error::Interface { interface: interface.to_string(), source };
        let ifindex = sys::ifindex(interface).map_err(failed)?;
        let channels = match channels::from_ethtool(interface) {
            // Dummies and others have no such operation, and mostly one queue.
            Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => channels::from_link(ifindex),
            answer => answer,
        };
        let channels = channels.map_err(failed)?;
        Ok(QueuePlan { interface: interface.to_string(), ifindex, channels })
    }

    /// The name of the interface.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// The index of the interface.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Active receive queues: each needs a socket.
    pub fn rx(&self) -> u32 {
        self.channels.rx
    }

    /// Active transmit queues.
    pub fn tx(&self) -> u32 {
        self.channels.tx
    }

    /// Checks that a socket on every receive queue can also send.
    ///
    /// # Errors
    /// No queue at all, or fewer transmit than receive queues, with the command that mends it.
    pub fn check(&self) -> Result<(), Error> {
        let (rx, tx) = (self.channels.rx, self.channels.tx);
        if rx == 0 {
            let name = &self.interface;
            let text = format!("{name} has no active queue; if it is a tap, nobody has opened it");
            return Err(Error::Queues(text));
        }
        if tx >= rx {
            return Ok(());
        }
        Err(Error::Queues(format!(
            "{} receives on {rx} queues and sends on {tx}, but a socket needs one of each; {}",
            self.interface,
            self.remedy(rx.min(self.channels.max_tx.max(self.channels.max_combined)))
        )))
    }

    /// Checks that there are exactly `wanted` receive queues and no fewer to send on, as the punt
    /// link needs for `wanted` workers.
    ///
    /// # Errors
    /// Another number, with the command that mends it.
    pub fn require(&self, wanted: u32) -> Result<(), Error> {
        let (rx, tx) = (self.channels.rx, self.channels.tx);
        if rx == wanted && tx >= wanted {
            return Ok(());
        }
        Err(Error::Queues(format!(
            "{} has {rx} receive and {tx} transmit queues, {wanted} of each are needed; {}",
            self.interface,
            self.remedy(wanted)
        )))
    }

    /// Deals the receive queues to `workers`: queue `q` to worker `q % workers`.
    ///
    /// The answer has one list for each worker; with more workers than queues some are empty.
    pub fn deal(&self, workers: usize) -> Vec<Vec<u32>> {
        let mut hands = vec![Vec::new(); workers];
        for queue in 0..self.channels.rx {
            if let Some(hand) = hands.get_mut(queue as usize % workers.max(1)) {
                hand.push(queue);
            }
        }
        hands
    }

    fn remedy(&self, wanted: u32) -> String {
        let Channels { max_rx, max_tx, max_combined, .. } = self.channels;
        let name = &self.interface;
        let most = max_rx.min(max_tx).max(max_combined);
        if wanted > most {
            format!("it has at most {most}: use fewer workers")
        } else if wanted <= max_combined {
            format!("before an XDP program is attached: `ethtool -L {name} combined {wanted}`")
        } else {
            format!(
                "before an XDP program is attached: `ethtool -L {name} rx {wanted} tx {wanted}`"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(rx: u32, tx: u32, max: u32, max_combined: u32) -> QueuePlan {
        let channels = Channels { rx, tx, max_rx: max, max_tx: max, max_combined };
        QueuePlan { interface: "eth7".into(), ifindex: 7, channels }
    }

    #[test]
    fn queues_are_dealt_round_robin() {
        assert_eq!(plan(5, 5, 8, 0).deal(2), [vec![0, 2, 4], vec![1, 3]]);
        assert_eq!(plan(1, 1, 1, 0).deal(3), [vec![0], vec![], vec![]]);
        assert_eq!(plan(1, 1, 1, 0).deal(0), [] as [Vec<u32>; 0]);
    }

    #[test]
    fn more_receive_than_transmit_queues_are_refused_with_the_command() {
        assert!(plan(2, 2, 4, 0).check().is_ok() && plan(1, 2, 4, 0).check().is_ok());
        let text = plan(4, 2, 4, 0).check().unwrap_err().to_string();
        assert!(text.contains("eth7 receives on 4 queues and sends on 2"), "{text}");
        assert!(text.contains("`ethtool -L eth7 rx 4 tx 4`"), "{text}");
        let text = plan(4, 2, 0, 8).check().unwrap_err().to_string();
        assert!(text.contains("`ethtool -L eth7 combined 4`"), "{text}");
    }

    #[test]
    fn a_wrong_number_of_queues_is_refused_with_the_command_or_the_limit() {
        assert!(plan(2, 2, 4, 0).require(2).is_ok());
        let text = plan(1, 1, 4, 0).require(2).unwrap_err().to_string();
        assert!(text.contains("2 of each are needed"), "{text}");
        assert!(text.contains("`ethtool -L eth7 rx 2 tx 2`"), "{text}");
        let text = plan(4, 4, 4, 0).require(2).unwrap_err().to_string();
        assert!(text.contains("`ethtool -L eth7 rx 2 tx 2`"), "{text}");
        let text = plan(1, 1, 1, 0).require(2).unwrap_err().to_string();
        assert!(text.contains("at most 1: use fewer workers"), "{text}");
    }
}
