//! One Kafka process: its configuration, its folder and its command line.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Listener, Options, PASSWORD, USER, Version};
use crate::process::Process;
use crate::{net, package_dir, wait_until};

/// A node and what it takes to start it again.
#[derive(Debug)]
pub(super) struct Node {
    version: Version,
    id: usize,
    addresses: Vec<(Listener, SocketAddr)>,
    folder: PathBuf,
    memory: &'static str,
    starts: usize,
    process: Process,
}

/// Where a node keeps its data, below the cluster's folder.
pub(super) fn data(id: usize) -> PathBuf {
    PathBuf::from(format!("node-{id}/data"))
}

/// Configures and starts all nodes of a cluster at once.
pub(super) fn start_all(version: Version, options: &Options, folder: &Path) -> Vec<Node> {
    let mut listeners = vec![Listener::Plain];
    if options.sasl {
        listeners.push(Listener::Sasl);
    }
    if options.tls.is_some() {
        listeners.push(Listener::Tls);
        if options.sasl {
            listeners.push(Listener::SaslTls);
        }
    }
    let address = |port: u16| -> SocketAddr {
        SocketAddr::new(options.host.parse().expect("an address of loopback"), port)
    };
    let controllers: Vec<_> = (0..options.nodes).map(|_| address(net::free_port())).collect();
    // Twenty-two characters of base64 with something of this process in them.
    let identity = |of: usize| format!("{:0>10}{:0>9}{of:0>2}A", std::process::id(), next());
    let cluster_id = identity(0);
    (1..=options.nodes)
        .map(|id| {
            let folder = folder.join(format!("node-{id}"));
            let data = folder.join("data");
            copy(&version.jars().join("formatted"), &data);
            let meta = format!(
                "version=1\ncluster.id={cluster_id}\nnode.id={id}\ndirectory.id={}\n",
                identity(id)
            );
            write(&data.join("meta.properties"), &meta);
            let port = |listener| match options.port {
                Some(port) if (id, listener) == (1, Listener::Plain) => port,
                _ => net::free_port(),
            };
            let addresses: Vec<_> =
                listeners.iter().map(|&each| (each, address(port(each)))).collect();
            write(
                &folder.join("server.properties"),
                &properties(options, id, &controllers, &addresses, &folder),
            );
            if let Some(tls) = &options.tls {
                write(&folder.join("ca.pem"), &tls.ca);
                write(&folder.join("keystore.pem"), &format!("{}\n{}", tls.key, tls.cert));
            }
            let memory = if options.nodes == 1 { "-Xmx512m" } else { "-Xmx384m" };
            let process = spawn(version, id, memory, &folder);
            Node { version, id, addresses, folder, memory, starts: 0, process }
        })
        .collect()
}

fn next() -> u32 {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

fn name(listener: Listener) -> &'static str {
    match listener {
        Listener::Plain => "PLAINTEXT",
        Listener::Sasl => "SASL_PLAINTEXT",
        Listener::Tls => "SSL",
        Listener::SaslTls => "SASL_SSL",
    }
}

fn properties(
    options: &Options,
    id: usize,
    controllers: &[SocketAddr],
    addresses: &[(Listener, SocketAddr)],
    folder: &Path,
) -> String {
    let nodes = options.nodes;
    let at_least = nodes.min(2);
    let voters: Vec<_> =
        controllers.iter().enumerate().map(|(at, each)| format!("{}@{each}", at + 1)).collect();
    let listeners: Vec<_> =
        addresses.iter().map(|&(each, address)| format!("{}://{address}", name(each))).collect();
    let listeners = listeners.join(",");
    let mut all = format!(
        "process.roles=broker,controller\n\
         node.id={id}\n\
         controller.quorum.voters={}\n\
         listeners={listeners},CONTROLLER://{}\n\
         advertised.listeners={listeners}\n\
         inter.broker.listener.name=PLAINTEXT\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,\
         SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL\n\
         log.dirs={}\n",
        voters.join(","),
        controllers[id - 1],
        folder.join("data").display(),
    );
    // Internal topics that fit the cluster, and are made in no time.
    write!(
        all,
        "offsets.topic.replication.factor={nodes}\noffsets.topic.num.partitions=4\n\
         transaction.state.log.replication.factor={nodes}\ntransaction.state.log.min.isr={at_least}\n\
         transaction.state.log.num.partitions=4\n\
         share.coordinator.state.topic.replication.factor={nodes}\n\
         share.coordinator.state.topic.min.isr={at_least}\n\
         share.coordinator.state.topic.num.partitions=4\n\
         min.insync.replicas={at_least}\nauto.create.topics.enable=false\n"
    )
    .expect("a string takes all");
    // What dies is missed soon; groups move at once; the cleaner comes often and takes little memory.
    all.push_str(
        "broker.heartbeat.interval.ms=250\nbroker.session.timeout.ms=3000\n\
         controller.quorum.election.timeout.ms=500\ncontroller.quorum.fetch.timeout.ms=1500\n\
         group.initial.rebalance.delay.ms=0\ngroup.min.session.timeout.ms=1000\n\
         group.consumer.min.session.timeout.ms=1000\ngroup.consumer.session.timeout.ms=4000\n\
         group.consumer.min.heartbeat.interval.ms=200\ngroup.consumer.heartbeat.interval.ms=500\n\
         log.cleaner.dedupe.buffer.size=2097152\nlog.cleaner.backoff.ms=200\n\
         log.retention.check.interval.ms=500\nlog.initial.task.delay.ms=500\n\
         num.network.threads=2\nnum.io.threads=4\nbackground.threads=2\n",
    );
    if options.sasl {
        sasl(&mut all, options.login_again_ms);
    }
    if let Some(tls) = &options.tls {
        let folder = folder.display();
        let clients = if tls.client_certificate { "required" } else { "none" };
        write!(
            all,
            "ssl.keystore.type=PEM\nssl.keystore.location={folder}/keystore.pem\n\
             ssl.truststore.type=PEM\nssl.truststore.location={folder}/ca.pem\n\
             ssl.client.auth={clients}\n"
        )
        .expect("a string takes all");
    }
    for line in &options.config {
        all.push_str(line);
        all.push('\n');
    }
    all
}

