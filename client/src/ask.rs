//! Questions to the person at the terminal.

use std::io::{self, IsTerminal, Write};

/// One question at a time: several targets may have one.
static ASKING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Asks; `None` where there is nobody to ask. Anything but yes is no.
pub async fn confirm(question: &str) -> Option<bool> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return None;
    }
    let _one = ASKING.lock().await;
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
