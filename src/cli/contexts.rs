//! The file of named contexts: which nodes to ask, and as whom. `~/.config/watchdogctl.toml`, or what `--context-file` names.
//!
//! What is typed goes before everything; a context that was typed goes before the environment, so that
//! `--context staging` never ends at what the shell was set up for; else the environment goes before the file.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use clap::parser::ValueSource;
use serde::{Deserialize, Serialize};

use super::Screen;
use super::args::Cli;
use super::call::{DEFAULT_ENDPOINT, well_formed};
use super::error::{CliError, Exit};
use super::text::{Page, bad, bold, dim};
use crate::domain::ids::UnixMs;
use crate::tls::material::Use;
use crate::tls::words::day;
use crate::tls::{Files, Material};

/// A longer file is certainly a mistake.
const BYTES_MAX: u64 = 64 << 10;

const FILE_NAME: &str = "watchdogctl.toml";

/// Which options were typed, as opposed to taken from the environment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Typed {
    context: bool,
    context_file: bool,
    endpoint: bool,
    ca: bool,
    certificate: bool,
    key: bool,
}

impl Typed {
    /// As the parser saw it.
    pub fn of(matches: &ArgMatches) -> Self {
        let typed = |option: &str| matches.value_source(option) == Some(ValueSource::CommandLine);
        Self {
            context: typed("context"),
            context_file: typed("context_file"),
            endpoint: typed("endpoint"),
            ca: typed("ca"),
            certificate: typed("certificate"),
            key: typed("key"),
        }
    }
}

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ContextFile {
    default: Option<String>,
    #[serde(default)]
    context: BTreeMap<String, Context>,
}

/// One cluster, as one person sees it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Context {
    endpoints: Vec<String>,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Context {
    /// The certificate's files, from the folder that the file is in.
    fn files(&self) -> Option<Files> {
        let (ca, certificate, key) = (self.ca.clone()?, self.certificate.clone()?, self.key.clone()?);
        Some(Files { ca, certificate, key })
    }
}

/// What a shell would put for `~`, which it does only where something is typed.
fn home() -> Option<PathBuf> {
    std::env::var_os("HOME").map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Where the file is when nobody names one. A relative `XDG_CONFIG_HOME` is none, as its specification says.
fn usual_path(var: impl Fn(&str) -> Option<std::ffi::OsString>) -> Option<PathBuf> {
    let folder = |name: &str| var(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")))?;
    Some(base.join(FILE_NAME))
}

/// The file and where it is; nothing where nobody named one and none is there.
fn open(cli: &Cli) -> Result<(Option<PathBuf>, ContextFile), CliError> {
    let named = cli.context_file.clone();
    let Some(path) = named.clone().or_else(|| usual_path(|name| std::env::var_os(name))) else {
        return Ok((None, ContextFile::default()));
    };
    let mut text = Vec::new();
    match std::fs::File::open(&path).and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut text)) {
        Ok(_) if text.len() as u64 > BYTES_MAX => {
            return Err(fault(&path, None, &format!("longer than {BYTES_MAX} bytes: is it the right file?")));
        }
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => {
            return Ok((Some(path), ContextFile::default()));
        }
        Err(error) => {
            let from = match (&named, cli.typed.context_file) {
                (None, _) => "",
                (Some(_), true) => " (named by --context-file)",
                (Some(_), false) => " (named by WATCHDOG_CTL_CONFIG)",
            };
            return Err(CliError::File(format!("{}: {error}{from}", path.display())));
        }
    }
    let text = String::from_utf8(text).map_err(|_| fault(&path, None, "not UTF-8"))?;
    let file = read(&text, &path)?;
    Ok((Some(path), file))
}

