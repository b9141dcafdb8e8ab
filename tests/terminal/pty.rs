//! A program in a pseudo-terminal, and what a terminal would show of it.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    num::NonZeroU16,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::Path,
    process::{Child, Command},
    ptr,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use crate::server::{PATIENCE, command, exit_of};

/// What keys send.
pub struct Keys;

impl Keys {
    pub const ENTER: &str = "\r";
    pub const ESC: &str = "\x1b";
    pub const BACKSPACE: &str = "\x7f";
    pub const DOWN: &str = "\x1b[B";
    pub const PAGE_UP: &str = "\x1b[5~";
    pub const CONTROL_A: &str = "\x01";
    pub const CONTROL_C: &str = "\x03";
    pub const CONTROL_E: &str = "\x05";
    pub const CONTROL_L: &str = "\x0c";
    pub const CONTROL_P: &str = "\x10";
    pub const CONTROL_Q: &str = "\x11";
    pub const CONTROL_W: &str = "\x17";
    pub const CONTROL_X: &str = "\x18";
}

/// What came out of the program.
struct Output {
    terminal: vt100::Parser,
    raw: Vec<u8>,
}

pub struct Tty {
    child: Child,
    master: File,
    /// Kept open, so that the terminal outlives the program.
    slave: OwnedFd,
    /// How the terminal was before the program had it.
    modes: Vec<u64>,
    output: Arc<Mutex<Output>>,
}

impl Tty {
    /// `chatd` with these arguments, its home in a folder.
    pub fn start(dir: &Path, size: (u16, u16), args: &[&str]) -> Self {
        Self::spawn(command(dir), dir, size, args)
    }

    /// This test binary.
    pub fn again(dir: &Path, size: (u16, u16), args: &[&str]) -> Self {
        let program = std::env::current_exe().unwrap();
        Self::spawn(Command::new(program), dir, size, args)
    }

    fn spawn(mut command: Command, home: &Path, size: (u16, u16), args: &[&str]) -> Self {
        let (master, slave) = open(size);
        let modes = modes(&slave);
        let end = || slave.try_clone().unwrap();
        command
            .args(args)
            .env("TERM", "xterm-256color")
            .env("HOME", home)
            .stdin(end())
            .stdout(end())
            .stderr(end());
        // SAFETY: between fork and exec only system calls are made that are
        // async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                // The terminal is to be the session's own, or no signal comes
                // from it.
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                // Whoever runs the tests in the background may have had it ignored.
                libc::signal(libc::SIGINT, libc::SIG_DFL);
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        let output = Arc::new(Mutex::new(Output {
            terminal: vt100::Parser::new(rows(size), columns(size), 0),
            raw: Vec::new(),
        }));
        let (mut reader, seen) = (master.try_clone().unwrap(), Arc::clone(&output));
        // Ends with the terminal.
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                let mut output = seen.lock().unwrap();
                output.terminal.process(&bytes[..count]);
                output.raw.extend(&bytes[..count]);
            }
        });
        Self {
            child,
            master,
            slave,
            modes,
            output,
        }
    }

    pub fn type_in(&self, text: &str) {
        (&self.master).write_all(text.as_bytes()).unwrap();
    }

    /// Alone, so that an escape is not taken for the start of another key.
    pub fn press(&self, key: &str) {
        thread::sleep(Duration::from_millis(20));
        self.type_in(key);
        thread::sleep(Duration::from_millis(20));
    }

    pub fn paste(&self, text: &str) {
        self.type_in(&format!("\x1b[200~{text}\x1b[201~"));
    }

    pub fn signal(&self, signal: i32) {
        let pid = libc::pid_t::try_from(self.child.id()).unwrap();
        // SAFETY: a system call without pointers, to a child that has not been
        // waited for, so the id is still its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    pub fn resize(&self, size: (u16, u16)) {
        let mut output = self.output.lock().unwrap();
        let screen = output.terminal.screen_mut();
        screen.set_size(rows(size), columns(size));
        let size = window(size);
        // SAFETY: the structure that this request reads, for as long as it does.
        let done =
            unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(done, 0);
    }

    /// Waits until the program has done something.
    pub async fn until(&self, done: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            let late = start.elapsed() > PATIENCE;
            assert!(!late, "too late; the screen:\n{}", self.rows().join("\n"));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until this is in a row of the screen.
    pub async fn until_row(&self, text: &str) {
        self.until(|tty| tty.says(text)).await;
    }

    pub fn says(&self, text: &str) -> bool {
        self.rows().iter().any(|row| row.contains(text))
    }

    pub fn rows(&self) -> Vec<String> {
        let output = self.output.lock().unwrap();
        let screen = output.terminal.screen();
        let (_, columns) = screen.size();
        screen.rows(0, columns.get()).collect()
    }

    pub fn screen(&self) -> vt100::Screen {
        self.output.lock().unwrap().terminal.screen().clone()
    }

    pub fn raw(&self) -> Vec<u8> {
        self.output.lock().unwrap().raw.clone()
    }

    /// Whether the terminal is other than it was: raw, on its other page, or
    /// without a cursor.
    pub fn is_taken_over(&self) -> bool {
        let output = self.output.lock().unwrap();
        let screen = output.terminal.screen();
        modes(&self.slave) != self.modes
            || screen.alternate_screen()
            || screen.hide_cursor()
            || screen.bracketed_paste()
    }

    /// Waits for the program's end: its exit code, and what is left on the screen.
    pub async fn end(&mut self) -> (Option<i32>, String) {
        let status = exit_of(&mut self.child).await;
        // What it wrote at last may still be in the terminal.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let output = self.output.lock().unwrap();
        (status.code(), output.terminal.screen().contents())
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        // It may have ended already; either way it is waited for.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn rows(size: (u16, u16)) -> NonZeroU16 {
    NonZeroU16::new(size.1).unwrap()
}

fn columns(size: (u16, u16)) -> NonZeroU16 {
    NonZeroU16::new(size.0).unwrap()
}

fn window(size: (u16, u16)) -> libc::winsize {
    libc::winsize {
        ws_row: size.1,
        ws_col: size.0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

fn open(size: (u16, u16)) -> (File, OwnedFd) {
    let (mut master, mut slave) = (-1, -1);
    let size = window(size);
    // SAFETY: the pointers are to what the call fills or reads, or null where
    // that is allowed.
    let done = unsafe {
        libc::openpty(
            &mut master,
            &mut slave,
            ptr::null_mut(),
            ptr::null_mut(),
            &size,
        )
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: two new descriptors that nobody else has. The program gets only
    // what is put in its place: these close when it starts.
    unsafe {
        for fd in [master, slave] {
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        }
        (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave))
    }
}

fn modes(terminal: &OwnedFd) -> Vec<u64> {
    // SAFETY: the structure is plain numbers, and the call fills it.
    let modes = unsafe {
        let mut modes: libc::termios = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(terminal.as_raw_fd(), &raw mut modes), 0);
        modes
    };
    let flags = [modes.c_iflag, modes.c_oflag, modes.c_cflag, modes.c_lflag];
    flags.into_iter().map(u64::from).collect()
}
