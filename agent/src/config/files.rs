//! The files that a configuration names: certificates, keys, tokens. They are read once when it is
//! checked, so that what is missing or unfit is told with everything else, and again when they are
//! used.

use std::path::Path;

use super::checks::Section;
use super::{CertAndKey, Config, TapTls};
use crate::tls::{self, TlsError};

/// The shortest token that cannot be guessed.
const MIN_TOKEN: usize = 16;

/// Reads a token file. The error never quotes it.
pub(crate) fn token(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let token = text.trim();
    if token.len() < MIN_TOKEN {
        Err("is too short".to_owned())
    } else if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        Err("is more than one word of ASCII".to_owned())
    } else {
        Ok(token.to_owned())
    }
}

/// Reads every file that will be used, and calls `report` for each that cannot be.
pub(super) fn check(config: &Config, mut report: impl FnMut(Section, &str, String)) {
    let admin = &config.admin;
    if let Some(path) = &admin.token_file
        && let Err(why) = token(path)
    {
        let what = format!(
            "{}: {why}: want a file with the token alone, {MIN_TOKEN} characters or more",
            path.display()
        );
        report(None, "admin.token_file", what);
    }
    if let Some(files) = &admin.tls {
        let fit = || tls::acceptor(files).map(drop);
        pair(files, ["admin.cert", "admin.key"], fit, |key, what| report(None, key, what));
    }
    for (index, tap) in config.taps.iter().enumerate() {
        let mut report = |key: &str, what: String| report(Some(("tap", index)), key, what);
        if let Some(files) = &tap.tls.listener {
            let fit = || tls::acceptor(files).map(drop);
            pair(files, ["tls.cert", "tls.key"], fit, &mut report);
        }
        if !tap.broker.tls {
            continue;
        }
        // Without the client's files first: what is wrong then is wrong with the roots.
        let roots = TapTls { client: None, ..tap.tls.clone() };
        if let Err(error) = tls::connector(&roots) {
            report("tls.ca", error.to_string());
        }
        if let Some(files) = &tap.tls.client {
            let fit = || tls::client_pair(files);
            pair(files, ["tls.client_cert", "tls.client_key"], fit, &mut report);
        }
    }
}

/// Reads a certificate and its key, both even if the first cannot be read, and whether they fit.
fn pair(
    files: &CertAndKey,
    [cert, key]: [&str; 2],
    fit: impl FnOnce() -> Result<(), TlsError>,
    mut report: impl FnMut(&str, String),
) {
    if files.is_half() {
        return;
    }
    let read = [
        (cert, tls::certificates(&files.cert).map(drop)),
        (key, tls::private_key(&files.key).map(drop)),
    ];
    let readable = read.iter().all(|(_, read)| read.is_ok());
    for (key, read) in read {
        if let Err(error) = read {
            report(key, error.to_string());
        }
    }
    if readable && let Err(error) = fit() {
        report(cert, error.to_string());
    }
}
