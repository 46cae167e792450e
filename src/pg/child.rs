//! Programs of this server's own installation, run as children of this process: they inherit no
//! descriptor of it, are a process group of their own, and are killed with all that they have
//! started when it dies or loses interest, however that comes about.

use super::wait;
use crate::error::{Error, Result};
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{self, PipeWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// Where this server's programs are.
pub fn bin_directory() -> PathBuf {
    // SAFETY: the path is set when the postmaster starts, and ends with 0.
    let path = unsafe { CStr::from_ptr((&raw const pgrx::pg_sys::my_exec_path).cast()) };
    let mut path = PathBuf::from(OsStr::from_bytes(path.to_bytes()));
    path.pop();
    path
}

/// This server's data directory.
pub fn data_directory() -> PathBuf {
    // SAFETY: set when the postmaster starts, and ends with 0.
    let path = unsafe { CStr::from_ptr(pgrx::pg_sys::DataDir) };
    PathBuf::from(OsStr::from_bytes(path.to_bytes()))
}

/// A file without a name and without a place on disk, for the eyes of this user alone.
pub fn nameless_file(content: &[u8]) -> Result<File> {
    // SAFETY: a fixed name; the descriptor is ours from here on.
    let fd = unsafe { libc::memfd_create(c"pg_nodes".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(system("could not make a file in memory", &io::Error::last_os_error()));
    }
    // SAFETY: as above.
    let mut file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    let made = file.set_permissions(private).and_then(|()| file.write_all(content));
    made.map_err(|error| system("could not write a file in memory", &error))?;
    Ok(file)
}

/// An error of the operating system, with the code that Postgres gives it.
pub fn system(doing: &str, error: &io::Error) -> Error {
    use io::ErrorKind as Kind;
    use pgrx::PgSqlErrorCode as C;
    let code = match error.kind() {
        Kind::PermissionDenied => C::ERRCODE_INSUFFICIENT_PRIVILEGE,
        Kind::NotFound => C::ERRCODE_UNDEFINED_FILE,
        Kind::AlreadyExists => C::ERRCODE_DUPLICATE_FILE,
        Kind::StorageFull | Kind::QuotaExceeded => C::ERRCODE_DISK_FULL,
        _ => C::ERRCODE_IO_ERROR,
    };
    let said = error.to_string();
    // As strerror() says it.
    let said = said.split(" (os error").next().unwrap_or_default();
    Error::Local { code, message: format!("{doing}: {said}"), detail: None }
}

/// A program that runs.
pub struct Program {
    child: Child,
    output: File,
    /// `None`: it lives on, or has ended.
    guard: Option<Guard>,
}

/// What it was, when it has ended.
pub struct Outcome {
    pub status: ExitStatus,
    /// What it printed, errors included.
    pub output: String,
}

impl Program {
    /// Starts one of this server's programs. `handed` is the one descriptor that it inherits, under
    /// the number that it has here.
    pub fn start(name: &str, arguments: &[String], handed: Option<&File>) -> Result<Program> {
        Program::spawn(name, arguments, handed, Ends::WithUs)
    }

    /// The same for one that starts a server: whoever dies, that lives on.
    pub fn start_detached(name: &str, arguments: &[String]) -> Result<Program> {
        Program::spawn(name, arguments, None, Ends::ByItself)
    }

    fn spawn(
        name: &str,
        arguments: &[String],
        handed: Option<&File>,
        ends: Ends,
    ) -> Result<Program> {
        let output = nameless_file(b"")?;
        let both = || output.try_clone().map(Stdio::from);
        let streams = both().and_then(|out| Ok((out, both()?)));
        let could_not = |error| system(&format!("could not run program \"{name}\""), &error);
        let (out, err) = streams.map_err(could_not)?;
        let mut command = Command::new(bin_directory().join(name));
        command.args(arguments).stdout(out).stderr(err);
        let guard = match ends {
            Ends::WithUs => Some(Guard::start().map_err(could_not)?),
            Ends::ByItself => None,
        };
        if let Some(guard) = &guard {
            command.env("LC_ALL", "C").process_group(guard.group());
        }
        let child = spawn(command, handed, ends).map_err(could_not)?;
        Ok(Program { child, output, guard })
    }

    /// Waits until it has ended, ready to be interrupted.
    pub fn finish(mut self) -> Result<Outcome> {
        let could_not = |error| system("could not wait for a program", &error);
        let mut pause = Duration::from_millis(1);
        let status = loop {
            if let Some(status) = self.child.try_wait().map_err(could_not)? {
                break status;
            }
            wait::pause(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        };
        self.guard = None;
        let mut output = Vec::new();
        let read = self.output.seek(SeekFrom::Start(0)).and_then(|_| {
            // A program may print a line for each file: the end says what went wrong.
            let length = self.output.metadata()?.len();
            self.output.seek(SeekFrom::Start(length.saturating_sub(16 << 10)))?;
            self.output.read_to_end(&mut output)
        });
        read.map_err(|error| system("could not read what a program printed", &error))?;
        let output = String::from_utf8_lossy(&output).trim().to_owned();
        Ok(Outcome { status, output })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.guard.take().is_some() {
            let _ = self.child.wait();
        }
    }
}

/// A process group that is killed when this is dropped, and by itself when this process is no more:
/// its leader is a shell that waits for the end of a pipe which nobody else holds. The parent-death
/// signal of prctl(2) would spare what a program has forked: `pg_basebackup` has another process
/// that receives WAL.
struct Guard {
    shell: Child,
    _pipe: PipeWriter,
}

impl Guard {
    fn start() -> io::Result<Guard> {
        const WAIT: &str = "read -r _; kill -s KILL 0";
        let (reader, pipe) = io::pipe()?;
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", WAIT]).stdin(reader).stdout(Stdio::null()).stderr(Stdio::null());
        shell.current_dir("/").process_group(0);
        // SAFETY: only system calls, in the child that is about to become the shell.
        unsafe {
            shell.pre_exec(|| {
                close_on_exec();
                Ok(())
            });
        }
        Ok(Guard { shell: shell.spawn()?, _pipe: pipe })
    }

    /// Its number. It is given to no other as long as the shell was not waited for.
    fn group(&self) -> libc::pid_t {
        self.shell.id().cast_signed()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // SAFETY: kill(2) reads nothing from memory; the group is that of our own child.
        unsafe { libc::kill(-self.group(), libc::SIGKILL) };
        let _ = self.shell.wait();
    }
}

/// Starts a shell script that lives on when this server ends, and writes where this server writes
/// what is not for its log file. `handed` is as for a program.
pub fn launch(script: &str, arguments: &[String], handed: Option<&File>) -> Result<()> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, "pg_nodes"]).args(arguments);
    let could_not = |error| system("could not run a shell", &error);
    // SAFETY: reads a flag of this process.
    if unsafe { pgrx::pg_sys::Logging_collector } {
        // Behind its standard output is a process that ends with it.
        let log = data_directory().join(SERVER_LOG);
        let log = File::options().append(true).create(true).open(log).map_err(could_not)?;
        command.stdout(log.try_clone().map_err(could_not)?).stderr(log);
    }
    spawn(command, handed, Ends::ByItself).map(|_| ()).map_err(could_not)
}

