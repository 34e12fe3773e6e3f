//! Which agent: its token is found wherever the tool's own client puts its credential, or was shown to
//! the gateway as a proxy.

use std::{net::IpAddr, sync::Arc};

use aegis_broker::{
    Broker,
    config::ProxyAuth,
    identity::{AuthError, Identity},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, header};
use zeroize::Zeroizing;

use crate::{conn::Ingress, exchange::Exchange, framing::Request, reply::Reply};

/// The agent that a request's credentials name.
pub(crate) async fn authenticate(broker: &Broker, request: &Request, x: &Exchange) -> Result<Arc<Identity>, Reply> {
    let shown = match x.conn.ingress() {
        // Looked up for each request: whoever was let in may have been revoked since.
        Ingress::Tunnel(tunnel) => match &tunnel.token {
            Some(token) => Some(identify(broker, token, x.peer).await.map_err(|(e, id)| Reply::auth(e, id))?),
            None => None,
        },
        _ if request.absolute => match proxy_identity(broker, &request.credentials, x.peer).await {
            Ok(identity) => Some(identity),
            Err(Reply::Refused { reason, .. }) if reason == AuthError::Missing.reason() => None,
            Err(refusal) => return Err(refusal),
        },
        _ => None,
    };
    if let Some(identity) = shown {
        return agrees(broker, &request.credentials, &identity, x.peer).await.map(|()| identity);
    }
    let token = token(&request.credentials).map_err(|e| match e {
        AuthError::Missing if request.absolute && asks(x) => Reply::proxy_auth(e, None),
        other => Reply::auth(other, None),
    })?;
    identify(broker, &token, x.peer).await.map_err(|(e, id)| Reply::auth(e, id))
}

/// The agent that is shown to the gateway as a proxy.
pub(crate) async fn proxy_identity(
    broker: &Broker,
    headers: &HeaderMap,
    peer: Option<IpAddr>,
) -> Result<Arc<Identity>, Reply> {
    let token = proxy_token(headers).map_err(|e| Reply::proxy_auth(e, None))?;
    identify(broker, &token, peer).await.map_err(|(e, id)| Reply::proxy_auth(e, id))
}

/// The token in `Proxy-Authorization`.
pub(crate) fn proxy_token(headers: &HeaderMap) -> Result<Zeroizing<String>, AuthError> {
    let mut values = headers.get_all(header::PROXY_AUTHORIZATION).iter();
    match (values.next(), values.next()) {
        (None, _) => Err(AuthError::Missing),
        (Some(value), None) => from_authorization(value.to_str().map_err(|_| AuthError::Unknown)?),
        (Some(_), Some(_)) => Err(AuthError::Conflicting),
    }
}

/// A stranger to the forward proxy is asked who it is before it learns what is routed; a refusal for an
/// agent names it.
pub(crate) async fn before_refusal(broker: &Broker, request: &Request, x: &mut Exchange, refusal: Reply) -> Reply {
    if request.absolute {
        match proxy_identity(broker, &request.credentials, x.peer).await {
            Ok(identity) => x.identity = Some(identity),
            Err(first) => return first,
        }
    }
    refusal
}

async fn identify(
    broker: &Broker,
    token: &str,
    peer: Option<IpAddr>,
) -> Result<Arc<Identity>, (AuthError, Option<String>)> {
    let found = broker.auth.agent(token, peer, broker.env.clock.now()).await;
    found.map_err(|(error, identity)| (error, identity.map(|i| i.agent.agent_id.clone())))
}

/// Whether the route's clients are asked for the proxy's own credential.
fn asks(x: &Exchange) -> bool {
    x.scope.as_ref().and_then(|s| s.route.as_ref()).is_none_or(|r| r.proxy_auth == ProxyAuth::Challenge)
}

