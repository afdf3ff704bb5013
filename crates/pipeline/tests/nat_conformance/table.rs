//! The demands of the RFCs, in our words, and how it stands with each.

use crate::Level::{May, Must, Note, Recommended, Should};
use crate::{Level, Proof, Requirement};

pub const fn row(rfc: u16, id: &'static str, level: Level, text: &'static str, proof: Proof) -> Requirement {
    Requirement { rfc, id, level, text, proof }
}

/// Tests by their paths.
macro_rules! tests {
    ($($module:ident :: $test:ident),+ $(,)?) => {
        &[$((concat!(stringify!($module), "::", stringify!($test)), crate::$module::$test as fn())),+]
    };
}

macro_rules! pass {
    ($($t:tt)+) => { Proof::Tests(tests!($($t)+)) };
}

const NO_ALG: &str = "There are no application-level gateways, on purpose: payloads pass as they are";

pub(crate) use {pass, tests};

pub const TABLE: &[Requirement] = &[
    // ---------------------------------------------------------------------------------- RFC 4787
    row(
        4787,
        "REQ-1",
        Must,
        "An inside address and port has one outside port, wherever it sends to",
        pass!(udp::mapping_is_endpoint_independent),
    ),
    row(
        4787,
        "REQ-2",
        Recommended,
        "All sessions of a host use one outside address",
        Proof::Remarked(
            tests!(udp::a_host_has_one_outside_address, udp::a_pool_pairs_hosts_with_addresses),
            "Of each pool (`[[snat]]`). Each WAN port has addresses of its own, of another provider as a rule, which \
             would drop those of the first; which port, and which of its addresses, routes say",
        ),
    ),
    row(
        4787,
        "REQ-3",
        Must,
        "No two hosts have the same outside port at a time",
        pass!(udp::no_port_has_two_hosts),
    ),
    row(
        4787,
        "REQ-3a",
        Recommended,
        "Ports 0 to 1023 become ports 0 to 1023, others become others",
        pass!(udp::port_ranges_are_kept_apart),
    ),
    row(
        4787,
        "REQ-4",
        Recommended,
        "Even ports become even ports, odd ones odd",
        pass!(udp::parity_is_preserved, updates::a_shared_port_keeps_its_parity),
    ),
    row(4787, "REQ-5", Must, "A mapping lasts two minutes or longer", pass!(udp::mappings_last_five_minutes)),
    row(
        4787,
        "REQ-5a",
        May,
        "Shorter times towards well-known ports",
        Proof::Unused(
            &[],
            "One time for all ports: simpler to reason about, and a table this size need not save",
        ),
    ),
    row(4787, "REQ-5b", May, "The time is configurable", pass!(udp::the_timer_is_configurable)),
    row(
        4787,
        "REQ-5c",
        Recommended,
        "By default it is five minutes or more",
        pass!(udp::mappings_last_five_minutes),
    ),
    row(
        4787,
        "REQ-6",
        Must,
        "Packets from inside keep a mapping alive",
        pass!(udp::outbound_packets_refresh),
    ),
    row(4787, "REQ-6a", May, "So do packets from outside", pass!(udp::inbound_packets_refresh)),
    row(
        4787,
        "REQ-7",
        Must,
        "A NAT that gets its outside address by itself keeps inside networks clear of it, or translates between them",
        Proof::Vacuous(
            "The gateway configures no interface and hands out no addresses: both sides' addresses and routes are the \
             kernel's, set by its administrator",
        ),
    ),
    row(
        4787,
        "REQ-8",
        Recommended,
        "Filtering is endpoint-independent, or address-dependent for more protection",
        pass!(udp::filtering_is_one_of_the_recommended),
    ),
    row(4787, "REQ-8a", May, "It is configurable", pass!(udp::filtering_is_configurable)),
    row(
        4787,
        "REQ-9",
        Must,
        "Inside hosts reach each other by their outside addresses",
        pass!(udp::hairpin, udp::hairpin_to_a_port_forward),
    ),
    row(
        4787,
        "REQ-9a",
        Must,
        "They see each other's outside address and port",
        pass!(
            udp::hairpin,
            udp::hairpin_shows_the_address_that_the_internet_sees,
            udp::hairpin_from_a_host_with_its_own_address,
            udp::hairpin_by_an_address_of_the_leased_line,
        ),
    ),
    row(
        4787,
        "REQ-10",
        Should,
        "Application-level gateways for UDP are off",
        pass!(udp::addresses_in_the_payload_stay),
    ),
    row(4787, "REQ-10a", Recommended, "Each can be switched by itself", Proof::Vacuous(NO_ALG)),
    row(
        4787,
        "REQ-11",
        Must,
        "Mapping and filtering do not change with circumstances",
        pass!(udp::behaviour_does_not_depend_on_the_moment),
    ),
    row(4787, "REQ-12", Must, "No ICMP message ends a mapping", pass!(udp::icmp_ends_no_mapping)),
    row(
        4787,
        "REQ-12a",
        Should,
        "ICMP messages are not filtered by who sent them",
        pass!(udp::icmp_is_not_filtered_by_its_source),
    ),
    row(
        4787,
        "REQ-12b",
        Recommended,
        "Destination unreachable is supported",
        pass!(icmp::errors_from_outside_reach_who_sent_the_packet, udp::icmp_ends_no_mapping),
    ),
    row(
        4787,
        "REQ-13",
        Must,
        "A host gets an ICMP error for a packet that is too big and must not be fragmented",
        pass!(udp::too_big_is_told_to_the_host),
    ),
    row(4787, "REQ-13a", Must, "Otherwise it is fragmented, in order", pass!(udp::too_big_is_split)),
    row(
        4787,
        "REQ-14",
        Must,
        "Fragments are translated in whatever order they come",
        pass!(udp::fragments_in_order, udp::fragments_out_of_order, udp::fragments_begin_a_session),
    ),
    row(
        4787,
        "REQ-14a",
        Must,
        "A flood of fragments does no harm to other packets",
        pass!(udp::a_flood_of_fragments_harms_nobody_else),
    ),
    // ---------------------------------------------------------------------------------- RFC 5382
    row(
        5382,
        "REQ-1",
        Must,
        "An inside address and port has one outside port, wherever it connects to",
        pass!(tcp::mapping_is_endpoint_independent),
    ),
    row(
        5382,
        "REQ-2",
        Must,
        "Every valid sequence of segments passes, from whichever side the connection comes",
        pass!(tcp::connections_from_inside, tcp::connections_from_outside, tcp::segments_in_any_order),
    ),
    row(5382, "REQ-2a", Must, "Both sides may open at once", pass!(tcp::simultaneous_open)),
    row(
        5382,
        "REQ-3",
        Recommended,
        "Filtering is endpoint-independent, or address-dependent for more protection",
        pass!(tcp::filtering_is_one_of_the_recommended),
    ),
    row(5382, "REQ-3a", May, "It is configurable", pass!(tcp::filtering_is_configurable)),
    row(
        5382,
        "REQ-3b",
        May,
        "It need not be that of UDP",
        Proof::Unused(&[], "One word for all protocols of an entry; who wants another has a second address"),
    ),
    row(
        5382,
        "REQ-4",
        Must,
        "An unsolicited SYN gets no answer for six seconds, and none if the inside sends its own meanwhile",
        Proof::Remarked(
            tests!(
                tcp::unsolicited_syns_get_no_answer,
                tcp::unsolicited_syns_to_a_pool_get_no_answer,
                tcp::unsolicited_syns_to_the_gateway_get_no_answer,
                tcp::simultaneous_open
            ),
            "Nor after that, see REQ-4a. Of its own addresses too: a port that neither a host inside nor a socket of the \
             gateway has does not answer. XDP asks the kernel for the socket (`syns_that_nobody_wants_are_dropped` in \
             `bpf/tests/owned.rs`). `closed_ports = \"kernel\"` is for who serves ports without a socket",
        ),
    ),
    row(
        5382,
        "REQ-4a",
        Must,
        "It is dropped in silence where an answer is against the policy",
        pass!(tcp::unsolicited_syns_get_no_answer),
    ),
    row(
        5382,
        "REQ-5",
        Must,
        "An established connection may be idle for 2 hours 4 minutes, one that opens or closes for 4 minutes",
        pass!(tcp::idle_timeouts),
    ),
    row(5382, "REQ-5a", May, "These times are configurable", pass!(tcp::the_timers_are_configurable)),
    row(
        5382,
        "REQ-6",
        Recommended,
        "Application-level gateways for TCP, but for FTP's, are off",
        pass!(udp::addresses_in_the_payload_stay),
    ),
    row(
        5382,
        "REQ-7",
        Must,
        "No two hosts have the same outside port at a time",
        pass!(tcp::no_port_has_two_hosts),
    ),
    row(5382, "REQ-8", Must, "Inside hosts reach each other by their outside addresses", pass!(tcp::hairpin)),
    row(5382, "REQ-8a", Must, "They see each other's outside address and port", pass!(tcp::hairpin)),
    row(
        5382,
        "REQ-9",
        Should,
        "Destination unreachable is translated",
        pass!(tcp::unreachables_are_translated),
    ),
    row(
        5382,
        "REQ-10",
        Must,
        "No ICMP message ends a mapping or connection",
        pass!(tcp::icmp_ends_no_connection),
    ),
    // ---------------------------------------------------------------------------------- RFC 5508
    row(
        5508,
        "REQ-1",
        Must,
        "Queries from inside pass, and so do their answers, unless the policy forbids",
        pass!(icmp::queries_pass_with_their_answers, icmp::nothing_is_translated_against_the_acl),
    ),
    row(
        5508,
        "REQ-1a",
        Should,
        "A query's outside identifier does not depend on its destination",
        pass!(icmp::query_mapping_does_not_depend_on_the_host_asked),
    ),
    row(
        5508,
        "REQ-2",
        Must,
        "A query session lasts 60 seconds or longer",
        pass!(icmp::query_sessions_last_a_minute),
    ),
    row(
        5508,
        "REQ-2a",
        Recommended,
        "The time is configurable",
        pass!(icmp::the_query_timer_is_configurable),
    ),
    row(
        5508,
        "REQ-3",
        Should,
        "An error message whose checksum is wrong is dropped in silence",
        pass!(icmp::errors_with_a_wrong_checksum_are_dropped),
    ),
    row(
        5508,
        "REQ-3a",
        Should,
        "So is one that quotes an IP header whose checksum is wrong",
        pass!(icmp::a_wrong_checksum_of_the_quoted_header_is_refused),
    ),
    row(
        5508,
        "REQ-3b",
        Must,
        "The quoted transport header is found behind IP options",
        pass!(icmp::options_of_the_quoted_packet_are_stepped_over),
    ),
    row(
        5508,
        "REQ-3c",
        Should,
        "The quoted transport checksum is not verified",
        pass!(icmp::the_quoted_transport_checksum_is_not_judged),
    ),
    row(
        5508,
        "REQ-3d",
        Must,
        "Extensions and padding do not count as part of the quoted packet",
        pass!(icmp::extensions_pass_as_they_are),
    ),
    row(
        5508,
        "REQ-4",
        Should,
        "From outside: an error about no session is dropped in silence",
        Proof::Remarked(
            tests!(icmp::errors_about_nothing_are_dropped),
            "Of an error to the gateway's own address the machine decides in the same way: one that is about no \
             connection of its own is dropped in silence (RFC 1122 3.2.2), the others are its path MTU discovery",
        ),
    ),
    row(
        5508,
        "REQ-4a",
        Must,
        "The quoted packet is turned back into what the host sent",
        pass!(
            icmp::errors_from_outside_reach_who_sent_the_packet,
            icmp::errors_about_a_datagram_without_checksum,
        ),
    ),
    row(
        5508,
        "REQ-4b",
        Must,
        "Type and code stay",
        pass!(icmp::errors_from_outside_reach_who_sent_the_packet),
    ),
    row(
        5508,
        "REQ-4c",
        Must,
        "The message goes to the host that the quoted packet came from",
        pass!(icmp::errors_from_outside_reach_who_sent_the_packet),
    ),
    row(
        5508,
        "REQ-5",
        Should,
        "From inside: an error about no session is dropped in silence",
        pass!(icmp::errors_from_inside_about_nothing_are_dropped),
    ),
    row(
        5508,
        "REQ-5a",
        Must,
        "The quoted packet is turned back into what came from outside",
        pass!(icmp::errors_from_inside_come_from_the_outside_address),
    ),
    row(
        5508,
        "REQ-5b",
        Must,
        "Type and code stay",
        pass!(icmp::errors_from_inside_come_from_the_outside_address),
    ),
    row(
        5508,
        "REQ-5c",
        Must,
        "Its source is an outside address, whoever inside sent it",
        pass!(icmp::errors_from_inside_come_from_the_outside_address),
    ),
    row(
        5508,
        "REQ-6",
        Must,
        "An error about a query neither refreshes nor ends its session",
        pass!(icmp::errors_refresh_and_end_no_query),
    ),
    row(
        5508,
        "REQ-7",
        Must,
        "Between inside hosts, by outside addresses: queries where an address is a host's own, errors always",
        pass!(icmp::queries_and_errors_hairpin, icmp::hairpinned_errors),
    ),
    row(
        5508,
        "REQ-7a",
        Must,
        "Such an error goes to the host that the quoted packet came from",
        pass!(icmp::hairpinned_errors),
    ),
    row(
        5508,
        "REQ-8",
        Should,
        "A host that can have no further session gets an error (type 3, code 13)",
        Proof::Remarked(
            tests!(
                icmp::who_gets_no_session_is_told,
                icmp::a_full_table_is_told_too,
                icmp::who_is_denied_by_the_acl_is_told
            ),
            "For want of ports, sessions or room, by the limits of NAT, and by ACLs. Hosts outside get none: no session \
             of theirs is translated but to ports that are open, and scanners learn nothing (RFC 5382 REQ-4a)",
        ),
    ),
    row(
        5508,
        "REQ-9",
        May,
        "A policy may keep the gateway from sending ICMP towards an interface",
        Proof::Remarked(tests!(icmp::errors_can_be_switched_off), "For all ports together (`icmp_rate = 0`)"),
    ),
    row(
        5508,
        "REQ-10a.1",
        Must,
        "Destination unreachable is sent and translated",
        pass!(icmp::errors_that_the_gateway_sends, icmp::errors_from_outside_reach_who_sent_the_packet),
    ),
    row(
        5508,
        "REQ-10a.2",
        Must,
        "Time exceeded is sent and translated",
        pass!(
            icmp::errors_that_the_gateway_sends,
            icmp::a_translated_packet_that_expires_is_quoted_as_it_came,
            icmp::errors_from_outside_reach_who_sent_the_packet,
        ),
    ),
    row(5508, "REQ-10a.3", Must, "Echo and its reply pass", pass!(icmp::queries_pass_with_their_answers)),
    row(
        5508,
        "REQ-10b.1",
        May,
        "Redirects",
        Proof::Unused(&[], "None is sent: packets leave by the port by which they came without a word"),
    ),
    row(5508, "REQ-10b.2", May, "Timestamp queries", pass!(icmp::queries_pass_with_their_answers)),
    row(
        5508,
        "REQ-10b.3",
        May,
        "Source route options",
        Proof::Unused(tests!(icmp::source_routes_are_refused), "Refused, as RFC 7126 advises"),
    ),
    row(
        5508,
        "REQ-10b.4",
        May,
        "Address mask queries",
        Proof::Unused(
            &[],
            "Those to the gateway's own address are the machine's; others have no identifier that NAT knows",
        ),
    ),
    row(
        5508,
        "REQ-10b.5",
        May,
        "Parameter problem",
        pass!(icmp::errors_from_outside_reach_who_sent_the_packet),
    ),
    row(
        5508,
        "REQ-10b.6",
        May,
        "Router advertisements and solicitations",
        Proof::Unused(&[], "They are link multicast, which is the machine's"),
    ),
    row(
        5508,
        "REQ-10c",
        Should,
        "Source quench and information queries are not supported",
        Proof::Vacuous(
            "The gateway has neither: the list of what it sends is `IcmpError` in `crates/packet`",
        ),
    ),
    row(
        5508,
        "REQ-10d",
        Recommended,
        "Error messages have the precedence of network control",
        pass!(icmp::errors_that_the_gateway_sends),
    ),
    row(
        5508,
        "REQ-10e",
        Recommended,
        "No error about errors, later fragments, broadcasts and the like",
        pass!(icmp::no_errors_about_errors),
    ),
    row(
        5508,
        "REQ-10f",
        Recommended,
        "The rate of error messages is limited",
        pass!(icmp::the_rate_of_errors_is_limited),
    ),
    row(
        5508,
        "REQ-11",
        May,
        "Messages that are neither query nor error are dropped or handled",
        pass!(icmp::other_messages_are_translated_by_address),
    ),
    // ---------------------------------------------------------------------------------- RFC 7857
    row(
        7857,
        "2a",
        Should,
        "TCP connections are followed by the state machine of RFC 6146",
        pass!(updates::tcp_states_have_their_times),
    ),
    row(
        7857,
        "2.1a",
        Should,
        "Opening and closing have idle times of their own",
        pass!(updates::opening_and_closing_have_timers_of_their_own),
    ),
    row(
        7857,
        "2.1b",
        May,
        "That of opening can be set below four minutes",
        pass!(updates::opening_and_closing_have_timers_of_their_own),
    ),
    row(
        7857,
        "2.1c",
        Recommended,
        "The default is four minutes",
        pass!(updates::both_default_to_four_minutes),
    ),
    row(
        7857,
        "2.2a",
        Must,
        "A reset of a mapped connection is translated",
        pass!(updates::a_reset_is_translated),
    ),
    row(
        7857,
        "2.2b",
        Should,
        "The session ends only when four minutes without a packet have passed since",
        Proof::Remarked(
            tests!(
                updates::a_reset_ends_nothing_for_four_minutes,
                updates::a_connection_that_outlives_a_reset_goes_on,
                updates::a_refused_handshake_waits_as_long,
                updates::the_port_of_a_refused_handshake_goes_to_who_needs_it
            ),
            "Of a refused handshake as well, unless ports are short: the fewer are free, the sooner its port is, and \
             with the last one taken it makes room. So a host that scans does not take the ports of others",
        ),
    ),
    row(
        7857,
        "2.2c",
        Note,
        "It is checked whether a reset can be the connection's",
        pass!(updates::forged_resets_are_dropped, updates::a_reset_begins_nothing),
    ),
    row(
        7857,
        "3a",
        May,
        "Hosts may share an outside port towards different destinations",
        pass!(updates::one_port_may_serve_several_hosts),
    ),
    row(
        7857,
        "4a",
        Should,
        "A host whose outside address has no port left gets no further session",
        pass!(updates::a_host_whose_address_has_no_port_left_is_refused),
    ),
    row(
        7857,
        "4b",
        May,
        "It may be allowed to use another address then",
        Proof::Remarked(
            tests!(updates::a_host_may_be_given_another_address),
            "By `when_full = \"another-address\"`, not by default: whoever compares addresses would take it for two hosts",
        ),
    ),
    row(
        7857,
        "4c",
        Should,
        "TCP pairs hosts and addresses as UDP does",
        pass!(udp::a_host_has_one_outside_address, updates::a_host_whose_address_has_no_port_left_is_refused),
    ),
    row(7857, "5a", Should, "A mapping is of one protocol", pass!(updates::mappings_are_of_one_protocol)),
    row(
        7857,
        "5b",
        May,
        "One mapping for TCP and UDP may be had",
        Proof::Unused(&[], "Not offered: the ports are equal anyway as long as both are free"),
    ),
    row(
        7857,
        "6a",
        Should,
        "A filter, endpoint-independent or not, is of one protocol",
        pass!(updates::filters_are_of_one_protocol),
    ),
    row(
        7857,
        "6b",
        May,
        "It may be made to count for all",
        Proof::Unused(
            &[],
            "It would admit by TCP whom a host has only sent UDP; who wants that filters endpoint-independently",
        ),
    ),
    row(
        7857,
        "7a",
        Should,
        "Packets that match a mapping but are refused by policy do not refresh it",
        pass!(udp::a_refused_sender_refreshes_nothing),
    ),
    row(7857, "7b", Should, "The same with TCP", pass!(updates::a_refused_syn_refreshes_nothing)),
    row(
        7857,
        "7.1a",
        Should,
        "Errors and resets sent out in answer to packets from outside do not refresh a mapping",
        Proof::Remarked(
            tests!(updates::errors_sent_out_refresh_nothing, updates::a_reset_sent_out_prolongs_nothing),
            "A reset leaves at most the four minutes of 2.2b, which the packet that it answers has given already",
        ),
    ),
    row(7857, "8a", May, "Parity may be left aside", Proof::Vacuous("It is preserved, see RFC 4787 REQ-4")),
    row(7857, "8b", Should, "Hosts can ask for parity", pass!(udp::parity_is_preserved)),
    row(
        7857,
        "9a",
        Should,
        "A port that has to change becomes a random one (RFC 6056 section 4) of the same parity",
        pass!(updates::ports_that_must_change_are_random, udp::parity_is_preserved),
    ),
    row(
        7857,
        "10a",
        Should,
        "Identifications of translated packets are unique to the outside address (RFC 6864 section 5.3.1)",
        Proof::Remarked(
            tests!(
                identification::hosts_behind_an_address_never_use_one_twice,
                identification::fragments_of_a_datagram_have_one_and_no_other_has_it,
                identification::held_fragments_have_that_of_their_datagram,
                identification::what_the_gateway_splits_is_numbered_first,
                identification::called_by_two_addresses,
                identification::hosts_of_ipv6_count_along,
                identification::only_what_is_or_may_become_fragments_is_numbered_anew,
                updates::atomic_datagrams_keep_their_identification
            ),
            "All that may be in fragments gets another one, counted by destination in XDP and workers together; those \
             of atomic datagrams (DF set, whole) mean nothing and stay (RFC 6864 section 4.1). After 65,536 datagrams \
             to a destination they begin again, as with a single host (RFC 4963). What the gateway's own programs send \
             without DF the kernel numbers",
        ),
    ),
    row(
        7857,
        "11a",
        May,
        "A query's mapping ends with its last session",
        pass!(updates::query_mappings_end_with_their_last_session),
    ),
    row(
        7857,
        "12a",
        Note,
        "Outside addresses are stored with inside ones, so that queries and errors between inside hosts find their way",
        pass!(icmp::queries_and_errors_hairpin, icmp::hairpinned_errors),
    ),
];
