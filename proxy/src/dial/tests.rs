use std::{
    collections::VecDeque,
    io,
    sync::atomic::{AtomicUsize, Ordering},
};

use aegis_broker::config::{self, NamedFiles};
use http::Method;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::vet::tests::INTERNAL;

/// Says what it was told to say, the last answer for ever.
struct Script {
    answers: Mutex<VecDeque<Vec<SocketAddr>>>,
    asked: AtomicUsize,
}

impl Script {
    fn of(answers: &[&[&str]]) -> Arc<Self> {
        let one = |texts: &&[&str]| texts.iter().map(|t| t.parse().unwrap()).collect();
        Arc::new(Self { answers: Mutex::new(answers.iter().map(one).collect()), asked: AtomicUsize::new(0) })
    }
}

#[async_trait]
impl Resolve for Script {
    async fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock();
        Ok(if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }.unwrap())
    }
}

const AT_ONCE: Duration = Duration::from_nanos(1);
const LONG: Duration = Duration::from_secs(60);

async fn look(dialer: &Dialer, allowed: &[&str]) -> Result<String, String> {
    let nets: Vec<IpNet> = allowed.iter().map(|n| n.parse().unwrap()).collect();
    dialer.vetted("flip.example", 443, &nets).await.map(|a| a[0].to_string()).map_err(|e| e.to_string())
}

fn forbidden() -> Result<String, String> {
    Err(DialError::Forbidden.to_string())
}

#[tokio::test]
async fn a_resolver_that_flips_is_refused_whenever_it_lies() {
    let internal = INTERNAL.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 443).to_string());
    for lie in internal {
        let script = Script::of(&[&["140.82.121.6:443"], &[&lie], &["140.82.121.6:443", &lie], &[&lie, "1.1.1.1:443"]]);
        let dialer = Dialer::with(script, AT_ONCE);
        assert_eq!(look(&dialer, &[]).await, Ok("140.82.121.6:443".into()));
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(look(&dialer, &[]).await, forbidden(), "{lie}");
        }
    }
}

#[tokio::test]
async fn what_is_remembered_is_vetted_anew() {
    let script = Script::of(&[&["10.0.0.7:443"]]);
    let dialer = Dialer::with(script.clone(), LONG);
    assert_eq!(look(&dialer, &["10.0.0.0/24"]).await, Ok("10.0.0.7:443".into()));
    assert_eq!(look(&dialer, &[]).await, forbidden());
    assert_eq!(look(&dialer, &["10.0.0.0/24"]).await, Ok("10.0.0.7:443".into()));
    dialer.own("10.0.0.7:443".parse().unwrap());
    assert_eq!(look(&dialer, &["10.0.0.0/24"]).await, forbidden());
    assert_eq!(script.asked.load(Ordering::SeqCst), 1, "all from one answer");
}

#[tokio::test]
async fn names_without_an_address_are_asked_again() {
    let script = Script::of(&[&[], &["1.1.1.1:443"]]);
    let dialer = Dialer::with(script.clone(), LONG);
    assert!(look(&dialer, &[]).await.unwrap_err().contains("cannot be resolved"));
    assert_eq!(look(&dialer, &[]).await, Ok("1.1.1.1:443".into()));
}

/// Counts connections and answers each with an empty 200.
async fn origin(addr: &str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(addr).await.unwrap();
    let (at, seen) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = seen.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut asked = Vec::new();
                while stream.read_buf(&mut asked).await.unwrap_or(0) > 0 {
                    if asked.ends_with(b"\r\n\r\n") {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                        asked.clear();
                    }
                }
            });
        }
    });
    (at, seen)
}

fn route(more: &str) -> Arc<Route> {
    let text = format!("[[route]]\nname = \"r\"\n{more}\n");
    let (config, _) = config::parse("routes.toml", &text, &NamedFiles::default()).unwrap();
    config.routes[0].clone()
}

