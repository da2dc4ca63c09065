//! The operators' command.

use std::process::ExitCode;

use clap::Parser;
use watchdog::cli::args::Cli;
use watchdog::cli::error::CliError;
use watchdog::cli::text::{Span, Style, tell};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match watchdog::cli::run(cli).await {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(error) => {
            report(&error);
            ExitCode::from(error.exit() as u8)
        }
    }
}

fn report(error: &CliError) {
    let plain = |text: String| Span::new(text, Style::Plain).into_text();
    tell(&plain(format!("{}: {error}", error.word())));
    tell(&plain(format!("next: {}", error.next())));
}
