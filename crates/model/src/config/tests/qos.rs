//! CARs: what floors may promise together, and what a burst may be.

use super::*;

fn car(priority: u8, limit: &str) -> String {
    format!("[[qos.car]]\npriority = {priority}\n{limit}\n")
}

fn absolute(priority: u8, min: u32, max: u32) -> String {
    let limit = format!("limit_type = \"Absolute\"\nmin_bandwidth_abs = {min}\nmax_bandwidth_abs = {max}");
    car(priority, &limit)
}

fn percent(priority: u8, min: u8, max: u8, of: &str) -> String {
    let limit = format!(
        "limit_type = \"Percent\"\nmin_bandwidth_percent = {min}\nmax_bandwidth_percent = {max}\n\
         percent_source_type = \"{of}\""
    );
    car(priority, &limit)
}

fn judged(bandwidth: &str, cars: &[String]) -> Result<Checked, Errors> {
    parse(&format!("{PORTS}{bandwidth}\n[[qos]]\n{}", cars.concat()), "vcpe.toml")
}

#[track_caller]
fn refused(bandwidth: &str, cars: &[String], says: &str) {
    let e = judged(bandwidth, cars).expect_err("refused").to_string();
    assert!(e.contains(says) && e.contains("Sag.QosFloorsExceedLink"), "{e}");
}

#[test]
fn floors_add_up_to_the_link_at_the_most() {
    let link = "[bandwidth]\nccn = 10\ninternet_up = 10";
    assert!(judged(link, &[absolute(1, 6, 10), absolute(2, 4, 10)]).is_ok());
    refused(
        link,
        &[absolute(1, 6, 10), absolute(2, 5, 10)],
        "add up to 11 Mbit/s, more than bandwidth.ccn = 10",
    );
    refused(
        "bandwidth = 10",
        &[absolute(1, 6, 10), absolute(2, 5, 10)],
        "more than the bandwidth of port 1 = 10",
    );
    // Unlimited links carry everything.
    assert!(judged("", &[absolute(1, 600, 1000), absolute(2, 500, 1000)]).is_ok());
}

#[test]
fn floors_that_fit_one_link_alone_are_warned_about() {
    let link = "[bandwidth]\nccn = 100\ninternet_up = 10";
    let found = judged(link, &[absolute(1, 6, 10), absolute(2, 5, 10)]).expect("accepted").warnings;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].problem.contains("more than bandwidth.internet_up = 10"), "{}", found[0]);
}

#[test]
fn percentages_add_up_to_a_hundred_for_each_source() {
    let link = "[bandwidth]\nccn = 100\ninternet_up = 100";
    let both = [percent(1, 60, 100, "CcnBandwidth"), percent(2, 41, 100, "CcnBandwidth")];
    refused(link, &both, "add up to 101 % of CcnBandwidth");
    refused("", &both, "add up to 101 % of CcnBandwidth");
    let mixed = [percent(1, 60, 100, "CcnBandwidth"), percent(2, 40, 100, "CcnBandwidth")];
    assert!(judged(link, &mixed).is_ok());
}

#[test]
fn a_burst_is_250_ms_unless_said_otherwise() {
    let of = |extra: &str| judged("", &[format!("{}{extra}", absolute(1, 1, 5))]).expect("accepted");
    assert_eq!(of("").config.qos[0].cars[0].burst_ms, 250);
    let long = of("burst_ms = 400\n");
    assert_eq!((long.config.qos[0].cars[0].burst_ms, long.warnings.len()), (400, 0));
    let short = of("burst_ms = 20\n");
    assert!(short.warnings[0].problem.contains("TCP may not fill"), "{}", short.warnings[0]);
    assert!(judged("", &[format!("{}burst_ms = 0\n", absolute(1, 1, 5))]).is_err());
}

#[test]
fn percentages_are_of_their_source() {
    let c = judged(
        "[bandwidth]\nccn = 50\ninternet_up = 30\noverhead = 18",
        &[percent(1, 33, 90, "CcnBandwidth"), percent(2, 10, 100, "InternetUpBandwidth")],
    )
    .expect("accepted")
    .config;
    let of = |i: usize| c.qos[0].cars[i].limit.hundredths(&c.bandwidth);
    assert_eq!((of(0), of(1)), ((1650, Some(4500)), (300, Some(3000))));
    assert_eq!(c.bandwidth.overhead, 18);
    let unlimited = Bandwidth::default();
    assert_eq!(c.qos[0].cars[0].limit.hundredths(&unlimited), (0, None));
}

#[test]
fn marks_are_numbers_or_names() {
    let of = |mark: &str, asked: &str| {
        let policy = format!(
            "[[qos.policy]]\npriority = 1\nsource_cidr = \"::/0\"\ndest_cidr = \"::/0\"\nip_protocol = \"all\"\n{asked}"
        );
        judged("", &[format!("{}{mark}\n", absolute(1, 1, 5)), policy])
    };
    let c = of("remark_dscp = 10", "dscp = \"ef\"").expect("accepted").config;
    let marks = (c.qos[0].cars[0].remark_dscp, c.qos[0].policies[0].dscp);
    assert_eq!(marks, (crate::Dscp::new(10), crate::Dscp::new(46)));
    let text = c.to_toml(Secrets::Shown).expect("toml");
    assert!(text.contains("remark_dscp = \"AF11\"") && text.contains("dscp = \"EF\""), "{text}");
    let none = of("", "").expect("accepted").config;
    assert_eq!((none.qos[0].cars[0].remark_dscp, none.qos[0].policies[0].dscp), (None, None));
    for (mark, asked) in [("remark_dscp = 64", ""), ("", "dscp = -1"), ("", "dscp = \"AF44\"")] {
        let e = of(mark, asked).expect_err("refused").to_string();
        assert!(e.contains("is not a DSCP") && e.contains("from 0 to 63"), "{e}");
    }
    let changes = c.diff(&none);
    assert!(!changes.is_empty());
}
