//! The terminal here: its size, and raw mode that is left on every way out, a panic too.

use std::io::{self, IsTerminal};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub columns: u16,
    pub rows: u16,
}

/// The size; `None` where standard input or output is no terminal.
pub fn size() -> Option<Size> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return None;
    }
    let (rows, columns) = console::Term::stdout().size_checked().unwrap_or((24, 80));
    Some(Size { columns, rows })
}

pub use os::{Raw, Resizes};

#[cfg(unix)]
mod os {
    use std::io;
    use std::sync::{Mutex, Once, PoisonError};

    use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
    use tokio::signal::unix::{Signal, SignalKind, signal};

    use super::{Size, size};

    /// The settings from before, while raw mode holds.
    static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);
    static HOOK: Once = Once::new();

    /// Raw mode of standard input's terminal, until this is dropped or the program panics.
    #[derive(Debug)]
    pub struct Raw(());

    impl Raw {
        pub fn enter() -> io::Result<Self> {
            // A release build aborts when it panics, so that nothing is dropped.
            HOOK.call_once(|| {
                let usual = std::panic::take_hook();
                std::panic::set_hook(Box::new(move |info| {
                    restore();
                    usual(info);
                }));
            });
            let before = tcgetattr(io::stdin())?;
            let mut raw = before.clone();
            cfmakeraw(&mut raw);
            *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
            tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw)?;
            Ok(Self(()))
        }
    }

    impl Drop for Raw {
        fn drop(&mut self) {
            restore();
        }
    }

    fn restore() {
        let before = BEFORE.try_lock().ok().and_then(|mut before| before.take());
        if let Some(before) = before {
            let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &before);
        }
    }

    /// The terminal's new sizes.
    #[derive(Debug)]
    pub struct Resizes(Signal);

    impl Resizes {
        pub fn new() -> io::Result<Self> {
            signal(SignalKind::window_change()).map(Self)
        }

        pub async fn next(&mut self) -> Size {
            loop {
                if self.0.recv().await.is_none() {
                    std::future::pending::<()>().await;
                }
                if let Some(size) = size() {
                    return size;
                }
            }
        }
    }
}

#[cfg(not(unix))]
mod os {
    use std::io;

    use super::Size;

    /// No raw mode here.
    #[derive(Debug)]
    pub struct Raw(());

    impl Raw {
        pub fn enter() -> io::Result<Self> {
            Err(io::Error::new(io::ErrorKind::Unsupported, "no raw mode on this system: use -T"))
        }
    }

    /// Never tells.
    #[derive(Debug)]
    pub struct Resizes(());

    impl Resizes {
        pub fn new() -> io::Result<Self> {
            Ok(Self(()))
        }

        pub async fn next(&mut self) -> Size {
            std::future::pending().await
        }
    }
}
