//! Edison Cars, the demo, as a test drives it: a run of its own with own ports and folder, faults
//! switched on and off, and Flowtap asked what became of an order.

use std::process::Command;

use serde_json::Value;

use crate::process::{Folder, Process, run};
use crate::{available, cache_dir, net, package_dir, program, wait_until};

/// Ports that a demo needs, counted from its first one.
const PORTS: u16 = 40;

/// How soon after its switch a fault shows in a verdict.
const SOON: std::time::Duration = std::time::Duration::from_secs(20);

/// A running demo.
#[derive(Debug)]
pub struct Edison {
    port: u16,
    page: u16,
    // Before the folder: what writes into it must be gone first.
    process: Process,
    folder: Option<Folder>,
    ticket: String,
}

impl Edison {
    /// Starts it with a first load of so many orders, and waits until it is ready. `settings` are
    /// variables of `demo/run.sh`. `None`: this machine lacks what it needs.
    pub fn start(orders: u32, settings: &[(&str, &str)]) -> Option<Self> {
        Self::start_at(Folder::new("edison"), net::free_ports(PORTS + 1), orders, settings)
    }

    /// Ends it as Ctrl-C does, and starts it again with its orders and other settings.
    pub fn restart(mut self, settings: &[(&str, &str)]) -> Option<Self> {
        self.process.terminate();
        let folder = self.folder.take().expect("it is taken here only");
        Self::start_at(folder, self.port, 0, settings)
    }

