//! A PostgreSQL server that can be taken away.

use std::{fs, path::PathBuf, process::Command};

use tempfile::TempDir;

use crate::release::feed;

/// A server of its own, which ends with the test's process at the latest.
#[derive(Debug)]
pub struct Postgres {
    folder: TempDir,
    url: String,
}

impl Postgres {
    /// Starts one, or says what is missing on this machine.
    #[must_use]
    pub fn start() -> Self {
        // The server runs as another user: no folder that only we can enter.
        let folder = tempfile::Builder::new().prefix("modelway-postgres-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut server = Self { folder, url: String::new() };
        server.url = server.script("start", &["--with", &std::process::id().to_string()]);
        server
    }

    /// Where it is: `postgres://…`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends it as a crash would.
    pub fn halt(&self) {
        self.script("halt", &[]);
    }

    /// Starts it again, with its data and on its port.
    pub fn resume(&self) {
        self.script("resume", &[]);
    }

    /// All of the database as SQL.
    #[must_use]
    pub fn dump(&self) -> String {
        let output = self.tool("pg_dump").args(["--inserts", "--no-owner"]).output().unwrap();
        assert!(output.status.success(), "{output:#?}");
        // These lines hold a key that is made up each time, and older servers do not know them.
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
        lines.fold(String::new(), |all, line| all + line + "\n")
    }

    /// Fills the empty database from SQL.
    pub fn restore(&self, sql: &str) {
        feed(self.tool("psql").args(["--quiet", "--set", "ON_ERROR_STOP=1"]), sql);
    }

    /// A program that came with the server, for its database.
    fn tool(&self, name: &str) -> Command {
        let programs = fs::read_to_string(self.folder.path().join("server/bin")).unwrap();
        let mut command = Command::new(PathBuf::from(programs.trim()).join(name));
        command.args(["--dbname", &self.url]);
        command
    }

    fn script(&self, what: &str, more: &[&str]) -> String {
        let script = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/postgres.sh"));
        let output = Command::new(script).arg(what).arg(self.folder.path().join("server")).args(more).output().unwrap();
        assert!(output.status.success(), "postgres.sh {what}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // During a panic, that one is the news; the server ends with the process in any case.
        if !std::thread::panicking() {
            self.script("stop", &[]);
        }
    }
}
