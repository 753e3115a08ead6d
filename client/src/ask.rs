//! Questions to the person at the terminal.

use std::io::{self, IsTerminal, Write};

use crate::error::{CommandError, Kind};

/// One question at a time: several targets may have one.
static ASKING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Asks; `None` where there is nobody to ask. Anything but yes is no.
pub async fn confirm(question: &str) -> Option<bool> {
    let line = answer(&format!("{} [y/N] ", crate::report::plain(question))).await?;
    Some(matches!(line.trim(), "y" | "Y" | "yes" | "Yes"))
}

/// Goes on only where the name of what is changed is typed: `what` says why it is asked, `name` has its kind before it,
/// and `hint` says what to do where nobody is here to answer.
pub async fn confirmed(what: &str, (kind, name): (&str, &str), hint: &str) -> Result<(), CommandError> {
    let question = format!("{what}.\nType the {kind}'s name to go on: ");
    match answer(&crate::report::plain(&question)).await {
        Some(line) if line.trim() == name => Ok(()),
        Some(_) => Err(CommandError::new("ended without changing anything").cause("another name was typed")),
        None => Err(CommandError::new(what).kind(Kind::Usage).cause("nobody is here to answer").hint(hint)),
    }
}

/// What is typed; `None` where there is nobody to ask.
async fn answer(question: &str) -> Option<String> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return None;
    }
    let _one = ASKING.lock().await;
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
