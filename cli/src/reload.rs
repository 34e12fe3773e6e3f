//! Routes and policies from disk, at the start and whenever they change.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aegis_action::{Digest, sha256};
use aegis_api::ReloadError;
use aegis_broker::{
    Broker,
    config::{NamedFiles, Problem, Severity},
    policy::PolicySource,
    reload::Reload,
    snapshot::Sources,
};
use aegis_proxy::OwnCertificate;
use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    time::sleep,
};

use crate::{
    config::{Config, Named},
    error::CliError,
    supervisor,
};

/// The files that make a configuration.
#[derive(Debug, Clone)]
pub struct Files {
    routes: Named,
    policies: Named,
}

impl Files {
    /// Those that `aegis.toml` names.
    pub fn of(config: &Config) -> Self {
        Self { routes: config.routes.clone(), policies: config.policies.clone() }
    }

    /// Reads all of them. What cannot be read is a problem of that file.
    pub fn read(&self) -> Result<Sources, Vec<Problem>> {
        let mut problems = Vec::new();
        let routes = read(&self.routes.name, &self.routes.path, &mut problems);
        let mut policies = Vec::new();
        match cedar_files(&self.policies.path) {
            Ok(names) => {
                for name in names {
                    let file = format!("{}/{name}", self.policies.name.trim_end_matches('/'));
                    let text = read(&file, &self.policies.path.join(&name), &mut problems);
                    policies.push(PolicySource { file, text });
                }
            }
            Err(e) => problems.push(problem(&self.policies.name, format!("the folder cannot be read: {e}"))),
        }
        if problems.is_empty() {
            let files = NamedFiles::read(&parent(&self.routes.path), &routes);
            Ok(Sources { routes_file: self.routes.name.clone(), routes, files, policies })
        } else {
            Err(problems)
        }
    }

    /// Folders in which a change matters: of the files that `named` has, too. The parent of the
    /// policy folder as well: it may be replaced as a whole.
    fn folders(&self, named: &NamedFiles) -> Vec<PathBuf> {
        let base = parent(&self.routes.path);
        let mut folders = vec![base.clone(), parent(&self.policies.path), self.policies.path.clone()];
        folders.extend(named.names().map(|name| parent(&base.join(name))));
        folders.sort();
        folders.dedup();
        folders
    }
}

/// Reloads one at a time, whoever asks: file changes, SIGHUP, the admin API.
pub struct Reloader {
    broker: Arc<Broker>,
    files: Files,
    /// The certificate of the TLS listener, where it is the operator's own.
    certificate: Option<Arc<OwnCertificate>>,
    last: tokio::sync::Mutex<Last>,
}

/// What was read last, and what was wrong with it.
#[derive(Default)]
struct Last {
    read: Option<Digest>,
    /// So that one bad file is reported once, not at every further event.
    refused: Option<Vec<Problem>>,
}

impl Reloader {
    /// For a running broker.
    pub fn new(broker: Arc<Broker>, files: Files) -> Self {
        Self { broker, files, certificate: None, last: tokio::sync::Mutex::default() }
    }

    /// Reads this certificate again whenever a reload is asked for.
    pub fn with_certificate(self, certificate: Option<Arc<OwnCertificate>>) -> Self {
        Self { certificate, ..self }
    }

    /// Reads the files and swaps the configuration if it is usable. Says on stderr what happened.
    pub async fn reload(&self) -> Result<Reload, ReloadError> {
        if let Some(Err(error)) = self.certificate.as_ref().map(|own| own.reload()) {
            tracing::error!(event = "reload_refused", "[tls]: the old certificate stays: {error}");
        }
        let mut last = self.last.lock().await;
        let read = self.read().await?;
        last.read = Some(fingerprint(&read));
        self.adopt(read, &mut last).await
    }

    /// The same, unless the files say what they said before: in a folder that holds the state as
    /// well, most changes are of other files.
    async fn reload_changed(&self) -> Result<(), ReloadError> {
        let mut last = self.last.lock().await;
        let read = self.read().await?;
        let print = Some(fingerprint(&read));
        if last.read == print {
            return Ok(());
        }
        last.read = print;
        self.adopt(read, &mut last).await.map(drop)
    }

    async fn read(&self) -> Result<Result<Sources, Vec<Problem>>, ReloadError> {
        let files = self.files.clone();
        tokio::task::spawn_blocking(move || files.read()).await.map_err(|e| ReloadError::Unreadable(e.to_string()))
    }

