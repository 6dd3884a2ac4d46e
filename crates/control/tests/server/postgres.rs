//! A real PostgreSQL, behind a wire that can be cut.

use std::{
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex},
};

use base::Tasks;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

/// A server of its own, which ends with the test's process at the latest.
pub(crate) struct Postgres {
    folder: tempfile::TempDir,
    port: u16,
}

fn script() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/postgres.sh"))
}

impl Postgres {
    /// Starts one, or says what is missing on this machine.
    pub(crate) fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("modelway-").tempdir_in("/tmp").expect("a folder");
        // The server runs as another user, who must be able to reach its data.
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("it is ours");
        let pid = std::process::id().to_string();
        let data = folder.path().join("server");
        let started = Command::new(script()).arg("start").arg(&data).args(["--with", &pid]).output().expect("a shell");
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        let url = String::from_utf8(started.stdout).expect("a URL");
        let port =
            url.trim().rsplit(':').next().and_then(|rest| rest.split('/').next()).and_then(|port| port.parse().ok());
        Self { folder, port: port.unwrap_or_else(|| panic!("{url} has no port")) }
    }

    pub(crate) fn url(&self) -> String {
        url(self.port)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let stopped = Command::new(script()).arg("stop").arg(self.folder.path().join("server")).status();
        let stopped = stopped.is_ok_and(|status| status.success());
        // During a panic, that one is the news; the server ends with the process in any case.
        assert!(stopped || std::thread::panicking(), "PostgreSQL in {} may still run", self.folder.path().display());
    }
}

fn url(port: u16) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/postgres")
}

/// Passes connections on to a server until it is cut.
pub(crate) struct Wire {
    to: u16,
    port: u16,
    whole: Mutex<Tasks>,
}

impl Wire {
    pub(crate) async fn to(postgres: &Postgres) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let wire = Arc::new(Self { to: postgres.port, port, whole: Mutex::new(Tasks::new()) });
        wire.pass_on(listener);
        wire
    }

    pub(crate) fn url(&self) -> String {
        url(self.port)
    }

    /// Ends all connections and refuses new ones, as when the server is gone.
    pub(crate) async fn cut(&self) {
        let whole = self.whole.lock().expect("no panic").clone();
        assert!(whole.stop_and_wait(crate::support::PATIENCE).await);
    }

    pub(crate) async fn mend(&self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.expect("the port is still ours");
        *self.whole.lock().expect("no panic") = Tasks::new();
        self.pass_on(listener);
    }

    fn pass_on(&self, listener: TcpListener) {
        let (tasks, to) = (self.whole.lock().expect("no panic").clone(), self.to);
        tasks.clone().spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = tasks.stopping() => return,
                };
                let (mut near, _) = accepted.expect("a connection");
                let of_connection = tasks.clone();
                tasks.spawn(async move {
                    let mut far = TcpStream::connect(("127.0.0.1", to)).await.expect("the server");
                    tokio::select! {
                        // Either end may close; then so does the other.
                        _closed = copy_bidirectional(&mut near, &mut far) => {}
                        () = of_connection.stopping() => {}
                    }
                });
            }
        });
    }
}
