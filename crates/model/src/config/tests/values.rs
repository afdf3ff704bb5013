//! Spellings of single values.

use crate::config::value::*;
use crate::config::{PortRange, Timestamp};
use proptest::prelude::*;

#[test]
fn port_ranges() {
    assert_eq!(port_range("-1/-1"), Ok(PortRange::ANY));
    assert_eq!(port_range("80/80"), Ok(PortRange { first: 80, last: 80 }));
    assert_eq!(port_range("1/65535"), Ok(PortRange { first: 1, last: 65_535 }));
    for bad in
        ["", "/", "80", "0/1", "1/65536", "-1/80", "80/-1", "2/1", "80-90", "+1/2", " 1/2", "1/2/3", "a/b"]
    {
        assert!(port_range(bad).is_err(), "{bad}");
    }
    let remedy = |text| port_range(text).expect_err(text).remedy;
    assert_eq!(remedy("443/80"), "write it as \"80/443\"");
    assert_eq!(remedy("80"), "write \"80/80\"");
    assert_eq!(remedy("80-90"), "write \"80/90\"");
}

#[test]
fn protocol_numbers_and_names_go_there_and_back() {
    for n in 0..=255u8 {
        assert_eq!(protocol(&n.to_string(), false), Ok(Some(n)));
        assert_eq!(protocol(&protocol_name(Some(n)), false), Ok(Some(n)));
    }
    for bad in ["", "256", "-1", "tcp ", "ｔｃｐ", "99999999999999999999"] {
        assert!(protocol(bad, false).is_err(), "{bad}");
    }
}

#[test]
fn times() {
    let t = |text: &str| timestamp(text).map(|t| t.0);
    assert_eq!(t("1970-01-01T00:00:00Z"), Ok(0));
    // 2019-07-14T08:41:33Z by `date -u +%s`.
    assert_eq!(t("2019-07-14T16:41:33+08:00"), Ok(1_563_093_693));
    assert_eq!(t("2019-07-14T16:41:33+0800"), Ok(1_563_093_693));
    assert_eq!(t("2000-02-29T23:59:59Z"), Ok(951_868_799));
    assert_eq!(t("2100-03-01T00:00:00Z"), Ok(4_107_542_400));
    for bad in [
        "",
        "2019-07-14",
        "16:41:33Z",
        "2019-07-14T16:41:33",
        "2019-02-30T00:00:00Z",
        "1969-12-31T23:59:59Z",
        "2019-07-14T16:41:33+",
        "é+0800",
        ":é+0800",
    ] {
        assert!(timestamp(bad).is_err(), "{bad}");
    }
}

#[test]
fn keys() {
    assert_eq!(hex("00fF"), Some(vec![0, 255]));
    assert_eq!(hex(""), Some(Vec::new()));
    for bad in ["0", "0g", "0x00", "é0", "00 00"] {
        assert_eq!(hex(bad), None, "{bad}");
    }
}

proptest! {
    #[test]
    fn every_moment_goes_there_and_back(seconds in 0i64..253_370_764_800) {
        let written = Timestamp(seconds).to_string();
        prop_assert_eq!(timestamp(&written), Ok(Timestamp(seconds)), "{}", written);
    }

    #[test]
    fn every_port_range_goes_there_and_back(a in 1u16.., b in 1u16..) {
        let range = PortRange { first: a.min(b), last: a.max(b) };
        prop_assert_eq!(port_range(&range.to_string()), Ok(range));
    }

    #[test]
    fn every_key_goes_there_and_back(bytes: Vec<u8>) {
        prop_assert_eq!(hex(&to_hex(&bytes)), Some(bytes));
    }

    #[test]
    fn no_text_is_too_strange(text in "\\PC{0,40}|[-+0-9a-zA-Z:/.TZ ]{0,40}") {
        let _ = network(&text);
        let _ = unicast(&text);
        let _ = port_range(&text);
        let _ = protocol(&text, true);
        let _ = timestamp(&text);
        let _ = hex(&text);
        let _ = quote(&text);
    }
}
