//! Names that decide what may be recorded: those that are never recorded, those that hold the
//! text of an exception, and the patterns in which a configuration names others.

/// A header, business key or member whose name contains one of these is never recorded, whatever
/// a configuration asks for. `e-mail` is `email`, as people also write it.
pub(super) const EXCLUDED: &[&str] = &[
    "auth",
    "token",
    "secret",
    "cookie",
    "session",
    "passw",
    "pwd",
    "credential",
    "email",
    "e-mail",
    "e_mail",
    "phone",
    "card",
    "iban",
    "ssn",
];

/// Words that are looked for in every name that may be recorded: two letters are looked at before
/// anything is compared.
struct Words {
    words: &'static [&'static str],
    /// For each first letter of a word a bit for each letter that may come second.
    seconds: [u32; 32],
}

impl Words {
    const fn new(words: &'static [&'static str]) -> Self {
        let mut seconds = [0; 32];
        let mut at = 0;
        while at < words.len() {
            let word = words[at].as_bytes();
            seconds[Self::place(word[0]) as usize] |= 1 << Self::place(word[1]);
            at += 1;
        }
        Self { words, seconds }
    }

    /// A letter's place among 32, the same for both cases; other characters share the places.
    const fn place(letter: u8) -> u8 {
        letter & 0x1f
    }

    /// The first of the words that the name contains, in either case.
    fn find(&self, name: &[u8]) -> Option<&'static str> {
        name.windows(2).enumerate().find_map(|(at, pair)| {
            if self.seconds[usize::from(Self::place(pair[0]))] & 1 << Self::place(pair[1]) == 0 {
                return None;
            }
            let rest = &name[at..];
            self.words.iter().copied().find(|word| {
                let part = rest.get(..word.len());
                part.is_some_and(|part| part.eq_ignore_ascii_case(word.as_bytes()))
            })
        })
    }
}

/// The word for which a name is excluded.
pub(super) fn excluded_word(name: &[u8]) -> Option<&'static str> {
    static WORDS: Words = Words::new(EXCLUDED);
    WORDS.find(name)
}

/// Whether values of this name are never recorded.
pub fn is_excluded(name: &[u8]) -> bool {
    excluded_word(name).is_some()
}

/// Lower case, without `-`, `_`, `.` and `$`: `x-Exception_Message` is `xexceptionmessage`.
fn folded(name: &[u8]) -> Vec<u8> {
    name.iter()
        .filter(|byte| !matches!(byte, b'-' | b'_' | b'.' | b'$' | b' '))
        .map(u8::to_ascii_lowercase)
        .collect()
}

/// Whether a header or member of this name holds the text of an exception, its stack or the
/// message that failed: such texts quote what the service was working on. Errs towards "yes".
/// Names of exception *types*, counts, times and places are no texts.
pub(super) fn is_exception_text(name: &[u8]) -> bool {
    // Framework headers whose names do not say what they hold: Watermill, SmallRye, Sneakers.
    const NAMED: &[&[u8]] = &[
        b"reasonpoisoned",
        b"deadletterreason",
        b"deadlettercause",
        b"delayedretryreason",
        b"delayedretrycause",
        b"retryinfo",
        b"mtreason",
    ];
    const HARMLESS_ENDS: &[&[u8]] = &[
        b"type",
        b"fqcn",
        b"classname",
        b"class",
        b"count",
        b"timestamp",
        b"time",
        b"queue",
        b"topic",
        b"partition",
        b"offset",
        b"address",
        b"code",
        b"errorsconnectorname",
        b"errorstaskid",
        b"errorsstage",
    ];
    // Nearly all names hold none of these words.
    static WORDS: Words =
        Words::new(&["exception", "error", "fault", "stack", "back", "reason", "cause", "retry"]);
    if WORDS.find(name).is_none() {
        return false;
    }
    let name = folded(name);
    let contains =
        |word: &[u8]| name.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word));
    if NAMED.contains(&name.as_slice()) || contains(b"stacktrace") || contains(b"backtrace") {
        return true;
    }
    // `default` is no fault.
    let fault = contains(b"fault")
        && name.windows(5).enumerate().any(|(at, part)| {
            part == b"fault" && !(at >= 2 && name.get(at - 2..at) == Some(b"de".as_slice()))
        });
    (contains(b"exception") || contains(b"error") || fault)
        && !HARMLESS_ENDS.iter().any(|end| name.ends_with(end))
}

/// A pattern over names, exchanges or routing keys: `*` stands for any run of bytes (also none,
/// also dots), `?` for one byte. Everything else stands for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Box<str>);

