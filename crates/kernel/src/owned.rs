//! Addresses of the public side: which packets from a public NIC are ours.

use libbpf_rs::MapCore as _;
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::Kernel;
use crate::error::Error;
use crate::layout::{ForwardKey, OWNED_FLOAT, OWNED_NETWORK, OWNED_SNAT, OwnedKey};
use crate::ports::{get, put, remove};

const MAP: &str = "owned";
const FORWARDS: &str = "forwards";

/// An IPv4 prefix: an address, and how many of its bits count.
pub type Prefix = ([u8; 4], u8);

/// What an address or prefix of the public side is to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owned {
    /// Connections leave with it, and the host uses it as well: ours is what a line of the table
    /// is for.
    Snat,
    /// A VM's floating address: all ours, ARP for it too.
    Float,
    /// A tenant network that is routed to us: all ours.
    Network,
}

impl Owned {
    fn code(self) -> u32 {
        match self {
            Self::Snat => OWNED_SNAT,
            Self::Float => OWNED_FLOAT,
            Self::Network => OWNED_NETWORK,
        }
    }

    fn of(code: u32) -> Option<Self> {
        [Self::Snat, Self::Float, Self::Network].into_iter().find(|kind| kind.code() == code)
    }
}

impl Kernel {
    /// Says what a prefix is to this node; of two that hold an address the
    /// longer counts. Bits behind the prefix do not matter.
    ///
    /// # Errors
    /// The length is above 32, or the map is full ([`crate::OWNED`]) or refuses.
    pub fn set_owned(&mut self, prefix: Prefix, kind: Owned) -> Result<(), Error> {
        put(&self.maps.owned, MAP, &key(prefix)?, &kind.code())
    }

    /// Gives a prefix back to the host. One that is not there is no error.
    ///
    /// # Errors
    /// The length is above 32, or the map refuses.
    pub fn clear_owned(&mut self, prefix: Prefix) -> Result<(), Error> {
        remove(&self.maps.owned, MAP, key(prefix)?.as_bytes())
    }

    /// Says that a UDP port of a [`Owned::Snat`] address leads to a VM, or no longer.
    ///
    /// # Errors
    /// The map is full ([`crate::FORWARDS`]) or refuses.
    pub fn set_forward(&mut self, address: [u8; 4], port: u16, leads: bool) -> Result<(), Error> {
        let key = ForwardKey { address, port: port.to_be_bytes(), spare: 0 };
        match leads {
            true => put(&self.maps.forwards, FORWARDS, &key, &1u32),
            false => remove(&self.maps.forwards, FORWARDS, key.as_bytes()),
        }
    }

    /// All that is owned, in no order.
    ///
    /// # Errors
    /// The map refuses.
    pub fn owned(&self) -> Result<Vec<(Prefix, Owned)>, Error> {
        let keys = self.maps.owned.keys();
        let keys: Vec<_> = keys.filter_map(|key| OwnedKey::read_from_bytes(&key).ok()).collect();
        let mut all = Vec::with_capacity(keys.len());
        for key in keys {
            if let Some(kind) = get(&self.maps.owned, MAP, &key)?.and_then(Owned::of) {
                all.push(((key.address, key.length as u8), kind));
            }
        }
        Ok(all)
    }
}

fn key((address, length): Prefix) -> Result<OwnedKey, Error> {
    let length = u32::from(length);
    let behind = u32::MAX.checked_shr(length).unwrap_or(0);
    if length > u32::BITS {
        return Err(Error::Number { what: "prefix length", number: length });
    }
    let address = (u32::from_be_bytes(address) & !behind).to_be_bytes();
    Ok(OwnedKey { length, address })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_behind_a_prefix_do_not_matter() {
        for (length, address) in
            [(0, [0; 4]), (8, [91, 0, 0, 0]), (23, [91, 207, 14, 0]), (32, [91, 207, 15, 105])]
        {
            let expected = OwnedKey { length: length.into(), address };
            assert_eq!(key(([91, 207, 15, 105], length)).unwrap(), expected);
        }
        let said = key(([0; 4], 33)).unwrap_err().to_string();
        assert_eq!(said, "there is no prefix length 33");
    }

    #[test]
    fn a_kind_is_its_code_and_back() {
        for kind in [Owned::Snat, Owned::Float, Owned::Network] {
            assert_eq!(Owned::of(kind.code()), Some(kind));
        }
        assert_eq!(Owned::of(0), None);
    }
}
