//! The reviewed corrections beside the generated table.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::spec::Spec;

/// `github.overrides.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overrides {
    /// Names that differ from the rule's, by operation id.
    name: BTreeMap<String, String>,
    /// Class and risk corrections.
    #[serde(rename = "override")]
    corrections: Vec<Correction>,
    /// Operations that one request line cannot tell from another: id to the canonical id.
    same_as: BTreeMap<String, String>,
    /// Bodies that may be a bare array: operation id to the member it stands for.
    list_body: BTreeMap<String, String>,
    /// Path variables that may hold `%2F` in one segment.
    slashed: Vec<String>,
    /// Operations whose last path variable may be empty or missing.
    optional_tail: Vec<String>,
}

/// One correction with its reason.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Correction {
    /// Operation ids.
    operations: Vec<String>,
    /// Class, if it differs from the rule's.
    pub class: Option<String>,
    /// Risk, if it differs from the class's.
    pub risk: Option<String>,
    /// Whether the effect outlives the call, if it differs from the method's.
    pub mutates_state: Option<bool>,
    /// Why; required, so that a reviewer can disagree.
    why: String,
}

impl Overrides {
    /// Reads the file; unknown keys are errors.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|e| format!("github.overrides.toml: {e}"))
    }

    /// Every id must exist, no operation may be corrected twice, classes and risks must be words we know.
    pub fn check(&self, spec: &Spec) -> Result<(), String> {
        let ids: BTreeSet<&str> = spec.operations.iter().map(|o| o.id.as_str()).collect();
        let corrected = self.corrections.iter().flat_map(|c| &c.operations);
        let named = corrected.clone().chain(self.name.keys()).chain(self.same_as.keys()).chain(self.same_as.values());
        for id in named.chain(&self.optional_tail).chain(self.list_body.keys()) {
            if !ids.contains(id.as_str()) {
                return Err(format!("github.overrides.toml: no operation `{id}`"));
            }
        }
        let mut seen = BTreeSet::new();
        for id in corrected {
            if !seen.insert(id) {
                return Err(format!("github.overrides.toml: `{id}` is corrected twice"));
            }
        }
        for c in &self.corrections {
            let known = |word: &Option<String>, words: &[&str]| word.as_deref().is_none_or(|w| words.contains(&w));
            if c.why.is_empty() || !known(&c.class, &CLASSES) || !known(&c.risk, &RISKS) {
                return Err(format!("github.overrides.toml: bad class, risk or reason for `{:?}`", c.operations));
            }
        }
        Ok(())
    }

    /// The reviewed name.
    pub fn name(&self, id: &str) -> Option<&str> {
        self.name.get(id).map(String::as_str)
    }
    /// The correction of class and risk.
    pub fn correction(&self, id: &str) -> Option<&Correction> {
        self.corrections.iter().find(|c| c.operations.iter().any(|o| o == id))
    }
    /// The operation that this one's request line means.
    pub fn same_as(&self, id: &str) -> Option<&str> {
        self.same_as.get(id).map(String::as_str)
    }
    /// The member that a bare array stands for.
    pub fn list_body(&self, id: &str) -> Option<&str> {
        self.list_body.get(id).map(String::as_str)
    }
    /// Whether `%2F` is data in this path variable.
    pub fn is_slashed(&self, path: &str, variable: &str) -> bool {
        let slot = format!("{{{variable}}}");
        self.slashed.iter().any(|s| s == variable || (s.ends_with(&slot) && path.contains(s.as_str())))
    }
    /// Whether the last path variable may be missing.
    pub fn optional_tail(&self, id: &str) -> bool {
        self.optional_tail.iter().any(|o| o == id)
    }
}

const CLASSES: [&str; 6] = ["read", "write", "delete", "admin", "mint", "persist"];
const RISKS: [&str; 4] = ["low", "medium", "high", "critical"];
