//! What may be done: Cedar policies, loaded as one immutable snapshot and asked once per action.
//!
//! [`PolicyEngine::load`] reads, checks and indexes the policies. A request takes the
//! [`Slice`] of policies that could concern it, learns which facts that slice reads, and
//! evaluates. Doubt denies: no permit, an evaluation error, a value of the wrong type or a
//! missing fact are all a deny with a reason.

mod cases;
mod check;
mod context;
mod engine;
mod entities;
mod evaluate;
mod explain;
mod index;
mod load;
mod memo;
mod reads;
mod schema;
mod scope;
mod suggest;
#[cfg(test)]
mod tests;
mod text;
mod types;

pub use cases::{Case, CaseAgent, CaseFile, CaseReport, CaseResult, Expectation, run_cases};
pub use engine::{PolicyEngine, Reach, Slice};
pub use explain::{Explanation, PolicyNote};
pub use memo::MemoCounters;
pub use types::{
    Decision, Evaluation, Input, MemoKind, PolicyEffect, PolicyInfo, PolicySource, Principal, Problem, Reason, Warning,
};
