//! A fast upstream for the benchmark: `origin <address>` answers like a small part of GitHub's API.
//!
//! One thread, HTTP/1.1 with keep-alive, answers made once at the start, so that it costs
//! next to nothing beside what is measured. `/repos/{owner}/{repo}` is 2 KiB with links, any
//! other GET about 100 bytes, anything with a body 201. Not a strict reader: the tests have one.

use std::{io, rc::Rc};

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::LocalSet,
};

type AnyError = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), AnyError> {
    let address = std::env::args().nth(1).ok_or("usage: origin <address>")?;
    let listener = TcpListener::bind(&address).await?;
    let local = listener.local_addr()?;
    println!("{local}");
    let answers = Rc::new(Answers::new(&format!("http://{local}")));
    LocalSet::new()
        .run_until(async move {
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let answers = answers.clone();
                // A client that goes away is the end of its connection and of nothing else.
                tokio::task::spawn_local(async move { serve(stream, &answers).await });
            }
        })
        .await
}

/// Whole answers, head and body.
struct Answers {
    small: Vec<u8>,
    repository: Vec<u8>,
    created: Vec<u8>,
}

impl Answers {
    fn new(base: &str) -> Self {
        let small =
            r#"{"Rust":1284211,"Python":220417,"Shell":11804,"TypeScript":90213,"Go":60114,"HTML":2210,"CSS":910}"#;
        let issue = format!(
            r#"{{"id":1,"number":1347,"state":"open","title":"Found","url":"{base}/repos/octo/r0/issues/1347"}}"#
        );
        Self {
            small: answer("200 OK", small),
            repository: answer("200 OK", &repository(base)),
            created: answer("201 Created", &issue),
        }
    }
}

fn answer(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: {length}\r\n\
         X-GitHub-Request-Id: C0DE:1F2E:3D4C\r\n\r\n{body}"
    )
    .into_bytes()
}

/// A repository with some of the links that GitHub gives one, padded to 2 KiB.
fn repository(base: &str) -> String {
    let repo = format!("{base}/repos/octo/r0");
    let mut body = format!(
        r#"{{"id":1296269,"name":"r0","full_name":"octo/r0","private":false,"fork":false,"default_branch":"main","url":"{repo}""#
    );
    for kind in ["forks", "hooks", "events", "tags", "languages", "stargazers", "contributors", "merges", "downloads"] {
        body.push_str(&format!(r#","{kind}_url":"{repo}/{kind}""#));
    }
    body.push_str(r#","description":""#);
    while body.len() < REPOSITORY_BYTES - 2 {
        body.push('x');
    }
    body.push_str("\"}");
    body
}

async fn serve(mut stream: TcpStream, answers: &Answers) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(8192);
    loop {
        while let Some((length, answer)) = next(&buffer, answers)? {
            buffer.advance(length);
            stream.write_all(answer).await?;
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// The length of the first request in the buffer and its answer, once it is there as a whole.
fn next<'a>(buffer: &[u8], answers: &'a Answers) -> io::Result<Option<(usize, &'a [u8])>> {
    let Some(head) = buffer.windows(4).position(|w| w == b"\r\n\r\n") else {
        return if buffer.len() > MAX_HEAD { Err(io::ErrorKind::InvalidData.into()) } else { Ok(None) };
    };
    let text = std::str::from_utf8(buffer.get(..head).unwrap_or_default()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut body = 0;
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
        if name.eq_ignore_ascii_case("content-length") {
            body = value.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(io::ErrorKind::Unsupported.into());
        }
    }
    let whole = head + 4 + body;
    if buffer.len() < whole {
        return Ok(None);
    }
    let answer = match method {
        "GET" if path.bytes().filter(|b| *b == b'/').count() == 3 => &answers.repository,
        "GET" => &answers.small,
        _ => &answers.created,
    };
    Ok(Some((whole, answer)))
}

const REPOSITORY_BYTES: usize = 2048;
const MAX_HEAD: usize = 64 * 1024;