/// Reads and judges the whole file: a fault in a context that is not used today is still found today.
fn read(text: &str, path: &Path) -> Result<ContextFile, CliError> {
    let mut file: ContextFile = toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1);
        let message = error.message().lines().collect::<Vec<_>>().join("; ");
        fault(path, line, &message.replace("unknown field", "no such key:").replace("missing field", "missing:"))
    })?;
    let folder = path.parent().unwrap_or(Path::new("."));
    for (name, context) in &mut file.context {
        let wrong = |what: &str| Err(fault(path, None, &format!("context {name}: {what}")));
        if name.is_empty() || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(fault(path, None, &format!("context {name:?}: a name has no blanks, and is not empty")));
        }
        if context.endpoints.is_empty() {
            return wrong("endpoints is empty: name a node's HOST:PORT, best all of them");
        }
        for endpoint in &context.endpoints {
            if let Err(why) = well_formed(endpoint) {
                return wrong(&why);
            }
        }
        let three = [("ca", &mut context.ca), ("certificate", &mut context.certificate), ("key", &mut context.key)];
        let missing: Vec<&str> = three.iter().filter(|(_, file)| file.is_none()).map(|(key, _)| *key).collect();
        if !missing.is_empty() && missing.len() < 3 {
            let what = format!("{} missing: ca, certificate and key go together", missing.join(" and "));
            return wrong(&what);
        }
        for named in three.into_iter().filter_map(|(_, file)| file.as_mut()) {
            if named.as_os_str().is_empty() {
                return wrong("an empty path names no file");
            }
            *named = match (named.strip_prefix("~"), home()) {
                (Ok(rest), Some(home)) => home.join(rest),
                (Ok(_), None) => return wrong(&format!("{}: HOME is not set, so that ~ is nowhere", named.display())),
                (Err(_), _) => folder.join(&*named),
            };
        }
    }
    if let Some(default) = file.default.as_deref().filter(|default| !file.context.contains_key(*default)) {
        return Err(fault(path, None, &format!("default: no context {default:?}; {}", known(&file))));
    }
    Ok(file)
}

fn fault(path: &Path, line: Option<usize>, what: &str) -> CliError {
    let line = line.map_or_else(String::new, |line| format!(":{line}"));
    CliError::ContextFile(format!("{}{line}: {what}", path.display()))
}

fn known(file: &ContextFile) -> String {
    match file.context.is_empty() {
        true => "it has none".to_owned(),
        false => format!("known: {}", file.context.keys().cloned().collect::<Vec<_>>().join(", ")),
    }
}

/// The name asked for, and who asked for it; else the file's default.
fn chosen(cli: &Cli, path: Option<&Path>, file: &ContextFile) -> Result<Option<String>, CliError> {
    let Some(name) = cli.context.clone().filter(|name| !name.is_empty() || cli.typed.context) else {
        return Ok(file.default.clone());
    };
    if file.context.contains_key(&name) {
        return Ok(Some(name));
    }
    let asked = if cli.typed.context { "--context" } else { "WATCHDOG_CONTEXT" };
    let place = match path {
        Some(path) if !path.exists() => format!("{} is not there", path.display()),
        Some(path) => format!("{}: {}", path.display(), known(file)),
        None => "there is no file of contexts: neither HOME nor XDG_CONFIG_HOME is set".to_owned(),
    };
    Err(CliError::Usage(format!("{asked} {name}: no such context; {place}")))
}

/// Fills in from the context what nothing of higher rank gave.
pub fn settle(mut cli: Cli) -> Result<Cli, CliError> {
    cli.endpoint.retain(|endpoint| !endpoint.trim().is_empty());
    let (path, mut file) = open(&cli)?;
    let name = chosen(&cli, path.as_deref(), &file)?;
    if let Some(context) = name.as_ref().and_then(|name| file.context.remove(name)) {
        let typed = cli.typed;
        // A context that was typed goes before what the environment says.
        let stays = |is_typed: bool| is_typed || !typed.context;
        if !stays(typed.endpoint) || cli.endpoint.is_empty() {
            cli.endpoint = context.endpoints;
            cli.settled = name;
        }
        for (option, is_typed, from_file) in [
            (&mut cli.ca, typed.ca, context.ca),
            (&mut cli.certificate, typed.certificate, context.certificate),
            (&mut cli.key, typed.key, context.key),
        ] {
            if !stays(is_typed) || option.is_none() {
                *option = from_file;
            }
        }
    }
    if cli.endpoint.is_empty() {
        cli.endpoint.push(DEFAULT_ENDPOINT.to_owned());
    }
    Ok(cli)
}

