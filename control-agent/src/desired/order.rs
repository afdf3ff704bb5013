//! The order of rules of several access control lists.
//!
//! Of rules with one priority the earlier wins (DescribeACLAttribute `GmtCreate`), whatever lists they are in. The gateway
//! takes them in the order of its file, list by list. Where that is another order, a list comes in parts: the first has its
//! identifier, the next ones a number behind it.

use sag_southbound::{Acl, AclRule};

fn created(rule: &AclRule) -> i64 {
    // Without a time they stay in front, in the order in which they come.
    rule.gmt_create.unwrap_or(0)
}

/// The lists, in parts where time asks for it.
pub fn by_time(acls: Vec<Acl>) -> Vec<Acl> {
    let key = |(list, rule): &(usize, AclRule)| (rule.priority.unwrap_or(1), created(rule), *list);
    let mut rules: Vec<(usize, AclRule)> =
        acls.iter().enumerate().flat_map(|(n, acl)| acl.rules.iter().map(move |r| (n, r.clone()))).collect();
    // As the gateway would take them.
    rules.sort_by_key(|(_, rule)| rule.priority.unwrap_or(1));
    if rules.is_sorted_by_key(key) {
        return acls;
    }
    rules.sort_by_key(key);
    let mut out: Vec<Acl> = Vec::new();
    let mut parts = vec![0; acls.len()];
    let mut last = None;
    for (n, rule) in rules {
        if last != Some(n) {
            let id = match parts[n] {
                0 => acls[n].id.clone(),
                more => format!("{}.{}", acls[n].id, more + 1),
            };
            out.push(Acl { id, rules: Vec::new() });
            (last, parts[n]) = (Some(n), parts[n] + 1);
        }
        if let Some(part) = out.last_mut() {
            part.rules.push(rule);
        }
    }
    // A list without rules is bound all the same.
    let empty = acls.into_iter().enumerate().filter(|(n, _)| parts[*n] == 0);
    out.extend(empty.map(|(_, acl)| acl));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(id: &str, rules: &[(&str, i64, i64)]) -> Acl {
        let rule = |(id, priority, at): &(&str, i64, i64)| AclRule {
            id: (*id).into(),
            priority: Some(*priority),
            gmt_create: (*at > 0).then_some(*at),
            ..AclRule::default()
        };
        Acl { id: id.into(), rules: rules.iter().map(rule).collect() }
    }

    /// The rules in the order in which the gateway tries them: by priority, then as they stand in the file.
    fn tried(acls: &[Acl]) -> Vec<&str> {
        let mut rules: Vec<&AclRule> = acls.iter().flat_map(|a| &a.rules).collect();
        rules.sort_by_key(|r| r.priority);
        rules.into_iter().map(|r| r.id.as_str()).collect()
    }

    /// Lines 12874 and 12964 of document 000.
    #[test]
    fn of_equal_priorities_the_earlier_wins_across_lists() {
        let acls = vec![acl("a", &[("a1", 5, 30), ("a2", 5, 50)]), acl("b", &[("b1", 5, 40), ("b2", 1, 60)])];
        let ordered = by_time(acls);
        assert_eq!(tried(&ordered), ["b2", "a1", "b1", "a2"]);
        let ids: Vec<&str> = ordered.iter().map(|a| a.id.as_str()).collect();
        assert_eq!(ids, ["b", "a", "b.2", "a.2"]);
    }

    #[test]
    fn lists_in_order_stay_as_they_are() {
        let acls = vec![acl("a", &[("a1", 5, 10), ("a2", 7, 90)]), acl("b", &[("b1", 5, 40), ("b2", 1, 5)])];
        assert_eq!(by_time(acls.clone()), acls);
        let untimed = vec![acl("a", &[("a1", 5, 0), ("a2", 5, 0)]), acl("b", &[("b1", 5, 0)]), acl("c", &[])];
        assert_eq!(by_time(untimed.clone()), untimed);
    }

    #[test]
    fn a_list_without_rules_stays() {
        let acls = vec![acl("a", &[("a1", 5, 30)]), acl("b", &[("b1", 5, 20)]), acl("c", &[])];
        let ordered = by_time(acls);
        assert_eq!(tried(&ordered), ["b1", "a1"]);
        assert_eq!(ordered.len(), 3);
    }
}
