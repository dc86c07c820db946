//! From file, variables and flags to a checked [`Config`]: each source becomes a list of settings,
//! and the lists are read over each other in that order, so that a later one wins.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use toml_edit::{Document, Item, TableLike};

use super::checks::{self, Origins, Section, shown};
use super::keys::{AGENT, Fallback, Key, env_name};
use super::keys_repeated::{RULE, TAP};
use super::problems::{Origin, Problem, Problems};
use super::raw::Raw;
use super::{Config, RuleConfig, Sources, TapConfig};

/// One value from one source.
struct Setting {
    section: Section,
    name: String,
    raw: Raw,
    origin: Origin,
}

/// What has been read so far.
struct Loader {
    config: Config,
    problems: Vec<Problem>,
    /// Where each key was set last.
    origins: Origins,
    /// Where each tap and rule begins.
    begins: BTreeMap<(&'static str, usize), Origin>,
    settings: Vec<Setting>,
    /// Taps whose kind has been read.
    kinds: BTreeSet<usize>,
    /// The file could not be read, so a missing key may well stand in it.
    file_unread: bool,
}

pub(super) fn load(sources: &Sources) -> Result<Config, Problems> {
    let mut loader = Loader {
        config: Config::blank(),
        problems: Vec::new(),
        origins: Origins::new(),
        begins: BTreeMap::new(),
        settings: Vec::new(),
        kinds: BTreeSet::new(),
        file_unread: false,
    };
    if let Some(path) = &sources.file {
        loader.collect_file(path);
    }
    for (name, value) in &sources.env {
        loader.collect_variable(&name.to_string_lossy(), value.to_str());
    }
    let mut tap_flags = 0;
    for (key, value) in &sources.flags {
        if *key == "tap" {
            loader.collect_tap_flag(tap_flags, value);
            tap_flags += 1;
        } else {
            loader.collect_flag(key, value);
        }
    }
    loader.apply(sources.file.as_deref());
    loader.finish(sources.file.as_deref())
}

// === collecting ===

impl Loader {
    fn problem(&mut self, origin: Origin, key: String, what: String) {
        self.problems.push(Problem { origin, key, what });
    }

    fn setting(&mut self, section: Section, name: &str, raw: Raw, origin: Origin) {
        if let Some(place) = section {
            self.begins.entry(place).or_insert_with(|| origin.clone());
        }
        self.settings.push(Setting { section, name: name.to_owned(), raw, origin });
    }

