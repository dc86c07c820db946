//! Kafka's own command-line tools, from the same jars as the brokers: services that are Kafka's own.

use std::process::Command;

use serde_json::Value;

use super::Version;
use crate::process::{Folder, Process};
use crate::{PATIENCE, package_dir};

/// A running tool.
#[derive(Debug)]
pub struct Tool {
    // Before the folder: what writes into it must be gone first.
    process: Process,
    _folder: Folder,
}

impl Tool {
    /// Starts one of a release: a class below `org.apache.kafka.tools`, as `VerifiableProducer`.
    pub fn start(version: Version, class: &str, arguments: &[&str]) -> Self {
        let folder = Folder::new("tool");
        let logging = package_dir().join("kafka");
        let mut command = Command::new("java");
        command
            .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .arg(format!("-Dlog4j2.configurationFile={}/log4j2.properties", logging.display()))
            .arg(format!("-Dlog4j.configuration=file:{}/log4j.properties", logging.display()))
            .args(["-cp", &format!("{}/libs/*", version.jars().display())])
            .arg(format!("org.apache.kafka.tools.{class}"))
            .args(arguments);
        let process = Process::start(class, &mut command, &folder.path().join("output"));
        Self { process, _folder: folder }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The lines of JSON that it printed so far; what its client logs stands in between.
    pub fn lines(&self) -> Vec<Value> {
        let output = self.process.output();
        output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for its end and gives all that it printed; panics if it failed.
    pub fn finish(&mut self) -> String {
        let status = self.process.wait(PATIENCE);
        if !status.success() {
            self.process.print_log();
            panic!("a tool of Kafka failed: {status}");
        }
        self.process.output()
    }

    /// Waits for its end and gives the lines of JSON that it printed; panics if it failed.
    pub fn finish_lines(&mut self) -> Vec<Value> {
        self.finish();
        self.lines()
    }
}
