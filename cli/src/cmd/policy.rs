//! `aegis policy`: are the policies sound, and do they decide as the cases say?

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use aegis_broker::{
    config::{self, Problem, RouteConfig, Severity},
    policy::{self, CaseFile, CaseReport, PolicyEngine, PolicySource, run_cases},
    snapshot::Grammars,
};
use aegis_connectors::{Connector, declared::DeclaredTools};
use serde_json::json;

use super::{Context, routes::listed};
use crate::{
    config::Named,
    error::CliError,
    output::{BAD, GOOD, paint},
    reload::cedar_files,
    shipped,
};

/// Where policies come from: `--policies`, else the folder that aegis.toml names, else `./policies`,
/// else those in the binary.
#[derive(Debug, clap::Args)]
pub struct From {
    /// Folder of *.cedar files
    #[arg(long, value_name = "FOLDER")]
    policies: Option<PathBuf>,
    /// Routes file, for route names and declared tools
    #[arg(long, value_name = "FILE")]
    routes: Option<PathBuf>,
}

/// Needs no gateway.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "\
Examples:
  aegis policy check
  aegis policy test
  aegis policy test my-cases.json --policies ./policies")]
pub enum Command {
    /// Check every policy against the catalogs; misspelt names get suggestions
    Check {
        #[command(flatten)]
        from: From,
    },
    /// Run cases: questions with the answers they must get
    Test {
        /// Case files or folders of them [default: the policies' own `cases` folder]
        cases: Vec<PathBuf>,
        #[command(flatten)]
        from: From,
    },
}

/// Runs the command.
pub fn run(command: Command, context: &Context) -> Result<ExitCode, CliError> {
    match command {
        Command::Check { from } => check(&Sources::find(from, context)?, context),
        Command::Test { cases, from } => test(&Sources::find(from, context)?, &cases, context),
    }
}

struct Sources {
    policies: Vec<PolicySource>,
    /// Where `cases` is; none for the policies in the binary.
    folder: Option<Named>,
    routes: RouteConfig,
}

impl Sources {
    fn find(from: From, context: &Context) -> Result<Self, CliError> {
        let config = context.config_if_any()?;
        let as_given = |path: PathBuf| Named { name: path.display().to_string(), path };
        let here = |name: &str| Some(PathBuf::from(name)).filter(|p| p.exists()).map(as_given);
        let folder = from.policies.map(as_given).or(config.as_ref().map(|c| c.policies.clone())).or(here("policies"));
        let routes = from.routes.map(as_given).or(config.map(|c| c.routes)).or(here("routes.toml"));
        let (name, text) = match &routes {
            Some(file) => (file.name.clone(), read(&file.path)?),
            None => ("routes.toml".to_owned(), shipped::ROUTES.to_owned()),
        };
        let (routes, _) = config::parse(&name, &text).map_err(CliError::Problems)?;
        let policies = match &folder {
            Some(folder) => read_policies(folder)?,
            None => shipped::policies(),
        };
        Ok(Self { policies, folder, routes })
    }

    fn load(&self, catalogs: &[Arc<dyn Connector>]) -> Result<(PolicyEngine, Vec<Problem>), Vec<Problem>> {
        let routes: Vec<String> = self.routes.routes.iter().map(|r| r.name.clone()).collect();
        match PolicyEngine::load(&self.policies, catalogs, &self.routes.tools, &routes) {
            Ok((engine, warnings)) => Ok((engine, warnings.into_iter().map(|w| located(w.0, Severity::Warning)).collect())),
            Err(problems) => Err(problems.into_iter().map(|p| located(p, Severity::Error)).collect()),
        }
    }
}

