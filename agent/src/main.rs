//! `flowtap-agent`: the sidecar. Everything is in the library; see `app`.

use std::process::ExitCode;

fn main() -> ExitCode {
    flowtap_agent::app::main()
}
