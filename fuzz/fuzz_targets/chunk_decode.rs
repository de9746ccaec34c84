#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    vitalseal_fuzz::stored::chunk_decode(bytes);
});
