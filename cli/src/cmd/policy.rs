//! `aegis policy`: are the policies sound, and do they decide as the cases say?

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use aegis_broker::{
    config::{self, NamedFiles, Problem, RouteConfig, Severity},
    policy::{self, CaseFile, CaseReport, PolicyEngine, PolicySource, run_cases},
    snapshot::Grammars,
};
use aegis_connectors::{Connector, declared::DeclaredTools, http_generic::HttpConnector};
use serde_json::json;

use super::{Context, routes::listed};
use crate::{
    config::Named,
    error::CliError,
    output::{BAD, GOOD, paint},
    reload::{cedar_files, parent},
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
    routes_problems: Vec<Problem>,
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
        // Policies are checked even when routes are broken, so that everything shows in one go.
        let folder_of_routes = routes.as_ref().map_or_else(|| PathBuf::from("."), |file| parent(&file.path));
        let files = NamedFiles::read(&folder_of_routes, &text);
        let (routes, routes_problems) = match config::parse(&name, &text, &files) {
            Ok((routes, _)) => (routes, Vec::new()),
            Err(problems) => (config::parse(&name, "", &files).map_err(CliError::Problems)?.0, problems),
        };
        let policies = match &folder {
            Some(folder) => read_policies(folder)?,
            None => shipped::policies(),
        };
        Ok(Self { policies, folder, routes, routes_problems })
    }

    fn load(&self, catalogs: &[Arc<dyn Connector>]) -> Result<(PolicyEngine, Vec<Problem>), Vec<Problem>> {
        let routes: Vec<String> = self.routes.routes.iter().map(|r| r.name.clone()).collect();
        match PolicyEngine::load(&self.policies, catalogs, &self.routes.tools, &routes) {
            Ok(_) if !self.routes_problems.is_empty() => Err(self.routes_problems.clone()),
            Ok((engine, warnings)) => {
                Ok((engine, warnings.into_iter().map(|w| located(w.0, Severity::Warning)).collect()))
            }
            Err(problems) => {
                let problems = problems.into_iter().map(|p| located(p, Severity::Error));
                Err(self.routes_problems.iter().cloned().chain(problems).collect())
            }
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
    let grammars = Grammars::load();
    let (engine, _) = sources.load(&grammars.catalogs()).map_err(CliError::Problems)?;
    let report = run_all(&engine, &grammars, sources, case_files(sources, cases)?);
    if report.results.is_empty() {
        return Err(CliError::usage("there are no cases to run"));
    }
    let document = json!({"passed": report.passed(), "failed": report.failed(), "results": report.results});
    context.out.show(&document, || shown(&report))?;
    Ok(if report.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Every case with the grammars that its call could have come by: a plain HTTP route is whatever
/// origin the case's resource names.
fn run_all(engine: &PolicyEngine, grammars: &Grammars, sources: &Sources, files: Vec<CaseFile>) -> CaseReport {
    let declared: Arc<dyn Connector> = Arc::new(DeclaredTools::new(sources.routes.tools.clone()));
    let mut results = Vec::new();
    for file in files {
        for case in file.cases {
            let origin = case.call.resource.as_deref().and_then(origin).unwrap_or("https://example.com");
            let connectors: [Arc<dyn Connector>; 3] =
                [grammars.github.clone(), Arc::new(HttpConnector::new(origin, &case.route)), declared.clone()];
            let one = CaseFile { file: file.file.clone(), cases: vec![case] };
            results.extend(run_cases(engine, &connectors, &[one]).results);
        }
    }
    CaseReport { results }
}

/// `scheme://authority` of a URL.
fn origin(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    url.get(..scheme.len() + 3 + rest.find('/').unwrap_or(rest.len()))
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
        let (routes, warnings) = config::parse("routes.toml", shipped::ROUTES, &NamedFiles::default()).unwrap();
        assert!(warnings.iter().all(|w| w.severity == Severity::Warning));
        let sources = Sources { policies: shipped::policies(), folder: None, routes, routes_problems: Vec::new() };
        let grammars = Grammars::load();
        let (engine, _) = sources.load(&grammars.catalogs()).unwrap();
        let report = run_all(&engine, &grammars, &sources, case_files(&sources, &[]).unwrap());
        assert!(report.results.len() >= 40 && report.failed() == 0, "{report}");
    }
}
