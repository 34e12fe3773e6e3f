//! Policy cases: JSON files that say what is asked and what the answer has to be.

use std::{fmt, sync::Arc};

use aegis_action::{SourceTrust, Timestamp, ToolCall};
use aegis_connectors::{Call, Connector};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    engine::PolicyEngine,
    types::{Decision, Evaluation, Input, Principal, Problem, Reason},
};

/// Monday 2024-01-01 12:00 UTC, where a case does not say.
const NOON: i64 = 1_704_110_400_000;

/// The cases of one file.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseFile {
    /// Name for the report.
    pub file: String,
    /// In the order of the file.
    pub cases: Vec<Case>,
}

/// One question and its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// A sentence: the promise that is kept.
    pub name: String,
    /// Who asks; members that do not matter can be left out.
    #[serde(default)]
    pub agent: CaseAgent,
    /// The five keys of the action.
    pub call: ToolCall,
    /// Route; `github` where it does not matter.
    #[serde(default = "default_route")]
    pub route: String,
    /// Source trust.
    pub trust: SourceTrust,
    /// Fetched facts.
    #[serde(default)]
    pub facts: Map<String, Value>,
    /// Groups that have approved.
    #[serde(default)]
    pub approval_groups: Vec<String>,
    /// Milliseconds since the epoch; a Monday noon where it does not matter.
    #[serde(default)]
    pub time: Option<i64>,
    /// Door; `sdk` where it does not matter.
    #[serde(default = "default_door")]
    pub door: String,
    /// What the caller declared.
    #[serde(default)]
    pub contains_sensitive_data: Option<bool>,
    /// The answer.
    pub expect: Expectation,
}

/// An agent of which a case says only what matters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaseAgent {
    pub agent_id: String,
    pub team: String,
    pub owner: String,
    pub environment: String,
    pub risk_tier: String,
    pub framework: Option<String>,
    pub binding: String,
}

/// What has to come out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// `allow`, `deny` or `require_approval`.
    pub decision: String,
    /// Determining policy ids, if they matter; in any order.
    #[serde(default)]
    pub policies: Option<Vec<String>>,
    /// Reason code, if it matters.
    #[serde(default)]
    pub reason: Option<Reason>,
    /// Groups to ask, if they matter; in any order.
    #[serde(default)]
    pub groups: Option<Vec<String>>,
}

/// What running the cases gave.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CaseReport {
    /// In the order of files and cases.
    pub results: Vec<CaseResult>,
}

/// What one case gave.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CaseResult {
    /// File.
    pub file: String,
    /// Case.
    pub name: String,
    /// One line for each difference: `decision: expected `deny`, got `allow``. Empty is a pass.
    pub differences: Vec<String>,
    /// Determining policy ids, whatever was expected: what the cases cover.
    pub policies: Vec<String>,
}

impl CaseFile {
    /// Reads a JSON array of cases.
    pub fn parse(file: &str, text: &str) -> Result<Self, Problem> {
        let cases: Vec<Case> = serde_json::from_str(text).map_err(|e| Problem {
            file: file.to_owned(),
            line: u32::try_from(e.line()).unwrap_or(u32::MAX),
            column: u32::try_from(e.column()).unwrap_or(u32::MAX),
            message: e.to_string(),
            help: Some("a case file is an array of cases, see `docs/policies.md`".into()),
        })?;
        Ok(Self { file: file.to_owned(), cases })
    }
}

impl CaseReport {
    /// Cases that went as expected.
    pub fn passed(&self) -> usize {
        self.results.iter().filter(|r| r.differences.is_empty()).count()
    }

    /// Cases that did not.
    pub fn failed(&self) -> usize {
        self.results.len() - self.passed()
    }
}

