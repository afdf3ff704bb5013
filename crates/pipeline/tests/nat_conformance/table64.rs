//! What the RFCs about NAT64 demand, in our words, by their sections, and how it stands with each.

use crate::Level::{May, Must, Should};
use crate::table::{pass, row, tests};
use crate::{Proof, Requirement};

pub const TABLE: &[Requirement] = &[
    // ---------------------------------------------------------------------------------- RFC 6146
    row(
        6146,
        "3.2",
        Must,
        "An IPv6 endpoint has one IPv4 address and port for all remote endpoints, another than any other endpoint",
        pass!(nat64::a_second_host_with_the_same_port_gets_another_one),
    ),
    row(
        6146,
        "3.4",
        Must,
        "Fragments that come in any order are translated, with a limit for those that wait",
        pass!(nat64::fragments_both_ways_and_in_any_order),
    ),
    row(
        6146,
        "3.5",
        Must,
        "TCP, UDP and ICMP queries have sessions; whether from IPv6, or from IPv4 to a port that is mapped",
        pass!(nat64::each_protocol_there_and_back, nat64::filters_and_sessions_from_outside),
    ),
    row(
        6146,
        "3.5.1",
        Must,
        "Filtering is endpoint-independent or address-dependent, and configurable",
        pass!(nat64::filters_and_sessions_from_outside),
    ),
    row(
        6146,
        "3.5.1.1",
        Should,
        "A mapping keeps the port if it can, its range and its parity",
        pass!(nat64::each_protocol_there_and_back, nat64::a_second_host_with_the_same_port_gets_another_one),
    ),
    row(
        6146,
        "3.5.2.2",
        May,
        "A SYN from IPv4 that a filter refuses waits for six seconds for one of the other side",
        Proof::Unused(
            tests!(nat64::filters_and_sessions_from_outside),
            "It is dropped as with source NAT; the other side's SYN, sent again, passes (RFC 5382 REQ-4)",
        ),
    ),
    row(
        6146,
        "3.6.1",
        Must,
        "ICMP errors are translated with the packet in them; those about nothing that is known are not",
        pass!(nat64::errors_cross_with_what_they_quote),
    ),
    row(
        6146,
        "3.8",
        Must,
        "IPv6 hosts reach each other by their IPv4 address and port, and see each other so",
        pass!(nat64::hosts_inside_reach_each_other_by_the_external_address),
    ),
    row(
        6146,
        "4",
        Should,
        "Sessions of one host are limited, and what is exhausted says so",
        pass!(nat64::ports_run_out_by_name),
    ),
    row(
        6146,
        "5.2",
        Must,
        "Not every packet may use it: who is outside is not led to third parties",
        pass!(nat64::what_is_not_reached_behind_a_prefix),
    ),
    // ---------------------------------------------------------------------------------- RFC 7915
    row(
        7915,
        "1.2",
        May,
        "Fragments of ICMP are translated",
        Proof::Unused(
            tests!(nat64::what_is_not_reached_behind_a_prefix),
            "Their checksum covers a length that no fragment says; the RFC leaves them out",
        ),
    ),
    row(
        7915,
        "4.1",
        Must,
        "Headers of IPv4 become headers of IPv6: traffic class, length, hop limit, fragment header of fragments alone",
        pass!(nat64::each_protocol_there_and_back, nat64::fragments_both_ways_and_in_any_order),
    ),
    row(
        7915,
        "4.1b",
        Should,
        "Without DF no packet becomes larger than 1280 bytes of IPv6",
        pass!(nat64::sizes_of_both_families, nat64::fragments_both_ways_and_in_any_order),
    ),
    row(
        7915,
        "4.2",
        Must,
        "Messages of ICMP by the table, MTUs with the difference of the headers and no less than 1280",
        Proof::Remarked(
            tests!(nat64::errors_cross_with_what_they_quote, nat64::each_protocol_there_and_back),
            "The whole table is in the unit tests of `sag_packet::nat64`, beside what tayga makes of the same packets",
        ),
    ),
    row(
        7915,
        "4.5",
        Must,
        "A UDP datagram without checksum gets one, a fragment of such a one is dropped",
        Proof::Remarked(
            tests!(nat64::fragments_both_ways_and_in_any_order),
            "The former is a unit test of `sag_packet::nat64`, and between kernels `test_nat64.py`",
        ),
    ),
    row(
        7915,
        "5.1",
        Must,
        "Headers of IPv6 become headers of IPv4; DF only above 1260 bytes; an unused routing header is refused by name",
        pass!(nat64::sizes_of_both_families, nat64::what_is_not_reached_behind_a_prefix),
    ),
    row(
        7915,
        "5.2",
        Must,
        "Messages of ICMPv6 by the table",
        Proof::Remarked(
            tests!(nat64::errors_cross_with_what_they_quote),
            "The whole table is in the unit tests of `sag_packet::nat64`",
        ),
    ),
    row(
        7915,
        "5.1b",
        Must,
        "A hop limit that ends here, and a packet that does not fit, are answered in the sender's version",
        pass!(nat64::ttl_and_hop_limit_end_in_errors_of_the_senders_family, nat64::sizes_of_both_families),
    ),
    // ---------------------------------------------------------------------------------- RFC 6052
    row(
        6052,
        "2.2",
        Must,
        "Addresses have the form of the RFC for prefixes of 32, 40, 48, 56, 64 and 96 bits",
        Proof::Remarked(
            tests!(nat64::each_protocol_there_and_back),
            "The vectors of section 2.4 are a unit test of `sag_packet::nat64`",
        ),
    ),
    row(
        6052,
        "3.1",
        Must,
        "Private addresses are not reached behind the well-known prefix",
        pass!(nat64::what_is_not_reached_behind_a_prefix, nat64::errors_cross_with_what_they_quote),
    ),
];
