//! A real S3: versitygw over a folder, which `scripts/versitygw.sh` builds once.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::{Modelway, free_port, until};

/// A server with one bucket, `models`.
#[derive(Debug)]
pub struct S3 {
    server: Child,
    folder: TempDir,
    port: u16,
}

impl S3 {
    /// Starts one.
    pub async fn start() -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/versitygw.sh");
        let built = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
        assert!(built.status.success(), "versitygw cannot be built");
        let binary = String::from_utf8(built.stdout).unwrap();
        let folder = tempfile::Builder::new().prefix("modelway-s3-").tempdir().unwrap();
        fs::create_dir_all(folder.path().join("data/models")).unwrap();
        let port = free_port();
        let log = fs::File::create(folder.path().join("access")).unwrap();
        let server = Command::new(binary.trim())
            .args(["--port", &format!("127.0.0.1:{port}"), "posix"])
            .arg(folder.path().join("data"))
            .env("ROOT_ACCESS_KEY", "key")
            .env("ROOT_SECRET_KEY", "secret")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let s3 = Self { server, folder, port };
        until("versitygw listens", || async { tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() })
            .await;
        s3
    }

    /// Gives what is started from now on the address and the credentials.
    pub fn open_to(&self, modelway: &mut Modelway) {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        for (name, value) in [
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_REGION", "us-east-1"),
        ] {
            modelway.set(name, value);
        }
    }

    /// Puts the files of `folder` into the bucket, below `key`.
    pub fn put(&self, key: &str, folder: &Path) {
        let place = self.folder.path().join("data/models").join(key);
        fs::create_dir_all(&place).unwrap();
        for file in fs::read_dir(folder).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), place.join(file.file_name())).unwrap();
        }
    }

    /// How often an object was read.
    #[must_use]
    pub fn reads(&self, key: &str) -> usize {
        let log = fs::read_to_string(self.folder.path().join("access")).unwrap();
        log.lines().filter(|line| line.contains("GET") && line.contains(&format!("/models/{key}"))).count()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