/// In a data directory: what its server writes before, or without, its own log.
pub const SERVER_LOG: &str = "server.log";

/// What ends a child.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    WithUs,
    ByItself,
}

fn spawn(mut command: Command, handed: Option<&File>, ends: Ends) -> io::Result<Child> {
    for inherited in ["PGDATA", "PGPORT", "PGHOST", "PGHOSTADDR", "NOTIFY_SOCKET"] {
        command.env_remove(inherited);
    }
    command.current_dir("/").stdin(Stdio::null());
    let handed = handed.map(|file| file.as_raw_fd());
    // SAFETY: only system calls, in the child that is about to become the program.
    unsafe {
        command.pre_exec(move || {
            if ends == Ends::ByItself {
                // A session, and so a process group, of its own.
                libc::setsid();
            }
            close_on_exec();
            if let Some(fd) = handed {
                libc::fcntl(fd, libc::F_SETFD, 0);
            }
            Ok(())
        });
    }
    command.spawn()
}

/// Under what name a program finds a file that is handed to it.
pub fn handed_path(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Before version 16 descriptors of a server process would pass to its children.
fn close_on_exec() {
    // SAFETY: changes flags of descriptors, open or not, and nothing else.
    unsafe {
        let all = libc::syscall(
            libc::SYS_close_range,
            3_u32,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC as libc::c_int,
        );
        if all != 0 {
            let limit = libc::sysconf(libc::_SC_OPEN_MAX).clamp(1024, 1 << 20) as libc::c_int;
            for fd in 3..limit {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
}
