//! Longest-prefix match for tables as large as the Internet's, changed route by route while others look up.
//!
//! [`Table`] is what the control thread has: it takes and removes routes, a few microseconds each.
//! [`Table::snapshot`] gives a [`Fib`], an immutable value that any number of threads look up in, without a
//! lock and without a wait; snapshots share all memory that did not change between them.
//!
//! ```
//! use sag_fib::Table;
//!
//! let mut table = Table::<u32>::new();
//! table.insert(0, 0, 1)?; // 0.0.0.0/0
//! table.insert(0x0a00_0000, 8, 2)?; // 10.0.0.0/8
//! let before = table.snapshot();
//! table.insert(0x0a01_0000, 16, 3)?; // 10.1.0.0/16
//! let after = table.snapshot();
//! assert_eq!((before.lookup(0x0a01_0203), after.lookup(0x0a01_0203)), (Some(2), Some(3)));
//! table.remove(0x0a00_0000, 8);
//! assert_eq!(table.snapshot().lookup(0x0a02_0000), Some(1));
//! # Ok::<(), sag_fib::TableError>(())
//! ```
//!
//! # The structure
//!
//! The first 24 bits of an address index an array, as in DIR-24-8 (Gupta, Lin and McKeown, INFOCOM 1998), so
//! that one read answers for nearly all of IPv4. Each further step takes 6 bits, as in a poptrie (Asai and
//! Ohara, SIGCOMM 2015). A node is a bitmap of 64 slots, in which a bit says that the slot differs from the
//! one before, and the words of those that do: route numbers, or the places of further nodes. Where one path
//! alone leads on, a block with the address to compare takes the place of the nodes between, so that
//! scattered long prefixes cost no more than others.
//!
//! What a region of addresses looks like depends on nothing but the routes that matter there: a table that
//! was changed a million times is the same as one that was built at once. The tests rely on it.
//!
//! Arrays and nodes lie in pages of 4 KiB behind [`std::sync::Arc`], and pages in directories of 128. A
//! change copies the pages that it writes, unless no snapshot has them. Parts of the array without a route
//! share one page, and so do such with a single one. Nothing is ever freed while somebody may read it,
//! because each snapshot holds its pages.

#![warn(missing_docs)]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

mod addr;
mod block;
mod fib;
pub mod generate;
mod pages;
mod slabs;
mod table;

pub use addr::FibAddr;
pub use fib::Fib;
pub use table::{Limits, MAX_ROUTE, Memory, Table, TableError};

#[cfg(test)]
mod tests;
