//! Whatever parses has canonical bytes, and those are a fixed point.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(value) = aegis_action::parse_strict(data) else { return };
    let Ok(bytes) = aegis_action::canonicalize(&value) else { return };
    let again = aegis_action::parse_strict(&bytes).expect("canonical bytes parse");
    assert_eq!(aegis_action::canonicalize(&again).expect("and have canonical bytes"), bytes);
});