/// Runs every case. Calls are validated by the connector of their tool, as an SDK's are.
pub fn run_cases(engine: &PolicyEngine, connectors: &[Arc<dyn Connector>], files: &[CaseFile]) -> CaseReport {
    let all = files.iter().flat_map(|f| f.cases.iter().map(move |c| (f, c)));
    let results = all.map(|(file, case)| {
        let (differences, policies) = match call(connectors, case) {
            Ok(call) => {
                let got = evaluate(engine, case, &call);
                (differences(&case.expect, &got), got.policies)
            }
            Err(refused) => (vec![format!("call: refused: {refused}")], Vec::new()),
        };
        CaseResult { file: file.file.clone(), name: case.name.clone(), differences, policies }
    });
    CaseReport { results: results.collect() }
}

fn call(connectors: &[Arc<dyn Connector>], case: &Case) -> Result<Call, String> {
    let tool = case.call.tool.as_str();
    // Declared tools share one connector, so the entries say whose a tool is.
    let speaks = |c: &&Arc<dyn Connector>| c.system() == tool || c.catalog().iter().any(|e| &*e.tool == tool);
    let connector = connectors.iter().find(speaks).ok_or_else(|| format!("no connector knows the tool `{tool}`"))?;
    connector.validate(case.call.clone()).map_err(|refusal| refusal.to_string())
}

fn evaluate(engine: &PolicyEngine, case: &Case, call: &Call) -> Evaluation {
    let principal = Principal::from(&case.agent);
    let slice = engine.slice(&principal, call);
    let input = Input {
        principal: &principal,
        call,
        trust: case.trust,
        facts: &case.facts,
        now: Timestamp(case.time.unwrap_or(NOON)),
        route: &case.route,
        identity: &case.agent.binding,
        approval_groups: &case.approval_groups,
        contains_sensitive_data: case.contains_sensitive_data,
        door: &case.door,
    };
    engine.evaluate(&slice, &input)
}

fn differences(expect: &Expectation, got: &Evaluation) -> Vec<String> {
    let mut out = Vec::new();
    let mut same = |what: &str, expected: String, found: String| {
        if expected != found {
            out.push(format!("{what}: expected {expected}, got {found}"));
        }
    };
    same("decision", format!("`{}`", expect.decision), format!("`{}`", got.decision.as_str()));
    if let Some(reason) = expect.reason {
        same("reason", format!("`{}`", reason.as_str()), format!("`{}`", got.reason.as_str()));
    }
    if let Some(policies) = &expect.policies {
        same("policies", listed(policies), listed(&got.policies));
    }
    if let Some(groups) = &expect.groups {
        let asked = match &got.decision {
            Decision::RequireApproval { groups, .. } => groups.as_slice(),
            Decision::Allow | Decision::Deny => &[],
        };
        same("groups", listed(groups), listed(asked));
    }
    if !out.is_empty() && !got.errors.is_empty() {
        out.push(format!("errors: {}", got.errors.join("; ")));
    }
    out
}

fn listed(names: &[String]) -> String {
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.sort_unstable();
    format!("[{}]", names.join(", "))
}

fn default_route() -> String {
    "github".into()
}

fn default_door() -> String {
    "sdk".into()
}

impl Default for CaseAgent {
    fn default() -> Self {
        Self {
            agent_id: "agt_case".into(),
            team: "payments".into(),
            owner: "owner@example.com".into(),
            environment: "production".into(),
            risk_tier: "medium".into(),
            framework: None,
            binding: "bearer".into(),
        }
    }
}

impl From<&CaseAgent> for Principal {
    fn from(agent: &CaseAgent) -> Self {
        Self {
            agent_id: agent.agent_id.clone(),
            team: agent.team.clone(),
            owner: agent.owner.clone(),
            environment: agent.environment.clone(),
            risk_tier: agent.risk_tier.clone(),
            framework: agent.framework.clone(),
            binding: agent.binding.clone(),
            version: 1,
        }
    }
}

impl fmt::Display for CaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failed in self.results.iter().filter(|r| !r.differences.is_empty()) {
            writeln!(f, "{}: {}", failed.file, failed.name)?;
            for difference in &failed.differences {
                writeln!(f, "  {difference}")?;
            }
        }
        write!(f, "{} cases, {} failed", self.results.len(), self.failed())
    }
}