fn check(sources: &Sources, context: &Context) -> Result<ExitCode, CliError> {
    let loaded = sources.load(&Grammars::load().catalogs());
    let (count, problems) = match &loaded {
        Ok((engine, warnings)) => (engine.len(), warnings),
        Err(problems) => (0, problems),
    };
    let document = json!({"ok": loaded.is_ok(), "policies": count, "problems": problems});
    context.out.show(&document, || {
        let mut text = listed(problems);
        if loaded.is_ok() {
            text.push_str(&paint(GOOD, &format!("{count} policies are fine")));
        }
        text
    })?;
    Ok(if loaded.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn test(sources: &Sources, cases: &[PathBuf], context: &Context) -> Result<ExitCode, CliError> {
    let mut connectors = Grammars::load().catalogs();
    let (engine, _) = sources.load(&connectors).map_err(CliError::Problems)?;
    connectors.push(Arc::new(DeclaredTools::new(sources.routes.tools.clone())));
    let files = case_files(sources, cases)?;
    let report = run_cases(&engine, &connectors, &files);
    if report.results.is_empty() {
        return Err(CliError::usage("there are no cases to run"));
    }
    let document = json!({"passed": report.passed(), "failed": report.failed(), "results": report.results});
    context.out.show(&document, || shown(&report))?;
    Ok(if report.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn shown(report: &CaseReport) -> String {
    let mut text = String::new();
    for failed in report.results.iter().filter(|r| !r.differences.is_empty()) {
        text.push_str(&format!("{} {}: {}\n", paint(BAD, "fail"), failed.file, failed.name));
        for difference in &failed.differences {
            text.push_str(&format!("       {difference}\n"));
        }
    }
    let (style, verdict) = if report.failed() == 0 { (GOOD, "all passed") } else { (BAD, "not all passed") };
    let (passed, failed) = (report.passed(), report.failed());
    text.push_str(&format!("{passed} passed, {failed} failed: {}\n", paint(style, verdict)));
    text
}

/// The case files named, or all next to the policies. All unreadable ones are reported at once.
fn case_files(sources: &Sources, named: &[PathBuf]) -> Result<Vec<CaseFile>, CliError> {
    let mut texts: Vec<(String, String)> = Vec::new();
    let folder = sources.folder.as_ref().map(|f| f.path.join("cases"));
    match (named, folder) {
        ([], None) => texts = shipped::cases(),
        ([], Some(folder)) => read_cases(&folder, &mut texts)?,
        (named, _) => {
            for path in named {
                read_cases(path, &mut texts)?;
            }
        }
    }
    let mut files = Vec::new();
    let mut problems = Vec::new();
    for (name, text) in texts {
        match CaseFile::parse(&name, &text) {
            Ok(file) => files.push(file),
            Err(problem) => problems.push(located(problem, Severity::Error)),
        }
    }
    if problems.is_empty() { Ok(files) } else { Err(CliError::Problems(problems)) }
}

fn read_cases(path: &Path, texts: &mut Vec<(String, String)>) -> Result<(), CliError> {
    if !path.is_dir() {
        texts.push((path.display().to_string(), read(path)?));
        return Ok(());
    }
    let unreadable = |e: std::io::Error| CliError::usage(format!("`{}` cannot be read: {e}", path.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        if file.extension().is_some_and(|e| e == "json") {
            files.push(file);
        }
    }
    files.sort();
    for file in files {
        texts.push((file.display().to_string(), read(&file)?));
    }
    Ok(())
}

fn read_policies(folder: &Named) -> Result<Vec<PolicySource>, CliError> {
    let names = cedar_files(&folder.path)
        .map_err(|e| CliError::usage(format!("`{}` cannot be read: {e}", folder.path.display())))?;
    let source = |name: String| {
        let file = format!("{}/{name}", folder.name.trim_end_matches('/'));
        Ok(PolicySource { file, text: read(&folder.path.join(name))? })
    };
    names.into_iter().map(source).collect()
}

/// A policy's problem like any other file's, its column and its help in the text.
fn located(problem: policy::Problem, severity: Severity) -> Problem {
    let help = problem.help.map(|h| format!("; {h}")).unwrap_or_default();
    let message = format!("column {}: {}{help}", problem.column, problem.message);
    Problem { file: problem.file, line: problem.line as usize, message, severity }
}

fn read(path: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(path).map_err(|e| CliError::usage(format!("`{}` cannot be read: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_pack_is_sound_and_its_cases_pass() {
        let (routes, warnings) = config::parse("routes.toml", shipped::ROUTES).unwrap();
        assert!(warnings.iter().all(|w| w.severity == Severity::Warning));
        let sources = Sources { policies: shipped::policies(), folder: None, routes };
        let catalogs = Grammars::load().catalogs();
        let (engine, _) = sources.load(&catalogs).unwrap();
        let files: Vec<CaseFile> =
            shipped::cases().iter().map(|(name, text)| CaseFile::parse(name, text).unwrap()).collect();
        let report = run_cases(&engine, &catalogs, &files);
        assert!(report.results.len() >= 40 && report.failed() == 0, "{report}");
    }
}
