//! Questions to the person at the terminal.

use std::io::{self, IsTerminal, Write};

/// Asks; `None` where there is nobody to ask. Anything but yes is no.
pub async fn confirm(question: &str) -> Option<bool> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return None;
    }
    let question = crate::report::plain(question);
    let mut stderr = io::stderr();
    let _ = write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush());
    // The read cannot be taken back; a thread of its own keeps Ctrl-C working meanwhile.
    let (tx, rx) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = io::stdin().read_line(&mut line);
        let _ = tx.send(line);
    });
    let line = rx.await.unwrap_or_default();
    Some(matches!(line.trim(), "y" | "Y" | "yes" | "Yes"))
}
