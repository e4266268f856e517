//! A real Postgres server for tests, started from the installed binaries; shared by the unit tests of the base.
//!
//! One server serves a test process; each test makes a database of its own. A shell watches over the server and holds
//! the other end of a pipe: however the test process ends, kill -9 included, the pipe closes, and the shell stops
//! the server and removes its directory. Works as root, where Postgres refuses to run, by changing to another user.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

/// What the shell does: `start`, `kill` (kill -9 of the server and all its processes) and `stop`, one word a line,
/// each answered by a line; at the end of input it cleans up.
const WATCH: &str = r#"
trap '' INT TERM HUP
bin=$1 dir=$2 port=$3
shift 3
server=
running() { [ -n "$server" ] && kill -0 "$server" 2>/dev/null; }
start() {
    "$bin/postgres" -D "$dir/data" -k "$dir" -p "$port" "$@" >>"$dir/log" 2>&1 &
    server=$!
    while running && ! "$bin/pg_isready" -q -h "$dir" -p "$port"; do sleep 0.01; done
    if running; then echo ready; else echo failed; fi
}
# With the processes of its connections: one that lives on would keep the next start from the data.
finish() {
    connections=
    ! running || [ "$1" != KILL ] || connections=$(cat "/proc/$server/task/$server/children")
    ! running || kill -"$1" "$server" $connections 2>/dev/null
    [ -z "$server" ] || wait "$server" 2>/dev/null
    # They are nobody's children now, so they cannot be waited for.
    for connection in $connections; do
        while kill -0 "$connection" 2>/dev/null; do sleep 0.02; done
    done
    server=
}
if "$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C --no-sync --no-instructions --wal-segsize=1 >"$dir/log" 2>&1
then
    printf '%s\n' 'local all +locked scram-sha-256' 'local all all trust' 'host all all 127.0.0.1/32 trust' >"$dir/data/pg_hba.conf"
    echo ready
    while read -r word; do
        case $word in
            start) start "$@" ;;
            kill) finish KILL; echo ended ;;
            stop) finish INT; echo ended ;;
        esac
    done
else
    echo failed
fi
finish QUIT
cd / && rm -rf "$dir"
"#;

/// How to get the server, for the message of a test that finds none.
const INSTALL: &str =
    "install it, on Debian: apt-get install postgresql (scripts/test does), or put its binaries on the PATH";

/// A server in a directory of its own, reached through a socket there. Stopped and removed when dropped.
pub struct Server {
    dir: PathBuf,
    port: u16,
    shell: Child,
    /// Taken when the server ends.
    words: Mutex<Option<(ChildStdin, BufReader<ChildStdout>)>>,
    databases: AtomicU32,
}