impl Glob {
    /// Every text is a pattern. The empty one matches the empty name: the default exchange.
    pub fn new(pattern: &str) -> Self {
        Self(pattern.into())
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole name matches.
    pub fn matches(&self, name: &[u8]) -> bool {
        self.matches_by(name, |a, b| a == b)
    }

    /// The same, with ASCII letters of either case equal: header names.
    pub fn matches_ignoring_case(&self, name: &[u8]) -> bool {
        self.matches_by(name, |a, b| a.eq_ignore_ascii_case(&b))
    }

    /// Linear in practice: only the last star is ever tried again.
    fn matches_by(&self, name: &[u8], equal: impl Fn(u8, u8) -> bool) -> bool {
        let pattern = self.0.as_bytes();
        let (mut p, mut n) = (0, 0);
        let mut retry: Option<(usize, usize)> = None;
        while n < name.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    retry = Some((p + 1, n));
                    p += 1;
                }
                Some(&wanted) if wanted == b'?' || equal(wanted, name[n]) => {
                    p += 1;
                    n += 1;
                }
                _ => match retry {
                    Some((after_star, taken)) => {
                        p = after_star;
                        n = taken + 1;
                        retry = Some((after_star, taken + 1));
                    }
                    None => return false,
                },
            }
        }
        pattern[p..].iter().all(|byte| *byte == b'*')
    }
}

impl From<&str> for Glob {
    fn from(pattern: &str) -> Self {
        Self::new(pattern)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_excluded_word_is_found_wherever_it_stands() {
        for word in EXCLUDED {
            for name in [(*word).to_owned(), format!("x{word}"), format!("{word}x")] {
                assert_eq!(excluded_word(name.as_bytes()), Some(*word));
                assert_eq!(excluded_word(name.to_uppercase().as_bytes()), Some(*word));
            }
        }
    }

    #[test]
    fn names_of_secrets_and_of_people_are_excluded_wherever_the_word_stands() {
        for name in [
            "Authorization",
            "x-api-TOKEN",
            "clientSecret",
            "Set-Cookie",
            "session_id",
            "userPassword",
            "PWD",
            "credentials",
            "customerEmail",
            "E-Mail",
            "phone_id",
            "cardId",
            "iban",
            "SSN",
        ] {
            assert!(is_excluded(name.as_bytes()), "{name}");
        }
        for name in ["order_id", "x-correlation-id", "traceparent", "event_type", "", "toke"] {
            assert!(!is_excluded(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn exception_texts_are_told_from_exception_types() {
        // Names from the frameworks' own sources (spring-amqp@94df521, NServiceBus@1d53488,
        // MassTransit@c1e5caa, Rebus@30f9db9, CAP@e52b850, apache/kafka@1eb7644, ...).
        for name in [
            "x-exception-message",
            "x-exception-stacktrace",
            "NServiceBus.ExceptionInfo.Message",
            "NServiceBus.ExceptionInfo.StackTrace",
            "NServiceBus.ExceptionInfo.Data.order",
            "MT-Fault-Message",
            "MT-Fault-StackTrace",
            "rbs2-error-details",
            "cap-exception",
            "exception-stack",
            "kafka_dlt-exception-message",
            "__connect.errors.exception.stacktrace",
            "reason_poisoned",
            "retry_info",
            "error",
        ] {
            assert!(is_exception_text(name.as_bytes()), "{name}");
        }
        for name in [
            "NServiceBus.ExceptionInfo.ExceptionType",
            "NServiceBus.ExceptionInfo.InnerExceptionType",
            "MT-Fault-ExceptionType",
            "MT-Fault-MessageType",
            "MT-Fault-RetryCount",
            "kafka_dlt-exception-fqcn",
            "__connect.errors.exception.class.name",
            "__connect.errors.topic",
            "exception-type",
            "x-default-priority",
            "x-first-death-reason",
            "order_id",
        ] {
            assert!(!is_exception_text(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn patterns_match_whole_names() {
        let matches = |pattern: &str, name: &str| Glob::new(pattern).matches(name.as_bytes());
        assert!(matches("orders", "orders") && !matches("orders", "orders2"));
        assert!(matches("orders.*", "orders.placed.eu") && !matches("orders.*", "orders"));
        assert!(matches("*_id", "order_id") && matches("*_id", "_id") && !matches("*_id", "id"));
        assert!(matches("*a*b", "xaab") && !matches("*a*b", "xaabc"));
        assert!(matches("o?d", "old") && !matches("o?d", "od"));
        assert!(matches("", "") && !matches("", "x") && matches("*", ""));
        assert!(!matches("x-*", "X-Flow"));
        assert!(Glob::new("x-*").matches_ignoring_case(b"X-Flow"));
    }
}
