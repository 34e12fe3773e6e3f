//! The body, and with it the action and the upstream request.

use std::{collections::BTreeMap, sync::Arc};

use aegis_action::{Action, ActionError, CanonError, ToolCall, canonicalize, parse_strict_bounded, stream_marker};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value};

use super::{
    SYSTEM,
    catalog::{Body, Catalog, Operation, body_name},
    check::check,
    escalate,
    plan::Parsed,
    resource::Variables,
    uris::AnswerUris,
};
use crate::{
    Call, EntityRef, Mapped, Plan, Refusal, UpstreamBody, UpstreamRequest,
    wire::{bad, refuse},
};

pub(super) fn map(catalog: &Catalog, plan: Plan, body: Option<Bytes>) -> Result<Mapped, Refusal> {
    let foreign = || refuse("internal", StatusCode::INTERNAL_SERVER_ERROR, "the plan is another connector's");
    let parsed = plan.parsed.downcast::<Parsed>().map_err(|_| foreign())?;
    let operation = catalog.at(parsed.operation).ok_or_else(foreign)?;
    let Parsed { method, variables, path_and_query, mut parameters, mut headers, media_type, content_length, .. } =
        *parsed;

    let body = body.filter(|b| !b.is_empty());
    let mut marker = None;
    let (upstream, content_type) = match (&operation.body, body) {
        (Body::Stream, _) => {
            let media = media_type.as_deref().unwrap_or("application/octet-stream");
            parameters.insert("content_type".into(), media.into());
            marker = Some(stream_marker(content_length, None));
            (
                UpstreamBody::Stream,
                Some(HeaderValue::from_str(media).map_err(|_| bad("bad_header", "bad `content-type`"))?),
            )
        }
        (_, None) => (UpstreamBody::Empty, None),
        (Body::Text, Some(bytes)) => {
            let text = std::str::from_utf8(&bytes).map_err(|_| bad(BAD_BODY, "the body is not UTF-8"))?;
            parameters.insert("body".into(), text.into());
            let media = if media_type.as_deref() == Some("text/x-markdown") { "text/x-markdown" } else { "text/plain" };
            (UpstreamBody::Bytes(bytes), Some(HeaderValue::from_static(media)))
        }
        (Body::None | Body::Json { .. }, Some(bytes)) => {
            let (members, sent) = write_object(read_object(operation, &bytes)?)?;
            for (member, value) in members {
                let name = body_name(&member, &operation.pieces, &operation.query);
                if parameters.insert(name, value).is_some() {
                    return Err(bad(BAD_BODY, format!("the member `{member}` cannot be told from another parameter")));
                }
            }
            (UpstreamBody::Bytes(sent), Some(HeaderValue::from_static("application/json")))
        }
    };
    for (name, parameter) in &operation.entry.parameters {
        check(name, parameter, parameters.get(name))?;
    }
    headers.extend(content_type.map(|value| (header::CONTENT_TYPE, value)));
    let call = call(operation, &variables, parameters, marker)?;
    let rewrite = operation.uris.map(|root| Arc::new(AnswerUris(root)) as _);
    Ok(Mapped {
        calls: vec![call],
        upstream: UpstreamRequest { method, path_and_query, headers, body: upstream },
        rewrite,
    })
}

/// The call that an operation with these variables and parameters is; they are checked already.
pub(super) fn call(
    operation: &Operation,
    variables: &Variables,
    parameters: Map<String, Value>,
    marker: Option<Value>,
) -> Result<Call, Refusal> {
    let incomplete = || bad("bad_resource", "the resource is incomplete");
    let resource: Vec<EntityRef> = operation
        .entities
        .iter()
        .map(|(ty, id)| Ok(EntityRef { ty: ty.clone(), id: id.fill(variables).ok_or_else(incomplete)? }))
        .collect::<Result<_, Refusal>>()?;
    let entry = operation.entry.clone();
    let call = ToolCall {
        tool: SYSTEM.into(),
        action: entry.name.clone(),
        resource: resource.first().map(|r| r.id.clone()),
        mutates_state: entry.mutates_state,
        parameters,
    };
    let class = escalate::class(&entry.operation, entry.class, &call.parameters);
    let action = match marker {
        Some(marker) => Action::with_stream(call, marker),
        None => Action::new(call),
    };
    let action = action.map_err(not_an_action)?;
    Ok(Call { action, entry, class, resource, sending: BTreeMap::new() })
}

fn read_object(operation: &Operation, bytes: &[u8]) -> Result<Map<String, Value>, Refusal> {
    // The plan's bound was applied while reading.
    let value = parse_strict_bounded(bytes, bytes.len()).map_err(|e| bad(BAD_BODY, e.to_string()))?;
    match (value, &operation.body) {
        (Value::Object(map), _) if map.contains_key("_method") => {
            Err(bad("method_override", "the body member `_method` is not passed on"))
        }
        (Value::Object(map), _) => Ok(map),
        (list @ Value::Array(_), Body::Json { list: Some(member), .. }) => Ok(Map::from_iter([(member.clone(), list)])),
        // Some clients spell "nothing" so.
        (Value::Null, _) => Ok(Map::new()),
        _ => Err(bad(BAD_BODY, "the body must be a JSON object")),
    }
}

/// The parse written out, not the bytes that came.
fn write_object(members: Map<String, Value>) -> Result<(Map<String, Value>, Bytes), Refusal> {
    let value = Value::Object(members);
    let bytes = match canonicalize(&value) {
        Ok(bytes) => bytes,
        // Beyond the canonical bound only because of strings that the action folds.
        Err(CanonError::TooLarge(_)) => serde_json::to_vec(&value).map_err(|e| bad(BAD_BODY, e.to_string()))?,
        Err(e) => return Err(bad(BAD_BODY, e.to_string())),
    };
    match value {
        Value::Object(members) => Ok((members, bytes.into())),
        _ => Err(bad(BAD_BODY, "the body must be a JSON object")),
    }
}

pub(super) fn not_an_action(error: ActionError) -> Refusal {
    match error {
        ActionError::Parameters(CanonError::TooLarge(_)) => {
            refuse("too_large", StatusCode::PAYLOAD_TOO_LARGE, error.to_string())
        }
        ActionError::BadName { .. } | ActionError::BadResource | ActionError::Parameters(_) => {
            bad("bad_action", error.to_string())
        }
    }
}

const BAD_BODY: &str = "bad_body";