impl Server {
    /// The server of this test process. Without fsync: nothing in it outlives the process.
    pub fn shared() -> &'static Server {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(|| Server::start(&["-F", "-c", "full_page_writes=off"]))
    }

    /// A server of one test's own, with more arguments for `postgres`.
    pub fn start(arguments: &[&str]) -> Server {
        // The port only names the socket: nothing listens on the network.
        Server::start_in(Server::new_dir(), 5432, arguments)
    }

    /// A server of one test's own that also listens on a port of 127.0.0.1, with the certificate `tests/fixtures/tls/server.pem` if `tls`.
    #[allow(dead_code, reason = "not every crate that has this file uses it")]
    pub fn start_on_network(tls: bool) -> Server {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = Server::new_dir();
        for name in ["server.pem", "server.key"] {
            let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name);
            fs::write(dir.join(name), fs::read(from).unwrap()).unwrap();
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o600)).unwrap();
            if let Some((user, group)) = other_user() {
                chown(dir.join(name), Some(user), Some(group)).unwrap();
            }
        }
        let [certificate, key] = ["server.pem", "server.key"].map(|name| dir.join(name).display().to_string());
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (certificate, key) = (format!("ssl_cert_file={certificate}"), format!("ssl_key_file={key}"));
        let ssl = if tls { "ssl=on" } else { "ssl=off" };
        let arguments = ["-F", "-c", "listen_addresses=127.0.0.1", "-c", ssl, "-c", &certificate, "-c", &key];
        Server::start_in(dir, port, &arguments)
    }

    fn new_dir() -> PathBuf {
        tempfile::Builder::new().prefix("pg").tempdir().unwrap().keep()
    }

    fn start_in(dir: PathBuf, port: u16, arguments: &[&str]) -> Server {
        let bin = binaries();
        let mut command = Command::new("sh");
        command.args(["-c", WATCH, "sh"]).arg(&bin).arg(&dir).arg(port.to_string());
        command.args(["-c", "listen_addresses=", "-c", "shared_buffers=64MB", "-c", "max_wal_size=1GB"]);
        command.args(arguments).current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        if let Some((user, group)) = other_user() {
            chown(&dir, Some(user), Some(group)).unwrap();
            command.uid(user).gid(group);
        }
        let mut shell = command.spawn().unwrap();
        let words = (shell.stdin.take().unwrap(), BufReader::new(shell.stdout.take().unwrap()));
        let server = Server { dir, port, shell, words: Mutex::new(Some(words)), databases: AtomicU32::new(0) };
        assert!(server.dir.as_os_str().len() < 80, "a socket's path ends at 107 bytes: {}", server.dir.display());
        server.expect("ready");
        server.say("start", "ready");
        // Who is a member of this role has to give a password.
        server.sql("postgres", "create role locked");
        server
    }

    fn say(&self, word: &str, answer: &str) {
        writeln!(self.words.lock().unwrap().as_mut().unwrap().0, "{word}").unwrap();
        self.expect(answer);
    }

    fn expect(&self, answer: &str) {
        let mut line = String::new();
        self.words.lock().unwrap().as_mut().unwrap().1.read_line(&mut line).unwrap();
        let log = || fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        assert_eq!(line.trim(), answer, "the server in {} says:\n{}", self.dir.display(), log());
    }

    /// Starts again after [`Server::kill`] or [`Server::stop`].
    pub fn restart(&self) {
        self.say("start", "ready");
    }

    /// kill -9 of the server and of the processes of all its connections.
    pub fn kill(&self) {
        self.say("kill", "ended");
    }

    /// Ends the server in good order, its connections not asked.
    pub fn stop(&self) {
        self.say("stop", "ended");
    }

    /// A new, empty database: its URL, for the superuser `postgres`.
    pub fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("create database {name} strategy file_copy"));
        self.url("postgres", &name)
    }

    /// The URL of a database for a user, without a password.
    pub fn url(&self, user: &str, database: &str) -> String {
        let socket = self.dir.to_str().unwrap().replace('/', "%2F");
        format!("postgres://{user}@{socket}:{}/{database}", self.port)
    }

    /// The URL of a database on the network, for the superuser; the host by a name or an address of its.
    #[allow(dead_code, reason = "not every crate that has this file uses it")]
    pub fn network_url(&self, host: &str, database: &str) -> String {
        format!("postgres://postgres@{host}:{}/{database}", self.port)
    }

    /// Runs the statements of a file as the superuser, rows for `copy` among them.
    #[allow(dead_code, reason = "not every crate that has this file uses it")]
    pub fn load(&self, database: &str, file: &Path) {
        self.psql(database, "-f", file.to_str().unwrap());
    }

    /// Runs statements as the superuser, each in a transaction of its own; the answer's fields, one row a line.
    pub fn sql(&self, database: &str, statements: &str) -> String {
        self.psql(database, "-c", statements)
    }

    fn psql(&self, database: &str, flag: &str, statements: &str) -> String {
        let mut psql = Command::new(binaries().join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-p", &self.port.to_string()]);
        let output = psql.arg("-h").arg(&self.dir).args(["-d", database, flag, statements]).output().unwrap();
        assert!(output.status.success(), "{statements}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Closing the pipe is the word for the end.
        self.words.get_mut().unwrap().take();
        let _ = self.shell.wait();
    }
}

/// The folder with the server's binaries: Debian keeps them off the PATH, newest version last.
pub fn binaries() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut found: Vec<PathBuf> = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin"))).collect();
    found.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    found.splice(0..0, std::env::split_paths(&path));
    let complete =
        |dir: &PathBuf| ["initdb", "postgres", "pg_isready", "psql"].iter().all(|name| dir.join(name).is_file());
    found.into_iter().rfind(complete).unwrap_or_else(|| panic!("no Postgres server is installed; {INSTALL}"))
}

/// Whom to run the server as where this process is root's: the user `postgres`, else nobody.
fn other_user() -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt as _;
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let users = fs::read_to_string(Path::new("/etc/passwd")).unwrap_or_default();
    let found = users.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.first() == Some(&"postgres"))
            .then(|| Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?)))
    });
    Some(found.flatten().unwrap_or((65534, 65534)))
}
