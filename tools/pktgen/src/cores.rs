//! What the machine's cores did meanwhile, whoever had them do it.

use std::time::Instant;

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};

/// When it began, and what each core had done by then.
pub(crate) struct Watch {
    since: Instant,
    before: Vec<u64>,
}

impl Watch {
    pub(crate) fn start() -> Result<Self> {
        Ok(Self { since: Instant::now(), before: busy()? })
    }

    /// The share of its time that each core has been busy since.
    pub(crate) fn stop(&self) -> Result<Vec<f64>> {
        let ticks = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100) as f64;
        let all = self.since.elapsed().as_secs_f64() * ticks;
        let share = |(after, before): (u64, &u64)| (after - before) as f64 / all;
        Ok(busy()?.into_iter().zip(&self.before).map(share).collect())
    }
}

/// Clock ticks that each core was not idle, proc_stat(5): user, nice, system, irq and softirq.
fn busy() -> Result<Vec<u64>> {
    let text = std::fs::read_to_string("/proc/stat").context("/proc/stat")?;
    Ok(text.lines().filter_map(core).collect())
}

fn core(line: &str) -> Option<u64> {
    let mut words = line.split(' ');
    // The first line, "cpu", is for all of them.
    words.next().filter(|name| name.len() > 3 && name.starts_with("cpu"))?;
    let ticks: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
    [0, 1, 2, 5, 6].iter().map(|column| ticks.get(*column)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cores_busy_time_leaves_out_idle_and_waiting_and_stolen() {
        assert_eq!(core("cpu1 10 20 30 4000 500 6 7 80 0 0"), Some(73));
        assert_eq!(core("cpu  10 20 30 4000 500 6 7 80 0 0"), None);
        assert_eq!(core("intr 12345 0 1"), None);
    }
}
