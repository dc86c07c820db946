//! Child processes that cannot outlive the tests: each leads a process group of its own, which is
//! killed when its handle is dropped and, by the janitor, when the test executable dies.

use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::janitor::{Duty, quoted};

/// A folder below the system's temporary one that is gone after the test, also after `kill -9`.
#[derive(Debug)]
pub struct Folder {
    temporary: Option<tempfile::TempDir>,
    path: PathBuf,
    duty: Duty,
}

impl Folder {
    /// Makes an empty folder that only this user can enter.
    pub fn new(name: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix(&format!("flowtap-{name}-"))
            .tempdir()
            .expect("the temporary folder is writable");
        let path = folder.path().to_owned();
        // Never across a mount: something of value may lie behind it.
        let duty = Duty::new(&format!("rm -rf --one-file-system {}", quoted(&path)));
        Self { temporary: Some(folder), path, duty }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As a store for `--store`.
    pub fn url(&self) -> String {
        format!("file://{}", self.path.display())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("FLOWTAP_KEEP").is_some() {
            eprintln!("kept: {}", self.path.display());
            let _kept = self.temporary.take().map(tempfile::TempDir::keep);
        }
        drop(self.temporary.take());
        self.duty.done();
    }
}

/// A running child process, its output going to a file.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    duty: Duty,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts a command in a process group of its own. `log` takes stdout and stderr, appended.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Self {
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        let errors = output.try_clone().expect("a file handle can be doubled");
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start ({command:?}): {error}"));
        let duty = Duty::new(&format!("kill -KILL -- -{}", child.id()));
        Self { name: name.to_owned(), child, log: log.to_owned(), duty, ended: None }
    }

    /// The process id, which is its group's as well.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn rustix_pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("a child can be waited for");
        }
        self.ended
    }

    /// Kills the whole group at once and waits for its leader.
    pub fn kill9(&mut self) {
        if self.ended.is_none() {
            // It may just have ended by itself: then there is nobody to kill.
            let _gone = kill_process_group(self.rustix_pid(), Signal::KILL);
            self.ended = Some(self.child.wait().expect("a child can be waited for"));
        }
        self.duty.done();
    }

    /// Sends a signal to the leader alone.
    pub fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            kill_process(self.rustix_pid(), signal).expect("our own child can be signalled");
        }
    }

    /// Asks it to end (SIGTERM) and waits until it did; panics if it takes too long.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(crate::PATIENCE)
    }

    /// Waits for its end; panics with its output if it takes longer.
    pub fn wait(&mut self, at_most: Duration) -> ExitStatus {
        let deadline = Instant::now() + at_most;
        loop {
            if let Some(status) = self.ended() {
                self.duty.done();
                return status;
            }
            if Instant::now() >= deadline {
                self.print_log();
                panic!("{} did not end in {at_most:?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What it wrote so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Prints the end of what it wrote, for whoever reads a failed test.
    pub fn print_log(&self) {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        eprintln!("---- {} wrote:", self.name);
        for line in &lines[lines.len().saturating_sub(80)..] {
            eprintln!("{line}");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_log();
            if let Some(status) = self.ended() {
                eprintln!("---- {} had ended: {status}, signal {:?}", self.name, status.signal());
            }
        }
        self.kill9();
    }
}

/// Runs a command to its end and returns what it wrote to stdout; panics if it fails.
pub fn run(command: &mut Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{stdout}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    stdout
}
