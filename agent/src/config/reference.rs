//! The reference page of the configuration, made from the table of keys.

use std::fmt::Write;

use super::keys::{AGENT, Fallback, Key, env_name};
use super::keys_repeated::{RULE, TAP};

/// All keys as Markdown tables, a section each.
pub fn markdown() -> String {
    let mut page = String::new();
    let mut sections: Vec<&str> = Vec::new();
    for key in AGENT {
        let section = key.name.split_once('.').map_or("", |(section, _)| section);
        if !sections.contains(&section) {
            sections.push(section);
        }
    }
    for section in sections {
        let heading =
            if section.is_empty() { "Top level".into() } else { format!("`[{section}]`") };
        let keys = AGENT
            .iter()
            .filter(|key| key.name.split_once('.').map_or("", |(section, _)| section) == section);
        table(&mut page, &heading, keys, env_name);
    }
    table(&mut page, "`[[tap]]`, one for each broker", TAP.iter(), |key| {
        format!("FLOWTAP_TAP_<n>_{}", &env_name(key)["FLOWTAP_".len()..])
    });
    page.push_str(
        "`--tap 'KIND LISTEN BROKER'` sets the first three. Taps of variables count from 0.\n\n",
    );
    table(&mut page, "`[[rule]]`, where ids stand", RULE.iter(), |key| {
        format!("FLOWTAP_RULE_<n>_{}", &env_name(key)["FLOWTAP_".len()..])
    });
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

fn table<'a, T: 'static>(
    page: &mut String,
    heading: &str,
    keys: impl Iterator<Item = &'a Key<T>>,
    variable: impl Fn(&str) -> String,
) {
    let mut write = |line: String| writeln!(page, "{line}").expect("writing to text cannot fail");
    write(format!("### {heading}\n"));
    write("| key | type | default | what it is for | variable, flag |".to_owned());
    write("|---|---|---|---|---|".to_owned());
    for key in keys {
        let default = match key.fallback {
            Fallback::Required(example) => format!("required, such as `{example}`"),
            Fallback::Value(value) => format!("`{value}`"),
            Fallback::Words(words) => words.to_owned(),
        };
        let flag = key.flag.map(|flag| format!(", `--{flag}`")).unwrap_or_default();
        write(format!(
            "| `{}` | {} | {default} | {} | `{}`{flag} |",
            key.name,
            key.kind,
            key.doc,
            variable(key.name)
        ));
    }
    write(String::new());
}
