//! A figure of the benchmark, as a line of JSON and as a line of a table.

use std::time::Duration;

use serde_json::json;

/// What one contestant needed in one row.
#[derive(Debug, Clone)]
pub struct Figure {
    pub row: &'static str,
    pub who: &'static str,
    /// Sorted, in milliseconds, never empty.
    times: Vec<f64>,
    /// Median of the bytes on the loopback interface, both ways with all headers; `None` where nothing goes there.
    pub wire_bytes: Option<u64>,
    /// Said in the table only.
    pub note: String,
}

impl Figure {
    /// Makes a figure of at least one time.
    pub fn new(row: &'static str, who: &'static str, times: &[Duration], wire: &[u64]) -> Figure {
        let mut times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
        times.sort_by(f64::total_cmp);
        let mut wire = wire.to_vec();
        wire.sort_unstable();
        Figure { row, who, times, wire_bytes: wire.get(wire.len() / 2).copied(), note: String::new() }
    }

    /// The time that `share` of all runs did not exceed (nearest rank).
    fn rank(&self, share: f64) -> f64 {
        let count = self.times.len();
        // Both are small: no precision is lost.
        let rank = (count as f64 * share).ceil() as usize;
        self.times.get(rank.clamp(1, count.max(1)) - 1).copied().unwrap_or(f64::NAN)
    }

    /// The middle time; of an even number of runs the mean of the two in the middle.
    pub fn median(&self) -> f64 {
        let half = self.times.len() / 2;
        if self.times.len() % 2 == 1 {
            return self.rank(0.5);
        }
        let pair = (self.times.get(half.wrapping_sub(1)), self.times.get(half));
        if let (Some(low), Some(high)) = pair { f64::midpoint(*low, *high) } else { f64::NAN }
    }

    /// One line of JSON.
    pub fn json(&self) -> String {
        let ms = |value: f64| (value * 1000.0).round() / 1000.0;
        json!({
            "row": self.row, "who": self.who,
            "median_ms": ms(self.median()), "min_ms": ms(self.rank(0.0)), "max_ms": ms(self.rank(1.0)),
            "p99_ms": ms(self.rank(0.99)), "wire_bytes": self.wire_bytes,
        })
        .to_string()
    }

    /// One line of the table, with the ratio to the median of `base`.
    pub fn line(&self, base: Option<f64>) -> String {
        let ratio = base.map_or(String::new(), |base| format!("{:.2}", self.median() / base));
        let wire = self.wire_bytes.map_or(String::new(), |bytes| format!("{:.1}", bytes as f64 / 1000.0));
        format!(
            "{:<10}{:<20}{:>10.1}{:>10.1}{:>10.1}{:>10.1}{:>12}{:>8}  {}",
            self.row,
            self.who,
            self.median(),
            self.rank(0.0),
            self.rank(1.0),
            self.rank(0.99),
            wire,
            ratio,
            self.note
        )
    }
}

/// The head of the table.
pub fn head() -> String {
    format!(
        "{:<10}{:<20}{:>10}{:>10}{:>10}{:>10}{:>12}{:>8}",
        "row", "who", "median ms", "min", "max", "p99", "wire kB", "ratio"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_ranks_of_few_runs() {
        let figure = |times: &[u64]| {
            let times: Vec<_> = times.iter().map(|ms| Duration::from_millis(*ms)).collect();
            Figure::new("save", "devsync", &times, &[3, 1, 2])
        };
        assert_eq!(figure(&[5, 1, 3]).median(), 3.0);
        assert_eq!(figure(&[4, 1, 3, 2]).median(), 2.5);
        assert_eq!(figure(&[4, 1, 3, 2]).rank(0.99), 4.0);
        assert_eq!(figure(&[7]).rank(0.0), 7.0);
        assert_eq!(figure(&[7]).wire_bytes, Some(2));
    }

    #[test]
    fn json_has_the_keys_that_readers_expect() {
        let line = Figure::new("idle", "devsync", &[Duration::from_micros(1500)], &[]).json();
        let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(value["median_ms"], 1.5);
        assert!(value["wire_bytes"].is_null());
        assert_eq!(value.as_object().map(serde_json::Map::len), Some(7));
    }
}
