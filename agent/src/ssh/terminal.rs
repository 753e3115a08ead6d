//! A channel's terminal: opened in the app's /dev/pts, given the client's modes and size, and its master as a stream.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use nix::errno::Errno;
use nix::pty::{Winsize, posix_openpt};
use nix::sys::termios::{
    ControlFlags, InputFlags, LocalFlags, OutputFlags, SetArg, SpecialCharacterIndices as Index, Termios,
    tcgetattr, tcsetattr,
};
use russh::Pty;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::sys::readiness::watch;
use crate::sys::terminal as calls;
use crate::world::World;

/// What a client asked for.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) term: String,
    pub(super) size: [u32; 4],
    pub(super) modes: Vec<(Pty, u32)>,
}

/// The master; clones are the same terminal, and the last one's drop hangs it up.
#[derive(Debug, Clone)]
pub(super) struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl Terminal {
    /// A new terminal, and the end that a program gets: the app's own, so that its name is there for its programs, or
    /// without a world the agent's, where the app does not see what is typed.
    pub(super) fn open(world: Option<&World>, wish: &Wish) -> io::Result<(Self, OwnedFd)> {
        let own = world.map_or(Err(Errno::ENOENT), |world| world.root().open_terminal());
        // The agent's works in the app's root too, without a name.
        let master = own.or_else(|_| {
            let flags = nix::fcntl::OFlag::O_RDWR
                | nix::fcntl::OFlag::O_NOCTTY
                | nix::fcntl::OFlag::O_NONBLOCK
                | nix::fcntl::OFlag::O_CLOEXEC;
            posix_openpt(flags)
                .and_then(|master| master.as_fd().try_clone_to_owned().map_err(|_| Errno::EMFILE))
        })?;
        let slave = calls::peer(&master)?;
        let mut termios = tcgetattr(&slave)?;
        for (mode, value) in &wish.modes {
            set(&mut termios, *mode, *value);
        }
        tcsetattr(&slave, SetArg::TCSANOW, &termios)?;
        calls::resize(&master, &winsize(wish.size))?;
        Ok((Self(Arc::new(watch(master)?)), slave))
    }

    pub(super) fn resize(&self, size: [u32; 4]) {
        if let Err(errno) = calls::resize(self.0.as_fd(), &winsize(size)) {
            tracing::debug!(%errno, "a terminal was not resized");
        }
    }
}

fn winsize([columns, rows, width, height]: [u32; 4]) -> Winsize {
    let short = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    Winsize { ws_col: short(columns), ws_row: short(rows), ws_xpixel: short(width), ws_ypixel: short(height) }
}

impl AsyncRead for Terminal {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            let room = buf.initialize_unfilled();
            match ready.try_io(|fd| Ok(nix::unistd::read(fd.get_ref(), room)?)) {
                Ok(Ok(count)) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(written) = ready.try_io(|fd| Ok(nix::unistd::write(fd.get_ref(), bytes)?)) {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// A terminal's input has no end; the client's is nothing that a program could be told.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// One encoded mode of RFC 4254, section 8. Those that Linux does not have are passed over, as are speeds.
fn set(termios: &mut Termios, mode: Pty, value: u32) {
    if let Some(index) = character(mode) {
        // 255 stands for "none".
        let value = u8::try_from(value).ok().filter(|value| *value != u8::MAX).unwrap_or(0);
        if let Some(place) = termios.control_chars.get_mut(index as usize) {
            *place = value;
        }
        return;
    }
    let on = value != 0;
    if let Some(flag) = input(mode) {
        termios.input_flags.set(flag, on);
    } else if let Some(flag) = local(mode) {
        termios.local_flags.set(flag, on);
    } else if let Some(flag) = output(mode) {
        termios.output_flags.set(flag, on);
    } else {
        match mode {
            Pty::PARENB => termios.control_flags.set(ControlFlags::PARENB, on),
            Pty::PARODD => termios.control_flags.set(ControlFlags::PARODD, on),
            Pty::CS7 if on => {
                termios.control_flags.remove(ControlFlags::CSIZE);
                termios.control_flags.insert(ControlFlags::CS7);
            }
            Pty::CS8 if on => {
                termios.control_flags.remove(ControlFlags::CSIZE);
                termios.control_flags.insert(ControlFlags::CS8);
            }
            _ => {}
        }
    }
}

fn character(mode: Pty) -> Option<Index> {
    Some(match mode {
        Pty::VINTR => Index::VINTR,
        Pty::VQUIT => Index::VQUIT,
        Pty::VERASE => Index::VERASE,
        Pty::VKILL => Index::VKILL,
        Pty::VEOF => Index::VEOF,
        Pty::VEOL => Index::VEOL,
        Pty::VEOL2 => Index::VEOL2,
        Pty::VSTART => Index::VSTART,
        Pty::VSTOP => Index::VSTOP,
        Pty::VSUSP => Index::VSUSP,
        Pty::VREPRINT => Index::VREPRINT,
        Pty::VWERASE => Index::VWERASE,
        Pty::VLNEXT => Index::VLNEXT,
        Pty::VDISCARD => Index::VDISCARD,
        _ => return None,
    })
}

fn input(mode: Pty) -> Option<InputFlags> {
    Some(match mode {
        Pty::IGNPAR => InputFlags::IGNPAR,
        Pty::PARMRK => InputFlags::PARMRK,
        Pty::INPCK => InputFlags::INPCK,
        Pty::ISTRIP => InputFlags::ISTRIP,
        Pty::INLCR => InputFlags::INLCR,
        Pty::IGNCR => InputFlags::IGNCR,
        Pty::ICRNL => InputFlags::ICRNL,
        Pty::IXON => InputFlags::IXON,
        Pty::IXANY => InputFlags::IXANY,
        Pty::IXOFF => InputFlags::IXOFF,
        Pty::IMAXBEL => InputFlags::IMAXBEL,
        Pty::IUTF8 => InputFlags::IUTF8,
        _ => return None,
    })
}

fn local(mode: Pty) -> Option<LocalFlags> {
    Some(match mode {
        Pty::ISIG => LocalFlags::ISIG,
        Pty::ICANON => LocalFlags::ICANON,
        Pty::ECHO => LocalFlags::ECHO,
        Pty::ECHOE => LocalFlags::ECHOE,
        Pty::ECHOK => LocalFlags::ECHOK,
        Pty::ECHONL => LocalFlags::ECHONL,
        Pty::NOFLSH => LocalFlags::NOFLSH,
        Pty::TOSTOP => LocalFlags::TOSTOP,
        Pty::IEXTEN => LocalFlags::IEXTEN,
        Pty::ECHOCTL => LocalFlags::ECHOCTL,
        Pty::ECHOKE => LocalFlags::ECHOKE,
        Pty::PENDIN => LocalFlags::PENDIN,
        _ => return None,
    })
}

fn output(mode: Pty) -> Option<OutputFlags> {
    Some(match mode {
        Pty::OPOST => OutputFlags::OPOST,
        Pty::OLCUC => OutputFlags::OLCUC,
        Pty::ONLCR => OutputFlags::ONLCR,
        Pty::OCRNL => OutputFlags::OCRNL,
        Pty::ONOCR => OutputFlags::ONOCR,
        Pty::ONLRET => OutputFlags::ONLRET,
        _ => return None,
    })
}
