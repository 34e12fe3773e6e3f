//! What Slack shows, as Block Kit. Whatever an agent may have written stands in plain text elements,
//! in which Slack finds neither mentions nor links.

use serde_json::{Value, json};

use super::{Told, instant};

/// A message about an event; with buttons where somebody can verify what comes back.
pub(super) fn message(told: &Told<'_>, buttons: bool) -> Value {
    let title = title(told);
    let mut blocks = vec![json!({"type": "header", "text": text(&title, HEADER)})];
    let mut fields = Vec::new();
    let mut field = |name: &str, value: &str| fields.push(text(&format!("{name}: {value}"), FIELD));
    if let Some(agent) = &told.agent {
        field("Agent", &format!("{} ({})", agent.name, agent.owner_team));
    }
    if let Some(approval) = &told.approval {
        field("Risk", &approval.risk);
        field("Asks", &approval.groups.join(" and "));
        field("Until", &instant(approval.expires_at));
    }
    for person in &told.people {
        field("By", &person.name);
    }
    if !fields.is_empty() {
        blocks.push(json!({"type": "section", "fields": fields}));
    }
    for (action, resource, words) in told.actions.iter().take(MOST) {
        let on = resource.as_ref().map(|r| format!(" on {r}")).unwrap_or_default();
        blocks.push(json!({"type": "section", "text": text(&format!("{words}: {action}{on}"), SECTION)}));
    }
    let more = told.actions.len().saturating_sub(MOST);
    if more > 0 {
        blocks.push(
            json!({"type": "section", "text": text(&format!("and {more} more actions: open the page"), SECTION)}),
        );
    }
    if told.event.kind == ASKED && !told.policies.is_empty() {
        let words: Vec<&str> = told.policies.iter().map(|(_, words)| words.as_str()).collect();
        blocks.push(json!({"type": "section", "text": text(&format!("Why: {}", words.join("; ")), SECTION)}));
    }
    if let Some(actions) = actions(told, buttons && more == 0) {
        blocks.push(actions);
    }
    json!({"text": escaped(&title), "blocks": blocks})
}

/// Approve and Reject while there is a question, and the way to its page.
fn actions(told: &Told<'_>, buttons: bool) -> Option<Value> {
    let mut elements = Vec::new();
    if let Some(approval) = told.pending().filter(|_| buttons && told.event.kind == ASKED) {
        let value = format!("{}:{}", approval.approval_id, approval.action_hash.to_hex());
        for (id, label, style) in [("approve", "Approve", "primary"), ("reject", "Reject", "danger")] {
            let label = text(label, FIELD);
            elements.push(json!({"type": "button", "action_id": id, "style": style, "text": label, "value": value}));
        }
    }
    if let Some(link) = &told.link {
        elements.push(json!({"type": "button", "action_id": "open", "text": text("Open", FIELD), "url": link}));
    }
    (!elements.is_empty()).then(|| json!({"type": "actions", "elements": elements}))
}

fn title(told: &Told<'_>) -> String {
    let said = match told.event.kind.as_str() {
        ASKED => "Approval asked",
        "approval_granted" => "Approved",
        "approval_rejected" => "Rejected",
        "approval_expired" => "Approval expired",
        "approval_consumed" => "Approval used",
        other => return capitalised(&other.replace('_', " ")),
    };
    match told.actions.first() {
        Some((_, _, words)) => format!("{said}: {words}"),
        None => said.to_owned(),
    }
}

fn text(words: &str, most: usize) -> Value {
    json!({"type": "plain_text", "emoji": false, "text": clipped(words, most)})
}

/// At most so many characters, none of which can reorder or hide others.
fn clipped(words: &str, most: usize) -> String {
    let visible = |c: char| match c {
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    let mut out: String = words.chars().take(most).map(visible).collect();
    if words.chars().count() > most {
        out.pop();
        out.push('…');
    }
    out
}

/// In the text of notifications Slack reads `<…>`.
fn escaped(words: &str) -> String {
    clipped(words, SECTION).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn capitalised(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().map(|c| c.to_uppercase().collect::<String>() + letters.as_str()).unwrap_or_default()
}

const ASKED: &str = "approval_asked";
/// Actions shown in one message; where there are more, nobody says yes without looking.
const MOST: usize = 10;
/// Limits of Slack's, characters: 150, 2000 and 3000.
const HEADER: usize = 150;
const FIELD: usize = 500;
const SECTION: usize = 2900;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_wrote_is_neither_link_nor_mention_nor_hidden() {
        assert_eq!(escaped("<!channel> & <https://x|y>"), "&lt;!channel&gt; &amp; &lt;https://x|y&gt;");
        assert_eq!(clipped("a\u{202e}b\nc", 10), "a\u{fffd}b\u{fffd}c");
        assert_eq!(clipped("abcdef", 4), "abc…");
        assert_eq!(text("<@U1>", 10), json!({"type": "plain_text", "emoji": false, "text": "<@U1>"}));
    }
}