    fn collect_file(&mut self, path: &Path) {
        let whole_file = Origin::File(path.to_owned(), 0);
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                self.file_unread = true;
                self.problem(whole_file, String::new(), format!("cannot be read: {error}"));
                return;
            }
        };
        let document = match Document::parse(text.as_str()) {
            Ok(document) => document,
            Err(error) => {
                self.file_unread = true;
                let line = error.span().map_or(0, |span| line_of(&text, span.start));
                let what = format!("is no TOML: {}", error.message().replace('\n', "; "));
                self.problem(Origin::File(path.to_owned(), line), String::new(), what);
                return;
            }
        };
        let at = |offset: usize| Origin::File(path.to_owned(), line_of(&text, offset));
        self.collect_table(document.as_table(), None, "", &at);
    }

    /// Takes a table's values, those of tables within it with dots in their names.
    fn collect_table(
        &mut self,
        table: &dyn TableLike,
        section: Section,
        prefix: &str,
        at: &dyn Fn(usize) -> Origin,
    ) {
        for (name, item) in table.iter() {
            let key = table.get_key_value(name).map(|(key, _)| key);
            let origin = at(key.and_then(toml_edit::Key::span).unwrap_or_default().start);
            let name = format!("{prefix}{name}");
            if is_table(section, &name)
                && let Some(pairs) = item.as_table_like()
            {
                self.collect_pairs(pairs, section, &name, &origin, at);
                continue;
            }
            let repeated = ["tap", "rule"].into_iter().find(|known| *known == name);
            if let (None, Some(kind)) = (section, repeated) {
                self.collect_repeated(kind, item, &origin, at);
            } else if let Some(inner) = item.as_table_like() {
                let known = keys_of(section).any(|key| key.starts_with(&format!("{name}.")));
                if known || !inner.is_empty() {
                    self.collect_table(inner, section, &format!("{name}."), at);
                } else {
                    self.setting(section, &name, Raw::Section, origin);
                }
            } else if let Item::Value(value) = item {
                self.setting(section, &name, Raw::Toml(value.clone()), origin);
            } else {
                self.setting(section, &name, Raw::Section, origin);
            }
        }
    }

    /// Takes a table that is one key's value, and where each of its names stands.
    fn collect_pairs(
        &mut self,
        table: &dyn TableLike,
        section: Section,
        name: &str,
        origin: &Origin,
        at: &dyn Fn(usize) -> Origin,
    ) {
        let mut pairs = Vec::new();
        for (inner, item) in table.iter() {
            let key = table.get_key_value(inner).and_then(|(key, _)| key.span());
            let place = key.map_or_else(|| origin.clone(), |span| at(span.start));
            let shown_name = format!("{name}.{inner}");
            if let Some(value) = item.as_value() {
                pairs.push((inner.to_owned(), value.clone()));
            } else {
                let what = "want text in quotes, found a section".to_owned();
                self.problem(place.clone(), shown(section, &shown_name), what);
            }
            self.origins.insert((section, shown_name), place);
        }
        self.setting(section, name, Raw::Table(pairs), origin.clone());
    }

    /// Takes the `[[tap]]` or the `[[rule]]` of the file.
    fn collect_repeated(
        &mut self,
        kind: &'static str,
        item: &Item,
        origin: &Origin,
        at: &dyn Fn(usize) -> Origin,
    ) {
        let tables: Vec<(&dyn TableLike, Option<usize>)> = match item {
            Item::ArrayOfTables(tables) => tables
                .iter()
                .map(|table| (table as &dyn TableLike, table.span().map(|span| span.start)))
                .collect(),
            Item::Value(toml_edit::Value::Array(array))
                if array.iter().all(toml_edit::Value::is_inline_table) =>
            {
                array
                    .iter()
                    .filter_map(toml_edit::Value::as_inline_table)
                    .map(|table| (table as &dyn TableLike, table.span().map(|span| span.start)))
                    .collect()
            }
            _ => {
                let what = format!("may stand more than once: write [[{kind}]], in two brackets");
                self.problem(origin.clone(), kind.to_owned(), what);
                self.file_unread = true;
                return;
            }
        };
        for (index, (table, start)) in tables.into_iter().enumerate() {
            let begin = start.map_or_else(|| origin.clone(), at);
            self.begins.insert((kind, index), begin);
            self.collect_table(table, Some((kind, index)), "", at);
        }
    }

    fn collect_variable(&mut self, name: &str, value: Option<&str>) {
        // The file's own name is the command line's business.
        if !name.starts_with("FLOWTAP_") || name == "FLOWTAP_CONFIG" {
            return;
        }
        let origin = Origin::Env(name.to_owned());
        let Some((section, key)) = key_of_variable(name) else {
            if !is_from_kubernetes(name) {
                let what = unknown(name, "variable", &all_variables(name));
                self.problem(origin, String::new(), what);
            }
            return;
        };
        match value {
            Some(value) => self.setting(section, key, Raw::Text(value.to_owned()), origin),
            None => self.problem(origin, shown(section, key), "is not UTF-8".to_owned()),
        }
    }

    fn collect_flag(&mut self, key: &str, value: &str) {
        let flag = AGENT.iter().find(|known| known.name == key).and_then(|known| known.flag);
        let origin = Origin::Flag(format!("--{}", flag.unwrap_or(key)));
        self.setting(None, key, Raw::Text(value.to_owned()), origin);
    }

    fn collect_tap_flag(&mut self, index: usize, value: &str) {
        let origin = Origin::Flag("--tap".to_owned());
        let words: Vec<&str> = value.split_whitespace().collect();
        let [kind, listen, broker] = words[..] else {
            let what = "want kind, listen and broker with spaces between, such as 'amqp \
                        127.0.0.1:5673 amqp://rabbit:5672' or 'kafka 127.0.0.1:19092 \
                        kafka://kafka:9092'";
            self.problem(origin.clone(), format!("tap[{index}]"), what.to_owned());
            return;
        };
        for (name, word) in [("kind", kind), ("listen", listen), ("broker", broker)] {
            let raw = Raw::Text(word.to_owned());
            self.setting(Some(("tap", index)), name, raw, origin.clone());
        }
    }
}

// === applying ===

impl Loader {
    /// Reads the defaults, then all settings over them, then asks for what is missing.
    fn apply(&mut self, file: Option<&Path>) {
        set_defaults(AGENT, &mut self.config);
        self.check_numbering("tap");
        self.check_numbering("rule");
        for setting in std::mem::take(&mut self.settings) {
            self.apply_one(setting);
        }
        let nowhere = file.map_or(Origin::Nowhere, |path| Origin::File(path.to_owned(), 0));
        self.ask_for(AGENT, None, &nowhere);
        for (place, begin) in self.begins.clone() {
            match place.0 {
                "tap" => self.ask_for(TAP, Some(place), &begin),
                _ => self.ask_for(RULE, Some(place), &begin),
            }
        }
    }

