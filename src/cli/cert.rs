//! `cert`: an authority and its certificates, for clusters without a PKI of their own. Needs no node.

use std::path::Path;

use serde::Serialize;

use super::Screen;
use super::args::{CertKind, CertVerb};
use super::error::{CliError, Exit};
use super::text::{Page, bold, dim, good};
use crate::clock::unix_now;
use crate::domain::identity::Kind;
use crate::tls::authority::{self, Ask, AuthorityError, Made};
use crate::tls::words::day;

#[derive(Serialize)]
struct Printed<'a> {
    identity: &'a str,
    ca: &'a Path,
    certificate: &'a Path,
    key: &'a Path,
    not_after_ms: u64,
}

/// Does what the verb says.
pub fn run(verb: &CertVerb, screen: Screen) -> Result<Exit, CliError> {
    match verb {
        CertVerb::Init { cluster, dir, days } => {
            let made = authority::init(dir, cluster, *days, unix_now()).map_err(refused)?;
            let next =
                "keep ca.key off the nodes: whoever has it can be anybody. Next: watchdogctl cert issue node NAME";
            show(&made, "authority of", next, screen)
        }
        CertVerb::Issue { kind, name, dir, host, days, renew } => {
            let kind = match kind {
                CertKind::Node => Kind::Node,
                CertKind::User => Kind::User,
                CertKind::Guard => Kind::Guard,
            };
            let ask = Ask { kind, name, hosts: host, days: *days, renew: *renew };
            let made = authority::issue(dir, &ask, unix_now()).map_err(refused)?;
            show(&made, "certificate of", next_after(kind), screen)
        }
        CertVerb::Show { file } => {
            let words = authority::show(file).map_err(|error| CliError::Certificate(error.to_string()))?;
            let json: std::collections::BTreeMap<_, _> = words.iter().cloned().collect();
            screen.show(&json, || {
                let mut page = Page::default();
                for (key, value) in &words {
                    page.line([dim(format!("{key:<12}")), value.as_str().into()]);
                }
                page
            })?;
            Ok(Exit::Ok)
        }
    }
}

fn next_after(kind: Kind) -> &'static str {
    match kind {
        Kind::Node => "copy ca.pem and these two to the node; [tls] in its configuration names them",
        Kind::User => {
            "give these two and ca.pem to that person; [[role]] in the nodes' configuration says what they may do"
        }
        Kind::Guard => "copy ca.pem and these two to the host; [tls] in its guard's configuration names them",
    }
}

fn show(made: &Made, what: &str, next: &str, screen: Screen) -> Result<Exit, CliError> {
    let files = &made.files;
    let printed = Printed {
        identity: &made.whose,
        ca: &files.ca,
        certificate: &files.certificate,
        key: &files.key,
        not_after_ms: made.not_after.0,
    };
    screen.show(&printed, || {
        let mut page = Page::default();
        page.line([good(format!("{what} ")), bold(&made.whose), format!(", until {}", day(made.not_after)).into()]);
        page.line([dim("  certificate  "), files.certificate.display().to_string().into()]);
        page.line([dim("  key          "), files.key.display().to_string().into()]);
        page.line([dim(next)]);
        page
    })?;
    Ok(Exit::Ok)
}

fn refused(error: AuthorityError) -> CliError {
    match error {
        AuthorityError::Word(why) => CliError::Usage(why),
        error => CliError::Certificate(error.to_string()),
    }
}
