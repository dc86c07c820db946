//! A RabbitMQ node of one's own: own name, ports, cookie, epmd and folders. 3.10 is the system's
//! package, 4.0 lies in a Debian 13 tree (`scripts/setup.sh test`) and runs by `chroot`.
//!
//! Both run in a process group, and where we are root in namespaces of their own (mounts and
//! processes), so that killing the one process takes all of the Erlang machine with it. The tree
//! gets its `/proc` there, never the host's `/dev`: debootstrap has made what is needed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use serde_json::Value;

use crate::process::{Folder, Process, run};
use crate::{available, cache_dir, is_root, net, wait_until};

/// Which release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 3.10, of Debian 12 (or whichever 3.x the system has).
    V3_10,
    /// 4.0, of Debian 13.
    V4_0,
}

/// Both releases, for tests that must hold on each.
pub const BOTH: [Version; 2] = [Version::V3_10, Version::V4_0];

impl Version {
    fn tree() -> PathBuf {
        cache_dir().join("rabbitmq-4.0")
    }

    /// Whether it can be started here; says so loudly if not, and fails on CI.
    #[must_use]
    pub fn available(self) -> bool {
        match self {
            Self::V3_10 => {
                available(Path::new(PROGRAMS).join("rabbitmq-server").exists(), "RabbitMQ 3.10")
            }
            Self::V4_0 => {
                let there = is_root() && Self::tree().join("usr/lib/rabbitmq/bin").exists();
                available(there, "RabbitMQ 4.0 (its Debian 13 tree, and root to run it)")
            }
        }
    }
}

const PROGRAMS: &str = "/usr/lib/rabbitmq/bin";
/// Where the node's folder is seen inside of the Debian 13 tree.
const INSIDE: &str = "/mnt";

/// A certificate for the TLS listener, all in PEM.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The authority's certificate.
    pub ca: String,
    /// The server's certificate.
    pub cert: String,
    /// The server's key.
    pub key: String,
    /// Whether clients must show a certificate of the authority.
    pub client_certificate: bool,
}

/// How a node is to be started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Lines for `rabbitmq.conf`, as `consumer_timeout = 5000`.
    pub config: Vec<String>,
    /// Settings of the application `rabbit` that the file does not know, as Erlang terms:
    /// `{channel_tick_interval, 1000}`.
    pub advanced: Vec<&'static str>,
    /// Plugins beside the core, as `rabbitmq_management`.
    pub plugins: Vec<&'static str>,
    /// A TLS listener.
    pub tls: Option<Tls>,
}

/// A running node.
#[derive(Debug)]
pub struct RabbitMq {
    version: Version,
    node: String,
    port: u16,
    tls_port: Option<u16>,
    management_port: u16,
    env: BTreeMap<&'static str, String>,
    next_vhost: AtomicU32,
    spare_vhosts: Mutex<Vec<String>>,
    starts: AtomicUsize,
    // Before the folder: what writes into it must be gone first.
    process: Mutex<Process>,
    folder: Folder,
}

impl RabbitMq {
    /// Starts a node with default options. `None`: this machine hasn't got that release.
    pub fn start(version: Version) -> Option<Self> {
        Self::start_with(version, &Options::default())
    }

