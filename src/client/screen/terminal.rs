//! The terminal, taken over and given back.

use std::{
    io::{self, BufWriter, Stdout, Write, stdout},
    panic,
    sync::Once,
};

use crossterm::{
    cursor::Show,
    event::{DisableBracketedPaste, EnableBracketedPaste},
    execute,
    terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
};
use ratatui::{Terminal, backend::CrosstermBackend};

/// Bytes of one drawing, so that it reaches the terminal in one piece.
const BUFFER: usize = 64 * 1024;

pub(super) type Backend = CrosstermBackend<BufWriter<Stdout>>;

/// The terminal while it is a full screen: raw, on its other page. Dropping this
/// gives it back as it was, and so does a panic, before it is printed.
pub struct FullScreen(Terminal<Backend>);

impl FullScreen {
    /// Takes over the terminal of standard input and output.
    ///
    /// # Errors
    /// If there is none, or it does not answer.
    pub fn enter() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let then = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                give_back();
                then(info);
            }));
        });
        enable_raw_mode()?;
        let mut out = BufWriter::with_capacity(BUFFER, stdout());
        let entered = execute!(out, EnterAlternateScreen, EnableBracketedPaste)
            .and_then(|()| Terminal::new(CrosstermBackend::new(out)));
        match entered {
            Ok(terminal) => Ok(Self(terminal)),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    /// Clears the screen; the next drawing draws all of it. `Terminal::clear`
    /// would ask the terminal where its cursor is, and the answer comes among the
    /// keys.
    pub(super) fn forget(&mut self) -> io::Result<()> {
        let size = self.0.size()?;
        self.0.resize(size.into())
    }

    pub(super) fn terminal(&mut self) -> &mut Terminal<Backend> {
        &mut self.0
    }
}

impl Drop for FullScreen {
    fn drop(&mut self) {
        give_back();
    }
}

/// A terminal that is gone can't be given back; nobody is left to be told.
fn give_back() {
    _ = leave(&mut stdout());
    _ = disable_raw_mode();
}

fn leave(out: &mut impl Write) -> io::Result<()> {
    execute!(out, DisableBracketedPaste, LeaveAlternateScreen, Show)
}
