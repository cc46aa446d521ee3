#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    mixline_fuzz::run("registration", data);
});
