//! Forbidden connections in the log, for `iptables_drop_action = "log"`: some of them, since whoever
//! is kept out can go on trying.

use std::net::Ipv4Addr;

use pipeline::DropReason;
use pipeline::connect::Question;

use crate::node::Node;

/// Lines a second.
const LINES: u32 = 10;

/// What was logged of late.
#[derive(Debug, Default)]
pub(crate) struct Denied {
    second: u32,
    lines: u32,
    left_out: u64,
}

impl Denied {
    /// Whether one more may be logged now, and how many were not since the last one.
    fn may_log(&mut self, now: u32) -> Option<u64> {
        if self.second != now {
            (self.second, self.lines) = (now, 0);
        }
        if self.lines >= LINES {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl Node {
    pub(crate) fn log_denied(&mut self, reason: DropReason, asked: &Question, now: u32) {
        let Some(left_out) = self.denied.may_log(now) else { return };
        let from =
            format!("{} by {}", address(asked.source), self.names.told().port(asked.ingress));
        let (to, reason) = (address(asked.destination), reason.name());
        let what = match (asked.protocol, asked.port) {
            (wire::protocol::TCP, port) => format!("tcp {to}:{port}"),
            (wire::protocol::UDP, port) => format!("udp {to}:{port}"),
            (wire::protocol::ICMP, _) => format!("icmp {to}"),
            (number, _) => format!("protocol {number} {to}"),
        };
        if left_out > 0 {
            tracing::info!(left_out, "forbidden connections that are not in this log");
        }
        tracing::info!(reason, "forbidden: {from} to {what}");
    }
}

fn address(octets: [u8; 4]) -> Ipv4Addr {
    Ipv4Addr::from(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_a_second_are_logged_and_the_others_counted() {
        let mut denied = Denied::default();
        let logged = (0..100).filter(|_| denied.may_log(7).is_some()).count();
        assert_eq!((logged, denied.may_log(8), denied.may_log(8)), (10, Some(90), Some(0)));
    }
}