/// Who is known as a client of the proxy may send whatever its tool insists on as a credential of the
/// tool's, which goes nowhere; but no token of ours that is not its own.
async fn agrees(
    broker: &Broker,
    credentials: &HeaderMap,
    identity: &Identity,
    peer: Option<IpAddr>,
) -> Result<(), Reply> {
    for token in ours(credentials) {
        match identify(broker, &token, peer).await {
            Ok(same) if same.agent.agent_id == identity.agent.agent_id => {}
            Ok(_) | Err(_) => {
                return Err(Reply::auth(AuthError::Conflicting, Some(identity.agent.agent_id.clone())));
            }
        }
    }
    Ok(())
}

/// What looks like a token of ours, wherever clients put credentials.
fn ours(credentials: &HeaderMap) -> Vec<Zeroizing<String>> {
    let mut found = Vec::new();
    for (name, value) in credentials {
        // What else is in a cookie is the tool's affair; the proxy's own credential is looked at already.
        if *name == header::COOKIE || *name == header::PROXY_AUTHORIZATION {
            continue;
        }
        let text = Zeroizing::new(String::from_utf8_lossy(value.as_bytes()).into_owned());
        let decoded = text
            .split_once(' ')
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
            .and_then(|(_, rest)| STANDARD.decode(rest.trim()).ok())
            .map(|bytes| Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned()));
        for text in [Some(text), decoded].into_iter().flatten() {
            let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            found.extend(words.map(unshaped).filter(|w| w.starts_with(OURS)).map(|w| Zeroizing::new(w.to_owned())));
        }
    }
    found
}

/// Exactly one token, however often it is repeated.
fn token(credentials: &HeaderMap) -> Result<Zeroizing<String>, AuthError> {
    if credentials.get_all(http::header::AUTHORIZATION).iter().count() > 1 {
        // RFC 9110 allows one; a second is for somebody who reads the other.
        return Err(AuthError::Conflicting);
    }
    let mut found: Option<Zeroizing<String>> = None;
    for (name, value) in credentials {
        let Ok(text) = value.to_str() else { return Err(AuthError::Unknown) };
        let candidate = match name.as_str() {
            "authorization" => from_authorization(text)?,
            // Cookies and the forward proxy's credential say nothing about the agent on a route.
            "cookie" | "proxy-authorization" => continue,
            _ => Zeroizing::new(unshaped(text.trim()).to_owned()),
        };
        match &found {
            Some(earlier) if **earlier != *candidate => return Err(AuthError::Conflicting),
            _ => found = Some(candidate),
        }
    }
    found.ok_or(AuthError::Missing)
}

/// `Bearer x`, `token x`, Basic with the token as user or password, or the key id of an AWS signature.
fn from_authorization(text: &str) -> Result<Zeroizing<String>, AuthError> {
    let (scheme, rest) = text.split_once(' ').ok_or(AuthError::Unknown)?;
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" | "token" => Ok(Zeroizing::new(unshaped(rest.trim()).to_owned())),
        "basic" => {
            let decoded = Zeroizing::new(STANDARD.decode(rest.trim()).map_err(|_| AuthError::Unknown)?);
            let pair = std::str::from_utf8(&decoded).map_err(|_| AuthError::Unknown)?;
            let (user, password) = pair.split_once(':').ok_or(AuthError::Unknown)?;
            let (user, password) = (unshaped(user), unshaped(password));
            match (user.starts_with(PREFIX), password.starts_with(PREFIX)) {
                (true, true) if user != password => Err(AuthError::Conflicting),
                (true, _) => Ok(Zeroizing::new(user.to_owned())),
                (false, true) => Ok(Zeroizing::new(password.to_owned())),
                (false, false) => Err(AuthError::Unknown),
            }
        }
        // The signature is made with a placeholder and shows nothing; the id is the token.
        "aws4-hmac-sha256" => {
            let scope = rest.split(',').find_map(|part| part.trim().strip_prefix("Credential="));
            let id = scope.and_then(|scope| scope.split('/').next()).filter(|id| id.starts_with(PREFIX));
            id.map(|id| Zeroizing::new(id.to_owned())).ok_or(AuthError::Unknown)
        }
        _ => Err(AuthError::Unknown),
    }
}

