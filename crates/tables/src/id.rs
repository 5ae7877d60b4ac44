//! The numbers by which tables, lines and the punt link name things.

use core::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $last:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(u16);

        impl $name {
            /// The number that names nothing.
            pub const NONE: Self = Self(0);
            /// The largest number; twelve bits hold it.
            pub const LAST: u16 = $last;

            /// The number as a name, or nothing where it does not fit.
            #[must_use]
            pub const fn new(number: u16) -> Option<Self> {
                if number >= 1 && number <= $last { Some(Self(number)) } else { None }
            }

            /// The plain number.
            #[must_use]
            pub const fn get(self) -> u16 {
                self.0
            }

            /// The number as an index into an array of all of them.
            #[must_use]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

number! {
    /// A port of this node: 1 to 4094, since the punt link carries it in a VLAN tag.
    PortId, 4094
}
number! {
    /// A segment of this node: 1 to 4094.
    SegmentId, 4094
}
number! {
    /// Segments that route to each other: 1 to 4095; none is the public side.
    ZoneId, 4095
}