async fn fetch(dialer: &Dialer, route: &Route) -> Result<StatusCode, String> {
    let request = UpstreamRequest {
        method: Method::GET,
        path_and_query: "/".into(),
        headers: Vec::new(),
        body: UpstreamBody::Empty,
    };
    dialer.fetch(route, request, &Secrets::default(), 1000).await.map(|(status, _)| status).map_err(|e| e.to_string())
}

#[tokio::test]
async fn the_vetted_address_is_the_one_that_is_dialled() {
    let (good, seen_good) = origin("127.0.0.1:0").await;
    let (bad, seen_bad) = origin(&format!("127.0.0.2:{}", good.port())).await;
    let text = format!(
        "upstream = \"http://flip.example:{}\"\ndanger_plaintext_upstream = true\nallow_internal = [\"127.0.0.1/32\"]",
        good.port()
    );
    let route = route(&text);
    let (good, bad) = (good.to_string(), bad.to_string());
    let script = Script::of(&[&[&good], &[&bad], &[&good, &bad], &[&good]]);
    let dialer = Dialer::with(script, AT_ONCE);
    let mut outcomes = Vec::new();
    for _ in 0..4 {
        outcomes.push(fetch(&dialer, &route).await.is_ok());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(outcomes, [true, false, false, true]);
    assert_eq!((seen_good.load(Ordering::SeqCst), seen_bad.load(Ordering::SeqCst)), (1, 0));
}

#[tokio::test]
async fn the_next_address_is_dialled_where_the_first_takes_nothing() {
    let (open, seen) = origin("127.0.0.2:0").await;
    let closed = format!("127.0.0.1:{}", open.port());
    let text = format!(
        "upstream = \"http://flip.example:{}\"\ndanger_plaintext_upstream = true\nallow_internal = [\"127.0.0.0/8\"]",
        open.port()
    );
    let dialer = Dialer::with(Script::of(&[&[&closed, &open.to_string()]]), LONG);
    assert_eq!(fetch(&dialer, &route(&text)).await, Ok(StatusCode::OK));
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_proxy_is_vetted_like_any_host_and_asked_for_a_vetted_address() {
    let script = Script::of(&[&["140.82.121.6:443"]]);
    let dialer = Dialer::with(script, LONG);
    let way = |text: &str| {
        let (dialer, route) = (dialer.clone(), route(text));
        async move { dialer.ways(&route, None).await.map(|ways| ways[0].label()).map_err(|e| e.to_string()) }
    };
    let upstream = "upstream = \"https://api.example\"\n";
    let through = way(&format!("{upstream}upstream_proxy = \"http://10.0.0.5:3128\"")).await;
    assert_eq!(through, Ok("140.82.121.6:443 via 10.0.0.5:3128".into()));
    let by_name = "upstream_proxy = \"http://10.0.0.5:3128\"\ndanger_proxy_resolves = true";
    assert_eq!(way(&format!("{upstream}{by_name}")).await, Ok("api.example:443 via 10.0.0.5:3128".into()));
    // What is an address is vetted here, whoever resolves.
    assert_eq!(way(&format!("upstream = \"https://169.254.169.254\"\n{by_name}")).await, forbidden());

    let inside = Dialer::with(Script::of(&[&["10.0.0.9:3128"]]), LONG);
    let named = route("upstream = \"https://1.1.1.1\"\nupstream_proxy = \"http://proxy.example:3128\"");
    assert!(matches!(inside.ways(&named, None).await, Err(DialError::Forbidden)));
    let allowed = "allow_internal = [\"10.0.0.9/32\"]";
    let named =
        route(&format!("upstream = \"https://1.1.1.1\"\nupstream_proxy = \"http://proxy.example:3128\"\n{allowed}"));
    assert_eq!(inside.ways(&named, None).await.unwrap()[0].label(), "1.1.1.1:443 via 10.0.0.9:3128");
}
