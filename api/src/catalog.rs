//! The catalog: what is the name of the thing I want to allow?

use std::sync::Arc;

use aegis_broker::Broker;
use aegis_connectors::Entry;

use crate::{
    answers::{Action, Actions},
    body::limit,
    error::ApiError,
};

/// Entries in which all words occur: exact names first, then names that hold all words, then the
/// rest, each in catalog order.
pub(crate) fn search(broker: &Broker, query: Option<&str>, asked: Option<u32>) -> Result<Actions, ApiError> {
    let max = limit(asked, 50, 500)? as usize;
    let words: Vec<String> = query.unwrap_or_default().split_whitespace().take(16).map(str::to_lowercase).collect();
    let catalogs = broker.grammars.catalogs();
    let snapshot = broker.snapshot();
    let entries = catalogs.iter().flat_map(|c| c.catalog()).chain(&snapshot.config.tools);
    let mut found: Vec<(u8, &Arc<Entry>)> = entries.filter_map(|e| Some((rank(e, &words)?, e))).collect();
    // Stable, so that equals keep the catalog's order.
    found.sort_by_key(|(rank, _)| *rank);
    Ok(Actions {
        total: found.len(),
        actions: found.into_iter().take(max).map(|(_, e)| Action::from(e.as_ref())).collect(),
    })
}

/// The entry of this whole name, `tool.action`.
pub(crate) fn named(broker: &Broker, name: &str) -> Result<Action, ApiError> {
    let (tool, action) = name.split_once('.').ok_or(ApiError::NotFound("action"))?;
    let catalogs = broker.grammars.catalogs();
    let snapshot = broker.snapshot();
    let mut entries = catalogs.iter().flat_map(|c| c.catalog()).chain(&snapshot.config.tools);
    let found = entries.find(|e| e.name == action && e.tool.as_ref() == tool).ok_or(ApiError::NotFound("action"))?;
    Ok(Action::from(found.as_ref()))
}

fn rank(entry: &Entry, words: &[String]) -> Option<u8> {
    let name = format!("{}.{}", entry.tool, entry.name).to_lowercase();
    let rest = format!("{} {} {}", entry.summary, entry.operation, entry.wire).to_lowercase();
    if !words.iter().all(|w| name.contains(w) || rest.contains(w)) {
        return None;
    }
    let exact = matches!(words, [one] if *one == name || *one == entry.name);
    Some(if exact { 0 } else { 2 - u8::from(words.iter().all(|w| name.contains(w))) })
}
