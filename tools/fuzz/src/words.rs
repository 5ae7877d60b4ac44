//! What people and earlier daemons write: packets in words, filters, values of flags, MAC
//! addresses, the record of what was left. The first byte says which.

use control::adopt::Record;
use control::filter::Filter;
use control::flags::{Cores, Hook, NetworkKind, PortRange, Provision, Replay, XdpMode};
use control::left::Left;
use control::words::Words;
use wire::MacAddr;

/// What is written again is read as the same.
macro_rules! read_back {
    ($kind:ty, $text:expr) => {
        if let Ok(value) = $text.parse::<$kind>() {
            let again = value.to_string().parse::<$kind>();
            assert_eq!(again.as_ref(), Ok(&value));
        }
    };
}

pub(crate) fn run(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    match which % 6 {
        0 => packet(&text),
        1 => drop(text.parse::<Filter>()),
        2 => {
            read_back!(Cores, text);
            read_back!(PortRange, text);
            read_back!(Hook, text);
            read_back!(NetworkKind, text);
            read_back!(Provision, text);
            read_back!(Replay, text);
            read_back!(XdpMode, text);
        }
        3 => read_back!(MacAddr, text),
        4 => drop(serde_json::from_slice::<Left>(rest)),
        _ => drop(serde_json::from_slice::<Record>(rest)),
    }
}

/// A packet in words is a packet in bytes.
fn packet(text: &str) {
    let Ok(words) = text.parse::<Words>() else { return };
    let (from, to) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
    if let Ok(frame) = words.frame(from, to) {
        let headers = wire::parse(&frame).expect("the builder's frames are whole");
        let wire::Network::Ipv4(ip) = headers.network else { panic!("{headers:?}") };
        assert_eq!(ip.src, words.source.0.octets());
        assert_eq!(ip.dst, words.destination.0.octets());
    }
}
