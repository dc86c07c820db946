//! A real S3 server on a folder: Versity's gateway, which keeps conditional puts exactly (tried:
//! of twelve clients that race for one key, one wins). `scripts/setup.sh test` builds it.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::process::{Folder, Process, run};
use crate::{available, cache_dir, net, wait_until};

const BUCKET: &str = "flowtap";
const KEY_ID: &str = "flowtap-test";
const SECRET: &str = "s3-planted-secret-7319";
const REGION: &str = "us-east-1";

/// How a server is to be started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Files in PEM with its certificate and key: then it speaks TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// What follows the bucket in the host's name, where the bucket stands there (virtual-hosted
    /// style). Path style works, too.
    pub domain: Option<String>,
    /// Whether it has users beside the one that may do everything: see [`S3Server::add_user`].
    pub users: bool,
}

/// A running S3 server with one empty bucket.
#[derive(Debug)]
pub struct S3Server {
    port: u16,
    options: Options,
    // Before the folder: what writes into it must be gone first.
    process: Mutex<Process>,
    folder: Folder,
}

impl S3Server {
    /// Starts a server. `None`: this machine hasn't got it.
    pub fn start() -> Option<Self> {
        Self::start_with(Options::default())
    }

    /// Starts a server of one's own wishes.
    pub fn start_with(options: Options) -> Option<Self> {
        if !available(program().exists(), "the S3 server") {
            return None;
        }
        let folder = Folder::new("s3");
        // A folder below the root is a bucket.
        for inner in [&format!("data/{BUCKET}"), "users"] {
            std::fs::create_dir_all(folder.path().join(inner)).expect("our own folder");
        }
        let port = net::free_port();
        let process = Mutex::new(spawn(port, &folder, &options));
        let server = Self { port, options, process, folder };
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

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The environment that clients need to find it.
    pub fn env(&self) -> Vec<(String, String)> {
        self.env_through(self.port)
    }

    /// The same for clients that reach it through a port of loopback, as that of a
    /// [`crate::s3meter::Meter`].
    pub fn env_through(&self, port: u16) -> Vec<(String, String)> {
        let endpoint = format!("http://127.0.0.1:{port}");
        let mut env = self.credentials();
        env.extend([
            ("AWS_ENDPOINT_URL".to_owned(), endpoint),
            ("AWS_ALLOW_HTTP".to_owned(), "true".to_owned()),
        ]);
        env
    }

    /// The part of it that says who a client is.
    pub fn credentials(&self) -> Vec<(String, String)> {
        [("AWS_ACCESS_KEY_ID", KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET), ("AWS_REGION", REGION)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec()
    }

    /// A user who may do only what [`S3Server::set_policy`] allows; the environment of who goes by
    /// it.
    pub fn add_user(&self, name: &str) -> Vec<(String, String)> {
        let secret = format!("secret-of-{name}");
        let server = format!("http://127.0.0.1:{}", self.port);
        run(Command::new(program())
            .args(["admin", "-a", KEY_ID, "-s", SECRET, "-r", REGION, "--er", &server])
            .args(["create-user", "-a", name, "-s", &secret, "-r", "user"]));
        let mut env = self.env();
        for (variable, value) in &mut env {
            match variable.as_str() {
                "AWS_ACCESS_KEY_ID" => name.clone_into(value),
                "AWS_SECRET_ACCESS_KEY" => secret.clone_into(value),
                _ => {}
            }
        }
        env
    }

    /// Sets the bucket's policy, as JSON.
    pub fn set_policy(&self, policy: &str) {
        let signed = ["--aws-sigv4", &format!("aws:amz:{REGION}:s3")];
        let user = format!("{KEY_ID}:{SECRET}");
        run(Command::new("curl")
            .args(["--silent", "--show-error", "--fail-with-body", "-X", "PUT", "--user", &user])
            .args(signed)
            .args(["-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD", "--data-binary", policy])
            .arg(format!("http://127.0.0.1:{}/{BUCKET}?policy=", self.port)));
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
            *process = spawn(self.port, &self.folder, &self.options);
        }
        self.await_startup();
    }
}

fn program() -> PathBuf {
    cache_dir().join("bin/versitygw")
}

fn spawn(port: u16, folder: &Folder, options: &Options) -> Process {
    let mut command = Command::new(program());
    command.env_clear().env("ROOT_ACCESS_KEY", KEY_ID).env("ROOT_SECRET_KEY", SECRET);
    if let Some((cert, key)) = &options.tls {
        command.env("VGW_CERT", cert).env("VGW_KEY", key);
    }
    if let Some(domain) = &options.domain {
        command.env("VGW_VIRTUAL_DOMAIN", domain);
    }
    command.args(["--port", &format!("127.0.0.1:{port}")]);
    if options.users {
        command.arg("--iam-dir").arg(folder.path().join("users"));
    }
    command.arg("posix").arg(folder.path().join("data"));
    Process::start("S3 server", &mut command, &folder.path().join("server.log"))
}
