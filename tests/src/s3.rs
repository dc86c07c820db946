//! A real S3 server on a folder: Versity's gateway, which keeps conditional puts exactly (tried:
//! of twelve clients that race for one key, one wins). `scripts/setup.sh test` builds it.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::process::{Folder, Process};
use crate::{available, cache_dir, net, wait_until};

const BUCKET: &str = "flowtap";
const KEY_ID: &str = "flowtap-test";
const SECRET: &str = "s3-planted-secret-7319";

/// A running S3 server with one empty bucket.
#[derive(Debug)]
pub struct S3Server {
    port: u16,
    // Before the folder: what writes into it must be gone first.
    process: Mutex<Process>,
    folder: Folder,
}

impl S3Server {
    /// Starts a server. `None`: this machine hasn't got it.
    pub fn start() -> Option<Self> {
        if !available(program().exists(), "the S3 server") {
            return None;
        }
        let folder = Folder::new("s3");
        // A folder below the root is a bucket.
        std::fs::create_dir_all(folder.path().join("data").join(BUCKET)).expect("our own folder");
        let port = net::free_port();
        let server = Self { port, process: Mutex::new(spawn(port, &folder)), folder };
        server.await_startup();
        Some(server)
    }

    fn await_startup(&self) {
        wait_until("the S3 server listens", || net::listens(self.port));
    }

    /// A store in its bucket, for `--store`.
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    /// The environment that clients need to find it.
    pub fn env(&self) -> Vec<(String, String)> {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        [
            ("AWS_ACCESS_KEY_ID", KEY_ID),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ENDPOINT_URL", &endpoint),
            ("AWS_ALLOW_HTTP", "true"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    /// The secret key: it must be found nowhere.
    pub fn secret(&self) -> &'static str {
        SECRET
    }

    /// Where the bucket's objects lie as files.
    pub fn objects(&self) -> PathBuf {
        self.folder.path().join("data").join(BUCKET)
    }

    /// Kills it as a power cut would.
    pub fn kill9(&self) {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).kill9();
    }

    /// Starts it again on the same folder and port.
    pub fn restart(&self) {
        {
            let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
            process.kill9();
            *process = spawn(self.port, &self.folder);
        }
        self.await_startup();
    }
}

fn program() -> PathBuf {
    cache_dir().join("bin/versitygw")
}

fn spawn(port: u16, folder: &Folder) -> Process {
    let mut command = Command::new(program());
    command
        .env_clear()
        .env("ROOT_ACCESS_KEY", KEY_ID)
        .env("ROOT_SECRET_KEY", SECRET)
        .args(["--port", &format!("127.0.0.1:{port}"), "posix"])
        .arg(folder.path().join("data"));
    Process::start("S3 server", &mut command, &folder.path().join("server.log"))
}
