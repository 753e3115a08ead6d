//! Translates notify's events into the few things that matter, and bounds how many wait.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};

use notify::event::{AccessKind, AccessMode, CreateKind, Event, EventKind, Flag, ModifyKind, RenameMode};

/// What happened to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Created,
    Written,
    Closed,
    Touched,
    MovedFrom {
        cookie: Option<usize>,
    },
    MovedTo {
        cookie: Option<usize>,
    },
    Removed,
    /// The system does not say.
    Changed,
}

#[derive(Debug)]
pub(crate) enum Raw {
    Event {
        what: What,
        path: PathBuf,
    },
    /// The system lost events.
    Overflow,
    /// The system could not watch a directory that appeared.
    Failed(notify::Error),
    Stop,
}

/// Hands events from notify's thread to the watcher's; what does not fit becomes an overflow.
#[derive(Debug, Clone)]
pub(crate) struct Sink {
    pub(crate) events: SyncSender<Raw>,
    pub(crate) overflowed: Arc<AtomicBool>,
}

impl notify::EventHandler for Sink {
    fn handle_event(&mut self, event: notify::Result<Event>) {
        match event {
            Ok(event) if event.flag() == Some(Flag::Rescan) => self.send(Raw::Overflow),
            Ok(event) => {
                let Some(what) = what(&event) else { return };
                for path in event.paths {
                    self.send(Raw::Event { what, path });
                }
            }
            Err(error) => self.send(Raw::Failed(error)),
        }
    }
}

impl Sink {
    fn send(&self, raw: Raw) {
        if let Err(TrySendError::Full(_)) = self.events.try_send(raw) {
            self.overflowed.store(true, Ordering::Release);
        }
    }
}

fn what(event: &Event) -> Option<What> {
    let cookie = event.tracker();
    Some(match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => What::Closed,
        EventKind::Access(_) => return None,
        EventKind::Create(CreateKind::Any | CreateKind::File | CreateKind::Folder | CreateKind::Other) => {
            What::Created
        }
        EventKind::Modify(ModifyKind::Metadata(_)) => What::Touched,
        EventKind::Modify(ModifyKind::Data(_)) => What::Written,
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) => What::MovedFrom { cookie },
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => What::MovedTo { cookie },
        // Comes after From and To, and says nothing more.
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) if cookie.is_some() => return None,
        EventKind::Remove(_) => What::Removed,
        _ => What::Changed,
    })
}
