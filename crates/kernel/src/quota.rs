//! How much a VM may send and be sent, as the programs meter it (`bpf/quota.h`).

use crate::layout::{QUOTA_IN, QUOTA_OUT, QUOTA_PEAK, QUOTA_SHIFT, QuotaRow, Rate};

/// One way of a quota, in libvirt's units: thousands of bytes a second, and 1024 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// What is let through in the long run, kB/s; 0: as much as comes.
    pub average: u32,
    /// The most at any time, kB/s; 0: as much as comes.
    pub peak: u32,
    /// What can be had beyond the average after a rest, KiB; 0: what comes in a second.
    pub burst: u32,
}

/// What a VM may send, and what it may be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// From it.
    pub outbound: Limit,
    /// To it.
    pub inbound: Limit,
}

const NANOSECONDS: u64 = 1_000_000_000;
/// At its peak rate this much can be saved up, nanoseconds: TCP sends in bursts, and loses most of
/// its speed where they are cut off.
const PEAK_BURST: u64 = 100_000_000;

/// Nanoseconds that 1024 bytes cost at so many kB/s.
fn cost(rate: u32) -> u32 {
    ((NANOSECONDS << QUOTA_SHIFT) / 1000).checked_div(rate.into()).unwrap_or(0) as u32
}

impl Quota {
    pub(crate) fn is_none(&self) -> bool {
        let limits = [self.outbound, self.inbound];
        limits.iter().all(|limit| limit.average == 0 && limit.peak == 0)
    }

    pub(crate) fn row(&self) -> QuotaRow {
        let mut row = QuotaRow::default();
        for (way, limit) in [(QUOTA_OUT, self.outbound), (QUOTA_IN, self.inbound)] {
            let burst = match limit.burst {
                0 => NANOSECONDS,
                burst => u64::from(burst) * u64::from(cost(limit.average)),
            };
            row.rates[way] = Rate { cost: cost(limit.average), spare: 0, burst };
            row.rates[way + QUOTA_PEAK] =
                Rate { cost: cost(limit.peak), spare: 0, burst: PEAK_BURST };
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_become_the_time_that_bytes_cost() {
        let outbound = Limit { average: 1000, peak: 10_000_000, burst: 64 };
        let quota = Quota { outbound, inbound: Limit { average: 1, ..Limit::default() } };
        let rates = quota.row().rates.map(|rate| (rate.cost, rate.burst));
        // A megabyte a second: 1024 bytes in 1.024 ms.
        assert_eq!(rates[QUOTA_OUT], (1_024_000, 64 * 1_024_000));
        assert_eq!(rates[QUOTA_OUT + QUOTA_PEAK], (102, PEAK_BURST));
        assert_eq!(rates[QUOTA_IN], (1_024_000_000, NANOSECONDS));
        assert_eq!(rates[QUOTA_IN + QUOTA_PEAK], (0, PEAK_BURST));
        assert!(!quota.is_none() && Quota::default().is_none());
    }
}
