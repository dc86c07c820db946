//! The meter of the tests as a program, for benchmarks and for anything else that speaks S3:
//!
//!     s3meter LISTEN UPSTREAM [--delay]
//!
//! Both are ports of loopback; with `--delay` answers come as late as from S3. It prints a line when it
//! listens, and then serves until it is killed:
//!
//!     curl http://127.0.0.1:LISTEN/-/counts/PREFIX       requests and bytes by verb and part of the key
//!     curl http://127.0.0.1:LISTEN/-/requests            each of them
//!     curl -X POST http://127.0.0.1:LISTEN/-/reset

use std::process::ExitCode;

use flowtap_tests::s3meter::{Delays, Meter};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (ports, delays) = match args[..] {
        [listen, upstream] => ([listen, upstream], None),
        [listen, upstream, "--delay"] => ([listen, upstream], Some(Delays::realistic())),
        _ => return usage(),
    };
    let [Ok(listen), Ok(upstream)] = ports.map(str::parse) else { return usage() };
    match Meter::listen(listen, upstream, delays) {
        Ok(meter) => {
            println!("127.0.0.1:{} before 127.0.0.1:{upstream}", meter.port());
            loop {
                std::thread::park();
            }
        }
        Err(error) => {
            eprintln!("s3meter: port {listen}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: s3meter LISTEN UPSTREAM [--delay]");
    ExitCode::from(2)
}
