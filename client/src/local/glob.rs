//! Git's wildmatch: `*`, `?`, `[…]` and `**` over bytes, as gitignore(5) means them.
//!
//! A port of the algorithm of git's wildmatch.c with WM_PATHNAME, so that patterns mean here what they mean to
//! git, on names of any bytes; tests hold it against git itself.

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Match,
    NoMatch,
    /// The text ended: no longer match of a `*` to the left can help.
    AbortAll,
    /// A `/` was met that only a `**` to the left could pass.
    AbortToStarStar,
}

/// True where the whole of `text` matches `pattern`. `*`, `?` and classes do not match `/`.
pub(crate) fn matches(pattern: &[u8], text: &[u8], ignore_case: bool) -> bool {
    Matcher { ignore_case }.run(pattern, 0, text) == Outcome::Match
}

/// True where `byte` means something else than itself in a pattern.
pub(crate) fn is_special(byte: u8) -> bool {
    matches!(byte, b'*' | b'?' | b'[' | b'\\')
}

struct Matcher {
    ignore_case: bool,
}

impl Matcher {
    fn fold(&self, byte: u8) -> u8 {
        if self.ignore_case { byte.to_ascii_lowercase() } else { byte }
    }

    fn run(&self, pattern: &[u8], start: usize, mut text: &[u8]) -> Outcome {
        let mut p = start;
        while let Some(&c) = pattern.get(p) {
            let Some(&raw) = text.first() else {
                if c == b'*' {
                    return self.star(pattern, p, text);
                }
                return Outcome::AbortAll;
            };
            match c {
                b'*' => match self.single_star_before_slash(pattern, p, text) {
                    Some(Ok((next, rest))) => {
                        p = next;
                        text = rest;
                        continue;
                    }
                    Some(Err(outcome)) => return outcome,
                    None => return self.star(pattern, p, text),
                },
                b'?' if raw == b'/' => return Outcome::NoMatch,
                b'?' => p += 1,
                b'[' => match self.class(pattern, p, self.fold(raw)) {
                    Some((next, true)) if raw != b'/' => p = next,
                    Some(_) => return Outcome::NoMatch,
                    None => return Outcome::AbortAll,
                },
                _ => {
                    let (literal, next) = literal_at(pattern, p);
                    if literal.map(|l| self.fold(l)) != Some(self.fold(raw)) {
                        return Outcome::NoMatch;
                    }
                    p = next;
                }
            }
            text = &text[1..];
        }
        if text.is_empty() { Outcome::Match } else { Outcome::NoMatch }
    }

    /// `*/` eats exactly the rest of one name: the common case, without recursion.
    fn single_star_before_slash<'t>(
        &self,
        pattern: &[u8],
        p: usize,
        text: &'t [u8],
    ) -> Option<Result<(usize, &'t [u8]), Outcome>> {
        if pattern.get(p + 1) != Some(&b'/') {
            return None;
        }
        match text.iter().position(|&b| b == b'/') {
            Some(slash) => Some(Ok((p + 2, &text[slash + 1..]))),
            None => Some(Err(Outcome::AbortAll)),
        }
    }

    fn star(&self, pattern: &[u8], p: usize, text: &[u8]) -> Outcome {
        let mut next = p + 1;
        while pattern.get(next) == Some(&b'*') {
            next += 1;
        }
        let rest = &pattern[next..];
        let double = next - p > 1
            && (p == 0 || pattern[p - 1] == b'/')
            && (rest.is_empty() || rest[0] == b'/' || rest.starts_with(b"\\/"));
        // `a/**/b` also matches `a/b`.
        if double && rest.first() == Some(&b'/') && self.run(pattern, next + 1, text) == Outcome::Match {
            return Outcome::Match;
        }
        if rest.is_empty() {
            return match double || !text.contains(&b'/') {
                true => Outcome::Match,
                false => Outcome::AbortToStarStar,
            };
        }
        if !double && rest[0] == b'/' {
            return match text.iter().position(|&b| b == b'/') {
                Some(slash) => self.run(pattern, next + 1, &text[slash + 1..]),
                None => Outcome::AbortAll,
            };
        }
        self.try_each(pattern, next, text, double)
    }

    /// Lets the star end at each place of the text in turn.
    fn try_each(&self, pattern: &[u8], next: usize, text: &[u8], double: bool) -> Outcome {
        for at in 0..text.len() {
            match self.run(pattern, next, &text[at..]) {
                Outcome::NoMatch if !double && text[at] == b'/' => return Outcome::AbortToStarStar,
                Outcome::NoMatch => {}
                Outcome::AbortToStarStar if double => {}
                outcome => return outcome,
            }
        }
        Outcome::AbortAll
    }

    /// Whether the class at `[` matches `c`, and where the pattern goes on; `None` for one that never ends.
    fn class(&self, pattern: &[u8], start: usize, c: u8) -> Option<(usize, bool)> {
        let mut p = start + 1;
        let negated = matches!(pattern.get(p), Some(b'!' | b'^'));
        p += usize::from(negated);
        let (mut matched, mut previous, mut first) = (false, 0u8, true);
        loop {
            let mut item = *pattern.get(p)?;
            if item == b']' && !first {
                return Some((p + 1, matched != negated));
            }
            first = false;
            if item == b'\\' {
                p += 1;
                item = *pattern.get(p)?;
                matched |= self.fold(item) == c;
            } else if item == b'-' && previous != 0 && pattern.get(p + 1).is_some_and(|&end| end != b']') {
                p += 1;
                let mut end = pattern[p];
                if end == b'\\' {
                    p += 1;
                    end = *pattern.get(p)?;
                }
                let upper = c.to_ascii_uppercase();
                matched |=
                    (previous..=end).contains(&c) || self.ignore_case && (previous..=end).contains(&upper);
                item = 0;
            } else if item == b'[' && pattern.get(p + 1) == Some(&b':') {
                let close = p + 2 + pattern[p + 2..].iter().position(|&b| b == b']')?;
                if close > p + 2 && pattern[close - 1] == b':' {
                    matched |= named_class(&pattern[p + 2..close - 1], c, self.ignore_case)?;
                    p = close;
                    item = 0;
                } else {
                    matched |= c == b'[';
                }
            } else {
                matched |= self.fold(item) == c;
            }
            previous = item;
            p += 1;
        }
    }
}