    /// Taps and rules are numbered from 0 without holes; makes room for them.
    fn check_numbering(&mut self, kind: &'static str) {
        let numbers: Vec<usize> =
            self.begins.keys().filter(|place| place.0 == kind).map(|place| place.1).collect();
        let gap = numbers.iter().enumerate().find(|(want, have)| want != *have);
        if let Some((missing, have)) = gap {
            let what = format!(
                "is {kind} number {have}, but there is no number {missing}: number them from 0 \
                 without holes"
            );
            let origin = self.begins[&(kind, *have)].clone();
            self.problem(origin, format!("{kind}[{have}]"), what);
            self.begins.retain(|place, _| place.0 != kind || place.1 < missing);
            self.settings.retain(|setting| {
                setting.section.is_none_or(|place| place.0 != kind || place.1 < missing)
            });
        }
        let count = self.begins.keys().filter(|place| place.0 == kind).count();
        if kind == "tap" {
            let mut tap = TapConfig::blank();
            set_defaults(TAP, &mut tap);
            self.config.taps = vec![tap; count];
        } else {
            let mut rule = RuleConfig::default();
            set_defaults(RULE, &mut rule);
            self.config.rules = vec![rule; count];
        }
    }

    fn apply_one(&mut self, setting: Setting) {
        let Setting { section, name, raw, origin } = setting;
        let done = match section {
            Some(("tap", index)) => set(TAP, &mut self.config.taps[index], &name, &raw),
            Some((_, index)) => set(RULE, &mut self.config.rules[index], &name, &raw),
            None => set(AGENT, &mut self.config, &name, &raw),
        };
        if let (Some(("tap", index)), "kind", Some(Ok(()))) = (section, &*name, &done) {
            self.kinds.insert(index);
        }
        let what = match done {
            Some(Ok(())) => None,
            Some(Err(what)) => Some(what),
            None => Some(unknown_key(section, &name)),
        };
        if let Some(what) = what {
            self.problem(origin.clone(), shown(section, &name), what);
        }
        self.origins.insert((section, name), origin);
    }

    /// Reports the required keys that nobody gave.
    fn ask_for<T>(&mut self, keys: &[Key<T>], section: Section, origin: &Origin) {
        if self.file_unread {
            return;
        }
        for key in keys {
            let Fallback::Required(example) = key.fallback else { continue };
            if self.origins.contains_key(&(section, key.name.to_owned())) {
                continue;
            }
            let variable = match section {
                Some((kind, index)) => variable_of(kind, index, key.name),
                None => env_name(key.name),
            };
            let flag = key.flag.map(|flag| format!(" or --{flag}")).unwrap_or_default();
            let what = format!("missing: write {} = {example}, or set {variable}{flag}", key.name);
            self.problem(origin.clone(), shown(section, key.name), what);
        }
    }

    fn finish(mut self, file: Option<&Path>) -> Result<Config, Problems> {
        let mut misfits = Vec::new();
        checks::whole(&self.config, |section, key, what| {
            misfits.push((section, key.to_owned(), what));
        });
        for (section, key) in self.origins.keys() {
            let Some(("tap", index)) = *section else { continue };
            // A tap whose kind could not be read is not told that its keys are another kind's.
            let told = self.kinds.contains(&index);
            let misfit = checks::of_other_kind(self.config.taps[index].kind, key);
            if let (true, Some(what)) = (told, misfit) {
                misfits.push((*section, key.clone(), what));
            }
        }
        // What could not be read has been told of, and what is missing for that reason is no news.
        let told: BTreeSet<String> =
            self.problems.iter().map(|problem| problem.key.clone()).collect();
        let is_news = |section: Section, key: &str| {
            let shown = shown(section, key);
            let of_rule = matches!(section, Some(("rule", _))) && key == "name";
            let rule = format!("{}.", shown.trim_end_matches(".name"));
            let is_told =
                told.contains(&shown) || (of_rule && told.iter().any(|key| key.starts_with(&rule)));
            !is_told
        };
        for (section, key, what) in misfits {
            if (self.file_unread && key == "tap") || !is_news(section, &key) {
                continue;
            }
            // `record.headers[1]` stands where its list does.
            let list = key.split('[').next().unwrap_or(&key).to_owned();
            let origin = self
                .origins
                .get(&(section, key.clone()))
                .or_else(|| self.origins.get(&(section, list)))
                .cloned();
            let begin = section.and_then(|place| self.begins.get(&place).cloned());
            let origin = origin.or(begin).unwrap_or_else(|| {
                file.map_or(Origin::Nowhere, |path| Origin::File(path.to_owned(), 0))
            });
            self.problem(origin, shown(section, &key), what);
        }
        if self.problems.is_empty() {
            checks::fill(&mut self.config);
            return Ok(self.config);
        }
        self.problems.sort();
        self.problems.dedup();
        Err(Problems(self.problems))
    }
}

