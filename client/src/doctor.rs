//! `devsync doctor`: what was found, in parts, and how it is shown. Where to look is known by the command.

pub mod laptop;

use devsync_protocol::finding::{Finding, Level};
use serde::Serialize;

use crate::report::{count, plain_line};

/// Findings about one place.
#[derive(Debug, Serialize)]
pub struct Part {
    pub part: String,
    pub findings: Vec<Finding>,
}

/// All that was found.
#[derive(Debug, Default, Serialize)]
pub struct Diagnosis {
    pub problems: usize,
    pub warnings: usize,
    pub parts: Vec<Part>,
}

impl Diagnosis {
    pub fn add(&mut self, part: impl Into<String>, findings: Vec<Finding>) {
        let of = |level| findings.iter().filter(|finding| finding.level == level).count();
        self.problems += of(Level::Problem);
        self.warnings += of(Level::Warning);
        self.parts.push(Part { part: part.into(), findings });
    }

    pub fn is_well(&self) -> bool {
        self.problems == 0
    }

    /// For a terminal: a line each, what mends it below.
    pub fn words(&self) -> String {
        let mut lines = Vec::new();
        for Part { part, findings } in &self.parts {
            lines.push(plain_line(part));
            for Finding { level, topic, text, fix } in findings {
                lines.push(format!("  {:7}  {topic:10}  {}", level.word(), plain_line(text)));
                lines.extend(fix.iter().map(|fix| format!("{:23}fix: {}", "", plain_line(fix))));
            }
        }
        let warnings = count(self.warnings, "warning");
        lines.push(match self.problems {
            0 if self.warnings == 0 => "all is well".to_owned(),
            0 => format!("no problem, {warnings}"),
            problems => format!("{}, {warnings}", count(problems, "problem")),
        });
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_problem_has_its_fix_below() {
        let mut diagnosis = Diagnosis::default();
        diagnosis.add("laptop", vec![Finding::ok("files", "fine")]);
        assert!(diagnosis.is_well() && diagnosis.words().ends_with("all is well"));
        let evil = Finding::problem("app", "gone\u{1b}[2J", "start it");
        diagnosis.add("pod/x", vec![evil, Finding::warning("yama", "1", "0")]);
        let words = diagnosis.words();
        assert!(!diagnosis.is_well() && words.ends_with("1 problem, 1 warning"), "{words}");
        assert!(words.contains("  problem  app         gone\\u{1b}[2J\n"), "{words}");
        assert!(words.contains("fix: start it"), "{words}");
    }
}