/// The literal at `p`, unescaped (`None` for a backslash that ends the pattern), and what follows it.
fn literal_at(pattern: &[u8], p: usize) -> (Option<u8>, usize) {
    match pattern[p] {
        b'\\' => (pattern.get(p + 1).copied(), p + 2),
        c => (Some(c), p + 1),
    }
}

fn named_class(name: &[u8], c: u8, ignore_case: bool) -> Option<bool> {
    Some(match name {
        b"alnum" => c.is_ascii_alphanumeric(),
        b"alpha" => c.is_ascii_alphabetic(),
        b"blank" => c == b' ' || c == b'\t',
        b"cntrl" => c.is_ascii_control(),
        b"digit" => c.is_ascii_digit(),
        b"graph" => c.is_ascii_graphic(),
        b"lower" => c.is_ascii_lowercase(),
        b"print" => c.is_ascii_graphic() || c == b' ',
        b"punct" => c.is_ascii_punctuation(),
        b"space" => c.is_ascii_whitespace() || c == 0x0b,
        b"upper" => c.is_ascii_uppercase() || ignore_case && c.is_ascii_lowercase(),
        b"xdigit" => c.is_ascii_hexdigit(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From git's t3070-wildmatch.sh: text, pattern, result with WM_PATHNAME.
    const CASES: &[(&str, &str, bool)] = &[
        ("foo", "foo", true),
        ("", "", true),
        ("foo", "???", true),
        ("foo", "??", false),
        ("foo", "*f", false),
        ("foobar", "*ob*a*r*", true),
        ("aaaaaaabababab", "*ab", true),
        ("foo*", "foo\\*", true),
        ("f\\oo", "f\\\\oo", true),
        ("ball", "*[al]?", true),
        ("ten", "[ten]", false),
        ("ten", "**[!te]", true),
        ("ten", "**[!ten]", false),
        ("ton", "t[!a-g]n", true),
        ("a]b", "a[]]b", true),
        ("a-b", "a[]-]b", true),
        ("aab", "a[]a-]b", true),
        ("]", "]", true),
        ("foo/baz/bar", "foo*bar", false),
        ("foo/baz/bar", "foo**bar", false),
        ("foobazbar", "foo**bar", true),
        ("foo/baz/bar", "foo/**/bar", true),
        ("foo/baz/bar", "foo/**/**/bar", true),
        ("foo/bar", "foo/**/bar", true),
        ("foo/bar", "foo?bar", false),
        ("foo/bar", "foo[/]bar", false),
        ("foo/bar", "f[^eiu][^eiu][^eiu][^eiu][^eiu]r", false),
        ("foo-bar", "f[^eiu][^eiu][^eiu][^eiu][^eiu]r", true),
        ("foo", "**/foo", true),
        ("XXX/foo", "**/foo", true),
        ("bar/baz/foo", "**/foo", true),
        ("bar/baz/foo", "*/foo", false),
        ("foo/bar/baz", "**/bar*", false),
        ("deep/foo/bar/baz", "**/bar/*", true),
        ("deep/foo/bar/baz/", "**/bar/*", false),
        ("foo/bar/baz", "**/bar**", false),
        ("foo/bar/baz/x", "*/bar/**", true),
        ("deep/foo/bar/baz/x", "*/bar/**", false),
        ("foo/bba/arr", "foo/**arr", false),
        ("foo", "fo\\", false),
        ("5", "[[:digit:][:upper:][:space:]]", true),
        (".", "[[:digit:][:upper:][:space:]]", false),
        ("_", "[[:alnum:][:alpha:][:blank:][:cntrl:][:digit:][:graph:][:lower:]]", true),
        ("5", "[a-c[:digit:]x-z]", true),
        ("q", "[a-c[:digit:]x-z]", false),
        ("]", "[\\\\-^]", true),
        ("-", "[\\-_]", true),
        ("]", "[\\]]", true),
        ("a", "[]b", false),
        ("foo/bar/baz/to", "**/t[o]", true),
        ("-adobe-courier-bold-o-normal--12-120-75-75-m-70-iso8859-1", "-*-*-*-*-*-*-12-*-*-*-m-*-*-*", true),
        ("abcd/abcdefg/abcdefghijk/abcdefghijklmnop.txt", "**/*a*b*g*n*t", true),
        ("foo/bb/aa/rr", "**/**/**", true),
        ("ab/cXd/efXg/hi", "*X*i", false),
        ("ab/cXd/efXg/hi", "**/*X*/**/*i", true),
    ];

    #[test]
    fn agrees_with_gits_own_table() {
        for &(text, pattern, expected) in CASES {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes(), false), expected, "{text} ~ {pattern}");
        }
    }

    #[test]
    fn many_stars_stay_cheap() {
        let pattern = "*a".repeat(40) + "b";
        assert!(!matches(pattern.as_bytes(), "a".repeat(4000).as_bytes(), false));
    }
}
