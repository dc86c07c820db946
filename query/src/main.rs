//! The command `flowtap`.

fn main() -> std::process::ExitCode {
    flowtap_query::cli::main()
}
