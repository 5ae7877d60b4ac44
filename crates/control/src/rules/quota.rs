//! The `quota` of a `[[vif]]`: how much its VM may send and be sent.

use crate::config::QuotaEntry;
use crate::model::{Limit, Quota};

/// 80 Gbit/s: beyond it the kernel's programs count too coarsely.
const RATE_MOST: i64 = 10_000_000;
/// 4 GB.
const BURST_MOST: i64 = 4_000_000;

/// Reads a quota.
pub(super) fn quota(said: QuotaEntry) -> Result<Quota, String> {
    let (average, peak, burst) = (said.inbound_average, said.inbound_peak, said.inbound_burst);
    let inbound = limit("inbound", average, peak, burst)?;
    let (average, peak, burst) = (said.outbound_average, said.outbound_peak, said.outbound_burst);
    Ok(Quota { outbound: limit("outbound", average, peak, burst)?, inbound })
}

fn limit(
    way: &str,
    average: Option<i64>,
    peak: Option<i64>,
    burst: Option<i64>,
) -> Result<Limit, String> {
    let number = |what: &str, said: Option<i64>, most: i64, unit: &str| match said {
        None => Ok(0),
        Some(number) if (1..=most).contains(&number) => Ok(number as u32), // at most 10^7
        Some(number) => Err(format!("{way}_{what} is {number}: it has to be 1 to {most} {unit}")),
    };
    let limit = Limit {
        average: number("average", average, RATE_MOST, "kB/s")?,
        peak: number("peak", peak, RATE_MOST, "kB/s")?,
        burst: number("burst", burst, BURST_MOST, "KiB")?,
    };
    if limit.average == 0 && limit != Limit::default() {
        return Err(format!("{way}_peak and {way}_burst want an {way}_average beside them"));
    }
    if limit.peak != 0 && limit.peak < limit.average {
        let Limit { average, peak, .. } = limit;
        return Err(format!("{way}_peak {peak} is less than {way}_average {average}"));
    }
    Ok(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_read_and_what_cannot_be_meant_is_refused_in_words() {
        let said = QuotaEntry {
            inbound_average: Some(1000),
            inbound_peak: Some(2000),
            inbound_burst: Some(64),
            ..QuotaEntry::default()
        };
        let inbound = Limit { average: 1000, peak: 2000, burst: 64 };
        assert_eq!(quota(said), Ok(Quota { outbound: Limit::default(), inbound }));
        let refused = [
            (
                QuotaEntry { outbound_average: Some(0), ..said },
                "outbound_average is 0: it has to be 1 to 10000000 kB/s",
            ),
            (
                QuotaEntry { inbound_average: Some(3000), ..said },
                "inbound_peak 2000 is less than inbound_average 3000",
            ),
            (
                QuotaEntry { outbound_burst: Some(10), ..said },
                "outbound_peak and outbound_burst want an outbound_average beside them",
            ),
            (
                QuotaEntry { inbound_burst: Some(-1), ..said },
                "inbound_burst is -1: it has to be 1 to 4000000 KiB",
            ),
        ];
        for (said, words) in refused {
            assert_eq!(quota(said), Err(words.to_owned()));
        }
    }
}
