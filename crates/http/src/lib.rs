//! An HTTP server that its clients cannot exhaust. hyper speaks the protocol, HTTP/1 and, with [`Limits::streams`],
//! HTTP/2; this crate bounds what strangers can make
//! a process keep: connections in all and of each source, bytes of bodies and answers, and the time for each of them.
//!
//! | what a client does | what happens |
//! |---|---|
//! | opens connections without end | at its source's bound its own oldest idle one makes room; with all in use, that of the source with most |
//! | sends half a head, half a body, or nothing | the connection is closed after the time for it |
//! | does not read its answer | likewise |
//! | sends or requests much at once | beyond [`Limits::buffered`] the source that holds most loses a connection, or the call gets 503 with `Retry-After` |
//! | has many calls on one connection of HTTP/2 | beside the first they count like connections; beyond the bound 503 |
//! | takes back calls of HTTP/2 as soon as they run | the connection is closed |
//! | asks for what is costly to make, again and again | [`Remade`]: it gets what was made before |
//! | uses up the descriptors of the process | [`Limits::fit`] keeps a reserve, and the accept loop goes on |
//!
//! With the feature `gzip` it also decompresses bodies, within the same bounds, and compresses answers.
//!
//! A source is an IPv4 address or an IPv6 network of 64 bits, which is what one customer has. [`Gate::ended`] counts by
//! [`Reason`].
//!
//! ```no_run
//! use http_body_util::Full;
//! use sag_http::{Conn, Gate, Limits, Plain, serve};
//!
//! # async fn run() -> std::io::Result<()> {
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let gate = Gate::new(Limits { connections: 64, ..Limits::default() });
//! let hello = |_, _: Conn| async { hyper::Response::new(Full::from("hello\n")) };
//! serve(gate, listener, Plain, hello, std::future::pending()).await;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

mod answer;
mod body;
mod conn;
mod gate;
#[cfg(feature = "gzip")]
mod gzip;
mod limits;
mod remade;
mod serve;
mod slot;
mod stream;

pub use body::{Body, BodyError};
pub use conn::Conn;
pub use gate::{Gate, Reason};
#[cfg(feature = "gzip")]
pub use gzip::deflate;
pub use limits::{Limits, raise_descriptor_limit};
pub use remade::Remade;
pub use serve::{Accept, Open, Plain, busy, serve};
