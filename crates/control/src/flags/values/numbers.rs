//! Ranges of ports and lists of cores.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Ports, first and last; written like `20000-45999`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl Default for PortRange {
    /// The host keeps its services below and its ephemeral ports above.
    fn default() -> Self {
        Self { first: 20_000, last: 45_999 }
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a range of ports; write it like 20000-45999");
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let port = |text: &str| text.trim().parse::<u16>().map_err(|_| wrong());
        let (first, last) = (port(first)?, port(last)?);
        if first < 1024 || last < first || last - first < 999 {
            return Err(format!("'{text}' must have 1000 ports or more, none of them below 1024"));
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", self.first, self.last)
    }
}

/// Cores, each once, in the order given; written like `0,2-3`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cores(pub Vec<usize>);

/// No machine has more, and a mistyped range must not fill the memory.
const MAX_CORE: usize = 8191;

impl FromStr for Cores {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a list of cores; write it like 0,2-3");
        let core = |number: &str| match number.trim().parse::<usize>() {
            Ok(core) if core <= MAX_CORE => Ok(core),
            _ => Err(wrong()),
        };
        let mut cores = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (core(first)?, core(last)?);
            if first > last {
                return Err(wrong());
            }
            for core in first..=last {
                if cores.contains(&core) {
                    return Err(format!("core {core} is twice in '{text}'"));
                }
                cores.push(core);
            }
        }
        Ok(Self(cores))
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, core) in self.0.iter().enumerate() {
            write!(out, "{}{core}", if place == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}
