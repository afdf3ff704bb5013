//! Keys of the peer to which sessions follow: `[ha]`.

use crate::config::schema::{HexKey, HostPort, key, table};
use crate::config::types::Secret;
use std::net::SocketAddr;
use std::path::PathBuf;

table! {
    /// A second gateway that goes on with the sessions when it gets their packets; see [high availability](ha.md). Both
    /// have this section, with the addresses the other way round.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Ha as RawHa, HaKeys, ReadHa {
        /// This gateway's end of the link: an address of its own, which does not move to the peer.
        pub listen: SocketAddr as HostPort =>
            key()
                .allowed("`address:port`")
                .missing("write this gateway's address and port, as in listen = \"192.0.2.1:7788\"", "")
                .example("\"10.255.0.1:7788\"");
        /// The other gateway's `listen`.
        pub peer: SocketAddr as HostPort =>
            key()
                .allowed("`address:port`, of the same family")
                .missing("write the other gateway's address and port, as in peer = \"192.0.2.2:7788\"", "")
                .example("\"10.255.0.2:7788\"");
        /// File with the key of the link: 64 hexadecimal digits, the same at both gateways.
        pub key_file: Option<PathBuf> => key().absent("required without `key`").example("\"/etc/sag/ha.key\"");
        /// The key itself in place of the file, as the [agent](ha.md#with-the-agent) hands it over.
        pub key: Option<Secret> as Option<HexKey> =>
            key().allowed("64 digits").absent("required without `key_file`").secret();
        /// The most that is sent to the peer.
        pub bandwidth: u32 = 100 => key().range(1, 100_000).unit("Mbit/s");
    }
}
