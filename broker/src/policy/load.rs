//! From policy files to an engine, or to every problem at once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use aegis_action::{Digest, sha256};
use aegis_connectors::{Connector, Entry};
use cedar_policy::{Effect, Policy, PolicyId, PolicySet, Schema, ValidationMode, ValidationWarning, Validator, pst};
use miette::Diagnostic;

use super::{
    engine::{Gate, Loaded, PolicyEngine},
    entities::TypeNames,
    reads::{Reads, is_gate},
    schema::{Vocabulary, real_names, substitute},
    scope::Scope,
    text::{Chunk, clauses, problem, rename_types, split},
    types::{PolicyEffect, PolicyInfo, PolicySource, Problem, Warning},
};

/// More people than this never agree on anything.
const MAX_QUORUM: u32 = 10;

impl PolicyEngine {
    /// Reads, checks and indexes the policies. `catalogs` and `tools` give the actions,
    /// `routes` the names that `context.route` can have. No policies at all is fine, and
    /// denies everything.
    pub fn load(
        sources: &[PolicySource],
        catalogs: &[Arc<dyn Connector>],
        tools: &[Arc<Entry>],
        routes: &[String],
    ) -> Result<(Self, Vec<Warning>), Vec<Problem>> {
        // Several routes can share a system and so its catalog.
        let systems: BTreeMap<&str, &Arc<dyn Connector>> = catalogs.iter().map(|c| (c.system(), c)).collect();
        let entries = systems.values().flat_map(|c| c.catalog()).chain(tools).cloned();
        let vocabulary = Vocabulary::new(entries)?;
        let types = TypeNames::new(vocabulary.types()).map_err(|m| vec![in_catalog(m)])?;

        let mut load = Load { vocabulary: &vocabulary, routes, problems: Vec::new(), warnings: Vec::new() };
        let mut sources: Vec<&PolicySource> = sources.iter().collect();
        sources.sort_by(|a, b| a.file.cmp(&b.file));
        let drafts = load.read(&sources);
        load.validate(&drafts);

        let Load { mut problems, mut warnings, .. } = load;
        if !problems.is_empty() {
            problems.sort();
            problems.dedup();
            return Err(problems);
        }
        warnings.sort();
        warnings.dedup();
        let policies = drafts.into_iter().map(|d| Arc::new(d.loaded)).collect();
        Ok((Self::assemble(hash(&sources), policies, types), warnings))
    }

    /// The problems that [`PolicyEngine::load`] would report; empty if it would succeed.
    pub fn check(
        sources: &[PolicySource],
        catalogs: &[Arc<dyn Connector>],
        tools: &[Arc<Entry>],
        routes: &[String],
    ) -> Vec<Problem> {
        Self::load(sources, catalogs, tools, routes).err().unwrap_or_default()
    }
}

/// A policy that parses, with where it stands.
pub struct Draft<'s> {
    source: &'s PolicySource,
    chunk: Chunk,
    pub loaded: Loaded,
}

/// Policies being loaded, with what was found wrong so far.
pub struct Load<'v> {
    pub vocabulary: &'v Vocabulary,
    pub routes: &'v [String],
    pub problems: Vec<Problem>,
    pub warnings: Vec<Warning>,
}

