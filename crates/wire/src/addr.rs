//! What names a station: six bytes on its Ethernet, four in its network.

use core::fmt;
use core::str::FromStr;

/// An Ethernet address, in the order its bytes travel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// All stations of a segment.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// No station: never a valid source.
    pub const ZERO: Self = Self([0; 6]);

    /// Whether the group bit is set (broadcast is a group too).
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether a bridge must not forward this destination (01:80:c2:00:00:00–0f, IEEE 802.1Q
    /// table 8-1: spanning tree, pause frames, LACP, LLDP).
    #[must_use]
    pub const fn is_link_local(self) -> bool {
        matches!(self.0, [0x01, 0x80, 0xc2, 0, 0, 0..=0x0f])
    }

    /// The lower half of the IPv6 addresses that the station makes of it (modified EUI-64, RFC 4291
    /// appendix A): `fe80::f816:3eff:fe00:1` of fa:16:3e:00:00:01.
    #[must_use]
    pub const fn interface_id(self) -> [u8; 8] {
        let [a, b, c, d, e, f] = self.0;
        [a ^ 2, b, c, 0xff, 0xfe, d, e, f]
    }

    /// The address as a number; the first byte is the lowest, as in a line of the table.
    #[must_use]
    pub const fn to_u64(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// A station as its neighbours know it: by an Ethernet and an IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Station {
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Its IPv4 address.
    pub address: [u8; 4],
}

/// What was given is not six bytes in hexadecimal with colons between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseMacError;

impl fmt::Display for ParseMacError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("not a MAC address; write it like fa:16:3e:00:00:01")
    }
}

impl core::error::Error for ParseMacError {}

impl FromStr for MacAddr {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, ParseMacError> {
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let part = parts.next().ok_or(ParseMacError)?;
            if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(ParseMacError);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| ParseMacError)?;
        }
        if parts.next().is_some() { Err(ParseMacError) } else { Ok(Self(mac)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_are_the_same_address() {
        let mac: MacAddr = "fa:16:3e:00:0a:01".parse().unwrap();
        assert_eq!(mac, MacAddr([0xfa, 0x16, 0x3e, 0, 0x0a, 1]));
        assert_eq!(mac.to_string(), "fa:16:3e:00:0a:01");
        assert_eq!(mac.to_u64(), 0x010a_003e_16fa);
        assert_eq!(mac.interface_id(), [0xf8, 0x16, 0x3e, 0xff, 0xfe, 0, 0x0a, 1]);
    }

    #[test]
    fn what_is_not_six_bytes_is_refused() {
        for text in ["", "fa:16:3e:00:0a", "fa:16:3e:00:0a:01:02", "fa:16:3e:00:0a:+1", "é:16:3e:0"]
        {
            assert_eq!(text.parse::<MacAddr>(), Err(ParseMacError), "{text}");
        }
    }

    #[test]
    fn groups_and_link_local_destinations_are_told_apart() {
        assert!(MacAddr::BROADCAST.is_multicast());
        assert!(!MacAddr([0xfa, 0x16, 0x3e, 0, 0, 1]).is_multicast());
        assert!(MacAddr([1, 0x80, 0xc2, 0, 0, 0x0e]).is_link_local());
        assert!(!MacAddr([1, 0x80, 0xc2, 0, 0, 0x10]).is_link_local());
    }
}
