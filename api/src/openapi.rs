//! The OpenAPI 3.1 document, made from the handlers and the types that they take and give.

use std::sync::LazyLock;

use axum::response::IntoResponse;
use http::header;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        Content, Ref, RefOr, Response,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use crate::{admin, agent, answers, ca, doors, evidence};

/// Both doors as one OpenAPI document, pretty JSON with a newline at the end.
pub fn document() -> String {
    let mut text = Document::openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// `GET /openapi.json`.
pub(crate) async fn serve() -> impl IntoResponse {
    static TEXT: LazyLock<String> = LazyLock::new(document);
    ([(header::CONTENT_TYPE, "application/json")], TEXT.as_str())
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Aegis", description = "Decisions for agents, administration for people. Instants are RFC 3339 in UTC with \
        milliseconds; digests are SHA-256 in lowercase hex. Every error is a problem document (RFC 9457)."),
    paths(
        agent::authorize, agent::report_outcome, agent::consume, agent::rotate_self,
        admin::register, admin::list_agents, admin::get_agent, admin::rotate, admin::freeze, admin::unfreeze,
        admin::quarantine, admin::revoke, admin::start_session, admin::renew_session, admin::end_session, admin::add_approver, admin::list_approvers, admin::revoke_approver,
        admin::list_approvals, admin::get_approval, admin::approve, admin::reject, admin::give_grant, admin::list_grants, admin::revoke_grant,
        evidence::decisions, evidence::receipts, evidence::receipt, evidence::bundle, evidence::why,
        admin::actions, admin::action, admin::list_credentials, admin::put_credential, admin::remove_credential,
        ca::bundle, ca::ca_status, ca::rotate_ca, ca::finish_ca,
        admin::reload, doors::health, admin::ready, admin::metrics,
    ),
    components(schemas(answers::Problem)),
    tags(
        (name = "agent", description = "On the agents' listener, with an agent's token."),
        (name = "agents", description = "On the admin listener, with an admin's token."),
        (name = "approvers", description = "On the admin listener, with an admin's token."),
        (name = "approvals", description = "Seen by admins and approvers, settled by approvers."),
        (name = "evidence", description = "What is on record."),
        (name = "catalog", description = "Names of actions."),
        (name = "credentials", description = "On the admin listener, with an admin's token. Values never come out."),
        (name = "ca", description = "On the admin listener, with an admin's token; `GET /v1/ca` on both, for anyone."),
        (name = "operations", description = "On the admin listener; `/health` on both, and so is `/ready`, without its checks on the agents'."),
    ),
    modifiers(&Everywhere)
)]
struct Document;

/// What holds for every operation.
struct Everywhere;

impl Modify for Everywhere {
    fn modify(&self, doc: &mut utoipa::openapi::OpenApi) {
        let components = doc.components.get_or_insert_default();
        for (name, format, words) in [
            ("agent", "aegis_agt_…", "An agent's token, also as `Aegis-Agent-Token`."),
            ("admin", "aegis_adm_…", "An admin's token."),
            ("approver", "aegis_apr_…", "An approver's token."),
        ] {
            let scheme = HttpBuilder::new()
                .scheme(HttpAuthScheme::Bearer)
                .bearer_format(format)
                .description(Some(words))
                .build();
            components.add_security_scheme(name, SecurityScheme::Http(scheme));
        }
        let mut problem =
            Response::new("A problem (RFC 9457); `type` ends in a stable code, also sent as `Aegis-Reason`.");
        let content = Content::new(Some(RefOr::Ref(Ref::from_schema_name("Problem"))));
        problem.content.insert("application/problem+json".into(), content);
        for item in doc.paths.paths.values_mut() {
            let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete];
            for operation in operations.into_iter().flatten() {
                operation.responses.responses.insert("default".into(), RefOr::T(problem.clone()));
            }
        }
    }
}

/// Schemas of types that are not ours to describe.
pub(crate) mod words {
    use aegis_action::{AccessClass, Risk, SourceTrust};
    use utoipa::openapi::{
        Object, ObjectBuilder,
        schema::{AdditionalProperties, SchemaType, Type},
    };

    pub(crate) fn decision() -> Object {
        one_of(&["allow", "deny", "require_approval"])
    }
    pub(crate) fn approval_status() -> Object {
        one_of(&["pending", "approved", "rejected", "expired", "consumed", "cancelled"])
    }
    pub(crate) fn agent_state() -> Object {
        one_of(&["active", "frozen", "quarantined", "revoked", "expired"])
    }
    pub(crate) fn trust() -> Object {
        one_of(&SourceTrust::ALL.map(SourceTrust::as_str))
    }
    pub(crate) fn optional_trust() -> Object {
        let mut schema = trust();
        schema.schema_type = SchemaType::from_iter([Type::String, Type::Null]);
        if let Some(values) = &mut schema.enum_values {
            values.push(serde_json::Value::Null);
        }
        schema
    }
    pub(crate) fn risk() -> Object {
        one_of(&Risk::ALL.map(Risk::as_str))
    }
    pub(crate) fn class() -> Object {
        one_of(&AccessClass::ALL.map(AccessClass::as_str))
    }

    /// `aegis_action::ToolCall`: exactly five members.
    pub(crate) fn tool_call() -> Object {
        let text = |words: &str| ObjectBuilder::new().schema_type(Type::String).description(Some(words)).build();
        let resource = ObjectBuilder::new()
            .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
            .description(Some("what is acted on, e.g. `octo/payments#482`; `null` where there is no resource"));
        let flag =
            ObjectBuilder::new().schema_type(Type::Boolean).description(Some("whether the effect outlives the call"));
        let parameters = ObjectBuilder::new()
            .schema_type(Type::Object)
            .additional_properties(Some(AdditionalProperties::FreeForm(true)))
            .description(Some("everything else that the effect depends on"));
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .description(Some("a call as the catalog names it"))
            .property("tool", text("system, e.g. `github`"))
            .property("action", text("catalog name, e.g. `merge_pull_request`"))
            .property("resource", resource)
            .property("mutates_state", flag)
            .property("parameters", parameters)
            .required("tool")
            .required("action")
            .required("resource")
            .required("mutates_state")
            .required("parameters")
            .additional_properties(Some(AdditionalProperties::FreeForm(false)))
            .build()
    }

    fn one_of(words: &[&str]) -> Object {
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words.iter().copied())).build()
    }
}
