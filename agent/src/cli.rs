//! The command line of `flowtap-agent`. Flags that stand for a configuration key come from the
//! table of keys; each command's work is done elsewhere.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::admin::Probe;
use crate::config::{Sources, flags};

/// What the agent was asked to do.
#[derive(Clone, Debug)]
pub enum Order {
    /// Tap.
    Run(Sources),
    /// Say what is wrong with the configuration and what can be reached.
    Check(Sources),
    /// Ask the running agent how it is.
    Probe(Sources, Probe),
    /// Print the reference of the configuration.
    ConfigReference,
}

/// Reads the command line; prints help, version or what is wrong with it and exits by itself.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Order {
    order(&command().get_matches_from(args))
}

fn order(matches: &ArgMatches) -> Order {
    match matches.subcommand() {
        Some(("check", inner)) => Order::Check(sources(inner)),
        Some(("probe", inner)) => {
            let what = inner.get_one::<String>("what").map(String::as_str);
            let probe = if what == Some("live") { Probe::Live } else { Probe::Ready };
            Order::Probe(sources(inner), probe)
        }
        Some(("config-reference", _)) => Order::ConfigReference,
        _ => Order::Run(sources(matches)),
    }
}

/// The configuration's sources; flags count before and after the command's name alike.
fn sources(matches: &ArgMatches) -> Sources {
    let mut given = Vec::new();
    for flag in flags() {
        let values = matches.get_many::<String>(flag.flag).into_iter().flatten();
        given.extend(values.map(|value| (flag.key, value.clone())));
    }
    Sources {
        file: matches.get_one::<PathBuf>("config").cloned(),
        env: std::env::vars_os().collect(),
        flags: given,
    }
}

fn command() -> Command {
    let mut command = Command::new("flowtap-agent")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Stands between a service and its broker, forwards every byte, and records every publish and every consume")
        .after_help("Flags stand over FLOWTAP_* variables, variables over the file. Without a command it taps.")
        .arg(
            Arg::new("config")
                .long("config")
                .global(true)
                .value_name("FILE")
                .env("FLOWTAP_CONFIG")
                .hide_env_values(true)
                .value_parser(value_parser!(PathBuf))
                .help("The configuration file"),
        )
        .subcommand(
            Command::new("check")
                .about("Check the configuration, reach brokers, store and spool, say what was found"),
        )
        .subcommand(
            Command::new("probe")
                .about("Ask the running agent over loopback: exit 0 when it is, 1 when not")
                .arg(Arg::new("what").required(true).value_parser(["ready", "live"])),
        )
        .subcommand(
            Command::new("config-reference")
                .about("Print every configuration key as Markdown"),
        );
    for flag in flags() {
        let arg = Arg::new(flag.flag).long(flag.flag).global(true).help(flag.doc);
        let arg = if flag.switch {
            arg.num_args(0..=1).require_equals(true).default_missing_value("true")
        } else if flag.key == "tap" {
            arg.action(ArgAction::Append)
        } else {
            arg
        };
        command = command.arg(arg);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &[&str]) -> Order {
        order(&command().get_matches_from(line))
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn flags_become_settings_of_their_keys_in_order() {
        let Order::Run(sources) = parsed(&[
            "flowtap-agent",
            "--service",
            "shop",
            "--tap",
            "amqp a b",
            "--insecure",
            "--tap",
            "amqp c d",
        ]) else {
            panic!("not a run");
        };
        let mut flags = sources.flags;
        flags.sort();
        let expected = [
            ("admin.insecure", "true"),
            ("service", "shop"),
            ("tap", "amqp a b"),
            ("tap", "amqp c d"),
        ];
        assert_eq!(flags, expected.map(|(key, value)| (key, value.to_owned())));
    }

    #[test]
    fn flags_count_before_and_after_the_command() {
        for line in [
            ["flowtap-agent", "--config", "a.toml", "check"],
            ["flowtap-agent", "check", "--config", "a.toml"],
        ] {
            let Order::Check(sources) = parsed(&line) else { panic!("not a check") };
            assert_eq!(sources.file, Some(PathBuf::from("a.toml")));
        }
    }

    #[test]
    fn a_probe_names_what_it_asks_for() {
        let order = parsed(&["flowtap-agent", "probe", "live"]);
        assert!(matches!(order, Order::Probe(_, Probe::Live)));
        assert!(command().try_get_matches_from(["flowtap-agent", "probe"]).is_err());
    }
}