    /// Starts a node. `None`: this machine hasn't got that release.
    pub fn start_with(version: Version, options: &Options) -> Option<Self> {
        if !version.available() {
            return None;
        }
        let folder = Folder::new("rabbitmq");
        let inside = match version {
            Version::V3_10 => folder.path().to_owned(),
            Version::V4_0 => PathBuf::from(INSIDE),
        };
        let [port, dist, epmd, management_port] = [(); 4].map(|()| net::free_port());
        let tls_port = options.tls.as_ref().map(|_| net::free_port());
        let node = format!("flowtap{port}@localhost");

        let mut config = format!(
            "listeners.tcp.1 = 127.0.0.1:{port}\n\
             log.console = true\nlog.console.level = info\nlog.file = false\n"
        );
        if options.plugins.contains(&"rabbitmq_management") {
            writeln!(config, "management.tcp.ip = 127.0.0.1").expect("a string takes all");
            writeln!(config, "management.tcp.port = {management_port}")
                .expect("a string takes all");
        }
        if let (Some(tls), Some(tls_port)) = (&options.tls, tls_port) {
            let verify = if tls.client_certificate { "verify_peer" } else { "verify_none" };
            let folder_inside = inside.display();
            write!(
                config,
                "listeners.ssl.1 = 127.0.0.1:{tls_port}\n\
                 ssl_options.cacertfile = {folder_inside}/ca.pem\n\
                 ssl_options.certfile = {folder_inside}/cert.pem\n\
                 ssl_options.keyfile = {folder_inside}/key.pem\n\
                 ssl_options.verify = {verify}\n\
                 ssl_options.fail_if_no_peer_cert = {}\n",
                tls.client_certificate
            )
            .expect("a string takes all");
            let files = [("ca.pem", &tls.ca), ("cert.pem", &tls.cert), ("key.pem", &tls.key)];
            for (name, content) in files {
                write_file(&folder, name, content);
            }
        }
        for line in &options.config {
            config.push_str(line);
            config.push('\n');
        }
        write_file(&folder, "rabbitmq.conf", &config);
        write_file(&folder, "enabled_plugins", &format!("[{}].\n", options.plugins.join(",")));
        let advanced = options.advanced.join(", ");
        write_file(&folder, "advanced.config", &format!("[{{rabbit, [{advanced}]}}].\n"));
        write_file(&folder, "rabbitmq-env.conf", "");
        write_file(&folder, ".erlang.cookie", &format!("flowtap{}", std::process::id()));
        std::fs::set_permissions(
            folder.path().join(".erlang.cookie"),
            std::os::unix::fs::PermissionsExt::from_mode(0o400),
        )
        .expect("our own file");

        let at = |name: &str| inside.join(name).display().to_string();
        let loopback = "-kernel inet_dist_use_interface {127,0,0,1}";
        let env = BTreeMap::from([
            ("HOME", inside.display().to_string()),
            ("LC_ALL", "C.UTF-8".to_owned()),
            ("ERL_EPMD_PORT", epmd.to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
            ("RABBITMQ_NODENAME", node.clone()),
            ("RABBITMQ_DIST_PORT", dist.to_string()),
            ("RABBITMQ_MNESIA_BASE", at("data")),
            ("RABBITMQ_LOG_BASE", at("log")),
            ("RABBITMQ_LOGS", "-".to_owned()),
            ("RABBITMQ_PID_FILE", at("pid")),
            ("RABBITMQ_CONFIG_FILE", at("rabbitmq.conf")),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", at("advanced.config")),
            ("ERL_CRASH_DUMP", at("erl_crash.dump")),
            ("RABBITMQ_CONF_ENV_FILE", at("rabbitmq-env.conf")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", at("enabled_plugins")),
            ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", loopback.to_owned()),
        ]);
        let process = Mutex::new(spawn(version, &folder, &env));
        let broker = Self {
            version,
            node,
            port,
            tls_port,
            management_port,
            env,
            next_vhost: AtomicU32::new(1),
            spare_vhosts: Mutex::default(),
            starts: AtomicUsize::new(0),
            process,
            folder,
        };
        broker.await_startup();
        Some(broker)
    }

    /// The node with default options that all tests of one executable share: isolate by
    /// [`RabbitMq::vhost`]. Don't stop it.
    pub fn shared(version: Version) -> Option<&'static Self> {
        static NODES: [OnceLock<Option<RabbitMq>>; 2] = [OnceLock::new(), OnceLock::new()];
        NODES[version as usize].get_or_init(|| Self::start(version)).as_ref()
    }

    /// A shared node that only one test at a time is given, for what is counted node-wide.
    pub fn alone(version: Version) -> Option<Alone> {
        static NODES: [OnceLock<Option<RabbitMq>>; 2] = [OnceLock::new(), OnceLock::new()];
        static TURNS: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];
        let turn = TURNS[version as usize].lock().unwrap_or_else(PoisonError::into_inner);
        let broker = NODES[version as usize].get_or_init(|| Self::start(version)).as_ref()?;
        Some(Alone { broker, _turn: turn })
    }

