//! Which agent: its token is found wherever the tool's own client puts its credential.

use std::{net::IpAddr, sync::Arc};

use aegis_broker::{
    Broker,
    identity::{AuthError, Identity},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderMap;
use zeroize::Zeroizing;

use crate::{framing::Request, reply::Reply};

/// The agent that a request's credential names.
pub(crate) async fn authenticate(
    broker: &Broker,
    request: &Request,
    peer: Option<IpAddr>,
) -> Result<Arc<Identity>, Reply> {
    let token = token(&request.credentials).map_err(|e| Reply::auth(e, None))?;
    broker
        .auth
        .agent(&token, peer, broker.env.clock.now())
        .await
        .map_err(|(error, identity)| Reply::auth(error, identity.map(|i| i.agent.agent_id.clone())))
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
            _ => Zeroizing::new(text.trim().to_owned()),
        };
        match &found {
            Some(earlier) if **earlier != *candidate => return Err(AuthError::Conflicting),
            _ => found = Some(candidate),
        }
    }
    found.ok_or(AuthError::Missing)
}

/// `Bearer x`, `token x`, or Basic with the token as user or password.
fn from_authorization(text: &str) -> Result<Zeroizing<String>, AuthError> {
    let (scheme, rest) = text.split_once(' ').ok_or(AuthError::Unknown)?;
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" | "token" => Ok(Zeroizing::new(rest.trim().to_owned())),
        "basic" => {
            let decoded = Zeroizing::new(STANDARD.decode(rest.trim()).map_err(|_| AuthError::Unknown)?);
            let pair = std::str::from_utf8(&decoded).map_err(|_| AuthError::Unknown)?;
            let (user, password) = pair.split_once(':').ok_or(AuthError::Unknown)?;
            match (user.starts_with(PREFIX), password.starts_with(PREFIX)) {
                (true, true) if user != password => Err(AuthError::Conflicting),
                (true, _) => Ok(Zeroizing::new(user.to_owned())),
                (false, true) => Ok(Zeroizing::new(password.to_owned())),
                (false, false) => Err(AuthError::Unknown),
            }
        }
        _ => Err(AuthError::Unknown),
    }
}

const PREFIX: &str = "aegis_agt_";

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
            ("aegis-agent-token", "aegis_agt_x".to_owned()),
        ] {
            assert_eq!(read(&[(headers.0, &headers.1)]).unwrap(), "aegis_agt_x");
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
        assert_eq!(read(&[("cookie", "session=1")]), Err(AuthError::Missing));
    }
}
