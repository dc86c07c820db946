//! Cleans up after a test executable however it ends, also by `kill -9`: one small shell beside
//! it reads what is to be done from a pipe, and does what is left when the pipe ends.
//!
//! A parent-death signal won't do: it comes when the *thread* that made the child ends, and each
//! test has a thread of its own.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

const SCRIPT: &str = r#"
trap '' INT TERM HUP
declare -A todo
while IFS=' ' read -r key command; do
    if [ -n "$command" ]; then todo[$key]=$command; else unset "todo[$key]"; fi
done
# The newest first, as it would have been in order.
for key in $(printf '%s\n' "${!todo[@]}" | sort -rn); do eval "${todo[$key]}" 2>/dev/null; done
"#;

struct Janitor {
    pipe: ChildStdin,
    next: u64,
}

#[expect(clippy::zombie_processes, reason = "it ends after us: that is what it is for")]
fn janitor() -> &'static Mutex<Janitor> {
    static JANITOR: OnceLock<Mutex<Janitor>> = OnceLock::new();
    JANITOR.get_or_init(|| {
        let mut shell = Command::new("bash")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("bash starts");
        let pipe = shell.stdin.take().expect("its input is piped");
        Mutex::new(Janitor { pipe, next: 1 })
    })
}

/// A shell command that is run at the end of this process unless [`Duty::done`] comes first.
#[derive(Debug)]
pub(crate) struct Duty(u64);

impl Duty {
    /// Registers a command of one line.
    pub(crate) fn new(command: &str) -> Self {
        assert!(!command.contains('\n'), "one line: {command:?}");
        let mut janitor = janitor().lock().unwrap_or_else(PoisonError::into_inner);
        let key = janitor.next;
        janitor.next += 1;
        writeln!(janitor.pipe, "{key} {command}").expect("the janitor lives as long as we do");
        Self(key)
    }

    /// It has been done otherwise.
    pub(crate) fn done(&self) {
        let mut janitor = janitor().lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(janitor.pipe, "{}", self.0).expect("the janitor lives as long as we do");
    }
}

/// A path as one word of a shell command.
pub(crate) fn quoted(path: &std::path::Path) -> String {
    let path = path.to_str().expect("paths of the harness are UTF-8");
    assert!(!path.contains('\''), "no quote in {path}");
    format!("'{path}'")
}
