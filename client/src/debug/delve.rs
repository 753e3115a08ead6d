//! Which Go a delve understands.

/// Whether `delve` (`1.20.2`) understands programs of `go` (`go1.19.8`). What is no such version counts as understood.
///
/// From 1.20 on delve's minor version is that of the newest Go it knows, and before that it was ten less: the constant
/// `MaxSupportedVersionOfGoMinor` in its pkg/goversion/compat.go, release by release.
pub fn understands(delve: &str, go: &str) -> bool {
    let minor =
        |version: &str| version.strip_prefix("1.")?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
    let newest = |delve: u32| if delve < 20 { delve + 10 } else { delve };
    let go: Option<u32> = go.strip_prefix("go").and_then(minor);
    minor(delve).map(newest).zip(go).is_none_or(|(newest, go)| go <= newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_go_is_not_understood() {
        for (delve, go, is) in [
            ("1.20.2", "go1.19.8", true),
            ("1.20.2", "go1.20", true),
            ("1.20.2", "go1.21rc2", false),
            ("1.9.1", "go1.19.8", true),
            ("1.9.1", "go1.20", false),
            ("1.25.0", "go1.24.3", true),
            ("devel", "go1.24.3", true),
            ("1.20.2", "devel +abc", true),
        ] {
            assert_eq!(understands(delve, go), is, "{delve} {go}");
        }
    }
}