    /// Ends it by Ctrl-C, as somebody at a terminal does.
    pub fn interrupt(mut self) -> Interrupted {
        let folder = self.folder.take().expect("it is taken here only");
        let pids = std::fs::read_dir(folder.path()).expect("its folder is readable");
        let pids = pids
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "pid"))
            .filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok())
            .collect();
        self.process.signal(rustix::process::Signal::INT);
        let status = self.process.wait(crate::PATIENCE);
        Interrupted { code: status.code(), pids, port: self.port, ports: PORTS + 1, folder }
    }

    fn start_at(folder: Folder, port: u16, orders: u32, settings: &[(&str, &str)]) -> Option<Self> {
        let needed = [
            "/usr/lib/rabbitmq/bin/rabbitmq-server",
            "/usr/share/doc/ruby-bunny",
            "/usr/lib/python3/dist-packages/confluent_kafka",
        ];
        let installed = needed.iter().all(|path| std::path::Path::new(path).exists());
        if !available(installed && cache_dir().join("kafka-4").exists(), "the demo") {
            return None;
        }
        let page = port + PORTS;
        let bin = program("flowtap");
        let mut command = Command::new(demo("run.sh"));
        command
            .env("DEMO_PORT", port.to_string())
            .env("DEMO_HTTP_PORT", page.to_string())
            .env("DEMO_RUN", folder.path())
            .env("DEMO_BIN", bin.parent().expect("a program lies in a folder"))
            .env("DEMO_ORDERS", orders.to_string())
            .envs(settings.iter().copied());
        let log = folder.path().with_extension("log");
        // That of a run before says that it was ready.
        let _none = std::fs::remove_file(&log);
        let process = Process::start("the demo", &mut command, &log);
        let mut edison = Self { port, page, process, folder: Some(folder), ticket: String::new() };
        wait_until("the demo is ready", || {
            if edison.process.ended().is_some() {
                edison.process.print_log();
                panic!("the demo ended while it started");
            }
            edison.output().contains("READY ")
        });
        let output = edison.output();
        let order =
            output.lines().find_map(|line| line.strip_prefix("READY ")?.split("order=").nth(1));
        order.expect("the line says it").trim().clone_into(&mut edison.ticket);
        Some(edison)
    }

    /// The order that it lets get stuck by itself; empty with `DEMO_TICKET=0`.
    pub fn ticket(&self) -> &str {
        &self.ticket
    }

    /// What it printed.
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// Where its store is.
    pub fn store(&self) -> String {
        format!("file://{}/store", self.folder().display())
    }

    /// The port of its `flowtap serve`.
    pub fn page(&self) -> u16 {
        self.page
    }

    /// `demo/fault.sh` with these words; its answer.
    pub fn fault(&self, words: &[&str]) -> Value {
        let mut command = Command::new(demo("fault.sh"));
        let answer = run(command.env("DEMO_PORT", self.port.to_string()).args(words));
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{words:?}: {error}: {answer}"))
    }

    /// What the control page tells everybody: faults that are no secret, tickets, the last order.
    pub fn state(&self) -> Value {
        let (_, state) = net::http_get(self.port + 30, "/state").expect("the control page answers");
        serde_json::from_str(&state).expect("it answers JSON")
    }

    /// An order that is placed after now and that stock has parts for.
    pub fn next_order(&self) -> String {
        let last = self.state()["last_order"].as_i64().expect("a number");
        // Of a hovercraft, which every tenth order is for, there are no parts.
        let next = if (last + 2) % 10 == 7 { last + 3 } else { last + 2 };
        format!("order-{next}")
    }

    /// What the showroom says of a car, with the status of its answer.
    pub fn car(&self, car: &str) -> Option<(u16, Value)> {
        let (status, body) = net::http_get(self.port + 31, &format!("/cars/{car}"))?;
        Some((status, serde_json::from_str(&body).unwrap_or_default()))
    }

    /// The folder of its run: logs, spools, store.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.as_ref().expect("it is there until the end").path()
    }

    /// Switches a fault on for the next order, and says which that is.
    pub fn strike(&self, fault: &str) -> String {
        self.strikes(&[fault, "on", "next"])
    }

    /// The same at this service.
    pub fn strike_at(&self, fault: &str, service: &str) -> String {
        self.strikes(&[fault, "on", service, "next"])
    }

    fn strikes(&self, words: &[&str]) -> String {
        let answer = self.fault(words);
        answer["orders"][0].as_str().unwrap_or_else(|| panic!("no order in {answer}")).to_owned()
    }

    /// `flowtap why ID --json`: its exit code and answer.
    pub fn why(&self, id: &str) -> (i32, Value) {
        let server = format!("http://127.0.0.1:{}", self.page);
        let mut command = Command::new(program("flowtap"));
        let output = command
            .args(["why", id, "--json", "--server", &server])
            .output()
            .expect("flowtap is there");
        let answer = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        (output.status.code().unwrap_or(-1), answer)
    }

    /// The verdict on an order; null while nothing of it is known.
    pub fn verdict(&self, id: &str) -> Value {
        self.why(id).1["flow"]["verdict"].clone()
    }

    /// What is recorded of an order, a line each.
    fn records(&self, id: &str) -> Vec<String> {
        let (_, answer) = self.why(id);
        let records = answer["flow"]["records"].as_array().into_iter().flatten();
        let line = |record: &Value| {
            let words = ["at", "service", "kind", "event_type", "outcome", "reason"];
            let words = words.map(|word| record[word].as_str().unwrap_or("-").to_owned());
            words.join(" ")
        };
        records.map(line).collect()
    }

    /// Asks again until a verdict is as awaited, and returns it. Whoever awaits it in vain is told
    /// the last one. A fault is to be seen within 20 s of its switch; `make test-long` insists,
    /// elsewhere a machine may be busy with other things.
    pub fn await_verdict(&self, id: &str, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let began = std::time::Instant::now();
        let limit = if crate::long() && what != "healthy" { SOON } else { crate::PATIENCE };
        let mut last = Value::Null;
        while !is_it(&last) {
            if began.elapsed() >= limit {
                let records = self.records(id);
                panic!("waited in vain until {id} is {what}: {last:#}\nof {records:#?}");
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
            last = self.verdict(id);
        }
        eprintln!("{id} is {what} after {:.1} s", began.elapsed().as_secs_f64());
        last
    }
}

/// What a demo was that somebody ended by Ctrl-C.
#[derive(Debug)]
pub struct Interrupted {
    /// Its exit code.
    pub code: Option<i32>,
    /// The processes that it had started.
    pub pids: Vec<u32>,
    /// The first of its ports.
    pub port: u16,
    /// How many it had.
    pub ports: u16,
    /// What it keeps.
    pub folder: Folder,
}

impl Drop for Edison {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.process.print_log();
        }
        if self.folder.is_some() {
            self.process.terminate();
        }
    }
}

fn demo(script: &str) -> std::path::PathBuf {
    package_dir().join("../demo").join(script)
}
