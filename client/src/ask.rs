//! Questions to the person at the terminal.

use std::io::{self, IsTerminal, Write};

/// Asks; `None` where there is nobody to ask. Anything but yes is no.
pub async fn confirm(question: &str) -> Option<bool> {
    let line = answer(&format!("{} [y/N] ", crate::report::plain(question))).await?;
    Some(matches!(line.trim(), "y" | "Y" | "yes" | "Yes"))
}

/// Asks for `expected` to be typed; `None` where there is nobody to ask.
pub async fn typed(question: &str, expected: &str) -> Option<bool> {
    let line = answer(&crate::report::plain(question)).await?;
    Some(line.trim() == expected)
}

/// What is typed; `None` where there is nobody to ask.
async fn answer(question: &str) -> Option<String> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return None;
    }
    let mut stderr = io::stderr();
    let _ = write!(stderr, "{question}").and_then(|()| stderr.flush());
    // The read cannot be taken back; a thread of its own keeps Ctrl-C working meanwhile.
    let (tx, rx) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = io::stdin().read_line(&mut line);
        let _ = tx.send(line);
    });
    Some(rx.await.unwrap_or_default())
}
