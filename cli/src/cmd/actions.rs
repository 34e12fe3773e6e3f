//! `aegis actions`: the names that policies and SDK calls use.

use std::{collections::BTreeMap, process::ExitCode, sync::Arc};

use aegis_broker::snapshot::Grammars;
use aegis_connectors::{Entry, ParamType};
use serde_json::json;

use super::Context;
use crate::{
    error::CliError,
    output::{BOLD, DIM, Table, fields, paint},
};

/// Reads the catalogs in the binary; needs no gateway and no network.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "\
Examples:
  aegis actions search merge pull
  aegis actions show github.merge_pull_request
  aegis actions count --json")]
pub enum Command {
    /// Find actions whose name, summary or path has all of the words
    Search {
        /// Words, in any order
        #[arg(required = true)]
        words: Vec<String>,
        /// Show at most this many
        #[arg(long, default_value_t = 30)]
        limit: usize,
    },
    /// Show class, risk, resource form, parameters and facts of an action
    Show {
        /// `tool.action`, e.g. github.merge_pull_request
        action: String,
    },
    /// Count actions by system and class
    Count,
}

/// Runs the command.
pub fn run(command: Command, context: &Context) -> Result<ExitCode, CliError> {
    let catalog = catalog();
    match command {
        Command::Search { words, limit } => search(&catalog, &words, limit, context),
        Command::Show { action } => show(&catalog, &action, context),
        Command::Count => count(&catalog, context),
    }
}

fn search(catalog: &[Arc<Entry>], words: &[String], limit: usize, context: &Context) -> Result<ExitCode, CliError> {
    let found = matching(catalog, words);
    if found.is_empty() {
        if context.out.json {
            context.out.show(&json!({"actions": [], "total": 0}), String::new)?;
            return Ok(ExitCode::from(1));
        }
        let nearest = nearest(catalog, &words.join("_"), 5);
        let hint = nearest.iter().map(|e| format!("\n  {}", name(e))).collect::<String>();
        return Err(CliError::failed(format!("no action has all of these words; the nearest names are{hint}")));
    }
    let shown: Vec<_> = found.iter().take(limit).map(|e| summary(e)).collect();
    context.out.show(&json!({"actions": shown, "total": found.len()}), || {
        let mut table = Table::new(&["action", "class", "risk", "summary"]).coloured("risk");
        for entry in found.iter().take(limit) {
            table.row([name(entry), entry.class.as_str().into(), entry.risk.as_str().into(), entry.summary.clone()]);
        }
        let mut text = table.render("");
        if found.len() > limit {
            text.push_str(&format!("{} of {}; more words or `--limit` narrow or widen it\n", limit, found.len()));
        }
        text
    })?;
    Ok(ExitCode::SUCCESS)
}

fn show(catalog: &[Arc<Entry>], action: &str, context: &Context) -> Result<ExitCode, CliError> {
    let Some(entry) = catalog.iter().find(|e| name(e) == action) else {
        let nearest = nearest(catalog, action, 3);
        let hint = nearest.iter().map(|e| format!("`{}`", name(e))).collect::<Vec<_>>().join(", ");
        return Err(CliError::failed(format!("there is no action `{action}`; did you mean {hint}?")));
    };
    context.out.show(entry.as_ref(), || page(entry))?;
    Ok(ExitCode::SUCCESS)
}

fn count(catalog: &[Arc<Entry>], context: &Context) -> Result<ExitCode, CliError> {
    let mut systems: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for entry in catalog {
        *systems.entry(&entry.tool).or_default().entry(entry.class.as_str()).or_default() += 1;
    }
    let document: BTreeMap<_, _> = systems
        .iter()
        .map(|(system, classes)| (*system, json!({"total": classes.values().sum::<usize>(), "classes": classes})))
        .collect();
    context.out.show(&json!({"systems": document, "total": catalog.len()}), || {
        let mut table = Table::new(&["system", "actions", "by class"]);
        for (system, classes) in &systems {
            let by_class = classes.iter().map(|(class, n)| format!("{class} {n}")).collect::<Vec<_>>().join(", ");
            table.row([(*system).to_owned(), classes.values().sum::<usize>().to_string(), by_class]);
        }
        table.render("")
    })?;
    Ok(ExitCode::SUCCESS)
}

fn catalog() -> Vec<Arc<Entry>> {
    Grammars::load().catalogs().iter().flat_map(|c| c.catalog().to_vec()).collect()
}

