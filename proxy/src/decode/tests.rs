use std::io::Write as _;

use flate2::{
    Compression,
    write::{DeflateEncoder, GzEncoder, ZlibEncoder},
};
use http::HeaderValue;
use proptest::prelude::*;

use super::*;

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn zlib(plain: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn raw(plain: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn decode(coding: Coding, encoded: &[u8], chunk: usize) -> Result<Vec<u8>, DecodeFault> {
    let (mut decoder, mut out) = (Decoder::new(coding), Vec::new());
    for part in encoded.chunks(chunk) {
        decoder.push(part, &mut out)?;
    }
    decoder.finish().map(|()| out)
}

#[test]
fn codings_are_taken_off_in_chunks_of_any_size() {
    let plain: Vec<u8> = (0..50_000u32).flat_map(|n| n.to_string().into_bytes()).collect();
    for (coding, encoded) in
        [(Coding::Gzip, gzip(&plain)), (Coding::Deflate, zlib(&plain)), (Coding::Deflate, raw(&plain))]
    {
        for chunk in [1, 7, 1000, usize::MAX] {
            assert!(decode(coding, &encoded, chunk).as_ref() == Ok(&plain), "{coding:?} {chunk}");
        }
    }
    let two = [gzip(b"one "), gzip(b"two")].concat();
    assert_eq!(decode(Coding::Gzip, &two, 3).unwrap(), b"one two");
    assert_eq!(decode(Coding::Gzip, b"", 1).unwrap(), b"");
}

#[test]
fn what_is_written_so_far_comes_out_so_far() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(b"data: first\n\n").unwrap();
    encoder.flush().unwrap();
    let (mut decoder, mut out) = (Decoder::new(Coding::Gzip), Vec::new());
    decoder.push(encoder.get_ref(), &mut out).unwrap();
    assert_eq!(out, b"data: first\n\n");
}

#[test]
fn what_is_not_encoded_or_cut_short_is_a_fault() {
    for (coding, encoded) in [
        (Coding::Gzip, b"plain text".to_vec()),
        (Coding::Deflate, vec![0xff; 20]),
        (Coding::Gzip, gzip(b"cut short").split_last().unwrap().1.to_vec()),
        (Coding::Gzip, [gzip(b"x"), b"tail".to_vec()].concat()),
        (Coding::Deflate, [zlib(b"x"), b"tail".to_vec()].concat()),
    ] {
        assert_eq!(decode(coding, &encoded, 4), Err(DecodeFault::Malformed), "{encoded:02x?}");
    }
}

#[test]
fn bombs_stop_early_and_long_repetitive_text_passes() {
    let bomb = gzip(&vec![0; 64 << 20]);
    assert!(bomb.len() < 100_000);
    for chunk in [1000, 65_536, usize::MAX] {
        let (mut decoder, mut out) = (Decoder::new(Coding::Gzip), Vec::new());
        let fault = bomb.chunks(chunk).find_map(|part| decoder.push(part, &mut out).err());
        assert_eq!(fault, Some(DecodeFault::Bomb));
        assert!(out.len() < 20 << 20, "{}", out.len());
    }
    // A bomb behind a long honest start.
    let noise: Vec<u8> = (0..2_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let late = [gzip(&noise), bomb].concat();
    assert_eq!(decode(Coding::Gzip, &late, 65_536), Err(DecodeFault::Bomb));
    let listing: String = (0..200_000).map(|n| format!("{{\"id\":{n},\"state\":\"open\",\"labels\":[]}},")).collect();
    assert_eq!(decode(Coding::Gzip, &gzip(listing.as_bytes()), 8192).unwrap().len(), listing.len());
}

#[test]
fn the_header_is_read_strictly_and_the_agents_wish_leniently() {
    let coding = |values: &[&'static str]| {
        let values = values.iter().map(|v| (header::CONTENT_ENCODING, HeaderValue::from_static(v)));
        let mut headers = HeaderMap::new();
        values.for_each(|(n, v)| {
            headers.append(n, v);
        });
        Coding::of(&headers)
    };
    assert_eq!(coding(&[]), Coding::Identity);
    assert_eq!(coding(&["identity"]), Coding::Identity);
    assert_eq!(coding(&["GZIP"]), Coding::Gzip);
    assert_eq!(coding(&["x-gzip, identity"]), Coding::Gzip);
    assert_eq!(coding(&["deflate"]), Coding::Deflate);
    for unknown in [&["br"][..], &["zstd"], &["gzip, gzip"], &["gzip", "br"], &["gzip;q=1"]] {
        assert_eq!(coding(unknown), Coding::Unknown, "{unknown:?}");
    }
    let ask = |accept: &'static str| {
        Coding::to_ask_for(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(accept))]))
    };
    assert_eq!(ask("gzip, deflate, br, zstd"), "gzip");
    assert_eq!(ask("br;q=1.0, GZIP;q=0.8"), "gzip");
    assert_eq!(ask("gzip;q=0, deflate"), "deflate");
    assert_eq!(ask("br"), "identity");
    assert_eq!(ask("*"), "identity");
}

proptest! {
    #[test]
    fn anything_encoded_comes_back(plain in proptest::collection::vec(any::<u8>(), 0..4000), chunk in 1usize..300) {
        prop_assert_eq!(decode(Coding::Gzip, &gzip(&plain), chunk).unwrap(), plain.clone());
        prop_assert_eq!(decode(Coding::Deflate, &zlib(&plain), chunk).unwrap(), plain);
    }

    #[test]
    fn any_bytes_end_in_a_result(bytes in proptest::collection::vec(any::<u8>(), 0..400), chunk in 1usize..50) {
        let _ = decode(Coding::Gzip, &bytes, chunk);
        let _ = decode(Coding::Deflate, &bytes, chunk);
    }
}
