//! Patterns: `*` stands for any text, `?` for one character.

/// A pattern as it is written.
#[derive(Debug)]
pub struct Pattern {
    exact: Vec<char>,
    lower: Vec<char>,
}

fn lower(text: &str) -> Vec<char> {
    text.chars().flat_map(char::to_lowercase).collect()
}

impl Pattern {
    pub fn new(text: &str) -> Pattern {
        Pattern { exact: text.chars().collect(), lower: lower(text) }
    }

    /// Whether the whole text fits; `exact` minds the case of letters.
    pub fn matches(&self, text: &str, exact: bool) -> bool {
        if exact {
            matches(&self.exact, &text.chars().collect::<Vec<_>>())
        } else {
            matches(&self.lower, &lower(text))
        }
    }

    /// Whether a text that begins like this, and goes on with an identifier, can fit.
    pub fn may_match(&self, beginning: &str) -> bool {
        // The places of the pattern that can be reached; each character moves all of them.
        let pattern = &self.lower;
        let mut places = vec![false; pattern.len() + 1];
        places[0] = true;
        for c in lower(beginning) {
            let mut next = vec![false; pattern.len() + 1];
            for (i, p) in pattern.iter().enumerate() {
                // A star may also stand for nothing.
                if places[i] && *p == '*' {
                    places[i + 1] = true;
                }
                if places[i] {
                    match p {
                        '*' => next[i] = true,
                        p if *p == '?' || *p == c => next[i + 1] = true,
                        _ => {}
                    }
                }
            }
            places = next;
        }
        // An identifier has none of the signs that divide a name.
        let rest = |i: usize| !pattern[i..].iter().any(|c| [':', '/'].contains(c));
        (0..places.len()).any(|i| places[i] && rest(i))
    }

    /// Whether every text fits.
    pub fn is_any(&self) -> bool {
        !self.exact.is_empty() && self.exact.iter().all(|c| *c == '*')
    }
}

fn matches(p: &[char], t: &[char]) -> bool {
    let (mut i, mut j, mut star) = (0, 0, None);
    while j < t.len() {
        match p.get(i) {
            Some('*') => {
                star = Some((i, j));
                i += 1;
            }
            Some(c) if *c == '?' || *c == t[j] => {
                i += 1;
                j += 1;
            }
            _ => match star {
                Some((si, sj)) => {
                    i = si + 1;
                    j = sj + 1;
                    star = Some((si, sj + 1));
                }
                None => return false,
            },
        }
    }
    p[i..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn globs() {
        let glob = |p: &str, t: &str| Pattern::new(p).matches(t, false);
        assert!(glob("a*c?", "aXXcY") && glob("*", "") && !glob("a?", "a") && glob("A", "a"));
        assert!(!Pattern::new("A").matches("a", true) && Pattern::new("A*").matches("Ab", true));
    }

    #[test]
    fn a_beginning_may_fit() {
        let may = |p: &str, t: &str| Pattern::new(p).may_match(t);
        assert!(
            may("*", "x/") && may("a/*", "a/") && may("a/b", "a/") && may("a*z", "ab") && may("*/b", "a/")
        );
        assert!(!may("*:smartag/sag-1", "acs:7:acl/") && may("*:acl/*", "acs:7:acl/"));
        assert!(!may("a/b", "c/") && !may("a", "a/") && !may("?/b", "ab/"));
    }
}
