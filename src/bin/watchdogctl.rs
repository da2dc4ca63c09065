//! The operators' command.

use std::process::ExitCode;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, FromArgMatches};
use watchdog::cli::advice::Asked;
use watchdog::cli::args::Cli;
use watchdog::cli::contexts::Typed;
use watchdog::cli::error::CliError;
use watchdog::cli::text::{Span, Style, tell};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // Before anything can make a TLS connection; a second provider is a fault of the build.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (cli, asked) = parse();
    match watchdog::cli::run(cli).await {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(error) => {
            report(&error, &asked);
            ExitCode::from(error.exit() as u8)
        }
    }
}

fn parse() -> (Cli, Asked) {
    let parsed = Cli::command().try_get_matches().and_then(|matches| {
        let mut cli = Cli::from_arg_matches(&matches)?;
        cli.typed = Typed::of(&matches);
        Ok((cli, Asked::of(&matches)))
    });
    parsed.unwrap_or_else(|mut error| {
        // The parser's own usage lists, as if they were required, the options that the environment sets.
        if error.get(ContextKind::Usage).is_some() {
            error.insert(ContextKind::Usage, ContextValue::StyledStr(usage()));
        }
        error.exit()
    })
}

/// How the verb that was typed is used.
fn usage() -> StyledStr {
    let mut whole = Cli::command();
    whole.build();
    let mut verb = &mut whole;
    for word in std::env::args().skip(1) {
        if verb.find_subcommand(&word).is_some() {
            verb = verb.find_subcommand_mut(&word).expect("it was just found");
        }
    }
    verb.render_usage()
}

fn report(error: &CliError, asked: &Asked) {
    let plain = |text: String| Span::new(text, Style::Plain).into_text();
    tell(&plain(format!("{}: {error}", error.word())));
    tell(&plain(format!("next: {}", error.next(asked))));
}
