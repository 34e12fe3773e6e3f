//! No bytes make the leaf parser panic.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = aegis_receipts::Leaf::parse(data);
});