    fn await_startup(&self) {
        wait_until("RabbitMQ is up", || {
            let mut process = self.process();
            if process.ended().is_some() {
                process.print_log();
                panic!("RabbitMQ {:?} ended while it started", self.version);
            }
            // It listens a little before "rabbitmqctl" is answered.
            let starts = process.output().matches("Server startup complete").count();
            starts > self.starts.load(Ordering::Relaxed)
        });
        self.starts.fetch_add(1, Ordering::Relaxed);
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which release this is.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The port for plain AMQP.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port for AMQP over TLS, if the node was started with a certificate.
    pub fn tls_port(&self) -> Option<u16> {
        self.tls_port
    }

    /// The port of the management plugin, if it was asked for.
    pub fn management_port(&self) -> u16 {
        self.management_port
    }

    /// The first process of the node as this machine sees it.
    pub fn pid(&self) -> u32 {
        self.process().pid()
    }

    /// What the node logged so far.
    pub fn log(&self) -> String {
        self.process().output()
    }

    /// Runs `rabbitmqctl` and returns what it printed.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let mut command = base_command(self.version, &self.folder, &self.env, false);
        command.arg(format!("{PROGRAMS}/rabbitmqctl")).args(["-q", "-n", &self.node]);
        run(command.args(arguments))
    }

    fn ctl_json(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.ctl(&[&["--formatter", "json"], arguments].concat());
        serde_json::from_str(&output).unwrap_or_else(|error| panic!("{error}: {output}"))
    }

    /// A fresh vhost in which `guest` may do everything.
    pub fn vhost(&self) -> Vhost<'_> {
        let mut spare = self.spare_vhosts.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.is_empty() {
            // Several at once: starting `rabbitmqctl` costs more than making a vhost.
            let number = || self.next_vhost.fetch_add(1, Ordering::Relaxed);
            spare.extend((0..VHOSTS_AT_ONCE).map(|_| format!("v{:03}", number())));
            let names: Vec<String> = spare.iter().map(|name| format!("<<\"{name}\">>")).collect();
            self.ctl(&[
                "eval",
                &format!(
                    "[begin rabbit_vhost:add(V, <<\"guest\">>), \
                     rabbit_auth_backend_internal:set_permissions(<<\"guest\">>, V, \
                     <<\".*\">>, <<\".*\">>, <<\".*\">>, <<\"guest\">>) end || V <- [{}]].",
                    names.join(",")
                ),
            ]);
        }
        let name = spare.pop().expect("some were just made");
        Vhost { broker: self, name }
    }

    /// What the node counted for AMQP 0-9-1 since it started, over all vhosts.
    pub fn counters(&self) -> Counters {
        let output = self.ctl(&[
            "eval",
            "M = maps:fold(fun(K, V, A) -> case K of [{protocol, amqp091} | _] -> \
             maps:fold(fun(N, C, B) -> maps:update_with(N, fun(O) -> O + C end, C, B) end, A, V); \
             _ -> A end end, #{}, rabbit_global_counters:overview()), \
             io:format(\"~s~n\", [rabbit_json:encode(M)]).",
        ]);
        let line = output.lines().find(|line| line.starts_with('{')).unwrap_or(&output);
        let all: BTreeMap<String, i64> =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {output}"));
        let get = |name: &str| all.get(name).copied().unwrap_or_default();
        Counters {
            received: get("messages_received_total"),
            confirmed: get("messages_confirmed_total"),
            returned: get("messages_unroutable_returned_total"),
            dropped: get("messages_unroutable_dropped_total"),
            delivered: get("messages_delivered_total"),
            redelivered: get("messages_redelivered_total"),
            acknowledged: get("messages_acknowledged_total"),
        }
    }

    /// Kills the node as a power cut would.
    pub fn kill9(&self) {
        self.process().kill9();
    }

    /// Starts the node again on its folders and ports, killing it first if it still runs.
    pub fn restart(&self) {
        {
            let mut process = self.process();
            process.kill9();
            *process = spawn(self.version, &self.folder, &self.env);
        }
        self.await_startup();
    }
}

const VHOSTS_AT_ONCE: u32 = 4;

/// A node that is one's own until this is dropped.
#[derive(Debug)]
pub struct Alone {
    broker: &'static RabbitMq,
    _turn: MutexGuard<'static, ()>,
}

impl std::ops::Deref for Alone {
    type Target = RabbitMq;

    fn deref(&self) -> &RabbitMq {
        self.broker
    }
}

