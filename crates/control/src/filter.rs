//! Which flows are meant: words, all of which a flow must have.
//!
//! `vnet1 tcp 8.8.8.8:53` are the flows that come or leave by vnet1, are TCP, and have that end.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::report::{End, Flow};

/// Words that a flow must have, all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Filter(Vec<String>);

impl Filter {
    /// Whether every flow gets through.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a flow has every word: a port's name, a protocol, an address before or after
    /// translation, or `address:port`.
    #[must_use]
    pub fn lets_through(&self, flow: &Flow) -> bool {
        self.0.iter().all(|word| has(flow, word))
    }
}

fn has(flow: &Flow, word: &str) -> bool {
    let ends = [Some(&flow.source), Some(&flow.destination)];
    let new = [flow.new_source.as_ref(), flow.new_destination.as_ref()];
    let is_end = |end: &End| end.address.eq_ignore_ascii_case(word) || end.to_string() == word;
    flow.ingress == word
        || flow.egress.as_deref() == Some(word)
        || flow.protocol.eq_ignore_ascii_case(word)
        || ends.into_iter().chain(new).flatten().any(is_end)
}

impl FromStr for Filter {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self::from(text.to_owned()))
    }
}

impl From<String> for Filter {
    fn from(text: String) -> Self {
        Self(text.split_whitespace().map(str::to_owned).collect())
    }
}

impl From<Filter> for String {
    fn from(filter: Filter) -> Self {
        filter.to_string()
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(address: &str, port: impl Into<Option<u16>>) -> End {
        End { address: address.into(), port: port.into() }
    }

    /// VM 1 asks 8.8.8.8 by the shared source address.
    fn flow() -> Flow {
        Flow {
            protocol: "udp".into(),
            source: end("10.0.0.3", 5353),
            destination: end("8.8.8.8", 53),
            new_source: Some(end("91.207.15.105", 20_007)),
            ingress: "vnet1".into(),
            egress: Some("eth1".into()),
            ..Flow::default()
        }
    }

    fn gets_through(words: &str) -> bool {
        Filter::from(words.to_owned()).lets_through(&flow())
    }

    #[test]
    fn a_flow_is_found_by_its_ports_protocol_and_addresses_old_and_new() {
        for words in [
            "",
            "vnet1",
            "eth1",
            "udp",
            "UDP",
            "10.0.0.3",
            "10.0.0.3:5353",
            "8.8.8.8:53",
            "91.207.15.105",
            "91.207.15.105:20007",
            "  vnet1   udp 8.8.8.8 ",
        ] {
            assert!(gets_through(words), "{words}");
        }
    }

    #[test]
    fn one_word_that_is_not_there_is_enough() {
        for words in ["vnet", "vnet10", "tcp", "10.0.0.3:53", "8.8.8", "8.8.8.8 tcp", "53", ":53"] {
            assert!(!gets_through(words), "{words}");
        }
    }

    #[test]
    fn a_bridged_flow_is_found_by_its_mac_addresses() {
        let flow = Flow {
            protocol: "0x86dd".into(),
            source: end("fa:16:3e:00:00:01", None),
            destination: end("fa:16:3e:00:00:04", None),
            ..Flow::default()
        };
        assert!(Filter::from("FA:16:3E:00:00:04 0x86dd".to_owned()).lets_through(&flow));
        assert!(!Filter::from("fa:16:3e:00:00".to_owned()).lets_through(&flow));
    }

    #[test]
    fn it_is_read_and_written_as_words() {
        let filter: Filter = serde_json::from_str("\" vnet1  udp \"").unwrap();
        assert_eq!(serde_json::to_string(&filter).unwrap(), "\"vnet1 udp\"");
        assert!(!filter.is_empty() && Filter::from(" ".to_owned()).is_empty());
    }
}
