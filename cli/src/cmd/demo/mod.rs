//! `aegis demo`: the whole story on loopback, with a strict origin that plays GitHub.

mod agent;
mod origin;
mod scan;
mod scene;
mod story;

use std::process::ExitCode;

use super::Context;
use crate::{
    error::CliError,
    output::{BAD, BOLD, DIM, GOOD, paint},
};

/// Starts a gateway and an origin on this machine, makes real HTTP calls as an agent, and checks every
/// claim. Needs no network and no account, takes a few seconds, and leaves nothing behind.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the tour. 1 if any expectation fails.
pub async fn run(_: Args, context: &Context) -> Result<ExitCode, CliError> {
    let told = story::tell(Narrator { quiet: context.out.json, step: 0 }).await?;
    context.out.show(&told, || summary(&told))?;
    Ok(if told.ok { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Says what happens as it happens; keeps quiet where machines listen.
pub struct Narrator {
    quiet: bool,
    step: usize,
}

impl Narrator {
    fn heading(&self, text: &str) {
        if !self.quiet {
            anstream::println!("\n{}", paint(BOLD, text));
        }
    }

    fn step(&mut self, step: &story::Step) {
        self.step += 1;
        if self.quiet {
            return;
        }
        let (style, mark) = if step.ok { (GOOD, "ok  ") } else { (BAD, "FAIL") };
        let title = format!("{:<WIDTH$}", step.title);
        anstream::println!(
            "  {}  {title}  {}",
            paint(style, mark),
            paint(DIM, &crate::output::printable(&step.detail))
        );
    }
}

fn summary(told: &story::Told) -> String {
    let failed = told.steps.iter().filter(|s| !s.ok).count();
    let mut text = String::from("\n");
    if failed == 0 {
        text.push_str(&paint(GOOD, &format!("All {} expectations hold. Nothing is left behind.\n", told.steps.len())));
    } else {
        text.push_str(&paint(BAD, &format!("{failed} of {} expectations do not hold.\n", told.steps.len())));
    }
    text.push_str(&format!("\n{}\n", paint(BOLD, "Try next")));
    for (command, why) in [
        ("aegis dev", "a gateway with a state folder of its own; prints the next commands"),
        ("aegis actions search merge", "names of what can be allowed or denied"),
        ("aegis policy test", "the shipped policies and their cases"),
    ] {
        text.push_str(&format!("  {command:<28}{}\n", paint(DIM, why)));
    }
    text
}

/// Column of the details.
const WIDTH: usize = 62;
