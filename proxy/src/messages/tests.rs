use std::sync::LazyLock;

use aegis_broker::{config::CredentialKind, secret::Secret};
use proptest::prelude::*;

use super::*;

const SECRET: &str = "ghs_S3cr3tValue0123456789";

static ECHOES: LazyLock<Arc<Echoes>> = LazyLock::new(|| {
    let kind = CredentialKind::Bearer { scheme: "Bearer".into() };
    Arc::new(Echoes::of(&kind, &Secret::from(SECRET.to_owned())).unwrap())
});

fn server() -> FrameReader {
    FrameReader::of_server(Some(ECHOES.clone()))
}

fn frame(first: u8, payload: &[u8], mask: bool) -> Vec<u8> {
    let bit = if mask { 0x80 } else { 0 };
    let mut out = vec![first];
    match payload.len() {
        short @ 0..=125 => out.push(bit | short as u8),
        middle @ 126..=0xffff => {
            out.push(bit | 126);
            out.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            out.push(bit | 127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    if mask {
        let key = [1, 2, 3, 4];
        out.extend_from_slice(&key);
        out.extend(payload.iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k));
    } else {
        out.extend_from_slice(payload);
    }
    out
}

fn pass(reader: &mut FrameReader, bytes: &[u8], chunk: usize) -> Result<Vec<u8>, FrameFault> {
    let mut out = Vec::new();
    for part in bytes.chunks(chunk) {
        out.extend_from_slice(&reader.push(&Bytes::copy_from_slice(part))?);
    }
    Ok(out)
}

#[test]
fn frames_of_any_length_are_counted_both_ways() {
    for chunk in [1, 3, 1000, usize::MAX] {
        for (mut reader, mask) in
            [(FrameReader::of_client(), true), (server(), false), (FrameReader::of_server(None), false)]
        {
            let stream = [
                frame(0x81, b"hello", mask),
                frame(0x02, &[7; 126], mask),
                frame(0x89, b"ping", mask),
                frame(0x80, &[8; 70_000], mask),
                frame(0x82, b"", mask),
                frame(0x88, b"", mask),
            ]
            .concat();
            assert_eq!(pass(&mut reader, &stream, chunk).unwrap(), stream);
            assert_eq!((reader.count(), reader.masked()), (6, 0));
        }
    }
}

#[test]
fn what_is_no_frame_ends_the_stream() {
    for (bytes, mask) in [
        (frame(0xc1, b"x", false), false), // compressed, without an agreement
        (frame(0x83, b"x", false), false), // reserved opcode
        (frame(0x8b, b"x", false), false), // reserved control opcode
        (frame(0x81, b"x", true), false),  // a server that masks
        (frame(0x81, b"x", false), true),  // a client that does not
        (frame(0x80, b"x", false), false), // continues nothing
        (frame(0x09, b"x", false), false), // a control frame in parts
        (vec![0x89, 126, 0, 126], false),  // a long control frame
        (vec![0x81, 126, 0, 125], false),  // not the shortest form
        (vec![0x81, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff], false),
        (vec![0x81, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], false),
        ([frame(0x01, b"a", false), frame(0x81, b"b", false)].concat(), false), // a message within a message
        (b"HTTP/1.1 200 OK\r\n".to_vec(), false),
    ] {
        let mut reader = if mask { FrameReader::of_client() } else { server() };
        assert!(pass(&mut reader, &bytes, 1).is_err(), "{bytes:02x?}");
    }
}

#[test]
fn an_echo_is_masked_within_a_message_wherever_it_is_cut() {
    let text = format!("you sent {SECRET}, did you");
    for cut in 0..=text.len() {
        let (one, two) = text.as_bytes().split_at(cut);
        // In fragments, with a ping in between that has an echo of its own.
        let stream = [frame(0x01, one, false), frame(0x89, SECRET.as_bytes(), false), frame(0x80, two, false)].concat();
        for chunk in [1, 5, usize::MAX] {
            let mut reader = server();
            let out = pass(&mut reader, &stream, chunk).unwrap();
            assert_eq!((out.len(), reader.masked()), (stream.len(), 2), "{cut} {chunk}");
            let shown: String = out.iter().map(|b| char::from(*b)).filter(|c| c.is_ascii_graphic()).collect();
            assert!(!shown.contains("ghs_") && !shown.contains("789"), "{shown}");
            let again = pass(&mut server(), &out, usize::MAX).unwrap();
            assert_eq!(again, out, "still frames");
        }
    }
}

#[test]
fn a_whole_message_waits_for_nothing() {
    let mut reader = server();
    let stream = frame(0x81, b"ends in ghs_S3cr3t", false);
    assert_eq!(reader.push(&Bytes::from(stream.clone())).unwrap(), stream);
    assert_eq!(reader.push(&Bytes::from(frame(0x81, b"Value0123456789", false))).unwrap().len(), 17);
}

proptest! {
    #[test]
    fn any_bytes_pass_or_end(bytes in proptest::collection::vec(any::<u8>(), 0..300), chunk in 1usize..40) {
        let _ = pass(&mut server(), &bytes, chunk);
        let _ = pass(&mut FrameReader::of_client(), &bytes, chunk);
    }

    #[test]
    fn chunk_borders_change_nothing(
        payloads in proptest::collection::vec(prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200), Just(SECRET.as_bytes().to_vec()), Just(b"ghs_S3".to_vec()),
        ], 1..6),
        chunk in 1usize..30,
    ) {
        let count = payloads.len();
        let stream: Vec<u8> = payloads.iter().enumerate().flat_map(|(at, payload)| {
            let (first, last) = (at == 0, at + 1 == count);
            frame(if last { 0x80 } else { 0 } | u8::from(first), payload, false)
        }).collect();
        let (mut one, mut other) = (server(), server());
        prop_assert_eq!(pass(&mut one, &stream, chunk).unwrap(), pass(&mut other, &stream, usize::MAX).unwrap());
        prop_assert_eq!(one.masked(), other.masked());
        prop_assert_eq!(one.count(), count as u64);
    }
}
