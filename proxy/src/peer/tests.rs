use std::{collections::BTreeSet, sync::Arc};

use aegis_action::sha256;
use aegis_broker::{
    config::{self, ClientCertificate, ClientKey, CredentialKind, CredentialSpec, NamedFiles, Roots},
    credential::Credential,
    secret::Secret,
    vault::Leased,
};

use super::*;
use crate::chain::Tunnelled;

fn route(more: &str) -> Route {
    let text = format!("[[route]]\nname = \"r\"\nupstream = \"https://api.example\"\n{more}\n");
    let (config, _) = config::parse("routes.toml", &text, &NamedFiles::default()).unwrap();
    Route::clone(&config.routes[0])
}

fn credential(id: &str, version: &str) -> Option<Arc<Credential>> {
    let kind = CredentialKind::Bearer { scheme: "Bearer".into() };
    let spec = Arc::new(CredentialSpec { name: id.into(), vault: "embedded".into(), key: id.into(), kind, line: 1 });
    let value = Secret::from("value".to_owned());
    let leased = Leased { value, version: version.into(), expires_at: None, renewable: false };
    Some(Arc::new(Credential::new(&spec, leased).unwrap()))
}

struct Case {
    route: Route,
    whose: (&'static str, &'static str),
    secrets: Secrets,
    kind: Kind,
    at: &'static str,
    via: Option<&'static str>,
}

impl Case {
    fn plain() -> Self {
        let secrets = Secrets { credential: credential("github", "1"), ..Secrets::default() };
        Self { route: route(""), whose: ("t", "a"), secrets, kind: Kind::Http, at: "1.1.1.1:443", via: None }
    }

    fn key(&self) -> u64 {
        let way = match self.via {
            None => Way::Straight(self.at.parse().unwrap()),
            Some(via) => Way::Through(Arc::new(Tunnelled::new(via.parse().unwrap(), self.at.into(), None).unwrap())),
        };
        let whose = Whose { tenant: self.whose.0, agent: self.whose.1 };
        group(&self.route, whose, &self.secrets, &self.kind.alpn(&self.route), &way, &Tls::default())
    }
}

#[test]
fn whatever_differs_makes_another_connection() {
    let plain = Case::plain();
    assert_eq!(plain.key(), Case::plain().key(), "one agent keeps its own");
    let client = |name: &[u8]| {
        let mut route = route("");
        let key = ClientKey::Bytes(Secret::new(Vec::new()));
        route.egress.client = Some(Arc::new(ClientCertificate { chain: Vec::new(), fingerprint: sha256(name), key }));
        Case { route, ..Case::plain() }
    };
    let roots = |name: &[u8]| {
        let mut route = route("");
        route.egress.roots = Some(Arc::new(Roots { certificates: Vec::new(), fingerprint: sha256(name) }));
        Case { route, ..Case::plain() }
    };
    let secrets =
        |credential, client_key, proxy| Case { secrets: Secrets { credential, client_key, proxy }, ..Case::plain() };
    let mut renamed = route("");
    renamed.name = "other".into();
    let mut elsewhere = route("");
    elsewhere.upstream.host = "other.example".into();
    let cases = [
        plain,
        Case { whose: ("u", "a"), ..Case::plain() },
        Case { whose: ("t", "b"), ..Case::plain() },
        Case { whose: ("ta", ""), ..Case::plain() },
        Case { route: renamed, ..Case::plain() },
        Case { route: elsewhere, ..Case::plain() },
        secrets(None, None, None),
        secrets(credential("other", "1"), None, None),
        secrets(credential("github", "2"), None, None),
        secrets(credential("github", "1"), credential("key", "1"), None),
        secrets(credential("github", "1"), credential("key", "2"), None),
        secrets(credential("github", "1"), None, credential("proxy", "1")),
        secrets(credential("github", "1"), None, credential("proxy", "2")),
        client(b"one"),
        client(b"two"),
        roots(b"one"),
        roots(b"two"),
        Case { kind: Kind::WebSocket, ..Case::plain() },
        Case { route: route("grpc = true\nconnector = \"http\""), ..Case::plain() },
        Case { at: "1.0.0.1:443", ..Case::plain() },
        Case { via: Some("10.0.0.1:3128"), ..Case::plain() },
        Case { via: Some("10.0.0.2:3128"), ..Case::plain() },
    ];
    let keys: BTreeSet<u64> = cases.iter().map(Case::key).collect();
    assert_eq!(keys.len(), cases.len());
}

#[test]
fn what_is_spoken_follows_from_route_and_request() {
    let tls = |more: &str| route(more);
    let plain = |more: &str| {
        let text = format!(
            "[[route]]\nname = \"r\"\nupstream = \"http://a.example\"\ndanger_plaintext_upstream = true\n{more}\n"
        );
        let (config, _) = config::parse("routes.toml", &text, &NamedFiles::default()).unwrap();
        Route::clone(&config.routes[0])
    };
    for (route, kind, alpn) in [
        (tls(""), Kind::Http, ALPN::H2H1),
        (tls("http2 = false"), Kind::Http, ALPN::H1),
        (tls(""), Kind::Fact, ALPN::H1),
        (tls("grpc = true"), Kind::Grpc, ALPN::H2),
        (tls("grpc = true"), Kind::Http, ALPN::H2),
        (tls("websocket = true"), Kind::WebSocket, ALPN::H1),
        (plain(""), Kind::Http, ALPN::H1),
        (plain("http2 = true"), Kind::Http, ALPN::H2),
        (plain("http2 = true"), Kind::Fact, ALPN::H2),
        (plain("grpc = true"), Kind::Grpc, ALPN::H2),
    ] {
        assert_eq!(kind.alpn(&route), alpn, "{kind:?} {:?}", route.egress);
    }
}

#[test]
fn verification_is_always_on() {
    let way = Way::Straight("1.1.1.1:443".parse().unwrap());
    let whose = Whose { tenant: "t", agent: "a" };
    let peer = peer(&route(""), whose, &Secrets::default(), Kind::Http, way, Tls::default());
    assert_eq!(peer.sni, "api.example");
    assert!(peer.options.verify_cert && peer.options.verify_hostname && peer.options.alternative_cn.is_none());
    assert!(peer.is_tls());
}
