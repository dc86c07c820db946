//! Services written with clients that nobody here wrote. Each program in `tests/clients` takes one
//! scenario as JSON and prints JSON lines: first `{"ready": true}`, at the end what it did.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::process::{Folder, Process};
use crate::{PATIENCE, available, cache_dir, wait_until};

/// A client library, by the language of its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// Python, pika.
    Pika,
    /// Python, Celery (kombu, py-amqp).
    Celery,
    /// Ruby, Bunny.
    Bunny,
    /// JavaScript, amqplib.
    Amqplib,
    /// Java, RabbitMQ's own client.
    Java,
    /// Java, Kafka's own client.
    KafkaJava,
    /// Python, confluent-kafka (librdkafka).
    Confluent,
    /// Python, a confluent-kafka of before 2.11.
    ConfluentOld,
    /// Python, aiokafka.
    Aiokafka,
    /// JavaScript, kafkajs.
    Kafkajs,
    /// Go, franz-go.
    Franz,
    /// Rust, rdkafka (librdkafka), which can neither log in with SCRAM nor speak TLS as it is built here.
    Rdkafka,
}

/// The clients of Kafka, without the old one.
pub const KAFKA: [Client; 6] = [
    Client::KafkaJava,
    Client::Confluent,
    Client::Aiokafka,
    Client::Kafkajs,
    Client::Franz,
    Client::Rdkafka,
];

impl Client {
    /// Whether it is installed; says so loudly if not, and fails on CI.
    #[must_use]
    pub fn available(self) -> bool {
        let proof = match self {
            Self::Pika | Self::Celery => cache_dir().join("venv"),
            Self::Bunny => PathBuf::from("/usr/share/doc/ruby-bunny"),
            Self::Amqplib => cache_dir().join("node"),
            Self::Java => cache_dir().join("jars"),
            Self::KafkaJava => cache_dir().join("kafka-java"),
            Self::Confluent => python("venv").join("confluent_kafka"),
            Self::ConfluentOld => python("venv-old").join("confluent_kafka"),
            Self::Aiokafka => python("venv").join("aiokafka"),
            Self::Kafkajs => cache_dir().join("node/node_modules/kafkajs"),
            Self::Franz => cache_dir().join("bin/kafka-go"),
            Self::Rdkafka => cache_dir().join("bin/kafka-rust"),
        };
        available(proof.exists(), &format!("the client {self:?}"))
    }

    fn command(self) -> Command {
        let clients = crate::package_dir().join("clients");
        let mut command;
        match self {
            Self::Pika | Self::Celery | Self::Confluent | Self::ConfluentOld | Self::Aiokafka => {
                let (venv, program) = match self {
                    Self::Pika => ("venv", "pika_service.py"),
                    Self::Celery => ("venv", "celery_service.py"),
                    Self::Aiokafka => ("venv", "aiokafka_service.py"),
                    Self::ConfluentOld => ("venv-old", "confluent_service.py"),
                    _ => ("venv", "confluent_service.py"),
                };
                command = Command::new(cache_dir().join(venv).join("bin/python3"));
                command.arg(clients.join("python").join(program));
            }
            Self::Bunny => {
                // The system's Ruby: Bunny is a package of the system.
                command = Command::new("/usr/bin/ruby");
                command.arg(clients.join("ruby/bunny_service.rb"));
            }
            Self::Amqplib | Self::Kafkajs => {
                let program =
                    if self == Self::Kafkajs { "kafkajs_service.js" } else { "amqplib_service.js" };
                command = Command::new("node");
                command.env("NODE_PATH", cache_dir().join("node/node_modules"));
                command.arg(clients.join("node").join(program));
            }
            Self::Java => {
                command = Command::new("java");
                let jars = format!("{}/*", cache_dir().join("jars").display());
                command.args(["-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp", &jars]);
                command.arg(clients.join("java/JavaService.java"));
            }
            Self::KafkaJava => {
                command = Command::new("java");
                // The class archive holds for the jars' real places only.
                let at = |name: &str| cache_dir().join(name).canonicalize().expect("it is there");
                let (service, jars) = (at("kafka-java"), at("kafka-4"));
                command.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
                command.arg(format!("-XX:SharedArchiveFile={}/service.jsa", service.display()));
                command.args(["-Xlog:disable", "-Xlog:all=error:stderr", "-cp"]);
                command.arg(format!("{}/service.jar:{}/libs/*", service.display(), jars.display()));
                command.arg("KafkaService");
            }
            Self::Franz => command = Command::new(cache_dir().join("bin/kafka-go")),
            Self::Rdkafka => command = Command::new(cache_dir().join("bin/kafka-rust")),
        }
        command
    }

    /// Starts a service with a scenario.
    pub fn start(self, scenario: &Value) -> Service {
        let folder = Folder::new("client");
        let log = folder.path().join("output");
        let process =
            Process::start(&format!("{self:?}"), self.command().arg(scenario.to_string()), &log);
        Service { process, _folder: folder }
    }

    /// Runs a scenario to its end and returns what the service says that it did.
    pub fn run(self, scenario: &Value) -> Value {
        self.start(scenario).finish()
    }

    /// Runs a scenario to its end and returns all that the service said.
    pub fn run_lines(self, scenario: &Value) -> Vec<Value> {
        self.start(scenario).finish_lines()
    }
}

/// Where a virtual environment of Python has its packages.
fn python(venv: &str) -> PathBuf {
    let lib = cache_dir().join(venv).join("lib");
    let versions = std::fs::read_dir(&lib).into_iter().flatten().filter_map(Result::ok);
    versions.map(|entry| entry.path().join("site-packages")).next().unwrap_or(lib)
}

/// A running service.
#[derive(Debug)]
pub struct Service {
    // Before the folder: what writes into it must be gone first.
    process: Process,
    _folder: Folder,
}

impl Service {
    /// What it said so far.
    pub fn lines(&self) -> Vec<Value> {
        let output = self.process.output();
        output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until it says that it is ready: its queues are declared, its consumers listen.
    pub fn await_ready(&mut self) {
        self.await_line("it is ready", |line| line["ready"] == true);
    }

    /// Waits for a line of its output.
    pub fn await_line(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let mut found = None;
        wait_until(what, || {
            found = self.lines().into_iter().find(&is_it);
            if found.is_none() && self.process.ended().is_some_and(|status| !status.success()) {
                self.process.print_log();
                panic!("a service failed before {what}");
            }
            found.is_some()
        });
        found.expect("it was awaited")
    }

    /// Waits for its end and returns its last word. Panics if it failed.
    pub fn finish(&mut self) -> Value {
        self.finish_lines().pop().expect("a service prints what it did")
    }

    /// Waits for its end and returns all that it said. Panics if it failed.
    pub fn finish_lines(&mut self) -> Vec<Value> {
        let status = self.process.wait(PATIENCE);
        if !status.success() {
            self.process.print_log();
            panic!("a service failed: {status}");
        }
        self.lines()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Kills it in the middle of its work.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Asks it to end, waits, and returns its last word.
    pub fn terminate(&mut self) -> Value {
        self.process.signal(rustix::process::Signal::TERM);
        self.finish()
    }

    /// Asks it to end, waits, and returns all that it said.
    pub fn terminate_lines(&mut self) -> Vec<Value> {
        self.process.signal(rustix::process::Signal::TERM);
        self.finish_lines()
    }
}
