//! The connection table: find, install, change and expire connections, over memory it is given.
//!
//! An array of 64-byte lines, one line per *direction*, found by that direction's own key. The
//! memory is a memory-mapped BPF array: userspace decides and installs, kernel programs replay,
//! and the connections outlive both. Readers never wait, and nothing is ever allocated.
//!
//! Beside it [`Fragments`]: the ports of datagrams that come in fragments, which only the first has.
//!
//! It knows no packets, no ports, no rules and reads no clock: keys, rewrites, stamps and seconds
//! are given to it. [`layout`] has the bits, `bpf/line.h` the same for C.
//!
//! ```
//! use conntrack::{FlowKey, Installed, NewLine, Rewrite, Table, layout};
//!
//! let table = Table::in_memory(Table::lines_for(1000), 0x1234_5678_9abc_def0);
//! // VM 10.0.0.3 on port 7 asks VM 10.0.0.4 on port 8, bridged within segment 100.
//! let ask = FlowKey::ipv4([10, 0, 0, 3], [10, 0, 0, 4], 40000, 53, 17, 7, 1);
//! let there = Rewrite::bridged([0; 6], [0xfa, 0x16, 0x3e, 0, 0, 2], 8, 100, 0);
//! let back = Rewrite::default(); // not known before the first answer comes
//! let installed = table.install(
//!     &NewLine { key: ask, rewrite: there },
//!     &NewLine { key: ask.reversed(8, 1), rewrite: back },
//!     1, // stamp
//!     60, // seconds
//! )?;
//! assert!(matches!(installed, Installed::New { .. }));
//!
//! let flow = table.find(ask, table.hash(ask)).expect("just installed");
//! assert_eq!((flow.egress(), flow.path_known()), (8, true));
//! table.touch(&flow, 61, layout::FIN);
//! assert!(table.remove(&flow));
//! assert!(table.find(ask, table.hash(ask)).is_none());
//! # Ok::<(), conntrack::InstallError>(())
//! ```
// Clippy takes `cfg(all(test, not(loom)))` for no test.
#![cfg_attr(test, allow(clippy::unwrap_used))]
#![deny(unsafe_code)] // allowed once, in prefetch.rs

mod adopt;
mod change;
mod counts;
mod evict;
pub mod fault;
mod flow;
mod fragments;
mod install;
mod key;
pub mod layout;
mod line;
#[cfg(loom)]
mod model;
mod prefetch;
mod sweep;
mod sync;
mod table;

pub use adopt::{Adopted, Occupancy};
pub use change::{Mark, Revoked};
pub use counts::Quota;
pub use flow::{Flow, Rewrite};
pub use fragments::{Contradiction, FRAGMENT_LIFE_MS, Fragments};
pub use install::{InstallError, Installed, NewLine};
pub use key::FlowKey;
pub use line::Line;
pub use sweep::{Cursor, Event, Swept, Timeouts};
pub use table::Table;