    async fn adopt(&self, read: Result<Sources, Vec<Problem>>, last: &mut Last) -> Result<Reload, ReloadError> {
        let result = match read {
            Ok(sources) => self.broker.reload(&sources).await.map_err(ReloadError::from),
            Err(problems) => Ok(Reload::Kept(problems)),
        };
        match &result {
            Ok(Reload::Kept(problems)) => {
                let errors = errors(problems);
                if last.refused.as_ref() != Some(&errors) {
                    let list = joined(&errors);
                    tracing::error!(event = "reload_refused", "reload refused, the old configuration stays: {list}");
                    last.refused = Some(errors);
                }
            }
            Ok(Reload::Swapped(warnings)) => {
                last.refused = None;
                let snapshot = self.broker.snapshot();
                let (routes, policies) = (snapshot.config.routes.len(), snapshot.engine.len());
                let hash = snapshot.hash.to_hex();
                tracing::info!(event = "reloaded", snapshot = hash, routes, policies, "configuration reloaded");
                report(warnings);
            }
            Ok(Reload::Unchanged) => last.refused = None,
            Err(error) => {
                // Not because of what the files say: the same files may be taken the next time.
                last.read = None;
                tracing::error!(event = "reload_refused", "reload refused, the old configuration stays: {error}");
            }
        }
        result
    }
}

/// Warnings on stderr, one line each.
pub fn report(warnings: &[Problem]) {
    for warning in warnings {
        tracing::warn!(event = "configuration_warning", "{warning}");
    }
}

/// Reloads on file changes and SIGHUP until `shutdown` turns true.
pub async fn watch(reloader: Arc<Reloader>, mut shutdown: watch::Receiver<bool>) -> Result<(), CliError> {
    let mut hangups =
        signal(SignalKind::hangup()).map_err(|e| CliError::failed(format!("SIGHUP cannot be caught: {e}")))?;
    let (changed, mut changes) = mpsc::channel::<()>(1);
    let mut watcher = watcher(changed);
    loop {
        // Anew each time: a folder that was replaced is another one to the kernel.
        if let Some(watcher) = &mut watcher {
            for folder in reloader.files.folders(&reloader.broker.snapshot().sources.files) {
                let _ = watcher.watch(&folder, RecursiveMode::NonRecursive);
            }
        }
        let by_file = tokio::select! {
            () = stopped(&mut shutdown) => return Ok(()),
            _ = hangups.recv() => false,
            Some(()) = changes.recv() => true,
        };
        // What comes of it is said on stderr already.
        if by_file {
            // An editor writes in several steps. What comes after this is another change.
            sleep(SETTLE).await;
            let _ = changes.try_recv();
            let _ = reloader.reload_changed().await;
        } else {
            supervisor::reloading();
            let _ = reloader.reload().await;
            supervisor::ready(false);
        }
    }
}

/// Returns once a stop was asked for.
pub async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // Whoever could ask is gone: that is a stop too.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// Sends a note for every change; notes that nobody has taken yet are one.
fn watcher(changed: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let matters = match event.map(|e| e.kind) {
            // Reading, ours included, is no change.
            Ok(EventKind::Access(kind)) => kind == AccessKind::Close(AccessMode::Write),
            Ok(_) | Err(_) => true,
        };
        if matters {
            let _ = changed.try_send(());
        }
    });
    match watcher {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, "file changes cannot be watched; send SIGHUP after a change");
            None
        }
    }
}

/// Names of the policy files in a folder, sorted.
pub fn cedar_files(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        // Editors leave `.#x.cedar` and the like.
        if name.ends_with(".cedar") && !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Those that stop a file from being used.
pub fn errors(problems: &[Problem]) -> Vec<Problem> {
    problems.iter().filter(|p| p.severity == Severity::Error).cloned().collect()
}

fn fingerprint(read: &Result<Sources, Vec<Problem>>) -> Digest {
    sha256(format!("{read:?}").as_bytes())
}

fn joined(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ")
}

/// The folder a file is in.
pub fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn read(name: &str, path: &Path, problems: &mut Vec<Problem>) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| {
        problems.push(problem(name, format!("the file cannot be read: {e}")));
        String::new()
    })
}

fn problem(file: &str, message: String) -> Problem {
    Problem { file: file.to_owned(), line: 1, message, severity: Severity::Error }
}

const SETTLE: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> Files {
        let named = |name: &str| Named { name: name.into(), path: folder.join(name) };
        Files { routes: named("routes.toml"), policies: named("policies") }
    }

    #[test]
    fn policies_come_in_name_order_and_leftovers_of_editors_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("policies")).unwrap();
        fs::write(folder.path().join("routes.toml"), "# none").unwrap();
        for name in ["b.cedar", "a.cedar", ".#a.cedar", "a.cedar~", "notes.md"] {
            fs::write(folder.path().join("policies").join(name), name).unwrap();
        }
        let sources = files(folder.path()).read().unwrap();
        let names: Vec<&str> = sources.policies.iter().map(|p| p.file.as_str()).collect();
        assert_eq!(names, ["policies/a.cedar", "policies/b.cedar"]);
        assert_eq!(sources.routes, "# none");
    }

    #[test]
    fn every_missing_file_is_named_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let problems = files(folder.path()).read().unwrap_err();
        let named: Vec<&str> = problems.iter().map(|p| p.file.as_str()).collect();
        assert_eq!(named, ["routes.toml", "policies"]);
    }
}
