//! Decides whether an SPDX licence expression can be met with a list of allowed licences.
//! Knows AND, OR, WITH, parentheses and the old `/` for OR; nothing else.

/// Whether `expression` can be met with licences of `allowed`. An expression that cannot be read is not met.
pub fn permits(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut reader = Reader { words: spaced.split_whitespace().collect(), next: 0, allowed };
    let met = reader.any();
    met == Some(true) && reader.next == reader.words.len()
}

/// Each method reads one level of the grammar: whether it is met, or `None` where it ends too early.
struct Reader<'a> {
    words: Vec<&'a str>,
    next: usize,
    allowed: &'a [&'a str],
}

impl Reader<'_> {
    fn any(&mut self) -> Option<bool> {
        let mut met = self.all()?;
        while self.take("OR") {
            met |= self.all()?;
        }
        Some(met)
    }

    fn all(&mut self) -> Option<bool> {
        let mut met = self.one()?;
        while self.take("AND") {
            met &= self.one()?;
        }
        Some(met)
    }

    fn one(&mut self) -> Option<bool> {
        if self.take("(") {
            let met = self.any()?;
            return self.take(")").then_some(met);
        }
        let mut name = (*self.words.get(self.next)?).to_string();
        self.next += 1;
        if self.take("WITH") {
            name = format!("{name} WITH {}", self.words.get(self.next)?);
            self.next += 1;
        }
        Some(self.allowed.contains(&name.as_str()))
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.words.get(self.next) == Some(&word);
        self.next += usize::from(found);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::permits;

    const ALLOWED: &[&str] = &["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"];

    #[test]
    fn a_choice_needs_one_and_a_sum_needs_both() {
        assert!(permits("MIT OR GPL-3.0", ALLOWED));
        assert!(permits("GPL-3.0/MIT", ALLOWED));
        assert!(!permits("MIT AND GPL-3.0", ALLOWED));
        assert!(permits("(GPL-3.0 OR Apache-2.0) AND MIT", ALLOWED));
        assert!(!permits("(GPL-3.0 OR MIT) AND GPL-2.0", ALLOWED));
    }

    #[test]
    fn an_exception_is_part_of_the_name() {
        assert!(permits("Apache-2.0 WITH LLVM-exception", ALLOWED));
        assert!(!permits("MIT WITH Strange-exception", ALLOWED));
    }

    #[test]
    fn what_cannot_be_read_is_not_met() {
        for expression in ["", "MIT OR", "(MIT", "MIT)", "MIT MIT"] {
            assert!(!permits(expression, ALLOWED), "{expression:?}");
        }
    }
}