impl Load<'_> {
    fn read<'s>(&mut self, sources: &[&'s PolicySource]) -> Vec<Draft<'s>> {
        let mut drafts: Vec<Draft<'s>> = Vec::new();
        let mut taken: HashMap<String, String> = HashMap::new();
        for source in sources {
            for chunk in split(&source.text) {
                let Some(draft) = self.draft(source, chunk) else { continue };
                let info = &draft.loaded.info;
                let place = format!("{}:{}", info.file, info.line);
                if let Some(first) = taken.insert(info.id.clone(), place) {
                    let message = format!("the id `{}` is taken by the policy at {first}", info.id);
                    self.problem(&draft, 0, message, "give each policy an `@id` of its own");
                    continue;
                }
                self.check(&draft);
                drafts.push(draft);
            }
        }
        drafts
    }

    /// Parses one policy; `None` where it has problems that leave nothing to look at.
    fn draft<'s>(&mut self, source: &'s PolicySource, chunk: Chunk) -> Option<Draft<'s>> {
        let at = |offset: usize, message: String, help: Option<String>| {
            problem(&source.file, &source.text, chunk.start + offset, message, help)
        };
        let policy = match Policy::parse(None, &chunk.text) {
            Ok(policy) => policy,
            Err(errors) => {
                self.problems.extend(errors.iter().map(|e| at(offset(e), e.to_string(), help(e))));
                return None;
            }
        };
        let Some(id) = policy.annotation("id").filter(|id| is_id(id)).map(str::to_owned) else {
            let help = "write `@id(\"a-name\")` above it: 1 to 128 ASCII letters, digits, `_`, `-` or `.`";
            self.problems.push(at(0, "the policy has no usable `@id`".into(), Some(help.into())));
            return None;
        };
        let body = match policy.to_pst() {
            Ok(pst::Policy::Static(fixed)) => fixed.body().clone(),
            Ok(pst::Policy::Linked(_)) => {
                self.problems.push(at(0, "templates are not supported".into(), None));
                return None;
            }
            Err(e) => {
                self.problems.push(at(0, e.to_string(), None));
                return None;
            }
        };
        let (line, _) = super::text::position(&source.text, chunk.start);
        let effect = if policy.effect() == Effect::Permit { PolicyEffect::Permit } else { PolicyEffect::Forbid };
        let annotations: BTreeMap<String, String> =
            policy.annotations().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let text = chunk.text.clone();
        let info = PolicyInfo { id: id.clone(), file: source.file.clone(), line, effect, annotations, text };
        let gate = self.gate(&info, &body, &at);
        let reads = Reads::of(&body, gate.as_ref().map(|g| g.group.as_str()));
        let clauses = clauses(&chunk.text);
        let policy = policy.new_id(PolicyId::new(&id));
        let loaded = Loaded { info, policy, scope: Scope::of(&body), reads, gate, clauses };
        Some(Draft { source, chunk, loaded })
    }

    /// Reads `@require_approval` and `@quorum`, and checks that the policy does what they say.
    fn gate(
        &mut self,
        info: &PolicyInfo,
        body: &pst::Template,
        at: &impl Fn(usize, String, Option<String>) -> Problem,
    ) -> Option<Gate> {
        let quorum = info.annotations.get("quorum");
        let Some(group) = info.annotations.get("require_approval") else {
            if quorum.is_some() {
                let help = "add `@require_approval(\"group\")` or remove `@quorum`";
                self.problems.push(at(0, "`@quorum` without `@require_approval`".into(), Some(help.into())));
            }
            return None;
        };
        if group.is_empty() || info.effect == PolicyEffect::Permit {
            let help = "write it as `@require_approval(\"group\") forbid (…) unless { … }`";
            let message = "`@require_approval` names a group and stands on a forbid".to_owned();
            self.problems.push(at(0, message, Some(help.into())));
            return None;
        }
        let gates = body.clauses().iter().filter(|c| is_gate(c, group)).count();
        if gates != 1 || Reads::of(body, Some(group)).approval {
            let help = format!("end it with exactly `unless {{ context.approval.groups.contains(\"{group}\") }}`");
            let message = format!("`@require_approval(\"{group}\")` disagrees with the condition");
            self.problems.push(at(0, message, Some(help)));
            return None;
        }
        let quorum = quorum.map_or(Some(1), |q| q.parse().ok().filter(|q| (1..=MAX_QUORUM).contains(q)));
        if quorum.is_none() {
            let message = format!("`@quorum` is a number from 1 to {MAX_QUORUM}");
            self.problems.push(at(0, message, Some("write it as `@quorum(\"2\")`".into())));
        }
        Some(Gate { group: group.clone(), quorum: quorum? })
    }

    /// Cedar's strict validation. Policies with the same actions share a schema, so that
    /// each is checked against its own actions only.
    fn validate(&mut self, drafts: &[Draft<'_>]) {
        // Names first: the schema could say no more than that they do not exist.
        if !self.problems.is_empty() {
            return;
        }
        let mut buckets: BTreeMap<BTreeSet<String>, Vec<&Draft<'_>>> = BTreeMap::new();
        for draft in drafts {
            let heads = draft.loaded.scope.actions.uids().iter().map(|u| u.id.clone()).collect();
            buckets.entry(heads).or_default().push(draft);
        }
        for (heads, drafts) in buckets {
            let mentioned = drafts.iter().flat_map(|d| d.loaded.reads.actions.iter().cloned()).collect();
            match Schema::from_json_value(self.vocabulary.schema(&heads, &mentioned)) {
                Ok(schema) => self.validate_bucket(schema, &drafts),
                Err(e) => self.problems.push(in_catalog(format!("its schema is not valid: {e}"))),
            }
        }
    }

    fn validate_bucket(&mut self, schema: Schema, drafts: &[&Draft<'_>]) {
        let by_id: HashMap<&str, &Draft<'_>> = drafts.iter().map(|d| (d.loaded.info.id.as_str(), *d)).collect();
        let set = match PolicySet::from_policies(drafts.iter().map(|d| for_schema(d))) {
            Ok(set) => set,
            Err(e) => return self.problems.push(in_catalog(e.to_string())),
        };
        let result = Validator::new(schema).validate(&set, ValidationMode::Strict);
        for error in result.validation_errors() {
            let Some(draft) = by_id.get(AsRef::<str>::as_ref(error.policy_id())) else { continue };
            self.problems.push(place(draft, offset(error), real_names(&error.to_string()), help(error)));
        }
        for warning in result.validation_warnings() {
            let Some(draft) = by_id.get(AsRef::<str>::as_ref(warning.policy_id())) else { continue };
            // The schema knows one group per stand-in, so "impossible" is not certain where
            // a condition names actions.
            if matches!(warning, ValidationWarning::ImpossiblePolicy(_)) && !draft.loaded.reads.actions.is_empty() {
                continue;
            }
            self.warnings.push(Warning(place(draft, offset(warning), real_names(&warning.to_string()), help(warning))));
        }
    }

    /// Reports a problem at a byte offset of a policy.
    pub fn problem(&mut self, draft: &Draft<'_>, offset: usize, message: String, help: &str) {
        self.problems.push(place(draft, offset, message, Some(help.to_owned())));
    }
}

/// The policy with the type names of the schema.
fn for_schema(draft: &Draft<'_>) -> Policy {
    let policy = &draft.loaded.policy;
    let renamed = rename_types(&draft.chunk.text, substitute).and_then(|text| Policy::parse(None, text).ok());
    renamed.map_or_else(|| policy.clone(), |renamed| renamed.new_id(policy.id().clone()))
}

/// Names and texts with their lengths, in name order.
fn hash(sources: &[&PolicySource]) -> Digest {
    let mut bytes = Vec::new();
    for source in sources {
        for part in [&source.file, &source.text] {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
    }
    sha256(&bytes)
}

/// A problem or warning at a byte offset of a policy.
pub fn place(draft: &Draft<'_>, offset: usize, message: String, help: Option<String>) -> Problem {
    problem(&draft.source.file, &draft.source.text, draft.chunk.start + offset, message, help)
}

/// Where a policy says a name; its start if it does not.
pub fn find(draft: &Draft<'_>, name: &str) -> usize {
    let quoted = draft.chunk.text.find(&format!("\"{name}\""));
    quoted.or_else(|| draft.chunk.text.find(name)).unwrap_or(0)
}

/// Where Cedar points, in bytes from the start of the policy.
fn offset(error: &impl Diagnostic) -> usize {
    error.labels().and_then(|mut labels| labels.next()).map_or(0, |label| label.offset())
}

fn help(error: &impl Diagnostic) -> Option<String> {
    error.help().map(|h| real_names(&h.to_string()))
}

fn is_id(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

fn in_catalog(message: String) -> Problem {
    Problem { file: "catalog".into(), line: 1, column: 1, message, help: None }
}
