//! The test binary as a process of its own: a test runs itself again in another role, to be killed, limited, or given a file
//! system that nobody else sees.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

use lakelog::env::{Fs as _, OsFs};
use tempfile::TempDir;

/// Says in a child what its test wants it to be.
const ROLE: &str = "LAKELOG_TEST_ROLE";

/// The role of this process; none in the one that runs the tests.
pub fn role() -> Option<String> {
    env::var(ROLE).ok()
}

/// This binary, to run the test of this name and nothing else. What it prints goes to standard output, between lines of the test
/// harness; the name begins with the module.
pub fn again(test: &str, role: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(arguments(test)).env(ROLE, role);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The same, started by another command that changes what the process may do.
pub fn again_under(wrapper: &[&str], test: &str, role: &str) -> Command {
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(env::current_exe().unwrap()).args(arguments(test)).env(ROLE, role);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A directory in memory where there is one with so much room. What is killed leaves to the kernel what it has written, so a disk has
/// no part in what becomes of it.
pub fn directory_in_memory(bytes: u64) -> TempDir {
    let memory = Path::new("/dev/shm");
    let ample = OsFs.space(memory).is_ok_and(|space| space.free >= bytes);
    if ample { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn arguments(test: &str) -> [&str; 5] {
    ["--exact", test, "--nocapture", "--test-threads", "1"]
}

/// Runs a child to its end; its test must be there, and pass.
pub fn passes(mut command: Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let passed = output.status.success() && told.contains("test result: ok. 1 passed");
    assert!(passed, "{command:?}: {}\n{told}\n{errors}", output.status);
    told.into_owned()
}

/// A command as it is, started by another one.
pub fn under(wrapper: &[&str], command: &Command) -> Command {
    let mut wrapped = Command::new(wrapper[0]);
    wrapped.args(&wrapper[1..]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    wrapped.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    wrapped
}
