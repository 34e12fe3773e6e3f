//! Slack's way back: a click on Approve or Reject, signed by Slack, for the approver who has that Slack user.
//!
//! It ends in the same [`Broker::settle`] as every other yes and no. Whatever is not signed, comes twice, is of
//! nobody known, or names another action than the approval's, settles nothing.

use std::{sync::Arc, time::Duration};

use aegis_broker::{Broker, approvals::ApprovalError};
use axum::{
    Json,
    body::to_bytes,
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{admin::AdminState, auth};

/// Hands an answer to the address that Slack gave for one, without waiting.
pub type SlackReply = Arc<dyn Fn(String, Value) + Send + Sync>;

/// `POST /slack/actions`.
pub(crate) async fn actions(State(state): State<AdminState>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, LONGEST).await else { return StatusCode::PAYLOAD_TOO_LARGE.into_response() };
    let (timestamp, signature) = (one(&parts.headers, TIMESTAMP), one(&parts.headers, SIGNATURE));
    let signed = match (timestamp, signature) {
        (Some(timestamp), Some(signature)) => state.broker().slack_signed(timestamp, signature, &body).await,
        _ => false,
    };
    if !signed {
        // Guesses are as slow as those of tokens.
        let now = state.broker().env.clock.now();
        return match state.throttle().failed(auth::peer(&parts), now) {
            Ok(()) => StatusCode::UNAUTHORIZED.into_response(),
            Err(_) => StatusCode::TOO_MANY_REQUESTS.into_response(),
        };
    }
    let Some(click) = Click::read(&body) else { return StatusCode::BAD_REQUEST.into_response() };
    // Links are buttons, too: Slack tells of them, and nothing is to be done.
    let Some((yes, value)) = click.vote else { return StatusCode::OK.into_response() };
    let broker: Arc<Broker> = axum::extract::FromRef::from_ref(&state);
    let (reply, address) = (state.slack_reply(), click.response_url);
    let work = tokio::spawn(async move {
        let told = said(&settle(&broker, &click.user, &value, yes).await);
        if let Some(address) = address {
            reply(address, told.clone());
        }
        told
    });
    // Slack waits three seconds. The vote is counted whether it is told of or not.
    match timeout(PATIENCE, work).await {
        Ok(Ok(told)) => Json(told).into_response(),
        Ok(Err(_)) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Err(_) => Json(said("This takes longer than usual; the outcome follows.")).into_response(),
    }
}

/// One click, of a message whose signature holds.
struct Click {
    user: String,
    /// Yes or no, and what the button says it is about.
    vote: Option<(bool, String)>,
    response_url: Option<String>,
}

impl Click {
    fn read(body: &[u8]) -> Option<Self> {
        let mut payloads = form_urlencoded::parse(body).filter(|(name, _)| name == "payload");
        let (first, second) = (payloads.next(), payloads.next());
        let payload: Value = serde_json::from_str(&first.filter(|_| second.is_none())?.1).ok()?;
        if payload.get("type")?.as_str()? != "block_actions" {
            return None;
        }
        let user = payload.get("user")?.get("id")?.as_str()?.to_owned();
        let [action] = payload.get("actions")?.as_array()?.as_slice() else { return None };
        let value = || action.get("value")?.as_str().map(str::to_owned);
        let vote = match action.get("action_id")?.as_str()? {
            "approve" => Some((true, value()?)),
            "reject" => Some((false, value()?)),
            _ => None,
        };
        let response_url = payload.get("response_url").and_then(Value::as_str).map(str::to_owned);
        Some(Self { user, vote, response_url: response_url.filter(|url| url.starts_with(SLACK)) })
    }
}

async fn settle(broker: &Broker, user: &str, value: &str, yes: bool) -> String {
    let person = match broker.slack_person(user).await {
        Ok(Some(person)) => person,
        Ok(None) => return format!("{NOTHING} No approver here has your Slack user, {user}."),
        Err(_) => return UNAVAILABLE.to_owned(),
    };
    let Some((id, hash)) = value.split_once(':') else { return format!("{NOTHING} This button is not of Aegis.") };
    match broker.store.approval(id, broker.env.clock.now()).await {
        Ok(Some(record)) if record.action_hash.to_hex() == hash => {}
        Ok(Some(_)) => return format!("{NOTHING} {}.", ApprovalError::HashMismatch),
        Ok(None) => return format!("{NOTHING} There is no such approval."),
        Err(_) => return UNAVAILABLE.to_owned(),
    }
    match broker.settle(id, &person, yes).await {
        Ok(_) if yes => "Your yes is counted.".to_owned(),
        Ok(_) => "Your no is counted.".to_owned(),
        Err(ApprovalError::Store(_) | ApprovalError::Random(_) | ApprovalError::Unrecorded(_)) => {
            UNAVAILABLE.to_owned()
        }
        Err(error) => format!("{NOTHING} {error}."),
    }
}

/// For the one who clicked; the message with the buttons stays.
fn said(words: &str) -> Value {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    json!({"response_type": "ephemeral", "replace_original": false, "text": words})
}

/// The value of a header that is there once.
fn one<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut all = headers.get_all(name).iter();
    let (first, second) = (all.next(), all.next());
    first.filter(|_| second.is_none())?.to_str().ok()
}

const TIMESTAMP: &str = "x-slack-request-timestamp";
const SIGNATURE: &str = "x-slack-signature";
/// Answers go nowhere else.
const SLACK: &str = "https://hooks.slack.com/";
const NOTHING: &str = "Nothing was settled.";
const UNAVAILABLE: &str = "The store or the log cannot be used at present; look at the approval's page.";
const PATIENCE: Duration = Duration::from_millis(2500);
/// Slack sends the whole message back.
const LONGEST: usize = 256 * 1024;