fn sasl(all: &mut String, login_again_ms: Option<u32>) {
    const MODULES: &str = "org.apache.kafka.common.security";
    for listener in ["sasl_plaintext", "sasl_ssl"] {
        let prefix = format!("listener.name.{listener}");
        write!(
            all,
            "{prefix}.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER\n\
             {prefix}.plain.sasl.jaas.config={MODULES}.plain.PlainLoginModule required \
             user_{USER}=\"{PASSWORD}\";\n\
             {prefix}.scram-sha-256.sasl.jaas.config={MODULES}.scram.ScramLoginModule required;\n\
             {prefix}.scram-sha-512.sasl.jaas.config={MODULES}.scram.ScramLoginModule required;\n\
             {prefix}.oauthbearer.sasl.jaas.config={MODULES}.oauthbearer.OAuthBearerLoginModule \
             required unsecuredLoginStringClaim_sub=\"broker\";\n"
        )
        .expect("a string takes all");
        if let Some(after) = login_again_ms {
            writeln!(all, "{prefix}.connections.max.reauth.ms={after}")
                .expect("a string takes all");
        }
    }
}

fn write(path: &Path, content: &str) {
    std::fs::write(path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap_or_else(|error| panic!("{}: {error}", to.display()));
    let entries = std::fs::read_dir(from)
        .unwrap_or_else(|error| panic!("{}: {error} (scripts/setup.sh test)", from.display()));
    for entry in entries {
        let entry = entry.expect("a folder's entry can be read");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a file has a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a small file can be copied");
        }
    }
}

fn spawn(version: Version, id: usize, memory: &str, folder: &Path) -> Process {
    // The class archive holds for the jars' real place only.
    let jars = version.jars().canonicalize().expect("it was there a moment ago");
    let logging = package_dir().join("kafka");
    let mut command = Command::new("java");
    command
        .args([memory, "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .arg(format!("-XX:SharedArchiveFile={}/broker.jsa", jars.display()))
        .args(["-Xlog:disable", "-Xlog:all=error:stderr"])
        .arg(format!("-Dlog4j2.configurationFile={}/log4j2.properties", logging.display()))
        .arg(format!("-Dlog4j.configuration=file:{}/log4j.properties", logging.display()))
        .args(["-cp", &format!("{}/libs/*", jars.display()), "kafka.Kafka"])
        .arg(folder.join("server.properties"));
    Process::start(&format!("Kafka {version:?} {id}"), &mut command, &folder.join("broker.log"))
}

impl Node {
    /// Waits for the line that a broker writes when it has started.
    pub(super) fn await_startup(&mut self) {
        wait_until("Kafka is up", || {
            if self.process.ended().is_some() {
                self.process.print_log();
                panic!("Kafka {:?} ended while it started", self.version);
            }
            self.process.output().matches("Kafka Server started").count() > self.starts
        });
        self.starts += 1;
    }

    pub(super) fn address(&self, listener: Listener) -> SocketAddr {
        let found = self.addresses.iter().find(|(each, _)| *each == listener);
        found.unwrap_or_else(|| panic!("this cluster has no listener {listener:?}")).1
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(super) fn log(&self) -> String {
        self.process.output()
    }

    pub(super) fn print_log(&self) {
        self.process.print_log();
    }

    pub(super) fn kill9(&mut self) {
        self.process.kill9();
    }

    pub(super) fn stop(&mut self) {
        self.process.terminate();
    }

    pub(super) fn move_to_another_port(&mut self) {
        let at = self.folder.join("server.properties");
        let all = std::fs::read_to_string(&at).expect("a node has its configuration");
        let (_, old) = self.addresses[0];
        let new = SocketAddr::new(old.ip(), net::free_port());
        write(&at, &all.replace(&old.to_string(), &new.to_string()));
        self.addresses[0].1 = new;
    }

    pub(super) fn restart(&mut self) {
        self.process.kill9();
        self.starts = self.process.output().matches("Kafka Server started").count();
        self.process = spawn(self.version, self.id, self.memory, &self.folder);
    }
}