/// A token without what a tool's client wants to see before it, as `aegis run` gives it out.
fn unshaped(text: &str) -> &str {
    text.strip_prefix(STRIPE).filter(|rest| rest.starts_with(PREFIX)).unwrap_or(text)
}

const PREFIX: &str = "aegis_agt_";
/// Stripe's command line takes no key without it.
const STRIPE: &str = "sk_test_";
/// All tokens of the gateway's own, of agents or people.
const OURS: &str = "aegis_";

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    fn read(pairs: &[(&str, &str)]) -> Result<String, AuthError> {
        let mut map = HeaderMap::new();
        for (k, v) in pairs {
            map.append(HeaderName::from_bytes(k.as_bytes()).unwrap(), v.parse().unwrap());
        }
        token(&map).map(|t| t.to_string())
    }

    #[test]
    fn the_token_is_found_where_clients_put_it() {
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        for headers in [
            ("authorization", "Bearer aegis_agt_x".to_owned()),
            ("authorization", "token aegis_agt_x".to_owned()),
            ("authorization", basic("aegis_agt_x:x-oauth-basic")),
            ("authorization", basic("git:aegis_agt_x")),
            ("x-api-key", "aegis_agt_x".to_owned()),
            ("authorization", "Bearer sk_test_aegis_agt_x".to_owned()),
            ("authorization", basic("sk_test_aegis_agt_x:")),
            (
                "authorization",
                "AWS4-HMAC-SHA256 Credential=aegis_agt_x/20260101/us-east-1/s3/aws4_request, Signature=0".to_owned(),
            ),
            ("aegis-agent-token", "aegis_agt_x".to_owned()),
        ] {
            assert_eq!(read(&[(headers.0, &headers.1)]).unwrap(), "aegis_agt_x");
        }
    }

    #[test]
    fn a_placeholder_is_anything_but_a_token_of_ours() {
        let found = |name: &str, value: &str| {
            let mut map = HeaderMap::new();
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
            ours(&map).iter().map(|t| t.to_string()).collect::<Vec<_>>()
        };
        let basic = format!("Basic {}", STANDARD.encode("x:aegis_agt_y"));
        for (name, value) in [
            ("authorization", "Bearer ghp_placeholder"),
            ("authorization", "AWS4-HMAC-SHA256 Credential=AKIA/x"),
            ("x-api-key", "sk-placeholder"),
            ("proxy-authorization", "Bearer aegis_agt_x"),
            ("authorization", "Basic !!!"),
        ] {
            assert!(found(name, value).is_empty(), "{name}: {value}");
        }
        for (name, value, token) in [
            ("authorization", "Bearer aegis_agt_x", "aegis_agt_x"),
            ("authorization", &basic, "aegis_agt_y"),
            ("authorization", "AWS4-HMAC-SHA256 Credential=aegis_agt_x/2026", "aegis_agt_x"),
            ("authorization", "Bearer sk_test_aegis_agt_x", "aegis_agt_x"),
            ("x-api-key", "aegis_adm_x", "aegis_adm_x"),
            ("private-token", "aegis_apr_x", "aegis_apr_x"),
        ] {
            assert_eq!(found(name, value), [token], "{name}: {value}");
        }
    }

    #[test]
    fn doubt_is_no_identity() {
        assert_eq!(read(&[]), Err(AuthError::Missing));
        assert_eq!(
            read(&[("authorization", "Bearer aegis_agt_x"), ("x-api-key", "aegis_agt_y")]),
            Err(AuthError::Conflicting)
        );
        assert_eq!(read(&[("authorization", "Negotiate abc")]), Err(AuthError::Unknown));
        assert_eq!(read(&[("authorization", "Basic !!!")]), Err(AuthError::Unknown));
        assert_eq!(read(&[("authorization", "AWS4-HMAC-SHA256 Credential=AKIA/x")]), Err(AuthError::Unknown));
        assert_eq!(read(&[("cookie", "session=1")]), Err(AuthError::Missing));
    }
}
