//! What a tunnel needs beside its header: ESP ([`esp`]), key agreement ([`keys`]), forward error
//! correction ([`fec`]), liveness ([`liveness`]), path MTU discovery ([`plpmtud`]), the probe packet of
//! both ([`probe`]), and the choice between several tunnels to one destination ([`group`]).
//!
//! The crate is pure: no socket, no thread, no clock. Times are nanoseconds of the caller's monotonic
//! clock.
//!
//! ```
//! use sag_tunnel::esp::{Cipher, HEADROOM, Inbound, Inner, Outbound, Suite, TAILROOM};
//!
//! // Key and salt (RFC 4106 8.1); both ends have the same.
//! let suite = || Suite::new(Cipher::Aes128Gcm, &[7; 20]);
//! let tx = Outbound::new(0x1000, suite()?, false, 1, 0);
//! let rx = Inbound::new(0x1000, suite()?, false, 64, 0);
//!
//! // An IPv4 header, with room for ESP around it.
//! let packet = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0, 192, 0, 2, 1, 198, 51, 100, 7];
//! let mut buf = vec![0; HEADROOM];
//! buf.extend(packet);
//! buf.resize(HEADROOM + 20 + TAILROOM, 0);
//! let sealed = tx.seal(&mut buf, HEADROOM..HEADROOM + 20, Inner::V4)?;
//!
//! let esp = &mut buf[sealed.at];
//! let mut again = esp.to_vec();
//! let opened = rx.open(esp)?;
//! assert_eq!(esp[opened.at], packet);
//! assert!(rx.open(&mut again).is_err(), "a replay");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(missing_docs)]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

pub mod esp;
pub mod fec;
pub mod group;
pub mod keys;
pub mod liveness;
pub mod plpmtud;
pub mod probe;