/// What a node counted, for AMQP 0-9-1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages published.
    pub received: i64,
    /// Publishes confirmed.
    pub confirmed: i64,
    /// Unroutable and sent back.
    pub returned: i64,
    /// Unroutable and dropped.
    pub dropped: i64,
    /// Messages delivered, by consume or get.
    pub delivered: i64,
    /// Of these, delivered again.
    pub redelivered: i64,
    /// Deliveries acknowledged (not those with auto-ack).
    pub acknowledged: i64,
}

impl std::ops::Sub for Counters {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            received: self.received - before.received,
            confirmed: self.confirmed - before.confirmed,
            returned: self.returned - before.returned,
            dropped: self.dropped - before.dropped,
            delivered: self.delivered - before.delivered,
            redelivered: self.redelivered - before.redelivered,
            acknowledged: self.acknowledged - before.acknowledged,
        }
    }
}

/// A virtual host: as good as a broker of its own, and made in a second.
#[derive(Debug)]
pub struct Vhost<'a> {
    broker: &'a RabbitMq,
    name: String,
}

impl Vhost<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How to reach it through somebody who listens on this port.
    pub fn url(&self, port: u16) -> String {
        format!("amqp://guest:guest@127.0.0.1:{port}/{}", self.name)
    }

    /// How to reach it without anybody in between.
    pub fn direct(&self) -> String {
        self.url(self.broker.port)
    }

    /// Its queues by name, as `rabbitmqctl list_queues` sees them.
    pub fn queues(&self) -> BTreeMap<String, Queue> {
        let columns = ["name", "messages_ready", "messages_unacknowledged", "consumers"];
        let arguments = [&["list_queues", "-p", &self.name][..], &columns].concat();
        let number = |row: &Value, column: &str| row[column].as_i64().unwrap_or_default();
        self.broker
            .ctl_json(&arguments)
            .iter()
            .map(|row| {
                let queue = Queue {
                    ready: number(row, "messages_ready"),
                    unacknowledged: number(row, "messages_unacknowledged"),
                    consumers: number(row, "consumers"),
                };
                (row["name"].as_str().unwrap_or_default().to_owned(), queue)
            })
            .collect()
    }

    /// Its exchanges by name with their types, without those that every vhost has.
    pub fn exchanges(&self) -> BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        self.broker
            .ctl_json(&["list_exchanges", "-p", &self.name, "name", "type"])
            .iter()
            .map(|row| (text(&row["name"]), text(&row["type"])))
            .filter(|(name, _)| !name.is_empty() && !name.starts_with("amq."))
            .collect()
    }
}

/// How a queue stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// Messages that wait.
    pub ready: i64,
    /// Messages that somebody has and has not settled.
    pub unacknowledged: i64,
    /// Consumers.
    pub consumers: i64,
}

fn write_file(folder: &Folder, name: &str, content: &str) {
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn spawn(version: Version, folder: &Folder, env: &BTreeMap<&'static str, String>) -> Process {
    let mut command = base_command(version, folder, env, true);
    // An epmd of its own, in the same group: a daemon would stay behind.
    let epmd = r#"epmd -port "$ERL_EPMD_PORT" & exec "$0""#;
    command.args(["sh", "-c", epmd, &format!("{PROGRAMS}/rabbitmq-server")]);
    let name = format!("RabbitMQ {version:?}");
    Process::start(&name, &mut command, &folder.path().join("broker.log"))
}

/// The command up to the program that is to run where the broker runs.
fn base_command(
    version: Version,
    folder: &Folder,
    env: &BTreeMap<&'static str, String>,
    server: bool,
) -> Command {
    let mut command;
    match version {
        Version::V3_10 if server && is_root() => {
            command = Command::new("unshare");
            command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "env"]);
        }
        Version::V3_10 => command = Command::new("env"),
        Version::V4_0 => {
            command = Command::new("unshare");
            command.arg("--mount");
            if server {
                command.args(["--pid", "--fork", "--kill-child"]);
            }
            let enter = r#"mount -t proc proc "$0/proc" && mount --bind "$1" "$0$2" &&
                shift 2 && exec chroot "$0" env "$@""#;
            command.args(["sh", "-c", enter]).arg(Version::tree()).arg(folder.path()).arg(INSIDE);
        }
    }
    command.args(["-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
    command.args(env.iter().map(|(name, value)| format!("{name}={value}")));
    command
}