/// Sets one key; `None` when the table has none of that name.
fn set<T>(keys: &[Key<T>], target: &mut T, name: &str, raw: &Raw) -> Option<Result<(), String>> {
    let key = keys.iter().find(|key| key.name == name)?;
    Some((key.set)(target, raw))
}

fn set_defaults<T>(keys: &[Key<T>], target: &mut T) {
    for key in keys {
        if let Fallback::Value(toml) = key.fallback {
            let raw = Raw::from_toml(toml).expect("defaults are TOML: a test reads them all");
            (key.set)(target, &raw).expect("defaults are right: a test reads them all");
        }
    }
}

// === names ===

fn keys_of(section: Section) -> impl Iterator<Item = &'static str> {
    let names: Vec<&'static str> = match section {
        None => AGENT.iter().map(|key| key.name).collect(),
        Some(("tap", _)) => TAP.iter().map(|key| key.name).collect(),
        Some(_) => RULE.iter().map(|key| key.name).collect(),
    };
    names.into_iter()
}

/// Whether a key's value is a table of its own.
fn is_table(section: Section, name: &str) -> bool {
    matches!(section, Some(("rule", _))) && name == "keys"
}

/// The variable of a tap's or a rule's key.
pub(super) fn variable_of(kind: &str, index: usize, key: &str) -> String {
    env_name(&format!("{kind}.{index}.{key}"))
}

/// Which key a variable stands for.
fn key_of_variable(name: &str) -> Option<(Section, &'static str)> {
    if let Some(key) = AGENT.iter().find(|key| env_name(key.name) == name) {
        return Some((None, key.name));
    }
    for kind in ["tap", "rule"] {
        let prefix = format!("{}_", env_name(kind));
        let Some((index, _)) = name.strip_prefix(&prefix).and_then(|rest| rest.split_once('_'))
        else {
            continue;
        };
        // "00" would be a second name of tap 0.
        let Some(number) = index.parse().ok().filter(|number: &usize| number.to_string() == index)
        else {
            continue;
        };
        let section = Some((kind, number));
        let key = keys_of(section).find(|key| variable_of(kind, number, key) == name)?;
        return Some((section, key));
    }
    None
}

/// All names that a variable could have been meant to have; those of taps and rules with the
/// number that it carries.
fn all_variables(meant: &str) -> Vec<String> {
    let number = meant.split('_').find_map(|part| part.parse().ok()).unwrap_or(0);
    let repeated = |kind| keys_of(Some((kind, 0))).map(move |key| variable_of(kind, number, key));
    keys_of(None).map(env_name).chain(repeated("tap")).chain(repeated("rule")).collect()
}

/// What Kubernetes sets in every container for each Service whose name begins with `flowtap`.
pub(super) fn is_from_kubernetes(name: &str) -> bool {
    if name.ends_with("_SERVICE_HOST") || name.ends_with("_PORT") {
        return true;
    }
    if name.contains("_SERVICE_PORT") {
        return true;
    }
    // FLOWTAP*_PORT_<n>_TCP*
    name.match_indices("_PORT_").any(|(at, found)| {
        let rest = &name[at + found.len()..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        digits > 0 && rest[digits..].starts_with("_TCP")
    })
}

fn unknown_key(section: Section, name: &str) -> String {
    let known: Vec<String> = keys_of(section).map(str::to_owned).collect();
    let within: Vec<&str> =
        known.iter().filter_map(|key| key.strip_prefix(&format!("{name}."))).collect();
    if !within.is_empty() {
        return format!("is a section: it holds {}", within.join(", "));
    }
    if let (None, "taps" | "rules") = (section, name) {
        return format!("unknown key: did you mean [[{}]]?", name.trim_end_matches('s'));
    }
    unknown(name, "key", &known)
}

/// Words on an unknown name, with the known one that was probably meant.
fn unknown(name: &str, what: &str, known: &[String]) -> String {
    let last = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
    // A key in the wrong section counts like one wrong letter.
    let distance = |near: &String| {
        let letters = strsim::damerau_levenshtein(near, name);
        if last(near) == last(name) { letters.min(1) } else { letters }
    };
    let nearest = known.iter().min_by_key(|near| distance(near));
    match nearest.filter(|near| distance(near) <= 1 + name.len() / 5) {
        Some(near) => format!("unknown {what}: did you mean {near}?"),
        None => format!("unknown {what}: `flowtap-agent config-reference` lists all {what}s"),
    }
}

/// The line of an offset, counted from 1.
fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}