#[derive(Serialize)]
struct Row {
    name: String,
    is_default: bool,
    in_use: bool,
    endpoints: Vec<String>,
    identity: Option<String>,
    not_after_ms: Option<u64>,
    fault: Option<String>,
}

#[derive(Serialize)]
struct Listed {
    file: Option<PathBuf>,
    contexts: Vec<Row>,
}

/// `contexts`: lists them, with whom each one's certificate is for and what is wrong with it.
pub fn list(cli: &Cli, screen: Screen) -> Result<Exit, CliError> {
    let (path, file) = open(cli)?;
    let used = chosen(cli, path.as_deref(), &file)?;
    let row = |(name, context): (&String, &Context)| {
        let opened = context.files().map(|files| Material::open(files, Use::Call));
        let (loaded, fault) = match opened {
            None => (None, None),
            Some(Ok(material)) => (Some(material.current()), None),
            Some(Err(error)) => (None, Some(error.to_string())),
        };
        Row {
            name: name.clone(),
            is_default: file.default.as_ref() == Some(name),
            in_use: used.as_ref() == Some(name),
            endpoints: context.endpoints.clone(),
            identity: loaded.as_ref().map(|loaded| loaded.identity.to_string()),
            not_after_ms: loaded.as_ref().map(|loaded| loaded.not_after.0),
            fault,
        }
    };
    let listed = Listed { contexts: file.context.iter().map(row).collect(), file: path };
    screen.show(&listed, || page(&listed))?;
    Ok(Exit::Ok)
}

fn page(listed: &Listed) -> Page {
    let mut page = Page::default();
    let shown = listed.file.as_ref().map(|file| file.display().to_string());
    if listed.contexts.is_empty() {
        let place = shown.map_or_else(String::new, |file| format!(" in {file}"));
        page.line([format!("no contexts{place}").into()]);
        return page;
    }
    page.line([dim(shown.unwrap_or_default())]);
    for row in &listed.contexts {
        let mark = if row.in_use { "* " } else { "  " };
        let default = if row.is_default { "  (default)" } else { "" };
        page.line([mark.into(), bold(&row.name), dim(default)]);
        page.line([dim("    endpoints  "), row.endpoints.join(", ").into()]);
        match (&row.fault, &row.identity) {
            (Some(fault), _) => page.line([dim("    fault      "), bad(fault)]),
            (None, Some(identity)) => {
                let until = row.not_after_ms.map(|at| day(UnixMs(at))).unwrap_or_default();
                page.line([dim("    as         "), format!("{identity}, until {until}").into()]);
            }
            (None, None) => page.line([dim("    as         "), "nobody: plain text, on loopback only".into()]),
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_place() {
        for (xdg, home, wanted) in [
            (None, Some("/home/linh"), Some("/home/linh/.config/watchdogctl.toml")),
            (Some("/etc/linh"), Some("/home/linh"), Some("/etc/linh/watchdogctl.toml")),
            (Some("/etc/linh"), None, Some("/etc/linh/watchdogctl.toml")),
            (Some(""), Some("/home/linh"), Some("/home/linh/.config/watchdogctl.toml")),
            (Some("relative"), Some("/home/linh"), Some("/home/linh/.config/watchdogctl.toml")),
            (None, Some(""), None),
            (None, None, None),
        ] {
            let var = |name: &str| if name == "HOME" { home } else { xdg }.map(Into::into);
            assert_eq!(usual_path(var), wanted.map(PathBuf::from), "{xdg:?} {home:?}");
        }
    }
}
