//! An exported bundle.

use aegis_action::{Timestamp, sha256};
use serde_json::Value;

use super::report::{Report, Verdict};
use crate::{
    chain::LeafView,
    commit::open_commitments,
    export::{BUNDLE_FORMAT, Bundle, BundleLeaf, Opening},
    leaf::{Intent, Leaf, LeafBody},
};

/// Verifies the bytes of a bundle file. It shows that the leaves are what the log said,
/// as far as their hashes are known from elsewhere, and what their commitments stand for.
pub fn verify_bundle(bytes: &[u8]) -> Report {
    let bundle: Bundle = match serde_json::from_slice(bytes) {
        Ok(bundle) => bundle,
        Err(e) => return Report::unreadable(format!("not a bundle: {e}")),
    };
    if bundle.format != BUNDLE_FORMAT {
        return Report::unreadable(format!("unknown bundle format `{}`", bundle.format));
    }
    let mut report = Report { node: Some(bundle.node.clone()), ..Report::new() };
    let mut before: Option<&BundleLeaf> = None;
    for entry in &bundle.leaves {
        if let Err(why) = check(entry, before, &bundle.node, &mut report) {
            report.verdict = Verdict::tampered(entry.seq, "bundle", why);
            return report;
        }
        before = Some(entry);
    }
    report
}

fn check(entry: &BundleLeaf, before: Option<&BundleLeaf>, node: &str, report: &mut Report) -> Result<(), String> {
    let view = LeafView::read(entry.leaf.as_bytes())?;
    if sha256(entry.leaf.as_bytes()) != entry.receipt_hash {
        return Err("its bytes do not have its `receipt_hash`".into());
    }
    if view.seq != entry.seq {
        return Err(format!("its `seq` is {}", view.seq));
    }
    if view.node != node {
        return Err(format!("its `node` is `{}`", view.node));
    }
    if let Some(before) = before {
        if before.seq >= entry.seq {
            return Err("it is not behind the leaf before it".into());
        }
        if before.seq + 1 == entry.seq && view.prev != before.receipt_hash.to_hex() {
            return Err("its `prev_receipt_hash` is not the hash of the leaf before it".into());
        }
        if before.seq + 1 < entry.seq {
            report.find(format!("leaves {} and {} are not neighbours: nothing here links them", before.seq, entry.seq));
        }
    }
    if let Some(opening) = &entry.opening {
        match Leaf::parse(entry.leaf.as_bytes()).map_err(|e| e.to_string())?.body {
            LeafBody::Intent(intent) => open(opening, &intent)?,
            _ => return Err("it has an opening and no commitments".into()),
        }
        report.openings += 1;
    }
    *report.types.entry(view.type_name.to_owned()).or_default() += 1;
    report.leaves += 1;
    report.bytes += entry.leaf.len() as u64;
    report.first_ts.get_or_insert(Timestamp(view.ts));
    report.last_ts = Some(Timestamp(view.ts));
    report.last_hash = Some(entry.receipt_hash);
    Ok(())
}

/// Whether an action is the one the leaf committed to, and the one it names.
fn open(opening: &Opening, intent: &Intent) -> Result<(), String> {
    let action = opening.action.as_bytes();
    if sha256(action) != opening.action_hash {
        return Err("the opened action does not have its `action_hash`".into());
    }
    let (whole, parameters) = open_commitments(&opening.salt, action).ok_or("the opened action is not canonical")?;
    if whole != intent.action_commitment {
        return Err("`action_commitment` is not a commitment to the opened action".into());
    }
    if parameters != intent.parameters_commitment {
        return Err("`parameters_commitment` is not a commitment to the opened parameters".into());
    }
    let value: Value = serde_json::from_slice(action).map_err(|e| e.to_string())?;
    let names_it = value.get("tool").and_then(Value::as_str) == Some(&intent.tool)
        && value.get("action").and_then(Value::as_str) == Some(&intent.action)
        && value.get("resource").and_then(Value::as_str) == intent.resource.as_deref()
        && value.get("mutates_state").and_then(Value::as_bool) == Some(intent.mutates_state);
    if names_it { Ok(()) } else { Err("the leaf names another action than the opened one".into()) }
}
