#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    vitalseal_fuzz::clone_proof::decode(bytes);
});