/// Entries with all of the words, those that have them in the name first.
fn matching(catalog: &[Arc<Entry>], words: &[String]) -> Vec<Arc<Entry>> {
    let words: Vec<String> = words.iter().map(|w| w.to_lowercase()).collect();
    let has = |text: &str| words.iter().all(|w| text.contains(w.as_str()));
    let mut found: Vec<(bool, usize, String, Arc<Entry>)> = catalog
        .iter()
        .filter_map(|entry| {
            let name = name(entry);
            let all = format!("{name} {} {} {}", entry.summary, entry.wire, entry.operation).to_lowercase();
            has(&all).then(|| (!has(&name), name.len(), name, entry.clone()))
        })
        .collect();
    found.sort_by(|a, b| (a.0, a.1, &a.2).cmp(&(b.0, b.1, &b.2)));
    found.into_iter().map(|(.., entry)| entry).collect()
}

/// Entries whose names share the most with what was typed.
fn nearest(catalog: &[Arc<Entry>], typed: &str, count: usize) -> Vec<Arc<Entry>> {
    let typed = trigrams(&typed.to_lowercase());
    let score = |entry: &Entry| {
        let own = trigrams(&name(entry));
        let shared = own.iter().filter(|t| typed.contains(t)).count();
        // Shared trigrams by all trigrams, in thousandths: integers sort totally.
        shared * 2000 / (own.len() + typed.len()).max(1)
    };
    let mut scored: Vec<(usize, String, Arc<Entry>)> = catalog.iter().map(|e| (score(e), name(e), e.clone())).collect();
    scored.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    scored.into_iter().take(count).map(|(.., entry)| entry).collect()
}

fn trigrams(text: &str) -> Vec<String> {
    let chars: Vec<char> = format!("  {text} ").chars().collect();
    chars.windows(3).map(|w| w.iter().collect()).collect()
}

fn name(entry: &Entry) -> String {
    format!("{}.{}", entry.tool, entry.name)
}

fn summary(entry: &Entry) -> serde_json::Value {
    json!({
        "name": name(entry), "class": entry.class.as_str(), "risk": entry.risk.as_str(),
        "summary": entry.summary, "wire": entry.wire, "resource": entry.resource,
    })
}

fn page(entry: &Entry) -> String {
    let mut text = format!("{}  {}\n", paint(BOLD, &name(entry)), paint(DIM, &entry.summary));
    text.push_str(&fields([
        ("wire", entry.wire.clone()),
        ("class", entry.class.as_str().into()),
        ("risk", entry.risk.as_str().into()),
        ("mutates state", if entry.mutates_state { "yes" } else { "no" }.into()),
        ("resource", entry.resource.clone().unwrap_or_else(|| "null".into())),
        ("resource types", entry.resource_types.join(" in ")),
    ]));
    if !entry.parameters.is_empty() {
        text.push_str(&format!("\n{}\n", paint(BOLD, "Parameters that policies may read")));
        let mut table = Table::new(&["name", "type", "required"]);
        for (name, parameter) in &entry.parameters {
            table.row([name.clone(), type_name(&parameter.ty), if parameter.required { "yes" } else { "" }.into()]);
        }
        text.push_str(&table.render(""));
    }
    if !entry.facts.is_empty() {
        text.push_str(&format!("\n{}\n", paint(BOLD, "Facts that policies may read")));
        let mut table = Table::new(&["name", "type"]);
        for (name, ty) in &entry.facts {
            table.row([name.clone(), type_name(ty)]);
        }
        text.push_str(&table.render(""));
    }
    text
}

fn type_name(ty: &ParamType) -> String {
    match ty {
        ParamType::String => "String".into(),
        ParamType::Integer => "Long".into(),
        ParamType::Boolean => "Bool".into(),
        ParamType::List(item) => format!("Set<{}>", type_name(item)),
        ParamType::Record(members) => {
            let members: Vec<String> = members.iter().map(|(k, p)| format!("{k}: {}", type_name(&p.ty))).collect();
            format!("{{{}}}", members.join(", "))
        }
        ParamType::Opaque => "not readable".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_action_people_mean_comes_first() {
        let found = matching(&catalog(), &["Merge".into(), "pull".into()]);
        assert_eq!(name(&found[0]), "github.merge_pull_request");
        assert!(matching(&catalog(), &["no_such_word_at_all".into()]).is_empty());
    }

    #[test]
    fn a_slip_finds_its_neighbour() {
        assert_eq!(name(&nearest(&catalog(), "github.delete_repositry", 1)[0]), "github.delete_repository");
    }
}
