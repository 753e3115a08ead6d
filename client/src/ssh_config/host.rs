//! A host in the include file: its names, and the command line that leads to it.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// The end of all of our hosts' names.
const DOMAIN: &str = "devsync";

/// A host as ssh names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// `demo.shop.kind-dev.devsync`
    pub name: String,
    /// What `devsync proxy` is told: the target and where it is.
    pub words: Vec<String>,
}

impl Host {
    /// A host of these parts, the most special first; what no host name may have becomes a dash.
    pub fn new(parts: &[&str], words: Vec<String>) -> Self {
        let parts = parts.iter().map(|part| label(part)).filter(|part| !part.is_empty());
        let name = parts.chain([DOMAIN.to_owned()]).collect::<Vec<_>>().join(".");
        Self { name, words }
    }

    /// `demo.devsync`; none where that is the whole name.
    pub fn short(&self) -> Option<String> {
        let first = self.name.split('.').next()?;
        let short = format!("{first}.{DOMAIN}");
        (short != self.name).then_some(short)
    }
}

fn label(text: &str) -> String {
    let usual = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '-' };
    let label: String = text.chars().map(usual).collect();
    label.trim_matches(['-', '.']).to_ascii_lowercase()
}

/// ssh's ProxyCommand, which a shell reads after ssh has read its `%` tokens.
pub fn proxy_words(program: &Path, host: &Host) -> String {
    let program = program.to_string_lossy();
    let words = [program.as_ref(), "proxy", "--alias", &host.name];
    let words = words.into_iter().chain(host.words.iter().map(String::as_str));
    words.map(|word| quoted(word).replace('%', "%%")).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.,:=@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_context_makes_a_host_name() {
        let host = Host::new(&["demo", "shop", "arn:aws:eks:x/Prod cluster"], Vec::new());
        assert_eq!(host.name, "demo.shop.arn-aws-eks-x-prod-cluster.devsync");
        assert_eq!(host.short().as_deref(), Some("demo.devsync"));
        // Nothing that ssh's configuration or a path would read otherwise.
        assert_eq!(Host::new(&["../..", "* \n!x"], Vec::new()).name, "x.devsync");
        assert_eq!(Host::new(&["a", ""], Vec::new()).short(), None);
    }
}
